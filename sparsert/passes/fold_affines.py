"""Folds batch normalisation and constant Mul, Div, Add, Sub into the weights before them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SMALL_ELEMS,
    SPARSERT,
    add_initializer,
    attribute,
    bypass,
    constant,
    constant_array,
    has_single_use,
    input_at,
    is_op,
    lazy_tensor,
    nodes_of,
    rank_of,
)

_WEIGHTED = ("Conv", "ConvTranspose", "Linear")


def run(model: ir.Model) -> None:
    """Folds y = scale * layer(x) + shift, per output channel, into the layer, in place.

    Behind a Concat along the channels, each of its layers takes its part, if all of them can.
    Weights are scaled lazily and keep their exact zeros. Large weights shared with other nodes
    are left alone, and so is the scale after them. onnxscript's rules for batch normalisation
    are not used: they scale at once, and not where weights are shared.
    """
    for node in nodes_of(model.graph):
        for index in range(min(2, len(node.inputs))):
            layers = _layers(node.inputs[index])
            if not layers:
                continue
            affine = _affine(node, index, layers[0], sum(map(_channels, layers)))
            if affine is not None and _fold(model.graph, layers, *affine):
                if index == 1:
                    node.replace_input_with(0, node.inputs[1])
                bypass(node)
            break


def _layers(value: ir.Value | None) -> list[ir.Node]:
    """Returns the layer that gives a value, or those of a Concat of channels; none if others do."""
    producer = None if value is None else value.producer()
    if value is None or producer is None or not has_single_use(value):
        return []
    if not is_op(producer, "Concat"):
        is_free = "act" not in producer.attributes and input_at(producer, 3) is None
        return [producer] if is_op(producer, *_WEIGHTED, domain=SPARSERT) and is_free else []
    if attribute(producer, "axis") not in (1, 1 - (rank_of(value) or 0)):
        return []
    parts = [_layers(part) for part in producer.inputs]
    layers = [layer for part in parts for layer in part]
    is_foldable = all(parts) and not any(is_op(i, "Linear", domain=SPARSERT) for i in layers)
    return layers if is_foldable else []


def _affine(
    node: ir.Node, index: int, layer: ir.Node, channels: int
) -> tuple[np.ndarray | None, np.ndarray | None] | None:
    """Returns (scale, shift), f64[channels] or None for neutral, that `node` applies."""
    if is_op(node, "BatchNormalization", domain=SPARSERT):
        if "act" in node.attributes or index != 0:
            return None
        if layer.op_type == "Linear" and rank_of(layer.outputs[0]) != 2:
            return None
        scale, shift = (constant_array(value, 1 << 20) for value in node.inputs[1:3])
        if scale is None or shift is None or scale.size != channels:
            return None
        return scale.astype(np.float64), shift.astype(np.float64)
    if not is_op(node, "Add", "Sub", "Mul", "Div"):
        return None
    vector = _channel_vector(node.inputs[1 - index], layer, channels)
    if vector is None:
        return None
    if node.op_type == "Add":
        return None, vector
    if node.op_type == "Mul":
        return vector, None
    if node.op_type == "Sub":
        return (None, -vector) if index == 0 else (-np.ones(channels), vector)
    if index == 0 and np.all(vector != 0):
        return 1.0 / vector, None
    return None


def _channels(layer: ir.Node) -> int:
    weight = layer.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    if layer.op_type == "ConvTranspose":
        return int(weight.shape[1]) * attribute(layer, "group", 1)  # type: ignore[arg-type]
    return int(weight.shape[0])  # type: ignore[arg-type]


def _channel_vector(value: ir.Value | None, layer: ir.Node, channels: int) -> np.ndarray | None:
    """Returns f64[channels] if broadcasting `value` means one number per output channel."""
    array = constant_array(value, 1 << 20)
    if array is None or array.dtype != np.float32:
        return None
    if layer.op_type == "Linear":
        rank = rank_of(layer.outputs[0])
        axis_from_end = 1
    else:
        rank = rank_of(layer.inputs[1])
        assert rank is not None
        axis_from_end = rank - 1
    if array.ndim > (1 if rank is None else rank):
        return None
    for position, dim in enumerate(reversed(array.shape), 1):
        if dim != 1 and (position != axis_from_end or dim != channels):
            return None
    vector = array.reshape(-1).astype(np.float64)
    return np.broadcast_to(vector, (channels,)) if vector.size == 1 else vector


def _fold(
    graph: ir.Graph, layers: list[ir.Node], scale: np.ndarray | None, shift: np.ndarray | None
) -> bool:
    """Folds the parts of scale and shift into all layers, or into none."""
    if scale is not None and not np.all(np.isfinite(scale)):
        return False
    if not all(_has_known_bias(i) and (scale is None or _is_scalable(i)) for i in layers):
        return False
    first = 0
    for layer in layers:
        part = slice(first, first + _channels(layer))
        first = part.stop
        _fold_part(
            graph,
            layer,
            None if scale is None else scale[part],
            None if shift is None else shift[part],
        )
    return True


def _has_known_bias(layer: ir.Node) -> bool:
    bias = input_at(layer, 2)
    return bias is None or constant_array(bias, 1 << 24) is not None


def _fold_part(
    graph: ir.Graph, layer: ir.Node, scale: np.ndarray | None, shift: np.ndarray | None
) -> None:
    weight, bias = layer.inputs[1], input_at(layer, 2)
    assert weight is not None
    old_bias = None if bias is None else constant_array(bias, 1 << 24)
    if scale is not None:
        _scale_weight(graph, layer, weight, scale.astype(np.float32))
    total = np.zeros(_channels(layer)) if old_bias is None else old_bias.astype(np.float64)
    if scale is not None:
        total = total * scale
    if shift is not None:
        total = total + shift
    if old_bias is not None or shift is not None:
        base = bias.name if bias is not None and bias.name else f"{weight.name}_bias"
        new_bias = add_initializer(graph, base, total.astype(np.float32))
        if len(layer.inputs) < 3:
            layer.resize_inputs(3)
        layer.replace_input_with(2, new_bias)


def _is_scalable(layer: ir.Node) -> bool:
    """Says whether the weight is the layer's own, or small enough for a copy."""
    weight = layer.inputs[1]
    tensor = constant(weight)
    assert weight is not None and tensor is not None
    return has_single_use(weight) or tensor.size <= SMALL_ELEMS


def _scale_weight(graph: ir.Graph, layer: ir.Node, weight: ir.Value, scale: np.ndarray) -> None:
    tensor = constant(weight)
    assert tensor is not None
    shape = tensor.shape.numpy()
    if layer.op_type == "ConvTranspose":
        group = attribute(layer, "group", 1)
        factors = np.repeat(scale.reshape(group, 1, -1), shape[0] // group, axis=1)
        factors = factors.reshape(shape[0], shape[1], *([1] * (len(shape) - 2)))
    else:
        factors = scale.reshape(-1, *([1] * (len(shape) - 1)))

    def compute() -> np.ndarray:
        scaled = tensor.numpy() * factors
        scaled += np.float32(0)  # -0 becomes 0: pruned weights stay all-zero bits
        return scaled

    scaled_tensor = lazy_tensor(compute, shape, weight.name or "weight")
    if has_single_use(weight):
        weight.const_value = scaled_tensor
    else:
        copy = add_initializer(graph, f"{weight.name}_scaled", scaled_tensor)
        layer.replace_input_with(1, copy)
