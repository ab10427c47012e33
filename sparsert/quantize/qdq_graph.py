"""Writes a quantised model: the float graph with QuantizeLinear and DequantizeLinear around."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from sparsert.passes.graph_tools import add_initializer, constant, input_at, make_node
from sparsert.quantize.numbers import (
    Activation,
    Weight,
    least_weight_scale,
    quantise_bias,
    quantise_weight,
)
from sparsert.quantize.options import Options
from sparsert.quantize.structure import Layer, Structure, find_layers, make_structure

# The greatest integer of a weight; the lesser one keeps sums of two products within 16 bits.
_LIMIT, _REDUCED_LIMIT = 127, 64


def write_qdq(
    model: ir.Model,
    layers: Collection[str],
    activations: Mapping[str, Activation],
    shifts: Mapping[str, NDArray[np.float64]],
    options: Options,
) -> ir.Model:
    """Returns a quantised copy of the float graph.

    Args:
        model: the float graph; left as it is.
        layers: names of those in integers.
        activations: how each tensor is quantised, by name.
        shifts: what is added to the biases, by name of the layer.
        options: how weights are quantised, and which operators.
    """
    copy = model.clone()
    graph = copy.graph
    chosen = [layer for layer in find_layers(graph, options.op_types) if layer.name in layers]
    structure = make_structure(graph, chosen, options.op_types, options.exclude)
    # Before any tensor gets a new reader.
    readers = [(node, index, node.inputs[index]) for node, index in structure.readers()]
    weights = _Weights(graph, options)
    for layer in structure.layers:
        assert layer.x.name is not None
        weights.quantise(layer, activations[layer.x.name], shifts.get(layer.name))
    _Tensors(graph, structure, activations).quantise(readers)
    graph.sort()
    common.RemoveUnusedNodesPass()(copy)
    common.NameFixPass()(copy)
    return copy


def quantised_weight(
    layer: Layer, x: Activation, options: Options, bias: NDArray[np.float32] | None
) -> Weight:
    """Returns a layer's weight in integers."""
    tensor = constant(layer.weight)
    assert tensor is not None
    array, axis = tensor.numpy(), layer.channel_axis
    groups = layer.group if layer.node.op_type == "ConvTranspose" else 1
    return quantise_weight(
        array,
        axis,
        per_channel=options.per_channel,
        limit=limit_of(options),
        least_scale=least_weight_scale(array, axis, bias, float(x.scale), groups),
    )


def limit_of(options: Options) -> int:
    """Returns the greatest integer of a weight."""
    return _REDUCED_LIMIT if options.reduce_range else _LIMIT


def bias_of(layer: Layer) -> NDArray[np.float32] | None:
    """Returns the bias of the node itself: the one that is quantised."""
    tensor = constant(input_at(layer.node, 2)) if layer.bias is None else None
    return None if tensor is None else tensor.numpy()


class _Weights:
    """Replaces weights and biases by integers behind DequantizeLinear."""

    def __init__(self, graph: ir.Graph, options: Options) -> None:
        self._graph, self._options = graph, options
        self._made: dict[tuple[ir.Value, bytes], list[ir.Value]] = {}

    def quantise(self, layer: Layer, x: Activation, shift: NDArray[np.float64] | None) -> None:
        """Replaces those of one layer."""
        bias = bias_of(layer)
        if bias is not None and shift is not None:
            bias = (bias + shift).astype(np.float32)
        weight = quantised_weight(layer, x, self._options, bias)
        key = (layer.weight, weight.scale.tobytes())
        name = layer.weight.name or layer.name
        if key not in self._made:
            zero = np.zeros_like(weight.scale, np.int8)
            self._made[key] = [
                add_initializer(self._graph, f"{name}_int8", weight.integers),
                add_initializer(self._graph, f"{name}_scale", weight.scale),
                add_initializer(self._graph, f"{name}_zero", zero),
            ]
        self._dequantise(layer, 1, self._made[key], weight.axis)
        if bias is not None:
            groups = layer.group if layer.node.op_type == "ConvTranspose" else 1
            integers, scale = quantise_bias(bias, x.scale, weight, groups)
            values = [
                add_initializer(self._graph, f"{layer.name}_bias_int32", integers),
                add_initializer(self._graph, f"{layer.name}_bias_scale", scale),
            ]
            self._dequantise(layer, 2, values, None if scale.ndim == 0 else 0)
        elif layer.bias is not None and shift is not None:
            _shift_constant(self._graph, layer.bias, shift)

    def _dequantise(
        self, layer: Layer, index: int, inputs: list[ir.Value], axis: int | None
    ) -> None:
        old = layer.node.inputs[index]
        assert old is not None
        attributes = {} if axis is None else {"axis": axis}
        name = f"{layer.name}_{'weight' if index == 1 else 'bias'}"
        node = make_node("DequantizeLinear", inputs, attributes, "", name, old)
        node.outputs[0].name = name
        self._graph.append(node)
        layer.node.replace_input_with(index, node.outputs[0])


