"""Pruning: which weights go, masks that keep them gone, and fine-tuning of what is left.

The module itself can be called: sparsert.prune(model, sparsity=0.9) is sparsert.prune.prune(...).
PyTorch is imported when a function is called.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsert.prune.criteria import CRITERIA, Criterion, Job, register
from sparsert.prune.explanation import LayerExplanation
from sparsert.prune.fine_tuning import fine_tune, recalibrate_batch_norms
from sparsert.prune.levels import LevelsResult, fine_tune_levels
from sparsert.prune.recipe import Recipe, RecipeError, RecipeResult, Step
from sparsert.prune.report import LayerZeros, PruneReport
from sparsert.prune.schedules import Gradual, Regrowth, erdos_renyi, iterative
from sparsert.prune.selection import DEFAULT_METHOD, SCOPES, Options, prune_model
from sparsert.prune.shrink_report import GroupChange, ShrinkReport
from sparsert.prune.shrinking import (
    ALIGNMENT,
    ShrinkOptions,
    shrink_model,
    shrink_zero_channels,
)
from sparsert.prune.torch_import import import_torch
from sparsert.prune.until import TargetError, prune_until

if TYPE_CHECKING:
    import torch

METHODS = tuple(CRITERIA)

__all__ = [
    "METHODS",
    "SCOPES",
    "Criterion",
    "Gradual",
    "GroupChange",
    "Job",
    "LayerExplanation",
    "LayerZeros",
    "LevelsResult",
    "PruneReport",
    "Recipe",
    "RecipeError",
    "RecipeResult",
    "Regrowth",
    "ShrinkReport",
    "Step",
    "TargetError",
    "apply_masks",
    "erdos_renyi",
    "fine_tune",
    "fine_tune_levels",
    "hold_zeros",
    "iterative",
    "load_state",
    "masks",
    "prune",
    "prune_until",
    "recalibrate_batch_norms",
    "register",
    "remove",
    "shrink",
    "shrink_zeros",
    "skip_blocks",
]


def prune(
    model: torch.nn.Module,
    method: str = DEFAULT_METHOD,
    *,
    sparsity: float | Mapping[str, float] | None = None,
    threshold: float | None = None,
    relative_threshold: float | None = None,
    scope: str = "layer",
    pattern: str | None = None,
    exclude: Sequence[str] = (),
    data: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    reconstruct: bool | None = None,
    seed: int = 0,
) -> PruneReport:
    """Zeroes the least important weights of a torch module's layers.

    Those are convolutions, linear layers, recurrent ones (LSTM, GRU, RNN and their cells) and
    MultiheadAttention; each weight of the last two is a layer of its own: "lstm.weight_hh_l0". A
    weight that several modules share is one layer, under the first one's name, and is pruned in all
    of them.

    The zeros are held by masks (torch parametrizations of each `weight`): they survive further
    training until remove() bakes them in. Weights that are zero already stay zero, and count.
    Biases are not pruned, but for those of whole channels.

    Args:
        model: any torch module, or a Keras model with torch as its backend, whose layers are named
            by their paths; it is changed in place.
        method: what a weight's importance is: "magnitude" abs(w), "gradient" abs(dL/dw), "taylor"
            abs(w dL/dw), "snip", "wanda" abs(w) norm(x), "second-order", "random"; that of an
            output channel: "activation-gradient" abs(dL/da), "activation-sensitivity" abs(da/dx),
            "apoz". sparsert/prune/criteria/ has one file for each, with its source.
        sparsity: share of zeros to reach, 0 to 1 (1 excluded): a number for every layer, or
            {layer: number} to prune those layers only.
        threshold: instead of `sparsity`: keep the weights whose importance is above it.
        relative_threshold: the same as a multiple of the mean importance of the layer's weights,
            or of all layers' with scope="global".
        scope: "layer" reaches the sparsity in each layer; "row" in each row of each weight matrix;
            "global" over all layers together, so that unimportant layers lose more.
        pattern: "unstructured": each weight on its own; "4x1": blocks of successive output
            channels; "1x4": of successive input channels at one tap (2, 4, 8 or 16 of them); "2:4":
            at most 2 of 4 successive input channels are left; "channel": all weights of an output
            channel, its bias too. A block counts by the mean importance of its weights. None: what
            the method measures, channels or weights. With "channel", recurrent layers, attentions
            and the last layer, whose channels are the model's outputs, are left alone unless
            `sparsity` names them (the last one only).
        exclude: names of layers to leave alone, as in model.named_modules(); the name of a
            recurrent module or an attention stands for all its weights, here and in `sparsity`.
        data: batches for the methods that measure them: (inputs, targets), where inputs may be a
            tensor, a tuple or a mapping; or inputs alone, if the method needs no gradients of the
            loss. A few hundred samples are enough.
        loss: (outputs, targets) -> scalar, the mean over a batch; None: cross entropy, or what the
            outputs have as `.loss`.
        reconstruct: whether the weights that are left are changed so that each layer's outputs on
            the data stay as near as they can to what they were; None: with "second-order" only.
        seed: of the method "random".

    Returns:
        The zeros of each layer; its explain() says what went and why.

    Raises:
        ValueError: lists what is wrong with the arguments; a sparsity that would leave nothing of a
            layer (with the nearest one that can be reached); empty data, layers that it does not
            reach; weights, gradients or activations that are not finite. The model is unchanged.
        BackendError: PyTorch is not installed.

    Example:
        >>> report = sparsert.prune(module, sparsity=0.9)          # doctest: +SKIP
        >>> sparsert.prune.fine_tune(module, batches, epochs=3)    # doctest: +SKIP
        >>> sparsert.prune.remove(module)                          # doctest: +SKIP
        >>> model = sparsert.load(module, example_inputs=x)        # doctest: +SKIP
    """
    return prune_model(
        model,
        Options(
            method=method,
            sparsity=sparsity,
            threshold=threshold,
            relative_threshold=relative_threshold,
            scope=scope,
            pattern=pattern,
            exclude=exclude,
            data=data,
            loss=loss,
            reconstruct=reconstruct,
            seed=seed,
        ),
    )


def masks(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns the masks that are held now: bool tensors (True: kept) by layer name.

    Those of biases, which the pattern "channel" makes, are named "layer.bias".
    """
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


