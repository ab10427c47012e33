"""Turns convolutions over three axes into convolutions over two, with the depth in the channels."""

from __future__ import annotations

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
    lazy_tensor,
    nodes_of,
)


def run(model: ir.Model) -> None:
    """Lowers f32 Conv nodes with constant weights of rank 5 on known sizes, in place.

    Each plane of the result is a convolution of the planes that its window covers: they are laid
    side by side as channels, and all planes run as one batch, with the kernels of sparse weights.
    """
    for node in nodes_of(model.graph):
        weight = constant(input_at(node, 1))
        if not is_op(node, "Conv") or weight is None or len(weight.shape) != 5:
            continue
        sizes = known_dims(node.inputs[0], (1, 2, 3, 4))
        result = known_dims(node.outputs[0], (1, 2, 3, 4))
        padded = attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
        if sizes is None or result is None or not padded or not is_f32(node.outputs[0]):
            continue
        chain = Chain(node, model.graph)
        _lower(node, weight, sizes, result, chain)
        chain.replace()


def _lower(
    node: ir.Node, weight: ir.TensorProtocol, sizes: list[int], result: list[int], chain: Chain
) -> None:
    x = node.inputs[0]
    assert x is not None
    channels, _, height, width = sizes
    outputs, in_group, depth, rows, cols = (int(dim) for dim in weight.shape.numpy())
    group = attribute(node, "group", 1)
    strides = attribute(node, "strides", (1, 1, 1))
    dilations = attribute(node, "dilations", (1, 1, 1))
    pads = attribute(node, "pads", (0,) * 6)
    if pads[0] or pads[3]:
        amounts = np.array([0, 0, pads[0], 0, 0, 0, 0, pads[3], 0, 0])
        x = chain.add("Pad", [x, chain.constant("pads", amounts)])
    planes = chain.add("Transpose", [x], perm=[0, 2, 1, 3, 4])
    axis = chain.constant("axis", np.array([1]))
    step = chain.constant("step", np.array([strides[0]]))
    split = chain.constant("split", np.array([0, 0, group, in_group, height, width]))
    taps: list[ir.Value | None] = []
    for tap in range(depth):
        first = tap * dilations[0]
        begin = chain.constant("begin", np.array([first]))
        end = chain.constant("end", np.array([first + (result[1] - 1) * strides[0] + 1]))
        part = chain.add("Slice", [planes, begin, end, axis, step])
        taps.append(part if group == 1 else chain.add("Reshape", [part, split]))
    joined = taps[0]
    if depth > 1:
        joined = chain.add("Concat", taps, axis=2 if group == 1 else 3)
    flat = chain.constant("flat", np.array([-1, channels * depth, height, width]))
    folded = [outputs, depth * in_group, rows, cols]

    def fold() -> np.ndarray:
        return weight.numpy().transpose(0, 2, 1, 3, 4).reshape(folded)

    kernel = chain.initializer("weight", lazy_tensor(fold, folded, f"{node.name}_weight"))
    y = chain.add(
        "Conv",
        [chain.add("Reshape", [joined, flat]), kernel, input_at(node, 2)],
        group=group,
        strides=strides[1:],
        dilations=dilations[1:],
        pads=(*pads[1:3], *pads[4:]),
        kernel_shape=(rows, cols),
    )
    shape = chain.constant("shape", np.array([-1, result[1], outputs, *result[2:]]))
    chain.add("Transpose", [chain.add("Reshape", [y, shape])], perm=[0, 2, 1, 3, 4])
