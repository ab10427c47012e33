"""Turns convolutions whose weights are known only to a run into gathers and matrix products."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    constant,
    input_at,
    is_f32,
    is_op,
    known_dims,
    nodes_of,
    rank_of,
)

# Indices of one node at most.
_MAX_INDICES = 1 << 22


def run(model: ir.Model) -> None:
    """Lowers f32 Conv and ConvTranspose nodes on known sizes, in place.

    The elements that the taps meet at each place of the result are gathered into columns, which
    the weights multiply; a zero behind the input stands for what lies outside.
    """
    for node in nodes_of(model.graph):
        weight = input_at(node, 1)
        if not is_op(node, "Conv", "ConvTranspose"):
            continue
        if constant(weight) is not None or not is_f32(weight) or not is_f32(node.outputs[0]):
            continue
        rank = rank_of(node.inputs[0])
        if rank is None or rank < 3:
            continue
        chain = Chain(node, model.graph)
        if _lower(node, rank - 2, chain):
            chain.replace()


def _lower(node: ir.Node, axes: int, chain: Chain) -> bool:
    x, weight, bias = node.inputs[0], node.inputs[1], input_at(node, 2)
    sizes = known_dims(x, range(1, 2 + axes))
    shape = known_dims(weight, range(2 + axes))
    result = known_dims(node.outputs[0], range(2, 2 + axes))
    if sizes is None or shape is None or result is None:
        return False
    group, transposed = attribute(node, "group", 1), node.op_type == "ConvTranspose"
    kernel, channels = shape[2:], sizes[0]
    taps, places, size = math.prod(kernel), math.prod(result), math.prod(sizes[1:])
    if taps * places > _MAX_INDICES:
        return False
    along = _transposed_indices if transposed else _indices
    indices = [
        along(node, axis, sizes[1 + axis], kernel[axis], result[axis], axes) for axis in range(axes)
    ]
    flat = chain.add("Reshape", [x, chain.constant("flat", np.array([0, channels, size]))])
    padded = chain.add("Pad", [flat, chain.constant("zero", np.array([0, 0, 0, 0, 0, 1]))])
    windows = chain.constant("windows", _windows(indices, sizes[1:]))
    columns = chain.add("Gather", [padded, windows], axis=2)
    in_group = channels // group * taps
    split = chain.constant("columns", np.array([0, group, in_group, places]))
    kernels = weight
    if transposed:  # [channels, outputs of a group, taps]
        outputs = shape[1] * group
        parts = chain.constant("parts", np.array([group, channels // group, shape[1], taps]))
        kernels = chain.add("Reshape", [weight, parts])
        kernels = chain.add("Transpose", [kernels], perm=[0, 2, 1, 3])
    else:
        outputs = shape[0]
    matrix = chain.constant("matrix", np.array([group, outputs // group, in_group]))
    product = chain.add(
        "MatMul",
        [chain.add("Reshape", [kernels, matrix]), chain.add("Reshape", [columns, split])],
    )
    final = chain.constant("result", np.array([0, outputs, *result]))
    y = chain.add("Reshape", [product, final])
    if bias is not None:
        vector = chain.constant("vector", np.array([outputs] + [1] * axes))
        chain.add("Add", [y, chain.add("Reshape", [bias, vector])])
    return True


def _indices(
    node: ir.Node, axis: int, size: int, kernel: int, result: int, axes: int
) -> np.ndarray:
    """Returns i64 [kernel, result]: what a tap meets at a place along an axis; -1 outside."""
    stride, dilation = (
        attribute(node, name, (1,) * axes)[axis] for name in ("strides", "dilations")
    )
    total = (result - 1) * stride + (kernel - 1) * dilation + 1 - size
    begin = _pad_before(node, axis, axes, max(total, 0))
    at = np.arange(result) * stride - begin + np.arange(kernel)[:, None] * dilation
    return np.where((at >= 0) & (at < size), at, -1)


def _transposed_indices(
    node: ir.Node, axis: int, size: int, kernel: int, result: int, axes: int
) -> np.ndarray:
    """The same for ConvTranspose: input i reaches i * stride - pad + tap * dilation."""
    stride, dilation = (
        attribute(node, name, (1,) * axes)[axis] for name in ("strides", "dilations")
    )
    extra = attribute(node, "output_padding", (0,) * axes)[axis]
    total = stride * (size - 1) + extra + (kernel - 1) * dilation + 1 - result
    begin = _pad_before(node, axis, axes, max(total, 0))
    at = np.arange(result) + begin - np.arange(kernel)[:, None] * dilation
    inside = (at >= 0) & (at % stride == 0) & (at < size * stride)
    return np.where(inside, at // stride, -1)


def _pad_before(node: ir.Node, axis: int, axes: int, total: int) -> int:
    """Returns the pad in front, given the sum of both where it is computed."""
    mode = attribute(node, "auto_pad", "NOTSET")
    sized = node.op_type == "ConvTranspose" and attribute(node, "output_shape")
    if mode == "SAME_UPPER":
        return total // 2
    if mode == "SAME_LOWER" or sized:
        return total - total // 2
    return 0 if mode == "VALID" else attribute(node, "pads", (0,) * (2 * axes))[axis]


def _windows(indices: list[np.ndarray], sizes: list[int]) -> np.ndarray:
    """Returns i64 [taps, places]: which element of a flat input a tap meets; its size outside."""
    rows = []
    for tap in itertools.product(*(range(len(table)) for table in indices)):
        index, inside = np.zeros((), np.int64), np.ones((), bool)
        for offset, table, size in zip(tap, indices, sizes, strict=True):
            index = index[..., None] * size + table[offset]
            inside = inside[..., None] & (table[offset] >= 0)
        rows.append(np.where(inside, index, math.prod(sizes)).reshape(-1))
    return np.stack(rows)