def shrink(
    model: torch.nn.Module,
    example_inputs: Any,
    method: str = DEFAULT_METHOD,
    *,
    channels: float | Mapping[str, float] | None = None,
    parameters: float | None = None,
    strategy: str = "layerwise",
    align: int = ALIGNMENT,
    head_sizes: Mapping[str, int] | None = None,
    exclude: Sequence[str] = (),
    data: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    evaluate: Callable[[torch.nn.Module], float] | None = None,
    seed: int = 0,
) -> ShrinkReport:
    """Takes neurons, filters and attention heads out of a torch module: it gets smaller layers.

    Channels that are added to each other, or read by several layers, go from all of them at once;
    torch-pruning finds these groups. A group is left alone, with its reason in the report, where
    its channels are the model's outputs, a norm takes them together (LayerNorm, GroupNorm), weights
    are shared, or the module does not run without them. Whatever goes is checked: the outputs for
    the example inputs are those that the module had when nothing read it. Train afterwards, with a
    new optimizer: the parameters are new ones. Masks are held on as before.

    Args:
        model: any torch module; it is changed in place.
        example_inputs: a tensor, a tuple of arguments or a mapping of keyword ones.
        method: what the importance of a channel is, the mean of its weights': as in prune(); with
            "random" the channels are random.
        channels: share of the channels and heads that go, 0 to 1 (1 excluded): a number, or
            {layer: number}, which leaves other groups alone.
        parameters: instead: share of all the module's parameters that go, at least.
        strategy: "layerwise": the same share of each group; "greedy", with `parameters`: step by
            step from the group where the loss on `data` rises, or `evaluate` falls, the least per
            parameter.
        align: the number of channels left in a group is a multiple of it, the nearest; narrower
            groups stay. 16 floats fill the widest vector of a CPU. Heads are not rounded.
        head_sizes: {layer: n}: n successive outputs of the layer are a head and go together: for an
            attention of linear layers, one of its queries', keys' or values'. Numbers of heads that
            the modules around keep ("num_heads" and the like) are corrected. MultiheadAttention
            needs none; it is replaced where heads go.
        exclude: names of layers and attentions to leave alone.
        data: batches, as in prune().
        loss: as in prune().
        evaluate: of strategy "greedy": takes the module, returns what is to stay high.
        seed: of the method "random".

    Returns:
        What each group lost; its explain() says why.

    Raises:
        ValueError: lists what is wrong with the arguments; nothing can go; a share of parameters
            that cannot be reached, with the greatest that can. The model is unchanged.
        BackendError: PyTorch or torch-pruning is not installed.

    Example:
        >>> report = sparsert.prune.shrink(module, x, parameters=0.5)  # doctest: +SKIP
        >>> sparsert.prune.fine_tune(module, batches, epochs=3)        # doctest: +SKIP
    """
    return shrink_model(
        model,
        example_inputs,
        ShrinkOptions(
            method=method,
            channels=channels,
            parameters=parameters,
            strategy=strategy,
            align=align,
            head_sizes=head_sizes,
            exclude=exclude,
            data=data,
            loss=loss,
            evaluate=evaluate,
            seed=seed,
        ),
    )


