"""Turns normalisations that no kernel and no other pass knows into other operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    constant,
    dim_at,
    input_at,
    is_f32,
    is_op,
    nodes_of,
    rank_of,
)


def run(model: ir.Model) -> None:
    """Lowers f32 nodes on inputs of known rank, in place; constant scales are left to others.

    A LayerNormalization keeps its first output; the others are computed beside it.
    """
    for node in nodes_of(model.graph):
        x, rank = input_at(node, 0), rank_of(input_at(node, 0))
        if node.domain != "" or x is None or rank is None or not is_f32(node.outputs[0]):
            continue
        chain = Chain(node, model.graph)
        if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            if is_op(node, "LayerNormalization") and rank > 0:
                _show_statistics(node, x, rank, chain)
                chain.replace()
            continue
        constant_scales = all(v is None or constant(v) is not None for v in node.inputs[1:])
        if is_op(node, "LpNormalization") and rank > 0:
            _lp_normalise(node, x, chain)
        elif is_op(node, "LRN") and rank >= 3:
            if not _lrn(node, x, rank, chain):
                continue
        elif constant_scales or rank < 3:
            continue
        elif is_op(node, "BatchNormalization") and not attribute(node, "training_mode", 0):
            _batch_normalise(node, x, rank, chain)
        elif is_op(node, "InstanceNormalization"):
            y = _standardise(node, x, list(range(2, rank)), chain)
            _scale(node, y, rank, chain)
        elif is_op(node, "GroupNormalization"):
            groups = attribute(node, "num_groups")
            split = chain.add("Reshape", [x, chain.constant("groups", np.array([0, groups, -1]))])
            target = chain.add("Shape", [x])
            target.type = ir.TensorType(ir.DataType.INT64)
            y = chain.add("Reshape", [_standardise(node, split, [2], chain), target])
            _scale(node, y, rank, chain)
        else:
            continue
        chain.replace()


def _standardise(node: ir.Node, x: ir.Value, axes: list[int], chain: Chain) -> ir.Value:
    """Returns (x - mean) / sqrt(variance + epsilon) over the axes."""
    along = chain.constant("axes", np.array(axes))
    centred = chain.add("Sub", [x, chain.add("ReduceMean", [x, along])])
    square = chain.add("Mul", [centred, centred])
    variance = chain.add("ReduceMean", [square, along])
    epsilon = chain.constant("epsilon", np.array(attribute(node, "epsilon", 1e-5), np.float32))
    deviation = chain.add("Sqrt", [chain.add("Add", [variance, epsilon])])
    return chain.add("Div", [centred, deviation])


def _show_statistics(node: ir.Node, x: ir.Value, rank: int, chain: Chain) -> None:
    """Computes the mean and the inverse deviation that a LayerNormalization gives."""
    axis, epsilon = attribute(node, "axis", -1), attribute(node, "epsilon", 1e-5)
    along = chain.constant("axes", np.arange(axis % rank, rank))
    mean = chain.add("ReduceMean", [x, along])
    centred = chain.add("Sub", [x, mean])
    variance = chain.add("ReduceMean", [chain.add("Mul", [centred, centred]), along])
    shifted = chain.add("Add", [variance, chain.constant("epsilon", np.array(epsilon, np.float32))])
    for index, value in (
        (1, mean),
        (2, chain.add("Reciprocal", [chain.add("Sqrt", [shifted])])),
    ):
        if index < len(node.outputs):
            chain.give(index, value)
    chain.add("LayerNormalization", list(node.inputs), axis=axis, epsilon=epsilon)


def _scale(node: ir.Node, y: ir.Value, rank: int, chain: Chain) -> None:
    target = chain.constant("channels", np.array([-1] + [1] * (rank - 2)))
    scale = chain.add("Reshape", [node.inputs[1], target])
    y = chain.add("Mul", [y, scale])
    chain.add("Add", [y, chain.add("Reshape", [node.inputs[2], target])])


def _batch_normalise(node: ir.Node, x: ir.Value, rank: int, chain: Chain) -> None:
    target = chain.constant("channels", np.array([-1] + [1] * (rank - 2)))
    epsilon = chain.constant("epsilon", np.array(attribute(node, "epsilon", 1e-5), np.float32))
    scale, bias, mean, variance = node.inputs[1:5]
    deviation = chain.add("Sqrt", [chain.add("Add", [variance, epsilon])])
    factor = chain.add("Reshape", [chain.add("Div", [scale, deviation]), target])
    centred = chain.add("Sub", [x, chain.add("Reshape", [mean, target])])
    y = chain.add("Mul", [centred, factor])
    chain.add("Add", [y, chain.add("Reshape", [bias, target])])


def _lp_normalise(node: ir.Node, x: ir.Value, chain: Chain) -> None:
    """X over its norm; where that is 0, x is too, and so is the result."""
    along = chain.constant("axis", np.array([attribute(node, "axis", -1)]))
    norm = chain.add(f"ReduceL{attribute(node, 'p', 2)}", [x, along])
    least = chain.constant("least", np.array(np.finfo(np.float32).tiny))
    chain.add("Div", [x, chain.add("Max", [norm, least])])


def _lrn(node: ir.Node, x: ir.Value, rank: int, chain: Chain) -> bool:
    """X / (bias + alpha / size * the sum of squares over a window of channels) ** beta."""
    channels = dim_at(x, 1)
    if channels is None:
        return False
    size = attribute(node, "size")
    square = chain.add("Mul", [x, x])
    # The channels become the height of one plane, so that a pool sums over them.
    planes = chain.add(
        "Reshape", [square, chain.constant("planes", np.array([0, 1, channels, -1]))]
    )
    before = (size - 1) // 2
    mean = chain.add(
        "AveragePool",
        [planes],
        kernel_shape=[size, 1],
        pads=[before, 0, size - 1 - before, 0],
        count_include_pad=1,
    )
    target = chain.add("Shape", [x])
    target.type = ir.TensorType(ir.DataType.INT64)
    mean = chain.add("Reshape", [mean, target])
    alpha = chain.constant("alpha", np.array(attribute(node, "alpha", 1e-4), np.float32))
    bias = chain.constant("bias", np.array(attribute(node, "bias", 1.0), np.float32))
    beta = chain.constant("beta", np.array(attribute(node, "beta", 0.75), np.float32))
    base = chain.add("Add", [chain.add("Mul", [mean, alpha]), bias])
    chain.add("Div", [x, chain.add("Pow", [base, beta])])
    return True
