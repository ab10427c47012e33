"""Turns Einsum into Transpose, Reshape, MatMul, Mul and ReduceSum."""

from __future__ import annotations

import dataclasses
import string

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import attribute, dim_at, is_f32, is_op, nodes_of, rank_of

_I64 = ir.TensorType(ir.DataType.INT64)


@dataclasses.dataclass
class _Term:
    """A value and a letter for each of its dimensions."""

    value: ir.Value
    labels: str


def run(model: ir.Model) -> None:
    """Lowers f32 nodes on inputs of known rank, in place."""
    for node in nodes_of(model.graph):
        if is_op(node, "Einsum") and all(is_f32(value) for value in node.inputs):
            lowering = _Lowering(node, Chain(node, model.graph))
            if lowering.run():
                lowering.chain.replace()


def parse(equation: str, ranks: list[int]) -> tuple[list[str], str] | None:
    """Returns the labels of the operands and of the result, one letter per dimension.

    What an ellipsis stands for gets letters of its own. None: the equation does not fit the ranks.
    """
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None
    letters = [letter for letter in string.ascii_letters if letter not in text]
    # Ellipses align at their last dimension.
    widths = [
        rank - len(term.replace("...", "")) if "..." in term else 0
        for term, rank in zip(terms, ranks, strict=True)
    ]
    most = max(widths, default=0)
    if min(widths, default=0) < 0 or most > len(letters):
        return None
    hidden = "".join(letters[:most])
    operands = [
        term.replace("...", hidden[most - width :])
        for term, width in zip(terms, widths, strict=True)
    ]
    if any(len(labels) != rank for labels, rank in zip(operands, ranks, strict=True)):
        return None
    if arrow:
        result = right.replace("...", hidden)
    else:
        every = left.replace("...", "").replace(",", "")
        result = hidden + "".join(sorted({c for c in every if every.count(c) == 1}))
    known = set("".join(operands))
    if len(set(result)) != len(result) or not set(result) <= known:
        return None
    return operands, result


