"""Turns Col2Im into a transposed convolution, which adds up overlapping windows just so."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    constant_array,
    dim_at,
    input_at,
    is_f32,
    is_op,
    nodes_of,
)


def run(model: ir.Model) -> None:
    """Lowers f32 nodes with constant shapes, one or two spatial axes and known channels."""
    for node in nodes_of(model.graph):
        x = input_at(node, 0)
        if not is_op(node, "Col2Im") or x is None or not is_f32(x):
            continue
        image, block = constant_array(input_at(node, 1)), constant_array(input_at(node, 2))
        rows = dim_at(x, 1)
        if image is None or block is None or rows is None or image.size not in (1, 2):
            continue
        _lower(node, x, [int(i) for i in image], [int(i) for i in block], rows)


def _lower(node: ir.Node, x: ir.Value, image: list[int], block: list[int], rows: int) -> None:
    axes = len(image)
    strides = attribute(node, "strides", (1,) * axes)
    dilations = attribute(node, "dilations", (1,) * axes)
    pads = attribute(node, "pads", (0,) * (2 * axes))
    spans = [
        image[i] + pads[i] + pads[axes + i] - (block[i] - 1) * dilations[i] - 1 for i in range(axes)
    ]
    size = math.prod(block)
    if any(span < 0 for span in spans) or rows % size != 0:
        return
    windows = [span // stride + 1 for span, stride in zip(spans, strides, strict=True)]
    extra = [span % stride for span, stride in zip(spans, strides, strict=True)]
    channels = rows // size
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    chain = Chain(node, graph)
    # Tap t of a channel goes to place t of its window.
    weight = np.tile(np.eye(size, dtype=np.float32), (channels, 1)).reshape(rows, 1, *block)
    planes = chain.add("Reshape", [x, chain.constant("windows", np.array([0, rows, *windows]))])
    chain.add(
        "ConvTranspose",
        [planes, chain.constant("weight", weight)],
        group=channels,
        kernel_shape=block,
        strides=strides,
        dilations=dilations,
        pads=pads,
        output_padding=extra,
    )
    chain.replace()
