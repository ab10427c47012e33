"""Turns DeformConv into the columns that its offsets pick and a product with its weights."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    SPARSERT,
    attribute,
    constant,
    dim_at,
    input_at,
    is_f32,
    is_op,
    known_dims,
    lazy_tensor,
    nodes_of,
)


def run(model: ir.Model) -> None:
    """Lowers f32 nodes over two spatial axes with weights of known shape, in place.

    Constant weights become those of a convolution of 1x1, with all its kernels; others need an
    output of known size.
    """
    for node in nodes_of(model.graph):
        if not is_op(node, "DeformConv") or not is_f32(node.outputs[0]):
            continue
        x, weight, offset = input_at(node, 0), input_at(node, 1), input_at(node, 2)
        if x is None or weight is None or weight.shape is None or offset is None:
            continue
        dims = known_dims(weight, range(len(weight.shape)))
        if dims is None or len(dims) != 4:
            continue
        chain = Chain(node, model.graph)
        columns = _columns(node, x, offset, dims, chain)
        tensor = constant(weight)
        if tensor is not None:
            _convolve(node, columns, tensor, dims, chain)
        elif not _multiply(node, columns, weight, dims, chain):
            continue
        chain.replace()


def _columns(
    node: ir.Node, x: ir.Value, offset: ir.Value, dims: list[int], chain: Chain
) -> ir.Value:
    given = {name: attribute(node, name) for name in ("strides", "pads", "dilations")}
    shape = None
    if x.shape is not None and offset.shape is not None:
        channels = attribute(node, "group", 1) * math.prod(dims[1:])
        shape = ir.Shape([x.shape[0], channels, *list(offset.shape)[2:]])
    return chain.add(
        "DeformColumns",
        [x, offset, input_at(node, 4)],
        shape,
        SPARSERT,
        kernel_shape=dims[2:],
        group=attribute(node, "offset_group", 1),
        **given,
    )


def _convolve(
    node: ir.Node, columns: ir.Value, tensor: ir.TensorProtocol, dims: list[int], chain: Chain
) -> None:
    shape = (dims[0], math.prod(dims[1:]), 1, 1)
    flat = lazy_tensor(lambda: tensor.numpy().reshape(shape), shape, f"{node.name}_weight")
    chain.add(
        "Conv",
        [columns, chain.initializer("weight", flat), input_at(node, 3)],
        group=attribute(node, "group", 1),
        kernel_shape=[1, 1],
    )


def _multiply(
    node: ir.Node, columns: ir.Value, weight: ir.Value, dims: list[int], chain: Chain
) -> bool:
    result = known_dims(node.outputs[0], (2, 3))
    if result is None:
        return False
    group, taps, places = attribute(node, "group", 1), math.prod(dims[1:]), math.prod(result)
    batch = dim_at(node.outputs[0], 0)

    def reshaped(value: ir.Value, what: str, *target: int) -> ir.Value:
        shape = ir.Shape([batch if dim == 0 else dim for dim in target])
        return chain.add("Reshape", [value, chain.constant(what, np.array(target))], shape)

    rows = reshaped(weight, "rows", group, dims[0] // group, taps)
    parts = reshaped(columns, "parts", 0, group, taps, places)
    shape = ir.Shape([batch, group, dims[0] // group, places])
    y = reshaped(chain.add("MatMul", [rows, parts], shape), "result", 0, dims[0], *result)
    bias = input_at(node, 3)
    if bias is not None:
        chain.add("Add", [y, reshaped(bias, "bias", 1, dims[0], 1, 1)])
    return True
