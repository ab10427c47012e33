"""Masks that hold pruned weights at zero, as torch parametrizations of the layers' weights.

Imports torch at its top: imported only when a pruning function runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, cast

from sparsert.errors import describe_problems
from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import Tensor, nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402

from sparsert.prune.attention import ATTENTION, projection_names  # noqa: E402
from sparsert.prune.keras_check import is_keras  # noqa: E402

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
PRUNABLE = (nn.Linear, *CONVOLUTIONS)
# Layers of several weights, whose names begin with "weight_".
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
MASK_KEY = ".mask"  # how the name of a mask ends in a state dict


class PrunableLayer(NamedTuple):
    """One weight and the module that has it."""

    module: nn.Module
    parameter: str = "weight"

    @property
    def is_recurrent(self) -> bool:
        """Whether it is a weight of an LSTM, GRU or RNN."""
        return isinstance(self.module, RECURRENT)

    @property
    def is_attention(self) -> bool:
        """Whether it makes the queries, keys or values of an attention."""
        return isinstance(self.module, ATTENTION)

    @property
    def is_projection(self) -> bool:
        """Whether it is the last layer of torch's attention, which computes with it by itself."""
        return isinstance(self.module, nn.modules.linear.NonDynamicallyQuantizableLinear)


class Mask(nn.Module):
    """weight -> weight where the mask is True, +0 elsewhere.

    Attributes:
        mask: bool, of the weight's shape; a buffer, so that it is saved and moved with the model.
        gradient: sum of the loss's gradients by the masked weight, entries at zero included, of
            the backward passes since `is_watching` was set; None: none ran.
        is_watching: whether to keep that sum.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.gradient: Tensor | None = None
        self.is_watching = False

    def forward(self, weight: Tensor) -> Tensor:
        """Computes the weight that the layer uses; the gradient of masked entries is zero."""
        masked = torch.where(self.mask, weight, weight.new_zeros(()))
        if self.is_watching and masked.requires_grad:
            masked.register_hook(self._add)
        return masked

    def _add(self, gradient: Tensor) -> None:
        gradient = gradient.detach()
        self.gradient = gradient.clone() if self.gradient is None else self.gradient + gradient


def prunable_layers(model: nn.Module) -> dict[str, PrunableLayer]:
    """Returns the weights of convolutions, linear, recurrent and attention layers, in their order.

    The name is the module's; of a recurrent layer or an attention, which have several, the weight's
    own: "lstm.weight_hh_l0". A weight that several layers share has the first one's name.

    Raises:
        ValueError: a weight is not a parameter: something else computes it before each run.
    """
    layers = _all_layers(model)
    shared = _shared_names(layers)
    return {name: layer for name, layer in layers.items() if name not in shared}


def shared_names(model: nn.Module) -> dict[str, str]:
    """Returns the layers that have another one's weight -> the name of that one."""
    return _shared_names(_all_layers(model))


def _all_layers(model: nn.Module) -> dict[str, PrunableLayer]:
    found = {}
    for name, part in model.named_modules():
        if isinstance(part, PRUNABLE):
            found[name] = PrunableLayer(part)
        elif isinstance(part, RECURRENT):
            for parameter in _recurrent_weights(part):
                found[join(name, parameter)] = PrunableLayer(part, parameter)
        elif isinstance(part, ATTENTION):
            for parameter in projection_names(part):
                found[join(name, parameter)] = PrunableLayer(part, parameter)
    problems = [
        f"the weight of {name!r} is not a parameter (torch.nn.utils.prune, or a norm made by a "
        "hook, computes it): take that off first, such as by torch.nn.utils.prune.remove()"
        for name, layer in found.items()
        if parameter_of(layer) is None
    ]
    problems += [
        f"the weight of {name!r} has no shape yet: run the module once"
        for name, layer in found.items()
        if isinstance(parameter_of(layer), nn.parameter.UninitializedParameter)
    ]
    if problems:
        raise ValueError(describe_problems("prune", problems))
    return found


def _shared_names(layers: Mapping[str, PrunableLayer]) -> dict[str, str]:
    first: dict[int, str] = {}
    shared = {}
    for name, layer in layers.items():
        owner = first.setdefault(id(parameter_of(layer)), name)
        if owner != name:
            shared[name] = owner
    return shared


def join(module: str, parameter: str) -> str:
    """Returns the full name of a module's parameter."""
    return f"{module}.{parameter}" if module else parameter


def _recurrent_weights(module: nn.Module) -> list[str]:
    if isinstance(module, nn.RNNBase):
        names = [name for group in module._all_weights for name in group]
    else:
        names = ["weight_ih", "weight_hh"]
    return [name for name in names if name.startswith("weight_")]


def weight_of(layer: PrunableLayer) -> Tensor:
    """Returns the weight that the layer computes with, masks included, detached."""
    return cast(Tensor, getattr(layer.module, layer.parameter)).detach()


def parameter_of(layer: PrunableLayer) -> nn.Parameter | None:
    """Returns what an optimizer moves; None if the weight comes from elsewhere."""
    module, name = layer
    if parametrize.is_parametrized(module, name):
        chain = cast(Any, module.parametrizations)[name]
        return cast(nn.Parameter, chain.original if chain.is_tensor else chain.original0)
    return module._parameters.get(name)


