"""Turns convolutions with constant weights into sparsert.Conv and sparsert.ConvTranspose."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SPARSERT,
    attribute,
    constant,
    has_single_use,
    input_at,
    is_f32,
    is_op,
    known_dims,
    lazy_tensor,
    make_node,
    nodes_of,
    replace_node,
)


def run(model: ir.Model) -> None:
    """Lowers 1-D and 2-D f32 convolutions, in place; the others stay what they are.

    Outer taps that only ever meet padding, as dilated ones on small planes do, are left out.
    """
    for node in nodes_of(model.graph):
        if is_op(node, "Conv", "ConvTranspose") and _is_native(node):
            inputs = [*node.inputs]
            attributes = _window_attributes(node, len(inputs[1].shape) - 2)  # type: ignore
            if node.op_type == "ConvTranspose":
                attributes["output_padding"] = attribute(node, "output_padding")
                attributes["output_shape"] = attribute(node, "output_shape")
            else:
                _drop_taps_in_padding(node, attributes)
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
        and weight.size != 0
        and (bias is None or constant(bias) is not None)
        and is_f32(node.outputs[0])
    )


def _drop_taps_in_padding(node: ir.Node, attributes: dict[str, Any]) -> None:
    """Takes taps off the weight, and their distance off the pads."""
    x, weight = node.inputs[0], node.inputs[1]
    assert weight is not None and weight.shape is not None
    tensor, count = constant(weight), len(weight.shape) - 2
    sizes = known_dims(x, range(2, 2 + count))
    if tensor is None or sizes is None or attributes["auto_pad"] != "NOTSET":
        return
    if not has_single_use(weight):
        return
    kernel, pads = tensor.shape.numpy()[2:], list(attributes["pads"])
    live = [slice(None), slice(None)]
    for axis in range(count):
        stride, dilation = attributes["strides"][axis], attributes["dilations"][axis]
        begin, end = pads[axis], pads[count + axis]
        outputs = (sizes[axis] + begin + end - (kernel[axis] - 1) * dilation - 1) // stride + 1
        # Output i reads element i * stride - away for a tap.
        away = begin - np.arange(kernel[axis], dtype=np.int64) * dilation
        first_output = np.maximum(0, -(-away // stride))
        last_output = np.minimum(outputs - 1, (sizes[axis] - 1 + away) // stride)
        taps = np.flatnonzero(first_output <= last_output)
        first, last = (int(taps[0]), int(taps[-1])) if taps.size else (0, kernel[axis] - 1)
        pads[axis] -= first * dilation
        pads[count + axis] -= (kernel[axis] - 1 - last) * dilation
        live.append(slice(first, last + 1))
    shape = (*tensor.shape.numpy()[:2], *(part.stop - part.start for part in live[2:]))
    if min(pads) < 0 or shape == tuple(tensor.shape.numpy()):
        return
    attributes["pads"] = pads
    weight.const_value = lazy_tensor(
        lambda: tensor.numpy()[tuple(live)], shape, weight.name or "weight"
    )
    weight.shape = weight.const_value.shape


def _window_attributes(node: ir.Node, count: int) -> dict[str, Any]:
    return {
        "strides": attribute(node, "strides", (1,) * count),
        "pads": attribute(node, "pads", (0,) * (2 * count)),
        "dilations": attribute(node, "dilations", (1,) * count),
        "group": attribute(node, "group", 1),
        "auto_pad": attribute(node, "auto_pad", "NOTSET"),
    }
