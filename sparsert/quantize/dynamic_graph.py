"""Writes a dynamically quantised model: layers whose activations are quantised by each run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes.graph_tools import (
    add_initializer,
    constant,
    input_at,
    make_node,
    rank_of,
    take_over,
)
from sparsert.quantize.numbers import Weight, quantise_weight
from sparsert.quantize.options import Options
from sparsert.quantize.qdq_graph import limit_of
from sparsert.quantize.structure import Layer

_F32, _U8 = ir.DataType.FLOAT, ir.DataType.UINT8


def write_dynamic(model: ir.Model, layers: list[Layer], weights: dict[str, Weight]) -> ir.Model:
    """Replaces layers by products of integers, in place, and returns the model.

    Each becomes what ONNX Runtime's quantize_dynamic writes: DynamicQuantizeLinear of its input,
    MatMulInteger or ConvInteger, Cast, Mul of both scales, Add of the bias.

    Args:
        model: the float graph.
        layers: Conv, Gemm and MatMul nodes of it.
        weights: of each layer, by name.
    """
    quantised: dict[ir.Value, ir.Node] = {}
    for layer in layers:
        _replace(model.graph, layer, weights[layer.name], quantised)
    model.graph.sort()
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)
    return model


def dynamic_weight(layer: Layer, options: Options) -> Weight:
    """Returns a layer's weight in integers; its bias stays in float."""
    tensor = constant(layer.weight)
    assert tensor is not None
    array, axis = tensor.numpy(), layer.channel_axis
    return quantise_weight(
        array,
        axis,
        per_channel=options.per_channel,
        limit=limit_of(options),
        least_scale=np.zeros(array.shape[axis]),
    )


def _replace(
    graph: ir.Graph, layer: Layer, weight: Weight, quantised: dict[ir.Value, ir.Node]
) -> None:
    node, name = layer.node, layer.name
    is_conv = node.op_type == "Conv"
    integers, bias = weight.integers, constant(input_at(node, 2))
    if node.op_type == "Gemm" and layer.channel_axis == 0:
        integers = np.ascontiguousarray(integers.T)
    shape = [-1, *[1] * (integers.ndim - 2)] if is_conv else [-1]
    if layer.x not in quantised:
        quantised[layer.x] = _quantise(graph, node, layer.x)
    bytes_of_x, x_scale, x_zero = quantised[layer.x].outputs

    def add(
        what: str, op: str, inputs: list[ir.Value], dtype: ir.DataType, **attributes: Any
    ) -> ir.Value:
        made = make_node(op, inputs, attributes, name=f"{name}{what}")
        made.outputs[0].type = ir.TensorType(dtype)
        graph.insert_before(node, made)
        return made.outputs[0]

    def given(what: str, array: np.ndarray) -> ir.Value:
        return add_initializer(graph, f"{layer.weight.name or name}_{what}", array)

    factors = weight.scale.reshape(shape) if weight.scale.ndim else weight.scale
    operands = [bytes_of_x, given("int8", integers), x_zero]
    kept = {key: attr.value for key, attr in node.attributes.items()} if is_conv else {}
    op = "ConvInteger" if is_conv else "MatMulInteger"
    sums = add("", op, operands, ir.DataType.INT32, **kept)
    scale = add("_scales", "Mul", [x_scale, given("scale", factors)], _F32)
    floats = add("_cast", "Cast", [sums], _F32, to=int(_F32))
    result = add("_scaled", "Mul", [floats, scale], _F32)
    if bias is not None:
        values = add_initializer(graph, f"{name}_bias", bias.numpy().reshape(shape))
        result = add("_biased", "Add", [result, values], _F32)
    take_over(node.outputs[0], result)
    graph.remove(node, safe=True)


def _quantise(graph: ir.Graph, node: ir.Node, x: ir.Value) -> ir.Node:
    """Adds the DynamicQuantizeLinear of a tensor."""
    name = f"{x.name}_quantise"
    made = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=name)
    for value, what, dtype in zip(
        made.outputs, ("quantised", "scale", "zero"), (_U8, _F32, _U8), strict=True
    ):
        value.name = f"{x.name}_{what}"
        value.type, value.shape = ir.TensorType(dtype), ir.Shape([])
    made.outputs[0].shape = x.shape if rank_of(x) is not None else None
    graph.insert_before(node, made)
    return made
