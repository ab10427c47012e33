"""Keras models, with torch as their backend, seen as torch modules.

Imports torch at its top: imported only when a pruning function is given a Keras model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import Tensor, nn  # noqa: E402

from sparsert.prune.masking import get_masks, maskable, set_masks, weight_of  # noqa: E402

# Classes of Keras' layers. Kernels are [taps, inputs, outputs], [taps, outputs, inputs] of
# transposed ones, and [taps, inputs, outputs of each] of depthwise ones.
_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
_CELLS = {"LSTMCell": nn.LSTMCell, "GRUCell": nn.GRUCell, "SimpleRNNCell": nn.RNNCell}


class HeldZeros:
    """A constraint of a Keras variable: zeros stay after each step of Keras' optimizers.

    Attributes:
        mask: bool, of the variable's shape.
        inner: the constraint that the variable had before; None: none.
    """

    def __init__(self, mask: Tensor, inner: Callable[[Any], Any] | None) -> None:
        """Takes the mask and the constraint that goes before it."""
        self.mask = mask
        self.inner = inner

    def __call__(self, weight: Any) -> Any:
        """Returns the weight with its zeros."""
        value = weight if self.inner is None else self.inner(weight)
        value = getattr(value, "value", value)
        return torch.where(self.mask, value, value.new_zeros(()))


class KerasView(nn.Module):
    """A torch module that computes what a Keras model does, with torch's layers to prune.

    A layer is named by its path in the Keras model; those of recurrent ones are
    "lstm/lstm_cell.weight_ih" (Keras' kernel) and "...weight_hh" (recurrent_kernel). They have
    copies of the weights: write_back() brings them into the Keras model.
    """

    def __init__(self, model: Any) -> None:
        """Makes the layers, and holds what constraints of the model hold at zero.

        Raises:
            ValueError: the model is not built yet, or its backend is not torch.
        """
        super().__init__()
        import keras

        if keras.backend.backend() != "torch":
            raise ValueError(
                f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=torch before it is "
                "imported"
            )
        if not model.built:
            raise ValueError("the Keras model has no weights yet: call it once")
        self.__dict__["_model"] = model  # not a part of this module
        self._places: dict[int, tuple[str, str, tuple[int, ...]]] = {}
        for layer in _flat_layers(model):
            self._add(layer)
        # What Keras trains besides; the same parameters as the model's.
        rest = [v.value for v in model.trainable_variables if id(v) not in self._places]
        self._rest = nn.ParameterList(rest)
        masks = {}
        for variable in model.variables:
            if id(variable) in self._places and isinstance(variable.constraint, HeldZeros):
                name, parameter, order = self._places[id(variable)]
                mask = _as_torch(variable.constraint.mask, order, self._shape(name, parameter))
                masks[_layer_name(name, parameter)] = mask
        set_masks(self, masks)
        self.train(False)

    def _shape(self, name: str, parameter: str) -> Sequence[int]:
        return cast(Tensor, getattr(self.get_submodule(name), parameter)).shape

    def _add(self, layer: Any) -> None:
        kind = type(layer).__name__
        own = f"{self.__dict__['_model'].name}/"
        name = (layer.path or layer.name).removeprefix(own).replace(".", "_")
        bias = getattr(layer, "bias", None)
        orders: dict[str, tuple[Any, tuple[int, ...]]]
        if kind == "Dense":
            inputs, outputs = layer.kernel.shape
            found: Any = nn.Linear(inputs, outputs, bias is not None, device="meta")
            orders = {"weight": (layer.kernel, (1, 0))}
        elif kind in (*_CONVOLUTIONS, *_TRANSPOSED, *_DEPTHWISE):
            kernel = layer.kernel.shape
            rank = len(kernel) - 2
            taps, last = tuple(range(rank)), (rank, rank + 1)
            groups = getattr(layer, "groups", 1)
            inputs, outputs, order = kernel[-2] * groups, kernel[-1], (*last[::-1], *taps)
            if kind in _TRANSPOSED:
                inputs, outputs = kernel[-1], kernel[-2]
            elif kind in _DEPTHWISE:  # [taps, inputs, multiplier]
                groups, outputs, order = inputs, kernel[-2] * kernel[-1], (*last, *taps)
            make = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
            if kind not in _TRANSPOSED:
                make = (nn.Conv1d, nn.Conv2d, nn.Conv3d)  # type: ignore[assignment]
            options: dict[str, Any] = {"groups": groups, "bias": bias is not None, "device": "meta"}
            found = make[rank - 1](inputs, outputs, kernel[:rank], **options)
            orders = {"weight": (layer.kernel, order)}
        elif kind in _CELLS:
            found = _CELLS[kind](layer.kernel.shape[0], layer.units, bias=False, device="meta")
            orders = {
                "weight_ih": (layer.kernel, (1, 0)),
                "weight_hh": (layer.recurrent_kernel, (1, 0)),
            }
            bias = None
        else:
            return
        if bias is not None:
            orders["bias"] = (bias, (0,))
        for parameter, (variable, order) in orders.items():
            value = _as_torch(variable.value.detach(), order, getattr(found, parameter).shape)
            setattr(found, parameter, nn.Parameter(value.clone(), variable.trainable))
            self._places[id(variable)] = (name, parameter, order)
        self.add_module(name, found)

    def _value(self, variable: Any) -> Tensor:
        """Returns what the layers here have for a variable of Keras."""
        if id(variable) not in self._places:
            return cast(Tensor, variable.value)
        name, parameter, order = self._places[id(variable)]
        value = cast(Tensor, getattr(self.get_submodule(name), parameter))
        return _as_keras(value, order, variable.shape)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the Keras model; in train mode the statistics of its norms move."""
        model = self.__dict__["_model"]
        trainable = [self._value(variable) for variable in model.trainable_variables]
        others = [self._value(variable) for variable in model.non_trainable_variables]
        outputs, moved = model.stateless_call(
            trainable, others, *args, training=self.training, **kwargs
        )
        if self.training:
            for variable, value in zip(model.non_trainable_variables, moved, strict=True):
                if id(variable) not in self._places:
                    variable.assign(value.detach())
        return outputs

    def write_back(self) -> None:
        """Gives the Keras model the weights of the layers here, and holds their zeros."""
        model = self.__dict__["_model"]
        masks = get_masks(self)
        layers = maskable(self)
        for variable in model.variables:
            if id(variable) not in self._places:
                continue
            name, parameter, order = self._places[id(variable)]
            place = _layer_name(name, parameter)
            value = weight_of(layers[place]) if place in layers else self._value(variable).detach()
            if place in layers:
                value = _as_keras(value, order, variable.shape)
            variable.assign(value)
            if place not in masks:
                continue
            mask = _as_keras(masks[place], order, variable.shape)
            old = variable.constraint
            inner = old.inner if isinstance(old, HeldZeros) else old
            variable.constraint = HeldZeros(mask, inner)


def release(model: Any) -> None:
    """Takes the constraints that hold zeros off the variables of a Keras model."""
    for variable in model.variables:
        if isinstance(variable.constraint, HeldZeros):
            variable.constraint = variable.constraint.inner


def _flat_layers(model: Any) -> list[Any]:
    """Returns every layer inside, such as the cells of recurrent ones, once."""
    found = model._flatten_layers(include_self=False, recursive=True)
    return list({id(layer): layer for layer in found}.values())


def _layer_name(name: str, parameter: str) -> str:
    return name if parameter == "weight" else f"{name}.{parameter}"


def _as_torch(value: Tensor, order: tuple[int, ...], shape: Sequence[int]) -> Tensor:
    """Brings Keras' axes into torch's order; depthwise kernels have one axis less there."""
    return value.permute(order).reshape(shape)


def _as_keras(value: Tensor, order: tuple[int, ...], shape: Any) -> Tensor:
    """Undoes _as_torch()."""
    back = [order.index(axis) for axis in range(len(order))]
    return value.reshape([shape[axis] for axis in order]).permute(back)


def check_method(method: str, criteria: Mapping[str, Any]) -> None:
    """Raises ValueError: a method looks at what goes into or comes out of torch's own layers."""
    criterion = criteria[method]
    if criterion.measures_channels or criterion.needs == "inputs":
        able = [n for n, c in criteria.items() if not c.measures_channels and c.needs != "inputs"]
        raise ValueError(
            f"prune: method {method!r} measures activations, which a Keras model does not show; "
            f"use {', '.join(able)}"
        )