def _shift_constant(graph: ir.Graph, add: ir.Node, shift: NDArray[np.float64]) -> None:
    """Changes the constant of an Add."""
    for index, value in enumerate(add.inputs):
        tensor = constant(value)
        if tensor is not None:
            shifted = (tensor.numpy() + shift).astype(np.float32)
            add.replace_input_with(index, add_initializer(graph, f"{add.name}_shifted", shifted))


class _Tensors:
    """Puts QuantizeLinear and DequantizeLinear behind tensors."""

    def __init__(
        self, graph: ir.Graph, structure: Structure, activations: Mapping[str, Activation]
    ) -> None:
        self._graph, self._structure, self._activations = graph, structure, activations
        self._scales: dict[ir.Value, list[ir.Value]] = {}

    def quantise(self, readers: list[tuple[ir.Node, int, ir.Value | None]]) -> None:
        """Quantises every tensor of the structure.

        What nodes in integers compute is read by everyone as dequantised, also as an output of the
        graph; of what float nodes compute, the nodes in integers alone read the rounded values.
        """
        for value in self._structure.tensors:
            quantise, rounded = self._pair(value)
            if value in self._structure.made_here:
                self._hand_over(value, rounded, quantise)
            for node, index, read in readers:
                if read is value:
                    node.replace_input_with(index, rounded)

    def _pair(self, value: ir.Value) -> tuple[ir.Node, ir.Value]:
        """Adds both nodes; returns the first, and the dequantised tensor."""
        name = value.name or "tensor"
        scale = self._scale(value)
        quantise = make_node("QuantizeLinear", [value, *scale], {}, "", f"{name}_quantise")
        integers = quantise.outputs[0]
        integers.name = f"{name}_quantised"
        integers.type, integers.shape = ir.TensorType(scale[1].dtype), value.shape  # type: ignore
        node = make_node(
            "DequantizeLinear", [integers, *scale], {}, "", f"{name}_dequantise", value
        )
        node.outputs[0].name = f"{name}_dequantised"
        self._graph.extend([quantise, node])
        return quantise, node.outputs[0]

    def _scale(self, value: ir.Value) -> list[ir.Value]:
        """Returns scale and zero point; one pair for all tensors of a group."""
        representative = self._structure.tensors[value]
        if representative not in self._scales:
            name = representative.name or "tensor"
            chosen = self._activations[name]
            self._scales[representative] = [
                add_initializer(self._graph, f"{name}_scale", chosen.scale),
                add_initializer(self._graph, f"{name}_zero", chosen.zero),
            ]
        return self._scales[representative]

    def _hand_over(self, value: ir.Value, rounded: ir.Value, quantise: ir.Node) -> None:
        """Lets all other readers, and the graph's outputs, take the rounded tensor."""
        for use in list(value.uses()):
            if use.node is not quantise:
                use.node.replace_input_with(use.idx, rounded)
        if value.is_graph_output():
            outputs = self._graph.outputs
            for index, output in enumerate(outputs):
                if output is value:
                    outputs[index] = rounded
            name = value.name
            value.name = f"{name}_float"
            rounded.name = name
