"""Measures what quantising does to each layer on its own, all of them in one run per feed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sparsert.passes.graph_tools import add_initializer, constant, make_node
from sparsert.quantize.engine import make_runner
from sparsert.quantize.feeds import Feeds
from sparsert.quantize.numbers import Activation
from sparsert.quantize.options import Options
from sparsert.quantize.qdq_graph import bias_of, quantised_weight
from sparsert.quantize.structure import Layer, find_layers


@dataclass
class LayerError:
    """The error of a layer's results when it alone is quantised, over all calibration data.

    Attributes:
        signal: the sum of the squares of its float results.
        noise: that of the differences from them.
        sums: the differences per output channel, f64[channels].
        count: how many values each channel has.
    """

    signal: float
    noise: float
    sums: NDArray[np.float64]
    count: int

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean error of each channel: what a correction of the bias takes off."""
        return self.sums / self.count

    def sqnr(self, is_corrected: bool) -> float:
        """Returns the signal to quantisation noise ratio in dB; inf without any noise."""
        noise = self.noise
        if is_corrected:
            noise -= float(np.sum(self.mean**2)) * self.count
        if noise <= 0:
            return float("inf")
        return 10 * float(np.log10(self.signal / noise)) if self.signal > 0 else float("-inf")


def measure_layers(
    model: ir.Model,
    names: Iterable[str],
    activations: Mapping[str, Activation],
    feeds: Feeds,
    options: Options,
    on_run: Callable[[], None],
) -> dict[str, LayerError]:
    """Returns the error of each layer, by name.

    Beside each layer of the float graph, a quantised copy reads the same input; sums over the
    differences are all that leaves the graph.
    """
    copy = model.clone()
    graph = copy.graph
    graph.outputs.clear()
    wanted = set(names)
    layers = [layer for layer in find_layers(graph, options.op_types) if layer.name in wanted]
    for layer in layers:
        _add_twin(graph, layer, activations[layer.x.name or ""], options)
    graph.sort()
    run = make_runner(ir.to_proto(copy))
    errors: dict[str, LayerError] = {}
    for feed in feeds:
        results = run(feed)
        for layer in layers:
            signal, noise, sums, size = (results[f"{layer.name}|{what}"] for what in _FACTS)
            found = LayerError(
                float(signal), float(noise), sums.astype(np.float64), int(size) // sums.size
            )
            if layer.name in errors:
                total = errors[layer.name]
                total.signal += found.signal
                total.noise += found.noise
                total.sums += found.sums
                total.count += found.count
            else:
                errors[layer.name] = found
        on_run()
    return errors


_FACTS = ("signal", "noise", "sums", "size")


def _add_twin(graph: ir.Graph, layer: Layer, x: Activation, options: Options) -> None:
    def add(op: str, inputs: list[ir.Value | None], what: str, **attributes: int) -> ir.Value:
        node = make_node(op, inputs, dict(attributes), "", f"{layer.name}|{what}|node")
        node.outputs[0].name = f"{layer.name}|{what}"
        graph.append(node)
        return node.outputs[0]

    def number(what: str, array: NDArray) -> ir.Value:
        return add_initializer(graph, f"{layer.name}|{what}", array)

    scale, zero = number("scale", x.scale), number("zero", x.zero)
    rounded = add("QuantizeLinear", [layer.x, scale, zero], "quantised")
    rounded = add("DequantizeLinear", [rounded, scale, zero], "dequantised")
    weight = quantised_weight(layer, x, options, bias_of(layer)).dequantised()
    inputs = [rounded, number("weight", weight), *layer.node.inputs[2:]]
    attributes = {key: attr.value for key, attr in layer.node.attributes.items()}
    twin = make_node(layer.node.op_type, inputs, attributes, "", f"{layer.name}|twin")
    graph.append(twin)
    y = layer.node.outputs[0]
    difference = add("Sub", [twin.outputs[0], y], "difference")
    signal = add("ReduceSumSquare", [y], "signal", keepdims=0)
    noise = add("ReduceSumSquare", [difference], "noise", keepdims=0)
    tensor = constant(layer.weight)
    assert tensor is not None
    shape = tensor.shape.numpy()
    if layer.node.op_type in ("Conv", "ConvTranspose"):
        along = number("axes", np.array([0, *range(2, len(shape))]))
    else:
        rows = number("rows", np.array([-1, shape[layer.channel_axis]]))
        difference = add("Reshape", [difference, rows], "difference by row")
        along = number("axes", np.array([0]))
    sums = add("ReduceSum", [difference, along], "sums", keepdims=0)
    size = add("Size", [difference], "size")
    for value in (signal, noise, sums, size):
        value.type = ir.TensorType(ir.DataType.INT64 if value is size else ir.DataType.FLOAT)
        graph.outputs.append(value)
