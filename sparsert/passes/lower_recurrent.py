"""Turns LSTM, GRU and RNN into one sparsert.Linear over all steps and one sparsert.Recurrent.

Each direction has its own; Unsqueeze and Concat join what they give.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SPARSERT,
    add_initializer,
    attribute,
    constant,
    input_at,
    is_f32,
    is_op,
    lazy_tensor,
    make_node,
    nodes_of,
    take_over,
)

OPS = ("LSTM", "GRU", "RNN")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_FUNCTIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
# ONNX's functions in small letters -> name in the sparsert opset, and what ONNX Runtime takes for
# alpha and beta if the layer does not say. A function takes as many of the layer's as it has.
_NATIVE_FUNCTIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "sigmoid": ("sigmoid", ()),
    "tanh": ("tanh", ()),
    "relu": ("relu", ()),
    "softplus": ("softplus", ()),
    "softsign": ("softsign", ()),
    "leakyrelu": ("leaky_relu", (0.01,)),
    "thresholdedrelu": ("thresholded_relu", (0.0,)),
    "elu": ("elu", (1.0,)),
    "hardsigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "affine": ("affine", (0.0, 0.0)),
    "scaledtanh": ("scaled_tanh", (0.0, 0.0)),
}
# Positions of the inputs that must be constants, if they are there.
_WEIGHTS = {"LSTM": (1, 2, 3, 7), "GRU": (1, 2, 3), "RNN": (1, 2, 3)}


def run(model: ir.Model) -> None:
    """Lowers recurrent layers with constant weights, in place."""
    for node in nodes_of(model.graph):
        if is_op(node, *OPS) and recurrent_reason(node) is None:
            _Lowering(node).run()


def recurrent_reason(node: ir.Node) -> str | None:
    """Returns why a recurrent layer cannot be lowered, or None if it can."""
    if not is_f32(input_at(node, 0)):
        return "it does not compute in f32"
    for index in _WEIGHTS[node.op_type]:
        value = input_at(node, index)
        if value is not None and (constant(value) is None or not is_f32(value)):
            return "its weights are not constant"
    weights = [constant(input_at(node, index)) for index in (1, 2)]
    if any(tensor is None or len(tensor.shape) != 3 for tensor in weights):
        return "its weights do not have three dimensions"
    for name in _functions(node):
        if name not in _NATIVE_FUNCTIONS:
            return f"the activation '{name}' is not supported"
    if len(_functions(node)) != _directions(node) * len(_FUNCTIONS[node.op_type]):
        return "its number of activations does not fit its directions"
    return None


def _directions(node: ir.Node) -> int:
    return 2 if attribute(node, "direction", "forward") == "bidirectional" else 1


def _functions(node: ir.Node) -> list[str]:
    given = attribute(node, "activations")
    if not given:
        return [*_FUNCTIONS[node.op_type]] * _directions(node)
    return [str(name).lower() for name in given]


def _parameters(node: ir.Node) -> np.ndarray:
    """Returns alpha and beta of every activation of the layer, [activations, 2]."""
    given = [list(attribute(node, f"activation_{key}") or ()) for key in ("alpha", "beta")]
    rows = np.zeros((len(_functions(node)), 2), np.float32)
    for row, name in zip(rows, _functions(node), strict=True):
        for i, default in enumerate(_NATIVE_FUNCTIONS[name][1]):
            row[i] = given[i].pop(0) if given[i] else default
    return rows


class _Lowering:
    """Replaces one layer."""

    def __init__(self, node: ir.Node) -> None:
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        self._node = node
        self._graph = graph
        self._name = node.name or node.op_type
        self._gates = GATES[node.op_type]
        recurrent = constant(node.inputs[2])
        assert recurrent is not None
        self._hidden = int(recurrent.shape[2])  # type: ignore[arg-type]
        self._batch_first = bool(attribute(node, "layout", 0))
        self._nodes: list[ir.Node] = []

    def run(self) -> None:
        node = self._node
        x = node.inputs[0]
        assert x is not None
        if self._batch_first:
            x = self._add("Transpose", [x], {"perm": [1, 0, 2]}, _permuted(x.shape, (1, 0, 2)))
        used = [value.uses() or value.is_graph_output() for value in node.outputs]
        count = max((i + 1 for i, is_used in enumerate(used) if is_used), default=1)
        parts = [self._direction(x, index, count) for index in range(_directions(node))]
        states_axis = int(self._batch_first)
        replaced = []
        for i, is_used in enumerate(used):
            if not is_used:
                continue
            axis = states_axis if i else 1
            result = self._join([part[i] for part in parts], axis)
            if i == 0 and self._batch_first:
                perm = (2, 0, 1, 3)
                shape = _permuted(result.shape, perm)
                result = self._add("Transpose", [result], {"perm": list(perm)}, shape)
            replaced.append((node.outputs[i], result))
        self._graph.insert_before(node, self._nodes)
        for old, new in replaced:
            take_over(old, new)
        self._graph.remove(node, safe=True)

    def _direction(self, x: ir.Value, index: int, count: int) -> list[ir.Value]:
        """Adds the nodes of one direction; returns `count` outputs: Y, Y_h, Y_c."""
        node, hidden = self._node, self._hidden
        rows = self._gates * hidden
        # A GRU applies its reset gate to the state's product with its last matrix, or before it.
        resets_after = bool(attribute(node, "linear_before_reset", 0))
        resets_before = node.op_type == "GRU" and not resets_after
        width = int(constant(node.inputs[1]).shape[2])  # type: ignore
        w = self._part(1, index, (rows, width), lambda a: a)
        r: ir.Value
        bias = recurrent_bias = candidate = peephole = None
        if resets_before:
            r = self._part(2, index, (2 * hidden, hidden), lambda a: a[: 2 * hidden])
            candidate = self._part(2, index, (hidden, hidden), lambda a: a[2 * hidden :])
        else:
            r = self._part(2, index, (rows, hidden), lambda a: a)
        if input_at(node, 3) is not None:
            if node.op_type == "GRU" and resets_after:
                bias = self._part(3, index, (rows,), lambda a: a[:rows])
                recurrent_bias = self._part(3, index, (rows,), lambda a: a[rows:])
            else:
                bias = self._part(3, index, (rows,), lambda a: a[:rows] + a[rows:])
        if node.op_type == "LSTM" and input_at(node, 7) is not None:
            peephole = self._part(7, index, (3 * hidden,), lambda a: a)
        batch = None if x.shape is None else list(x.shape[:2])
        states = [self._state(5, index)]
        states.append(self._state(6, index) if node.op_type == "LSTM" else None)
        # Right before the steps, which may then make the product by themselves.
        projected = self._add(
            "Linear", [x, w, bias], {}, None if batch is None else [*batch, rows], SPARSERT
        )
        per_direction = len(_FUNCTIONS[node.op_type])
        own = slice(index * per_direction, (index + 1) * per_direction)
        functions = [_NATIVE_FUNCTIONS[name] for name in _functions(node)[own]]
        parameters = None
        if any(defaults for _, defaults in functions):
            parameters = add_initializer(
                self._graph, f"{self._name}_activations_{index}", _parameters(node)[own].copy()
            )
        backward = attribute(node, "direction", "forward") == "reverse" or index == 1
        attributes = {
            "cell": node.op_type.lower(),
            "activations": [name for name, _ in functions],
            "clip": attribute(node, "clip"),
            "reverse": int(backward),
            "input_forget": attribute(node, "input_forget", 0),
        }
        inputs = [projected, r, recurrent_bias, candidate, *states, input_at(node, 4)]
        inputs += [peephole, parameters]
        while inputs[-1] is None:
            inputs.pop()
        given = {key: value for key, value in attributes.items() if value is not None}
        made = ir.node(
            "Recurrent",
            inputs,
            attributes=given,
            domain=SPARSERT,
            num_outputs=count,
            name=self._unique("steps"),
        )
        for i, value in enumerate(made.outputs):
            value.type = x.type
            if batch is not None:
                value.shape = ir.Shape([*(batch if i == 0 else batch[1:]), hidden])
        self._nodes.append(made)
        return list(made.outputs)

    def _part(
        self,
        position: int,
        index: int,
        dims: tuple[int, ...],
        choose: Callable[[np.ndarray], np.ndarray],
    ) -> ir.Value:
        """Returns what `choose` takes of one direction's share of an input, as an initializer."""
        tensor = constant(self._node.inputs[position])
        assert tensor is not None
        name = self._node.inputs[position].name or "weight"  # type: ignore[union-attr]
        lazy = lazy_tensor(lambda: choose(tensor.numpy()[index]), dims, name)
        return add_initializer(self._graph, f"{name}_direction_{index}", lazy)

    def _state(self, position: int, index: int) -> ir.Value | None:
        """Returns one direction's initial state [batch, hidden]."""
        value = input_at(self._node, position)
        if value is None:
            return None
        number = add_initializer(self._graph, f"{self._name}_index", np.array(index, np.int64))
        axis = int(self._batch_first)
        shape = None
        if value.shape is not None:
            shape = [dim for i, dim in enumerate(value.shape) if i != axis]
        return self._add("Gather", [value, number], {"axis": axis}, shape)

    def _join(self, parts: list[ir.Value], axis: int) -> ir.Value:
        """Returns the directions' results side by side along a new axis."""
        axes = add_initializer(self._graph, f"{self._name}_axes", np.array([axis], np.int64))
        wide = []
        for part in parts:
            shape = None
            if part.shape is not None:
                shape = [*part.shape[:axis], 1, *part.shape[axis:]]
            wide.append(self._add("Unsqueeze", [part, axes], {}, shape))
        if len(wide) == 1:
            return wide[0]
        shape = None
        if wide[0].shape is not None:
            shape = [*wide[0].shape[:axis], len(wide), *wide[0].shape[axis + 1 :]]
        return self._add("Concat", wide, {"axis": axis}, shape)

    def _add(
        self,
        op_type: str,
        inputs: list[ir.Value | None] | list[ir.Value],
        attributes: dict[str, object],
        shape: list | None,
        domain: str = "",
    ) -> ir.Value:
        name = self._unique(op_type.lower())
        node = make_node(op_type, inputs, attributes, domain, name)
        output = node.outputs[0]
        output.type = ir.TensorType(ir.DataType.FLOAT)
        output.shape = None if shape is None else ir.Shape(shape)
        self._nodes.append(node)
        return output

    def _unique(self, what: str) -> str:
        return f"{self._name}_{what}_{len(self._nodes)}"


def _permuted(shape: ir.Shape | None, perm: tuple[int, ...]) -> list | None:
    return None if shape is None else [shape[axis] for axis in perm]