def held_mask(layer: PrunableLayer) -> Mask | None:
    """Returns the layer's mask, if it has one."""
    if not parametrize.is_parametrized(layer.module, layer.parameter):
        return None
    chain = cast(nn.ModuleDict, layer.module.parametrizations)[layer.parameter]
    return next((part for part in chain.children() if isinstance(part, Mask)), None)


def is_only_masked(layer: PrunableLayer) -> bool:
    """Whether nothing but a mask, or nothing, lies between the parameter and the weight."""
    if not parametrize.is_parametrized(layer.module, layer.parameter):
        return True
    chain = cast(nn.ModuleDict, layer.module.parametrizations)[layer.parameter]
    return all(isinstance(part, Mask) for part in chain.children())


def maskable(model: nn.Module) -> dict[str, PrunableLayer]:
    """Returns the prunable weights, and the biases of the same layers as "fc.bias"."""
    found: dict[str, PrunableLayer] = {}
    for name, layer in prunable_layers(model).items():
        found[name] = layer
        if isinstance(layer.module, PRUNABLE) and layer.module.bias is not None:
            found[join(name, "bias")] = PrunableLayer(layer.module, "bias")
    return found


def get_masks(model: nn.Module) -> dict[str, Tensor]:
    """Returns copies of all held masks by layer name."""
    if is_keras(model):
        from sparsert.prune.keras_view import KerasView

        return get_masks(KerasView(model))
    held = {name: held_mask(layer) for name, layer in maskable(model).items()}
    return {name: mask.mask.clone() for name, mask in held.items() if mask is not None}


def set_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Adds masks to those already held."""
    if is_keras(model):
        from sparsert.prune.keras_view import KerasView

        view = KerasView(model)
        set_masks(view, masks)
        view.write_back()
        return
    layers = maskable(model)
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
        _hold(model, layers[name], mask)


def swap_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Gives layers that have a mask other ones: weights that were held may move again."""
    layers = maskable(model)
    for name, mask in masks.items():
        held = held_mask(layers[name])
        assert held is not None
        held.mask.copy_(mask)


def _hold(model: nn.Module, layer: PrunableLayer, mask: Tensor) -> None:
    weight = weight_of(layer)
    # Of the weight's strides: so are the products with it, and what is exported of them.
    mask = torch.empty_like(weight, dtype=torch.bool).copy_(mask)
    held = held_mask(layer)
    if held is not None:
        held.mask &= mask
        return
    held = Mask(mask)
    for module, name in sites_of(model, layer):
        _own_class(module)
        parametrize.register_parametrization(module, name, held)
        if isinstance(module, nn.RNNBase) and not _has_hooks(module):
            module.register_forward_pre_hook(_use_masked_weights)
            module.register_forward_hook(_use_parameters, always_call=True)


def _own_class(module: nn.Module) -> None:
    """Parts a parametrized module from its copies.

    torch makes a class for each, which copies share and which parametrizations come and go in.
    """
    if parametrize.is_parametrized(module):
        made = type(module)
        content = {k: v for k, v in vars(made).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(made.__name__, made.__bases__, content)


def sites_of(model: nn.Module, layer: PrunableLayer) -> list[PrunableLayer]:
    """Returns every module that has the layer's parameter, such as an embedding, and its name."""
    parameter = parameter_of(layer)
    sites = []
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        names = list(module._parameters)
        if parametrize.is_parametrized(module):
            names += list(cast(nn.ModuleDict, module.parametrizations))
        found = (PrunableLayer(module, name) for name in names)
        sites += [site for site in found if parameter_of(site) is parameter]
    return sites


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


def hold_present_zeros(model: nn.Module, names: Collection[str] | None = None) -> None:
    """Masks the weights that are zero now, or those of layers and biases that get_masks() named."""
    if is_keras(model):
        from sparsert.prune.keras_view import KerasView

        view = KerasView(model)
        hold_present_zeros(view, names)
        view.write_back()
        return
    layers = prunable_layers(model)
    if names is not None:
        layers = {name: layer for name, layer in maskable(model).items() if name in names}
    for layer in layers.values():
        kept = weight_of(layer) != 0
        if not bool(kept.all()):
            _hold(model, layer, kept)


def bake_masks(model: nn.Module) -> None:
    """Replaces every masked weight by its value; each layer's parameter object stays the same."""
    if is_keras(model):
        from sparsert.prune.keras_view import release

        release(model)
        return
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        _own_class(module)
        for name in list(cast(nn.ModuleDict, module.parametrizations)):
            if held_mask(PrunableLayer(module, name)) is not None:
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        if isinstance(module, nn.RNNBase) and not parametrize.is_parametrized(module):
            _remove_hooks(module)


def load_masked_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Holds the masks that a state dict has, then loads it."""
    for name, part in list(model.named_modules()):
        prefix = join(name, "parametrizations.")
        for key, value in state.items():
            if key.startswith(prefix) and key.endswith(MASK_KEY):
                parameter = key.removeprefix(prefix).split(".")[0]
                layer = PrunableLayer(part, parameter)
                if held_mask(layer) is None:
                    _hold(model, layer, torch.ones_like(value))
    model.load_state_dict(dict(state))
