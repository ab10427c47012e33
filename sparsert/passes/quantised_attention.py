"""Attention of bytes: products of two activations around a softmax, with roundings between.

Everything between DequantizeLinear and QuantizeLinear is in f32 by ONNX's definition; here the two
products are exact sums of bytes, and each rounding that the model has is done where it stands.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    attribute,
    constant_scalar,
    dim_at,
    has_single_use,
    is_f32,
    is_op,
    rank_of,
)
from sparsert.passes.packed_tensors import (
    F32,
    U32,
    ByteFunction,
    ByteTensor,
    Editor,
    looked_up,
    order_back,
    packed_shape,
    quantised,
)
from sparsert.passes.quantisation import Quantisation, is_normal, read_floats, read_quantisation
from sparsert.passes.tables_of_functions import binary_table

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
# Dimensions of what attention reads and writes: images, heads, tokens, features of a head.
_JOINED = ["n", "t", "h", "d"]  # as [N, tokens, heads * features]
# As many terms as a sum of the kernels may have.
_MAX_FEATURES = 16384

Functions = Callable[[ir.Value], ByteFunction | None]
Tensors = Callable[[ir.Value], ByteTensor | None]


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of the graph's values."""

    editor: Editor
    function: Functions  # of floats
    tensor: Tensors  # of bytes


@dataclasses.dataclass(frozen=True)
class Attention:
    """The nodes of one attention.

    Attributes:
        node: the product of the shares with the values.
        operands: q, k and v as [N, tokens, heads * features].
        heads: their number.
        steps: rows factor, scale, zero, low, high; the last one without its rounding.
        mask: what is added to the scores.
        result: the value [N, tokens, heads * features].
        quant: that of the result, where it is rounded on its way there.
        is_bytes: the result is of bytes.
    """

    node: ir.Node
    operands: list[ByteFunction]
    heads: int
    steps: list[list[float]]
    mask: ir.Value | None
    result: ir.Value
    quant: Quantisation | None
    is_bytes: bool

    def add(self, editor: Editor, quant: Quantisation | None, limits: Sequence[int]) -> Any:
        """Adds the node: bytes under `quant`, or floats in the result's own shape."""
        packed = [function.tensor.form(editor, 2) for function in self.operands]
        if any(value is None for value in packed) or self.result.shape is None:
            return None
        factor = self.steps[4][0]
        last = [factor, 0.0, 0.0, 0.0, 0.0]
        if quant is not None:
            last = [factor, quant.scale, quant.zero, *limits]
        steps = editor.constant("steps", np.array([*self.steps[:4], last], np.float32))
        first, tokens, width = self.result.shape
        attributes: dict[str, Any] = {
            "to": int(F32 if quant is None else U32),
            "quant": [function.quant.zero for function in self.operands if function.quant],
            "heads": self.heads,
        }
        inputs = [*packed, steps, self.mask]
        if quant is None:
            y = editor.add("QAttention", inputs, F32, [first, width, tokens], **attributes)
            return editor.move(y, order_back(3, 2))
        shape = packed_shape(self.result, 2)
        return editor.add("QAttention", inputs, U32, shape, **attributes)


def find_attention(node: ir.Node, known: Known) -> Attention | None:
    """Returns the attention that ends in the product `node`, or None."""
    shares, v = node.inputs
    if shares is None or v is None or rank_of(shares) != 4 or rank_of(v) != 4:
        return None
    share_quant, scores = _rounded(shares)
    softmax = None if scores is None else scores.producer()
    if share_quant is None or softmax is None or not is_op(softmax, "Softmax"):
        return None
    if attribute(softmax, "axis", -1) not in (-1, 3) or not has_single_use(softmax.outputs[0]):
        return None
    found = _scores_of(softmax.inputs[0])
    if found is None:
        return None
    q, k = found.product.inputs
    if q is None or k is None or rank_of(q) != 4 or rank_of(k) != 4:
        return None
    heads, size, value_size = dim_at(q, 1), dim_at(q, 3), dim_at(v, 3)
    if not heads or not size or not value_size or size % 4 or value_size % 4:
        return None
    if size > _MAX_FEATURES or dim_at(k, 1) != heads or dim_at(v, 1) != heads:
        return None
    sizes = {"n": dim_at(q, 0), "h": heads, "t": dim_at(q, 2), "d": size}
    keys = {**sizes, "t": dim_at(v, 2)}
    values = {**keys, "d": value_size}
    operands = []
    for value, order, dims in ((q, "nhtd", sizes), (k, "nhdt", keys), (v, "nhtd", values)):
        operand = _operand(value, list(order), dims, known)
        if operand is None:
            return None
        operands.append(operand)
    end = _result_of(node.outputs[0], {**sizes, "d": value_size})
    scale = [function.quant.scale for function in operands if function.quant is not None]
    steps = found.steps(scale[0] * scale[1])
    if end is None or steps is None:
        return None
    factor = share_quant.scale * scale[2]
    if not is_normal([factor, 1 / share_quant.scale]):
        return None
    steps += [_row(1.0, share_quant), [factor, 0.0, 0.0, 0.0, 0.0]]
    return Attention(node, operands, heads, steps, found.mask, *end)


