"""Steps of functions of single elements, and of scales per channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.kernels import activations, planes
from sparsert.kernels.lanes import LANES
from sparsert.runtime.numba_ops import Activation, Node, Step, StepWithoutWeights, makes

if TYPE_CHECKING:
    from sparsert.runtime.numba_room import Room

_Arrays = Sequence[Any]

# ONNX operator -> (function, default of alpha, name and default of beta).
_FUNCTIONS: dict[str, tuple[str, float, str, float]] = {
    "Relu": ("relu", 0.0, "beta", 0.0),
    "LeakyRelu": ("leaky_relu", 0.01, "beta", 0.0),
    "Elu": ("elu", 1.0, "beta", 0.0),
    "Selu": ("selu", 1.67326319217681884765625, "gamma", 1.05070102214813232421875),
    "Celu": ("celu", 1.0, "beta", 0.0),
    "HardSigmoid": ("hard_sigmoid", 0.2, "beta", 0.5),
    "HardSwish": ("hard_swish", 0.0, "beta", 0.0),
    "Sigmoid": ("sigmoid", 0.0, "beta", 0.0),
    "Tanh": ("tanh", 0.0, "beta", 0.0),
    "Swish": ("silu", 1.0, "beta", 0.0),
    "Gelu": ("gelu", 0.0, "beta", 0.0),
    "Exp": ("exp", 0.0, "beta", 0.0),
    "Softplus": ("softplus", 0.0, "beta", 0.0),
    "Mish": ("mish", 0.0, "beta", 0.0),
    "Erf": ("erf", 0.0, "beta", 0.0),
}


def _make_function(node: Node) -> Step | str:
    fn, alpha, beta_name, beta = _FUNCTIONS[node.op]
    if node.inputs[0] != np.float32:
        return "no kernel of Numba for this type"
    if node.op == "Gelu" and node.get("approximate") == "tanh":
        fn = "gelu_tanh"
    return _Function(fn, Activation(fn, node.get("alpha", alpha), node.get(beta_name, beta)))


for _op in _FUNCTIONS:
    makes(_op)(_make_function)


class _Function(StepWithoutWeights):
    """A function of each element."""

    def __init__(self, fn: str, act: Activation) -> None:
        self.kernel = f"{fn}_f32_{LANES}"
        self._act = act

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        x = inputs[0]
        y = room.empty(x.shape)
        arguments = (room.plain(x), y.reshape(-1), self._act.arguments)
        tasks = -(-y.size // activations.TASK)
        room.launch(activations.activate_all, arguments, tasks, y.size)
        return (y,)


@makes("BatchNormalization", "sparsert")
def _make_scale(node: Node) -> Step | str:
    if any(c is None or c.dtype != np.float32 for c in node.constants[1:3]):
        return "its scales are not f32 constants"
    return _Scale(node)


class _Scale(StepWithoutWeights):
    """act(x * scale + shift) of each channel."""

    kernel = f"scale_f32_{LANES}"
    constants: Sequence[int] = (1, 2)

    def __init__(self, node: Node) -> None:
        self._act = Activation.of(node)
        self._scale, self._shift = (np.array(c).reshape(-1) for c in node.constants[1:3])

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        x = inputs[0]
        if x.shape[1] != self._scale.size:
            raise ValueError(
                f"the input has shape {list(x.shape)}; expected {self._scale.size} channels"
            )
        y = room.empty(x.shape)
        out = (y.reshape(-1), self._scale, self._shift, math.prod(x.shape[2:]))
        arguments = (room.plain(x), *out, self._act.arguments)
        room.launch(planes.scale_planes, arguments, x.shape[0] * x.shape[1], y.size // LANES)
        return (self._act.finish(y),)
