"""Masks that hold pruned weights at zero, as torch parametrizations of the layers' weights.

Imports torch at its top: imported only when a pruning function runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from sparsert.errors import describe_problems
from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import Tensor, nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402

PRUNABLE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class Mask(nn.Module):
    """weight -> weight where the mask is True, +0 elsewhere.

    Attributes:
        mask: bool, of the weight's shape; a buffer, so that it is saved and moved with the model.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Computes the weight that the layer uses; the gradient of masked entries is zero."""
        return torch.where(self.mask, weight, weight.new_zeros(()))


def prunable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the convolutions and linear layers by name, in the order of the modules."""
    return {name: part for name, part in model.named_modules() if isinstance(part, PRUNABLE)}


def weight_of(layer: nn.Module) -> Tensor:
    """Returns the weight that the layer computes with, masks included, detached."""
    return cast(Tensor, layer.weight).detach()


def held_mask(layer: nn.Module) -> Mask | None:
    """Returns the layer's mask, if it has one."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    chain = cast(nn.ModuleDict, layer.parametrizations)["weight"]
    return next((part for part in chain.children() if isinstance(part, Mask)), None)


def get_masks(model: nn.Module) -> dict[str, Tensor]:
    """Returns copies of all held masks by layer name."""
    held = {name: held_mask(layer) for name, layer in prunable_layers(model).items()}
    return {name: mask.mask.clone() for name, mask in held.items() if mask is not None}


def set_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Adds masks to those already held."""
    layers = prunable_layers(model)
    problems = []
    for name, mask in masks.items():
        if name not in layers:
            problems.append(f"there is no convolution or linear layer {name!r}")
        elif mask.dtype != torch.bool or mask.shape != weight_of(layers[name]).shape:
            expected = list(weight_of(layers[name]).shape)
            problems.append(
                f"the mask of {name!r} is {mask.dtype} {list(mask.shape)}, expected torch.bool "
                f"{expected}"
            )
    if problems:
        raise ValueError(describe_problems("masks", problems))
    for name, mask in masks.items():
        _hold(layers[name], mask)


def _hold(layer: nn.Module, mask: Tensor) -> None:
    mask = mask.to(weight_of(layer).device)
    held = held_mask(layer)
    if held is None:
        parametrize.register_parametrization(layer, "weight", Mask(mask.clone()))
    else:
        held.mask &= mask


def hold_present_zeros(model: nn.Module) -> None:
    """Masks the weights that are zero now."""
    for layer in prunable_layers(model).values():
        kept = weight_of(layer) != 0
        if not bool(kept.all()):
            _hold(layer, kept)


def bake_masks(model: nn.Module) -> None:
    """Replaces every masked weight by its value; each layer's parameter object stays the same."""
    for layer in prunable_layers(model).values():
        if held_mask(layer) is not None:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
