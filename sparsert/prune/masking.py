"""Masks that hold pruned weights at zero, as torch parametrizations of the layers' weights.

Imports torch at its top: imported only when a pruning function runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

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
# Layers of several weights, whose names begin with "weight_".
RECURRENT = (nn.RNNBase, nn.RNNCellBase)


class PrunableLayer(NamedTuple):
    """One weight and the module that has it."""

    module: nn.Module
    parameter: str = "weight"


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


def prunable_layers(model: nn.Module) -> dict[str, PrunableLayer]:
    """Returns the weights of convolutions, linear and recurrent layers, in the modules' order.

    The name is the module's; of a recurrent layer, which has several, the weight's own:
    "lstm.weight_hh_l0".
    """
    found = {}
    for name, part in model.named_modules():
        if isinstance(part, PRUNABLE):
            found[name] = PrunableLayer(part)
        elif isinstance(part, RECURRENT):
            for parameter in _recurrent_weights(part):
                key = f"{name}.{parameter}" if name else parameter
                found[key] = PrunableLayer(part, parameter)
    return found


def _recurrent_weights(module: nn.Module) -> list[str]:
    if isinstance(module, nn.RNNBase):
        names = [name for group in module._all_weights for name in group]
    else:
        names = ["weight_ih", "weight_hh"]
    return [name for name in names if name.startswith("weight_")]


def weight_of(layer: PrunableLayer) -> Tensor:
    """Returns the weight that the layer computes with, masks included, detached."""
    return cast(Tensor, getattr(layer.module, layer.parameter)).detach()


def held_mask(layer: PrunableLayer) -> Mask | None:
    """Returns the layer's mask, if it has one."""
    if not parametrize.is_parametrized(layer.module, layer.parameter):
        return None
    chain = cast(nn.ModuleDict, layer.module.parametrizations)[layer.parameter]
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
            problems.append(f"there is no convolution, linear or recurrent layer {name!r}")
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


def _hold(layer: PrunableLayer, mask: Tensor) -> None:
    mask = mask.to(weight_of(layer).device)
    held = held_mask(layer)
    if held is not None:
        held.mask &= mask
        return
    module = layer.module
    parametrize.register_parametrization(module, layer.parameter, Mask(mask.clone()))
    if isinstance(module, nn.RNNBase) and not _has_hooks(module):
        module.register_forward_pre_hook(_use_masked_weights)
        module.register_forward_hook(_use_parameters, always_call=True)


# A recurrent layer computes with a list of its weights that it keeps: it gets the masked ones for
# each forward pass, and its parameters back, so that the module can be copied and saved.
def _use_masked_weights(module: Any, _inputs: Any) -> None:
    module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


def _use_parameters(module: Any, _inputs: Any = (), _outputs: Any = None) -> None:
    def parameter(name: str) -> Tensor:
        if parametrize.is_parametrized(module, name):
            return cast(Tensor, module.parametrizations[name].original)
        return cast(Tensor, getattr(module, name))

    module._flat_weights = [parameter(name) for name in module._flat_weights_names]


def _has_hooks(module: nn.Module) -> bool:
    return _use_masked_weights in module._forward_pre_hooks.values()


def _remove_hooks(module: nn.Module) -> None:
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key in [k for k, v in hooks.items() if v in (_use_masked_weights, _use_parameters)]:
            del hooks[key]
            module._forward_hooks_always_called.pop(key, None)
    _use_parameters(module)


def hold_present_zeros(model: nn.Module) -> None:
    """Masks the weights that are zero now."""
    for layer in prunable_layers(model).values():
        kept = weight_of(layer) != 0
        if not bool(kept.all()):
            _hold(layer, kept)


def bake_masks(model: nn.Module) -> None:
    """Replaces every masked weight by its value; each layer's parameter object stays the same."""
    for layer in prunable_layers(model).values():
        if held_mask(layer) is None:
            continue
        module = layer.module
        parametrize.remove_parametrizations(module, layer.parameter, leave_parametrized=True)
        if isinstance(module, nn.RNNBase) and not parametrize.is_parametrized(module):
            _remove_hooks(module)
