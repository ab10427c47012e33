"""Steps that a user's functions run, and the choice between kernels for a layer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.errors import BackendError
from sparsert.kernels.activations import TASK, activate_all
from sparsert.kernels.custom_ops import CustomCall, find_custom_op
from sparsert.kernels.user_kernels import UserKernel, Window, user_kernels
from sparsert.runtime.numba_geometry import MAX_SHAPES
from sparsert.runtime.numba_ops import (
    Activation,
    Node,
    Step,
    StepWithoutWeights,
    make_step,
    read_node,
)
from sparsert.runtime.numpy_windows import window_pads

if TYPE_CHECKING:
    import onnx_ir as ir

    from sparsert.runtime.numba_room import Room

_Arrays = Sequence[Any]
_RUNS = 3  # of each kernel, timed before a choice


def plan_step(node: ir.Node, tune: bool | str) -> Step | str:
    """Returns the step of a node, a user's function if need be, or why NumPy runs it.

    Args:
        node: of a canonical graph.
        tune: False takes a user's kernel for a layer without measuring, the last one that was
            registered.
    """
    import onnx_ir as ir

    custom = find_custom_op(node.domain, node.op_type)
    if custom is not None:
        return _CustomStep(custom.bind(ir.to_proto(node)))
    step = make_step(node)
    if node.domain != "sparsert" or all(kernel.op != node.op_type for kernel in user_kernels()):
        return step
    users = user_steps(read_node(node))
    if not users:
        return step
    if not tune:
        users[-1].why = "registered with sparsert.kernels.kernel; tune=False measures nothing"
        return users[-1]
    return _Fastest([*users] if isinstance(step, str) else [step, *users])


def layer_steps(node: ir.Node) -> list[Step | str]:
    """Returns every step that could run a layer: sparsert's own, or why there is none; a user's."""
    return [make_step(node), *user_steps(read_node(node))]


def user_steps(node: Node) -> list[UserStep]:
    """Returns a step for each registered kernel that takes the layer."""
    weight = node.constants[1] if len(node.constants) > 1 else None
    if weight is None or weight.dtype != np.float32:
        return []
    matrix = weight.reshape(weight.shape[0], -1)
    return [
        UserStep(node, kernel, weight)
        for kernel in user_kernels()
        if kernel.takes(node.op, matrix, weight.ndim - 2)
    ]


class _CustomStep(StepWithoutWeights):
    """An operator with a registered kernel."""

    why = "registered with sparsert.kernels.custom_op"

    def __init__(self, call: CustomCall) -> None:
        self._call = call
        self.kernel = call.op.kernel

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        """Computes the outputs."""
        return self._call.run(inputs)


class UserStep:
    """act(product + bias + residual), the product by a registered kernel."""

    constants: Sequence[int] = (1, 2)

    def __init__(self, node: Node, kernel: UserKernel, weight: np.ndarray) -> None:
        self._function, self._node = kernel.function, node
        self._weight_shape = weight.shape
        self._weights = kernel.pack(weight.reshape(weight.shape[0], -1))
        self._act = Activation.of(node)
        self._bias = node.constants[2] if len(node.constants) > 2 else None
        self._is_conv = kernel.op == "Conv"
        self.kernel = f"{kernel.name} (yours)"
        self.format = kernel.packed_format
        self.why = "registered with sparsert.kernels.kernel"
        self.weights = int(weight.size)
        self.nonzeros = int(np.count_nonzero(weight))
        self.packed_bytes = sum(part.nbytes for part in self._weights)

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        """Computes the layer."""
        x, *rest = inputs
        y = self._convolved(x, room) if self._is_conv else self._multiplied(x, room)
        if self._bias is not None:
            y += self._bias.reshape(-1, *[1] * (y.ndim - 2)) if self._is_conv else self._bias
        if rest:
            if rest[0].shape != y.shape:
                raise ValueError(f"the residual has shape {rest[0].shape}; expected {y.shape}")
            y += rest[0]
        fn, low, high = self._act.arguments
        if fn or low > -np.inf or high < np.inf:
            flat = y.reshape(-1)
            room.launch(activate_all, (flat, flat, self._act.arguments), -(-flat.size // TASK))
        return (self._act.finish(y),)

    def _call(self, *arguments: Any) -> None:
        try:
            self._function(*arguments)
        except Exception as error:
            raise BackendError(
                f"the kernel '{self.kernel.removesuffix(' (yours)')}' failed for x "
                f"{list(arguments[0].shape)}: {type(error).__name__}: {error}"
            ) from error

    def _multiplied(self, x: np.ndarray, room: Room) -> np.ndarray:
        rows, columns = self._weight_shape
        if x.shape[-1] != columns:
            raise ValueError(f"the input has shape {list(x.shape)}; expected [..., {columns}]")
        y = room.empty((*x.shape[:-1], rows))
        if y.size:
            flat = room.plain(x).reshape(-1, columns)
            self._call(flat, self._weights, y.reshape(-1, rows))
        return y

    def _convolved(self, x: np.ndarray, room: Room) -> np.ndarray:
        kernel, count = self._weight_shape[2:], x.ndim - 2
        node, group = self._node, self._node.get("group", 1)
        if count != len(kernel) or x.shape[1] != self._weight_shape[1] * group:
            raise ValueError(f"the input has shape {list(x.shape)}, which the weights do not fit")
        ones = (1,) * count
        strides, dilations = node.get("strides", ones), node.get("dilations", ones)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        size = x.shape[2:]
        begins, ends = window_pads(size, reach, strides, node.get("pads"), node.get("auto_pad"))
        padded = [n + b + e for n, b, e in zip(size, begins, ends, strict=True)]
        out = [(n - r) // s + 1 for n, r, s in zip(padded, reach, strides, strict=True)]
        if min(out) < 0:
            raise ValueError(f"the window {reach} does not fit into the padded input {padded}")
        if padded != list(size):
            inner = tuple(slice(b, b + n) for b, n in zip(begins, size, strict=True))
            wide = room.empty((*x.shape[:2], *padded))
            wide.fill(0)
            wide[(slice(None), slice(None), *inner)] = x
            x = wide
        y = room.empty((x.shape[0], self._weight_shape[0], *out))
        if y.size:
            window = Window(tuple(kernel), tuple(strides), tuple(dilations), group)
            self._call(room.plain(x).reshape(x.shape), self._weights, y, window)
        return y


class _Fastest:
    """The fastest of several steps for each shape of the input: measured when it comes first."""

    constants: Sequence[int] = (1, 2)

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._of_shape: dict[tuple[int, ...], Step] = {}
        self._show(steps[0], "not measured yet")

    def _show(self, step: Step, why: str) -> None:
        self.kernel, self.format, self.why = step.kernel, step.format, why
        self.weights, self.nonzeros = step.weights, step.nonzeros
        self.packed_bytes = sum(each.packed_bytes for each in self._steps)

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        """Computes the layer."""
        step = self._of_shape.get(inputs[0].shape)
        if step is None:
            step = self._measure(inputs, room)
            if len(self._of_shape) >= MAX_SHAPES:
                self._of_shape.clear()
            self._of_shape[inputs[0].shape] = step
        return step.run(inputs, room)

    def _measure(self, inputs: _Arrays, room: Room) -> Step:
        best = [measure_step(step, inputs, room, _RUNS) for step in self._steps]
        order = sorted(range(len(best)), key=lambda i: best[i])
        shown = [f"{self._steps[i].kernel} {best[i] * 1e6:.3g} us" for i in order]
        step = self._steps[order[0]]
        self._show(step, f"fastest of {len(shown)} measured: {', '.join(shown)}; {step.why}")
        return step


def measure_step(step: Step, inputs: _Arrays, room: Room, runs: int) -> float:
    """Returns the least seconds of some runs, after one to compile and to warm up."""
    step.run(inputs, room)
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        step.run(inputs, room)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)
