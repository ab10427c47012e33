"""Writes out the iterations of RNN, GRU and LSTM over a short sequence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import attribute, dim_at, input_at, is_f32, is_op, nodes_of

# Iterations at most.
_MAX_ITERATIONS = 128
_ACTIVATIONS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_KNOWN = frozenset({"Sigmoid", "Tanh", "Relu"})
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def run(model: ir.Model) -> None:
    """Unrolls f32 nodes of known length in both directions, in place.

    One product takes the inputs of all iterations; each iteration has one with the state.
    Nodes with clip, lengths of their own for each sequence or rarer activations stay.
    """
    for node in nodes_of(model.graph):
        x = input_at(node, 0)
        if not is_op(node, *_GATES) or x is None or not is_f32(x):
            continue
        layout = attribute(node, "layout", 0)
        length, hidden = dim_at(x, 1 if layout else 0), attribute(node, "hidden_size")
        hidden = hidden or dim_at(node.inputs[2], 2)  # type: ignore[arg-type]
        if not length or length > _MAX_ITERATIONS or not hidden or input_at(node, 4) is not None:
            continue
        backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[
            attribute(node, "direction", "forward")
        ]
        default = _ACTIVATIONS[node.op_type] * len(backward)
        functions = attribute(node, "activations", default)
        if "clip" in node.attributes or attribute(node, "input_forget", 0):
            continue
        if len(functions) != len(default) or not set(functions) <= _KNOWN:
            continue
        chain = Chain(node, model.graph)
        count = len(default) // len(backward)
        cells = [
            _Cell(node, chain, index, hidden, functions[index * count : (index + 1) * count])
            for index in range(len(backward))
        ]
        _unroll(node, x, chain, cells, backward, length)
        chain.replace()


def _unroll(
    node: ir.Node, x: ir.Value, chain: Chain, cells: list[_Cell], backward: list[bool], length: int
) -> None:
    layout = attribute(node, "layout", 0)
    if layout:
        x = chain.add("Transpose", [x], perm=[1, 0, 2])
    zero, one = chain.constant("axis", np.array([0])), chain.constant("direction", np.array([1]))
    wholes = []
    for cell, is_backward in zip(cells, backward, strict=True):
        inputs = chain.add("MatMul", [x, cell.weight])
        results: list[ir.Value | None] = []
        for i in range(length):
            at = chain.constant("iteration", np.array(length - 1 - i if is_backward else i))
            results.append(
                chain.add("Unsqueeze", [cell.advance(chain.add("Gather", [inputs, at])), zero])
            )
        ordered = results[::-1] if is_backward else results
        wholes.append(chain.add("Unsqueeze", [chain.add("Concat", ordered, axis=0), one]))
    for index, values in ((1, [cell.h for cell in cells]), (2, [cell.c for cell in cells])):
        if index < len(node.outputs):
            wide = [chain.add("Unsqueeze", [value, zero]) for value in values]
            last = chain.add("Concat", list(wide), axis=0)
            chain.give(index, chain.add("Transpose", [last], perm=[1, 0, 2]) if layout else last)
    y = chain.add("Concat", list(wholes), axis=1)
    if layout:
        chain.add("Transpose", [y], perm=[2, 0, 1, 3])


class _Cell:
    """One direction: its weights, and its state so far; h and c are None while they are zero."""

    def __init__(
        self, node: ir.Node, chain: Chain, index: int, hidden: int, functions: tuple[str, ...]
    ) -> None:
        self._chain, self._op, self._hidden = chain, node.op_type, hidden
        self._functions = functions
        self._reset_after = bool(attribute(node, "linear_before_reset", 0))
        self._index = chain.constant("index", np.array(index))
        weight, recurrence, bias = node.inputs[1], node.inputs[2], input_at(node, 3)
        self.weight = self._turned(self._mine(weight))
        self._recurrence = self._turned(self._mine(recurrence))
        gates = _GATES[node.op_type] * hidden
        self._bias = self._recurrent_bias = None
        if bias is not None:
            mine = self._mine(bias)
            assert mine is not None
            self._bias = self._part(mine, 0, gates, 0)
            self._recurrent_bias = self._part(mine, gates, 2 * gates, 0)
        axis = 1 if attribute(node, "layout", 0) else 0
        self.h = self._mine(input_at(node, 5), axis)
        self.c = self._mine(input_at(node, 6), axis)
        peephole = self._mine(input_at(node, 7))
        self._peepholes = [
            None if peephole is None else self._part(peephole, at * hidden, (at + 1) * hidden, 0)
            for at in range(3)
        ]

    def advance(self, x: ir.Value) -> ir.Value:
        """Returns the next h, for the product of an input and the weights [N, gates * hidden]."""
        x = self._sum(x, self._bias)
        kind: dict[str, Callable[[ir.Value], ir.Value]] = {
            "RNN": self._rnn,
            "GRU": self._gru,
            "LSTM": self._lstm,
        }
        self.h = kind[self._op](x)
        return self.h

    def _rnn(self, x: ir.Value) -> ir.Value:
        return self._chain.add(self._functions[0], [self._sum(x, self._recurrent(0, 1))])

    def _gru(self, x: ir.Value) -> ir.Value:
        f, g = self._functions
        both = self._sum(self._gate(x, 0, 2), self._recurrent(0, 2))
        both = self._chain.add(f, [both])
        z, r = self._gate(both, 0), self._gate(both, 1)
        if self._reset_after or self.h is None:
            state = self._recurrent(2, 3)
            state = state if state is None or not self._reset_after else self._product(r, state)
        else:
            state = self._recurrent(2, 3, self._product(r, self.h))
        new = self._chain.add(g, [self._sum(self._gate(x, 2), state)])
        # (1 - z) * new + z * h
        if self.h is None:
            return self._chain.add("Sub", [new, self._product(z, new)])
        moved = self._product(z, self._chain.add("Sub", [self.h, new]))
        return self._chain.add("Add", [new, moved])

    def _lstm(self, x: ir.Value) -> ir.Value:
        f, g, h = self._functions
        x = self._sum(x, self._recurrent(0, 4))
        i, o, forget, new = (self._gate(x, at) for at in range(4))
        i = self._chain.add(f, [self._peep(i, 0)])
        new = self._product(i, self._chain.add(g, [new]))
        if self.c is not None:
            forget = self._chain.add(f, [self._peep(forget, 2)])
            new = self._chain.add("Add", [self._product(forget, self.c), new])
        self.c = new
        o = self._chain.add(f, [self._peep(o, 1)])
        return self._product(o, self._chain.add(h, [new]))

    def _recurrent(self, first: int, end: int, h: ir.Value | None = None) -> ir.Value | None:
        """Returns the state's part of gates, with its bias; None if it is zero."""
        h = self.h if h is None else h
        begin, stop = first * self._hidden, end * self._hidden
        bias = self._recurrent_bias
        if bias is not None:
            bias = self._part(bias, begin, stop, 0)
        if h is None:
            return bias
        weight = self._part(self._recurrence, begin, stop, 1)
        return self._sum(self._chain.add("MatMul", [h, weight]), bias)

    def _peep(self, x: ir.Value, at: int) -> ir.Value:
        peephole = self._peepholes[at]
        if peephole is None or self.c is None:
            return x
        return self._chain.add("Add", [x, self._product(peephole, self.c)])

    def _gate(self, x: ir.Value, at: int, count: int = 1) -> ir.Value:
        return self._part(x, at * self._hidden, (at + count) * self._hidden, 1)

    def _part(self, x: ir.Value, first: int, end: int, axis: int) -> ir.Value:
        bounds = [
            self._chain.constant(what, np.array([number]))
            for what, number in (("first", first), ("end", end), ("along", axis))
        ]
        return self._chain.add("Slice", [x, *bounds])

    def _mine(self, x: ir.Value | None, axis: int = 0) -> ir.Value | None:
        """Returns this direction's part."""
        return None if x is None else self._chain.add("Gather", [x, self._index], axis=axis)

    def _turned(self, x: ir.Value | None) -> ir.Value:
        return self._chain.add("Transpose", [x], perm=[1, 0])

    def _sum(self, a: ir.Value, b: ir.Value | None) -> ir.Value:
        return a if b is None else self._chain.add("Add", [a, b])

    def _product(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self._chain.add("Mul", [a, b])