def _row(factor: float, quant: Quantisation | None) -> list[float]:
    if quant is None:
        return [factor, 0.0, 0.0, 0.0, 0.0]
    return [factor, quant.scale, float(quant.zero), 0.0, 255.0]


@dataclasses.dataclass(frozen=True)
class _Scores:
    """What is done to the product of queries and keys: factors, roundings and a mask in order."""

    product: ir.Node
    before: list[float | Quantisation]  # the mask
    mask: ir.Value | None
    after: Quantisation | None

    def steps(self, scale: float) -> list[list[float]] | None:
        """Returns the first three rows of steps, or None where there are not rows enough."""
        rows = [_row(scale, None)]
        for part in self.before:
            is_rounded = rows[-1][1] != 0.0
            if isinstance(part, Quantisation):
                if is_rounded:
                    rows.append(_row(1.0, None))
                rows[-1] = _row(rows[-1][0], part)
            elif is_rounded:
                rows.append(_row(part, None))
            else:
                rows[-1][0] *= part
        rows += [_row(1.0, None)] * (2 - len(rows))
        factors = np.array([abs(row[0]) for row in rows])
        if len(rows) > 2 or not is_normal(factors):
            return None
        return [*rows, _row(1.0, self.after)]


def _scores_of(value: ir.Value | None) -> _Scores | None:
    if value is None:
        return None
    after, scores = _rounded(value)
    if scores is None:
        return None
    add = scores.producer()
    if add is None or not is_op(add, "Add"):
        # Without a mask, all roundings come before it.
        found = _product_of(value)
        return None if found is None else _Scores(*found, None, None)
    if not has_single_use(scores):
        return None
    for one, mask in (add.inputs, add.inputs[::-1]):
        found = None if one is None else _product_of(one)
        if found is None or mask is None or not _broadcasts(mask, add.outputs[0], one):
            continue
        return _Scores(*found, mask, after)
    return None


def _broadcasts(mask: ir.Value, total: ir.Value, scores: ir.Value | None) -> bool:
    """Says whether a mask does not make the scores larger."""
    rank = rank_of(mask)
    if not is_f32(mask) or rank is None or rank > 4 or constant_scalar(mask) is not None:
        return False
    if total.shape is None or scores is None or scores.shape is None or len(total.shape) != 4:
        return False
    # A dimension that is 1 in the scores but not in the sum would be the mask's.
    return all(a == b or b != 1 for a, b in zip(total.shape, scores.shape, strict=True))


def _product_of(value: ir.Value) -> tuple[ir.Node, list[float | Quantisation]] | None:
    """Returns the product of two activations, and the factors and roundings behind it."""
    parts: list[float | Quantisation] = []
    while True:
        quant, source = _rounded(value)
        if source is None:
            return None
        if quant is not None:
            parts.insert(0, quant)
            value = source
        node = value.producer()
        if node is None or not has_single_use(value):
            return None
        if is_op(node, "MatMul"):
            return node, parts
        scaled = _scaling(node)
        if scaled is None:
            return None
        source, number = scaled
        parts.insert(0, 1 / number if node.op_type == "Div" else number)
        value = source


def _scaling(node: ir.Node) -> tuple[ir.Value, float] | None:
    """Returns what a Mul or Div by a constant number reads, and the number."""
    if not is_op(node, "Mul", "Div"):
        return None
    for index in (0, 1) if node.op_type == "Mul" else (0,):
        value, number = node.inputs[index], read_floats(node.inputs[1 - index], 1)
        if value is None or number is None or number.size != 1:
            continue
        if number.ndim <= (rank_of(value) or 0) and is_normal(np.abs(number)):
            return value, float(number.reshape(()))
    return None


def _rounded(value: ir.Value) -> tuple[Quantisation | None, ir.Value | None]:
    """Returns (how it is rounded, what is rounded) of a rounded value, else (None, value).

    (None, None): it is rounded in a way that is no Quantisation, or not for one reader alone.
    """
    node = value.producer()
    if node is None or not is_op(node, "DequantizeLinear"):
        return None, value
    quant, q = read_quantisation(node), node.inputs[0]
    before = None if q is None else q.producer()
    if before is None or q is None or not is_op(before, "QuantizeLinear"):
        return None, None
    if quant is None or read_quantisation(before) != quant:
        return None, None
    if not has_single_use(value) or not has_single_use(q):
        return None, None
    return quant, before.inputs[0]


