"""Turns convolutions with constant weights into sparsert.Conv and sparsert.ConvTranspose."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SPARSERT,
    attribute,
    constant,
    input_at,
    is_f32,
    is_op,
    make_node,
    nodes_of,
    replace_node,
)


def run(model: ir.Model) -> None:
    """Lowers 1-D and 2-D f32 convolutions, in place; the others stay what they are."""
    for node in nodes_of(model.graph):
        if is_op(node, "Conv", "ConvTranspose") and _is_native(node):
            inputs = [*node.inputs]
            attributes = _window_attributes(node, len(inputs[1].shape) - 2)  # type: ignore
            if node.op_type == "ConvTranspose":
                attributes["output_padding"] = attribute(node, "output_padding")
                attributes["output_shape"] = attribute(node, "output_shape")
            replace_node(
                node,
                make_node(node.op_type, inputs, attributes, SPARSERT, node.name, node.outputs[0]),
            )


def _is_native(node: ir.Node) -> bool:
    weight, bias = constant(input_at(node, 1)), input_at(node, 2)
    return (
        weight is not None
        and len(weight.shape) in (3, 4)
        and weight.dtype == ir.DataType.FLOAT
        and (bias is None or constant(bias) is not None)
        and is_f32(node.outputs[0])
    )


def _window_attributes(node: ir.Node, count: int) -> dict[str, Any]:
    return {
        "strides": attribute(node, "strides", (1,) * count),
        "pads": attribute(node, "pads", (0,) * (2 * count)),
        "dilations": attribute(node, "dilations", (1,) * count),
        "group": attribute(node, "group", 1),
        "auto_pad": attribute(node, "auto_pad", "NOTSET"),
    }
