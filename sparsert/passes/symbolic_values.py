"""Follows the values of small integer tensors that shapes are made of, with symbols in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from sparsert.passes.graph_tools import attribute, constant_array, input_at
from sparsert.passes.symbolic_dims import Dim, SymbolTable

_MAX_ELEMS = 16
# Bounds of a Slice from here on mean "to the end".
_FAR = 1 << 30


class SymbolicValues:
    """Knows the elements of integer tensors of rank 0 and 1 as dimensions."""

    def __init__(self, table: SymbolTable) -> None:
        self._table = table
        self._known: dict[ir.Value, list[Dim]] = {}

    def get(self, value: ir.Value | None) -> list[Dim] | None:
        """Returns the elements in order (one for a scalar), None where an element is unknown.

        None when nothing is known.
        """
        if value is None:
            return None
        if value in self._known:
            return self._known[value]
        array = constant_array(value, _MAX_ELEMS)
        if array is None or array.ndim > 1 or array.dtype.kind not in "iub":
            return None
        return [int(element) for element in array.reshape(-1)]

    def visit(self, node: ir.Node) -> None:
        """Learns the output of a node from its inputs and their shapes."""
        elements = self._evaluate(node)
        if elements is not None and len(elements) <= _MAX_ELEMS:
            self._known[node.outputs[0]] = elements

    def _evaluate(self, node: ir.Node) -> list[Dim] | None:
        op = node.op_type
        if op == "Shape":
            dims = dims_of(input_at(node, 0))
            if dims is None:
                return None
            return dims[attribute(node, "start", 0) : attribute(node, "end", len(dims))]
        if op == "Concat":
            parts = [self.get(value) for value in node.inputs]
            if any(part is None for part in parts):
                return None
            return [element for part in parts if part is not None for element in part]
        x = self.get(input_at(node, 0))
        if x is None:
            return None
        if op == "Equal":
            return _elementwise(_equal, x, self.get(input_at(node, 1)))
        if op == "Where":
            chosen = [self.get(value) for value in node.inputs[1:]]
            return _elementwise(_choose, x, *chosen)
        if op in ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape"):
            return x
        if op == "Gather":
            index = constant_array(input_at(node, 1), _MAX_ELEMS)
            if index is None or index.ndim > 1:
                return None
            return [x[int(i)] for i in index.reshape(-1) if -len(x) <= i < len(x)]
        if op == "Slice":
            numbers: list[int] = []  # start, end, axis, step
            for value in node.inputs[1:]:
                bound = self.get(value)
                if bound is None or len(bound) != 1 or not isinstance(bound[0], int):
                    return None
                numbers.append(bound[0])
            return x[numbers[0] : numbers[1]] if numbers[3:] in ([], [1]) else None
        if op in ("Add", "Sub", "Mul", "Div"):
            return self._arithmetic(op, x, self.get(input_at(node, 1)))
        return None

    def _arithmetic(self, op: str, a: list[Dim], b: list[Dim] | None) -> list[Dim] | None:
        if b is None or len(a) != len(b):
            return None
        result: list[Dim] = []
        for one, other in zip(a, b, strict=True):
            if op in ("Add", "Mul") and isinstance(one, int):
                one, other = other, one
            if not isinstance(other, int):
                result.append(None)
            elif op == "Add":
                result.append(self._table.add(one, other))
            elif op == "Sub":
                result.append(self._table.add(one, -other))
            elif op == "Mul":
                result.append(self._table.multiply(one, other) if other > 0 else None)
            else:
                result.append(self._table.divide(one, other) if other > 0 else None)
        return result

    # --- shapes that follow from values

    def reshaped(self, node: ir.Node) -> list[Dim] | None:
        """Returns the shape that a Reshape gives."""
        x, target = dims_of(input_at(node, 0)), self.get(input_at(node, 1))
        if x is None or target is None:
            return None
        result = list(target)
        for i, dim in enumerate(target):
            if dim == 0 and not attribute(node, "allowzero", 0):
                result[i] = x[i] if i < len(x) else None
        if -1 in result:
            at = result.index(-1)
            result[at] = self._rest(x, [dim for i, dim in enumerate(result) if i != at])
        return result

    def _rest(self, whole: Sequence[Dim], parts: Sequence[Dim]) -> Dim:
        """Returns the product of `whole` divided by that of `parts`."""
        symbols: list[str] = []
        above, below = 1, 1
        for dim in whole:
            if dim is None:
                return None
            if isinstance(dim, int):
                above *= dim
            else:
                symbols.append(dim)
        for dim in parts:
            if isinstance(dim, int):
                below *= dim
            elif dim in symbols:
                symbols.remove(dim)
            else:
                return None
        if below <= 0 or above % below != 0 or len(symbols) > 1:
            return None
        return self._table.multiply(symbols[0], above // below) if symbols else above // below

    def expanded(self, node: ir.Node) -> list[Dim] | None:
        """Returns the shape that an Expand gives."""
        x, target = dims_of(input_at(node, 0)), self.get(input_at(node, 1))
        return None if x is None or target is None else self._table.broadcast(x, target)

    def counted(self, node: ir.Node) -> list[Dim] | None:
        """Returns the shape that a Range from 0 in steps of 1 gives."""
        start, limit, step = (self.get(value) for value in node.inputs)
        return limit if start == [0] and step == [1] else None

    def sliced(self, node: ir.Node) -> list[Dim] | None:
        """Returns the shape that a Slice gives.

        A slice [0:n] of a dimension whose size is a number has the size n: a run that asks for
        more than there is fails later, where n is needed.
        """
        x = dims_of(input_at(node, 0))
        starts, ends = self.get(input_at(node, 1)), self.get(input_at(node, 2))
        if x is None or starts is None or ends is None:
            return None
        axes, steps = self.get(input_at(node, 3)), self.get(input_at(node, 4))
        if any(self.get(given) is None for given in node.inputs[3:] if given is not None):
            return None  # the run computes them
        result = list(x)
        for i, (start, end) in enumerate(zip(starts, ends, strict=False)):
            axis = i if axes is None else axes[i]
            step = 1 if steps is None else steps[i]
            if not isinstance(axis, int) or not -len(x) <= axis < len(x):
                return None
            dim = x[axis]
            if step != 1 or not isinstance(start, int) or start < 0:
                result[axis] = None
            elif isinstance(end, int) and end >= _FAR:
                result[axis] = dim if start == 0 else None
            elif isinstance(end, int) and isinstance(dim, int):
                result[axis] = len(range(dim)[start:end])
            elif isinstance(end, str) and start == 0 and (isinstance(dim, int) or dim == end):
                result[axis] = end
            else:
                result[axis] = None
        return result


def _elementwise(function: Callable[..., Dim], *operands: list[Dim] | None) -> list[Dim] | None:
    """Applies a function to each element; operands of one element are repeated."""
    known = [operand for operand in operands if operand is not None]
    size = max((len(operand) for operand in known), default=0)
    if len(known) < len(operands) or any(len(operand) not in (1, size) for operand in known):
        return None
    rows = [operand * size if len(operand) == 1 else operand for operand in known]
    return [function(*row) for row in zip(*rows, strict=True)]


def _equal(a: Dim, b: Dim) -> Dim:
    if a is None or b is None:
        return None
    if isinstance(a, str) != isinstance(b, str):
        number = a if isinstance(a, int) else b
        return 0 if isinstance(number, int) and number < 0 else None  # no size is negative
    return int(a == b) if isinstance(a, int) or a == b else None


def _choose(condition: Dim, yes: Dim, no: Dim) -> Dim:
    if isinstance(condition, int):
        return yes if condition else no
    return yes if yes == no else None


def dims_of(value: ir.Value | None) -> list[Dim] | None:
    """Returns the dimensions of a value, or None if its rank is unknown."""
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]
