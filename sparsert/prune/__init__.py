"""Pruning: which weights go, masks that keep them gone, and fine-tuning of what is left.

The module itself can be called: sparsert.prune(model, sparsity=0.9) is sparsert.prune.prune(...).
PyTorch is imported when a function is called.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sparsert.prune.fine_tuning import fine_tune
from sparsert.prune.report import LayerZeros, PruneReport
from sparsert.prune.selection import DEFAULT_METHOD, METHODS, SCOPES, prune_model

if TYPE_CHECKING:
    import torch

__all__ = [
    "METHODS",
    "SCOPES",
    "LayerZeros",
    "PruneReport",
    "apply_masks",
    "fine_tune",
    "hold_zeros",
    "masks",
    "prune",
    "remove",
]


def prune(
    model: torch.nn.Module,
    method: str = DEFAULT_METHOD,
    *,
    sparsity: float | Mapping[str, float] | None = None,
    threshold: float | None = None,
    scope: str = "layer",
    exclude: Sequence[str] = (),
) -> PruneReport:
    """Zeroes the least important weights of a torch module's layers.

    Those are convolutions, linear layers and recurrent ones (LSTM, GRU, RNN and their cells), each
    of whose weights is a layer of its own: "lstm.weight_hh_l0".

    The zeros are held by masks (torch parametrizations of each `weight`): they survive further
    training until remove() bakes them in. A weight that an earlier call pruned stays pruned.
    Biases are never pruned.

    Args:
        model: any torch module; it is changed in place.
        method: "magnitude": a weight's importance is its absolute value.
        sparsity: share of zeros to reach, 0 to 1 (1 excluded): a number for every layer, or
            {layer: number} to prune those layers only.
        threshold: instead of `sparsity`: keep the weights whose importance is above it.
        scope: "layer" reaches the sparsity in each layer; "global" over all of them together, so
            that layers of small weights lose more.
        exclude: names of layers to leave alone, as in model.named_modules(); the name of a
            recurrent module stands for all its weights, here and in `sparsity`.

    Returns:
        The zeros of each layer.

    Raises:
        ValueError: unknown method, scope or layer; not exactly one of `sparsity` and `threshold`,
            or one out of range; a weight that is not finite.
        BackendError: PyTorch is not installed.

    Example:
        >>> report = sparsert.prune(module, sparsity=0.9)          # doctest: +SKIP
        >>> sparsert.prune.fine_tune(module, batches, epochs=3)    # doctest: +SKIP
        >>> sparsert.prune.remove(module)                          # doctest: +SKIP
        >>> model = sparsert.load(module, example_inputs=x)        # doctest: +SKIP
    """
    return prune_model(model, method, sparsity, threshold, scope, exclude)


def masks(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns the masks that are held now: bool tensors (True: kept) by layer name."""
    from sparsert.prune.masking import get_masks

    return get_masks(model)


def apply_masks(model: torch.nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Holds weights at zero where a mask is False, on top of the masks already held.

    Args:
        model: changed in place.
        masks: bool tensors of the shape of each layer's weight, by layer name.

    Raises:
        ValueError: lists every unknown layer and every mask of the wrong shape or dtype.
    """
    from sparsert.prune.masking import set_masks

    set_masks(model, masks)


def hold_zeros(model: torch.nn.Module) -> None:
    """Holds the weights that are zero now, so that an already pruned model can be fine-tuned."""
    from sparsert.prune.masking import hold_present_zeros

    hold_present_zeros(model)


def remove(model: torch.nn.Module) -> None:
    """Bakes the masks into the weights and removes them: plain parameters again, with zeros."""
    from sparsert.prune.masking import bake_masks

    bake_masks(model)


class _CallableModule(types.ModuleType):
    """Lets sparsert.prune be both this package and the function."""

    __call__ = staticmethod(prune)


sys.modules[__name__].__class__ = _CallableModule