def _groups(value: ir.Value, order: list[str], sizes: dict[str, int | None]) -> list[list[str]]:
    """Returns which of the dimensions in `order` each dimension of a value is made of."""
    rank = rank_of(value)
    if rank == 4:
        return [[name] for name in order]
    if rank != 3:
        return []
    for first in (0, 2, 1):
        groups = [[name] for name in order]
        groups[first : first + 2] = [order[first : first + 2]]
        if all(_fits(value, axis, group, sizes) for axis, group in enumerate(groups)):
            return groups
    return []


def _fits(value: ir.Value, axis: int, group: list[str], sizes: dict[str, int | None]) -> bool:
    parts = [sizes[name] for name in group]
    size = dim_at(value, axis)
    known = [part for part in parts if part is not None]
    if size is None:
        return len(known) < len(parts)
    if len(known) < len(parts):
        return size % math.prod(known) == 0
    return size == math.prod(known)


def _is_joined(value: ir.Value, order: list[str], sizes: dict[str, int | None]) -> bool:
    if rank_of(value) != 3 or order != _JOINED:
        return False
    width = math.prod(size for name in "hd" if (size := sizes[name]) is not None)
    return dim_at(value, 2) == width and sizes["d"] is not None


def _operand(
    value: ir.Value | None, order: list[str], sizes: dict[str, int | None], known: Known
) -> ByteFunction | None:
    """Returns an operand [N, heads, ...] as bytes [N, tokens, heads * features]."""
    changes: list[ir.Node] = []  # of each element alone, the last one first
    while value is not None and not _is_joined(value, order, sizes):
        node = value.producer()
        if node is None:
            return None
        scaled = _scaling(node)
        if is_op(node, "QuantizeLinear", "DequantizeLinear"):
            changes.append(node)
            value = node.inputs[0]
        elif scaled is not None:
            changes.append(node)
            value = scaled[0]
        elif is_op(node, "Transpose"):
            groups, perm = _groups(value, order, sizes), attribute(node, "perm")
            if not groups or perm is None:
                return None
            order = [name for axis in np.argsort(perm) for name in groups[axis]]
            value = node.inputs[0]
        elif is_op(node, *_RESHAPES):
            value = node.inputs[0]
        else:
            return None
    return None if value is None else _changed(value, changes, known)


def _changed(value: ir.Value, changes: list[ir.Node], known: Known) -> ByteFunction | None:
    """Returns the bytes that a value [N, tokens, features] becomes by changes of its elements."""
    like, function, tensor = value, known.function(value), known.tensor(value)
    for node in reversed(changes):
        if is_op(node, "QuantizeLinear"):
            quant = read_quantisation(node)
            if quant is None:
                return None
            if function is None:
                tensor = quantised(known.editor, value, quant, like)
            else:
                tensor = looked_up(known.editor, function, quant, like)
            function = None
        elif is_op(node, "DequantizeLinear"):
            quant = read_quantisation(node)
            if quant is None or tensor is None:
                return None
            function = ByteFunction(tensor, quant.table(), quant)
        else:
            scaled = _scaling(node)
            assert scaled is not None
            number = np.array(scaled[1], np.float32)
            if function is not None:
                table = binary_table(node.op_type, function.table, number)
                function = ByteFunction(function.tensor, table)
            else:
                factor = known.editor.constant("factor", number)
                value = known.editor.add(node.op_type, [value, factor], F32, like.shape, "")
    return function if function is not None and function.quant is not None else None


def _result_of(
    y: ir.Value, sizes: dict[str, int | None]
) -> tuple[ir.Value, Quantisation | None, bool] | None:
    """Returns [N, tokens, heads * features] of a product [N, heads, tokens, features].

    Also how it is rounded before, and whether it is still of bytes.
    """
    order, quant, is_bytes = list("nhtd"), None, False
    while not _is_joined(y, order, sizes):
        users = [use for use in y.uses() if not is_op(use.node, "Shape")]
        if len(users) != 1 or y.is_graph_output() or users[0].idx != 0:
            return None
        node = users[0].node
        if is_op(node, "QuantizeLinear", "DequantizeLinear"):
            own = read_quantisation(node)
            if own is None or (quant is not None and own != quant):
                return None
            quant, is_bytes = own, node.op_type == "QuantizeLinear"
        elif is_op(node, "Transpose"):
            groups, perm = _groups(y, order, sizes), attribute(node, "perm")
            if not groups or perm is None:
                return None
            order = [name for axis in perm for name in groups[axis]]
        elif not is_op(node, *_RESHAPES):
            return None
        y = node.outputs[0]
    return y, quant, is_bytes