class _Lowering:
    def __init__(self, node: ir.Node, chain: Chain) -> None:
        self.node, self.chain = node, chain
        self.dims: dict[str, tuple[ir.Value, int]] = {}  # where the size of a label is

    def run(self) -> bool:
        ranks = [rank_of(value) for value in self.node.inputs]
        if any(rank is None for rank in ranks):
            return False
        parsed = parse(attribute(self.node, "equation"), [rank or 0 for rank in ranks])
        if parsed is None:
            return False
        operands, result = parsed
        terms = []
        for value, labels in zip(self.node.inputs, operands, strict=True):
            assert value is not None
            for axis, label in enumerate(labels):
                size = dim_at(value, axis)
                held = self.dims.get(label)
                known = None if held is None else dim_at(*held)
                if size is not None and known is not None and size != known:
                    return False  # one of them is broadcast
                if held is None or (known is None and size is not None):
                    self.dims[label] = (value, axis)
            terms.append(_Term(value, labels))
        for index, term in enumerate(terms):
            if len(set(term.labels)) != len(term.labels):
                diagonal = self.diagonal(term)
                if diagonal is None:
                    return False
                terms[index] = diagonal
        while len(terms) > 1:
            later = set(result).union(*(term.labels for term in terms[2:]))
            terms[:2] = [self.contract(terms[0], terms[1], later)]
        last = self.sum_out(terms[0], set(result))
        if last.labels != result:
            self.transpose(last, result)
        elif last.value in self.node.inputs:
            self.chain.add("Identity", [last.value])
        return True

    def diagonal(self, term: _Term) -> _Term | None:
        """Keeps the elements at which a label that is there twice has one value."""
        labels = term.labels
        label = next(c for c in labels if labels.count(c) > 1)
        first, second = labels.index(label), labels.rindex(label)
        size = self.size(label)
        if size is None or labels.count(label) > 2:
            return None
        shape = [1] * len(labels)
        shape[first] = shape[second] = size
        mask = self.chain.constant("diagonal", np.eye(size, dtype=np.bool_).reshape(shape))
        zero = self.chain.constant("zero", np.zeros((), np.float32))
        kept = self.chain.add("Where", [mask, term.value, zero])
        kept.type = term.value.type
        axis = self.chain.constant("axis", np.array([second]))
        y = self.chain.add("ReduceSum", [kept, axis], keepdims=0)
        result = _Term(y, labels[:second] + labels[second + 1 :])
        return self.diagonal(result) if len(set(result.labels)) < len(result.labels) else result

    def contract(self, a: _Term, b: _Term, later: set[str]) -> _Term:
        """Multiplies two terms and sums over the labels that nothing later needs."""
        a = self.sum_out(a, later | set(b.labels))
        b = self.sum_out(b, later | set(a.labels))
        shared = [c for c in a.labels if c in b.labels]
        batch = "".join(c for c in shared if c in later)
        inner = "".join(c for c in shared if c not in later)
        rows = "".join(c for c in a.labels if c not in shared)
        columns = "".join(c for c in b.labels if c not in shared)
        if not inner:
            x = self.transpose(a, batch + rows)
            y = self.transpose(b, batch + columns)
            x = self.split(x, batch, [*rows, *(1 for _ in columns)], bool(columns))
            y = self.split(y, batch, [*(1 for _ in rows), *columns], bool(rows))
            return _Term(self.chain.add("Mul", [x, y]), batch + rows + columns)
        y = self.join(self.transpose(b, batch + inner + columns), batch, inner, columns)
        if not batch and rows and columns:  # one matrix for all rows, such as weights
            x = self.transpose(a, rows + inner)
            x = self.split(x, rows, [inner], len(inner) != 1)
            z = self.split(self.chain.add("MatMul", [x, y]), rows, [*columns], len(columns) != 1)
            return _Term(z, rows + columns)
        x = self.join(self.transpose(a, batch + rows + inner), batch, rows, inner)
        product = self.chain.add("MatMul", [x, y])
        # Each group was one dimension.
        changed = len(rows) != 1 or len(columns) != 1
        z = self.split(product, batch, [*rows, *columns], changed)
        return _Term(z, batch + rows + columns)

    def sum_out(self, term: _Term, needed: set[str]) -> _Term:
        gone = [axis for axis, label in enumerate(term.labels) if label not in needed]
        if not gone:
            return term
        axes = self.chain.constant("axes", np.array(gone))
        y = self.chain.add("ReduceSum", [term.value, axes], keepdims=0)
        return _Term(y, "".join(label for label in term.labels if label in needed))

    def transpose(self, term: _Term, labels: str) -> ir.Value:
        if term.labels == labels:
            return term.value
        perm = [term.labels.index(label) for label in labels]
        return self.chain.add("Transpose", [term.value], perm=perm)

    def join(self, value: ir.Value, batch: str, first: str, second: str) -> ir.Value:
        """Makes one dimension of each group."""
        if len(first) == 1 and len(second) == 1:
            return value
        return self.split(value, batch, [first, second], True)

    def split(self, value: ir.Value, batch: str, groups: list[str | int], needed: bool) -> ir.Value:
        """Reshapes to the batch's dimensions and one for each group of labels (or number)."""
        if not needed:
            return value
        sizes = [g if isinstance(g, int) else self.product(g) for g in groups]
        unknown = [i for i, size in enumerate(sizes) if size is None]
        if len(unknown) <= 1:
            target = [0] * len(batch) + [-1 if size is None else size for size in sizes]
            to = self.chain.constant("to", np.array(target, np.int64))
            return self.chain.add("Reshape", [value, to])
        parts: list[ir.Value | None] = [self.dimension(label) for label in batch]
        for group, size in zip(groups, sizes, strict=True):
            if size is not None:
                parts.append(self.chain.constant("size", np.array([size])))
                continue
            assert isinstance(group, str)
            dims = [self.dimension(label) for label in group]
            while len(dims) > 1:
                dims[:2] = [self.chain.add("Mul", [dims[0], dims[1]], ir.Shape([1]))]
            parts += dims
        shape = self.chain.add("Concat", parts, ir.Shape([len(parts)]), axis=0)
        return self.chain.add("Reshape", [value, shape])

    def size(self, label: str) -> int | None:
        return dim_at(*self.dims[label])

    def product(self, labels: str) -> int | None:
        total = 1
        for label in labels:
            size = self.size(label)
            if size is None:
                return None
            total *= size
        return total

    def dimension(self, label: str) -> ir.Value:
        value, axis = self.dims[label]
        size = self.chain.add("Shape", [value], ir.Shape([1]), start=axis, end=axis + 1)
        size.type = _I64
        return size