def shrink_zeros(model: torch.nn.Module, example_inputs: Any, *, align: int = 1) -> ShrinkReport:
    """Takes channels out whose weights are all zero: no output changes, and that is checked.

    Such channels come from prune(pattern="channel"), or from any pruning that left a channel with
    no weights, or no reader. Those that are not zero behind a norm stay.

    Args:
        model: changed in place.
        example_inputs: as in shrink().
        align: the number of channels left in a group is a multiple of it, if zeros are enough.

    Returns:
        What each group lost; `error` is the largest relative difference of the outputs.

    Raises:
        BackendError: PyTorch or torch-pruning is not installed.
    """
    return shrink_zero_channels(model, example_inputs, align)


def skip_blocks(
    model: torch.nn.Module,
    example_inputs: Any,
    count: int,
    *,
    method: str | None = None,
    exclude: Sequence[str] = (),
    data: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    evaluate: Callable[[torch.nn.Module], float] | None = None,
    seed: int = 0,
) -> ShrinkReport:
    """Takes whole layers out of a torch module: residual blocks that matter least.

    A residual block is a module that gives a tensor of the shape of its input, and passes that
    input on beside its layers; of nested ones the smallest count.

    Args:
        model: changed in place: a skipped block is replaced by one that gives its input back.
        example_inputs: as in shrink().
        count: how many to skip.
        method: choose by the mean importance of the blocks' weights, as in prune(); None: one after
            another the block goes without which `evaluate` is highest, or else the loss on `data`
            lowest.
        exclude: names of blocks to leave alone.
        data: batches, as in prune().
        loss: as in prune().
        evaluate: takes the module, returns what is to stay high.
        seed: of the method "random".

    Returns:
        Which went, and the loss or score without each.

    Raises:
        ValueError: lists what is wrong with the arguments. The model is unchanged.
        BackendError: PyTorch is not installed.
    """
    import_torch()
    from sparsert.prune.blocks import skip_residual_blocks

    return skip_residual_blocks(
        model,
        example_inputs,
        count,
        method=method,
        exclude=exclude,
        data=data,
        loss=loss,
        evaluate=evaluate,
        seed=seed,
    )


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Loads the state dict of a pruned module into a new one of the same architecture.

    Args:
        model: changed in place: gets the masks that the state has.
        state: what state_dict() of a module with masks returned.

    Raises:
        RuntimeError: torch's own, when names or shapes do not fit.
    """
    from sparsert.prune.masking import load_masked_state

    load_masked_state(model, state)


class _CallableModule(types.ModuleType):
    """Lets sparsert.prune be both this package and the function."""

    __call__ = staticmethod(prune)


sys.modules[__name__].__class__ = _CallableModule
