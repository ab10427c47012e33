"""The steps of a quantisation: clean, calibrate, measure, choose, write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from sparsert.errors import describe_problems
from sparsert.importers import import_model
from sparsert.modelfile.tables import KEPT_FLOAT
from sparsert.passes.graph_tools import constant
from sparsert.quantize.calibrate import calibrate, runs_per_feed
from sparsert.quantize.dynamic_graph import dynamic_weight, write_dynamic
from sparsert.quantize.feeds import make_feeds
from sparsert.quantize.float_graph import make_float_graph
from sparsert.quantize.numbers import Activation, Weight
from sparsert.quantize.options import Options
from sparsert.quantize.probe import LayerError, measure_layers
from sparsert.quantize.qdq_graph import bias_of, quantised_weight, write_qdq
from sparsert.quantize.report import LayerPrecision, QuantizeReport
from sparsert.quantize.selection import (
    Choice,
    accuracy_of,
    choose_by_accuracy,
    choose_by_sqnr,
    runs_of_choice,
)
from sparsert.quantize.speed import choose_by_speed
from sparsert.quantize.structure import Layer, Structure, find_layers, make_structure
from sparsert.runtime.graph_backend import specs_of

if TYPE_CHECKING:
    import onnx

_QUANTISED_OPS = frozenset(
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul ConvInteger "
    "MatMulInteger".split()
)
# What passes append to the name of a weight that they change.
_SUFFIXES = re.compile(r"(_(rows|columns|folded|scaled)(_\d+)?)+$")


def quantise_model(
    src: Any,
    data: Any,
    options: Options,
    example_inputs: Any,
    dynamic_shapes: Any,
    on_progress: Callable[[float], None] | None,
) -> tuple[onnx.ModelProto, QuantizeReport]:
    """Does what sparsert.quantize() promises."""
    model, layers, excluded = _prepare(src, options, example_inputs, dynamic_shapes)
    options = replace(options, exclude=tuple(sorted(excluded)))
    chosen = [layer for layer in layers if layer.name not in excluded]
    feeds = make_feeds(specs_of(model.graph.inputs), data, options.batch_size)
    names = [layer.name for layer in chosen]
    structure = make_structure(model.graph, chosen, options.op_types, excluded)
    runs = (runs_per_feed(options) + 1) * len(feeds)
    if options.evaluate is not None:
        runs += runs_of_choice(len(names), len(feeds))
    step = _Progress(runs, on_progress)
    activations = calibrate(model, structure.tensors, feeds, options, step)
    errors = measure_layers(model, names, activations, feeds, options, step)
    shifts = {name: -error.mean for name, error in errors.items() if options.bias_correction}

    def build(integer: Collection[str]) -> onnx.ModelProto:
        return ir.to_proto(write_qdq(model, integer, activations, shifts, options))

    if options.evaluate is not None:
        choice = choose_by_accuracy(names, build, feeds, options.evaluate, options.max_drop, step)
    else:
        sqnr = {name: e.sqnr(options.bias_correction) for name, e in errors.items()}
        choice = choose_by_sqnr(sqnr, options.min_sqnr)
    integer = [name for name in names if name not in choice.kept_float]
    if options.min_speedup is not None:
        slow = choose_by_speed(integer, build, feeds[0], options.min_speedup)
        choice = replace(choice, kept_float={**choice.kept_float, **slow})
        integer = [name for name in integer if name not in slow]
        if slow and options.evaluate is not None:
            choice = replace(choice, accuracy=accuracy_of(build(integer), options.evaluate))
    proto = build(integer)
    if choice.kept_float:
        entry = proto.metadata_props.add()
        entry.key, entry.value = KEPT_FLOAT, json.dumps(choice.kept_float)
    final = [layer for layer in layers if layer.name in integer]
    structure = make_structure(model.graph, final, options.op_types, excluded)
    report = QuantizeReport(
        layers=[
            _describe(layer, structure, activations, errors, choice, options) for layer in layers
        ],
        method=options.method,
        activation=options.activation,
        samples=len(feeds),
        other_nodes=[node.name or "" for node in structure.nodes],
        accuracy_float=choice.accuracy_float,
        accuracy=choice.accuracy,
    )
    step.finish()
    return proto, report


def quantise_dynamic(
    src: Any, options: Options, example_inputs: Any, dynamic_shapes: Any
) -> tuple[onnx.ModelProto, QuantizeReport]:
    """Does what sparsert.quantize(dynamic=True) promises."""
    model, layers, excluded = _prepare(src, options, example_inputs, dynamic_shapes)
    chosen = [layer for layer in layers if layer.name not in excluded]
    weights = {layer.name: dynamic_weight(layer, options) for layer in chosen}
    report = QuantizeReport(
        layers=[_describe_layer(layer, weights.get(layer.name), options) for layer in layers],
        method="dynamic",
        activation=options.activation,
        samples=0,
    )
    return ir.to_proto(write_dynamic(model, chosen, weights)), report


def _prepare(
    src: Any, options: Options, example_inputs: Any, dynamic_shapes: Any
) -> tuple[ir.Model, list[Layer], set[str]]:
    """Returns the float graph, its layers, and the names of the nodes that stay in float."""
    model = import_model(src, example_inputs, dynamic_shapes)
    _check_float(model)
    model = make_float_graph(model, options.bias_correction)
    layers = find_layers(model.graph, options.op_types)
    excluded = _find_excluded(model.graph, layers, options)
    chosen = [layer for layer in layers if layer.name not in excluded]
    if not chosen:
        raise ValueError("quantize: the model has no layer with constant weights to quantise")
    _check_weights(chosen)
    return model, layers, excluded


def write_model(model: onnx.ModelProto, path: Any) -> None:
    """Writes a .onnx or a .sprt file, atomically."""
    if Path(path).suffix == ".sprt":
        from sparsert.api import convert

        convert(model, path)
        return
    from sparsert.modelfile import save_atomic

    save_atomic(path, model.SerializeToString())


class _Progress:
    """Counts runs and tells the share of them that is done."""

    def __init__(self, total: int, on_progress: Callable[[float], None] | None) -> None:
        self._total, self._done, self._tell = total, 0, on_progress

    def __call__(self, runs: int = 1) -> None:
        self._done += runs
        if self._tell is not None:
            self._tell(min(self._done / self._total, 1.0))

    def finish(self) -> None:
        """Tells that all is done, although fewer runs than feared were needed."""
        if self._tell is not None:
            self._tell(1.0)


def _check_float(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        if node.op_type in _QUANTISED_OPS:
            raise ValueError(
                f"quantize: the model is quantised already: node {node.name!r} is a "
                f"{node.op_type}; give the float model"
            )


def _find_excluded(graph: ir.Graph, layers: list[Layer], options: Options) -> set[str]:
    """Returns the names of the nodes that `exclude` names, by node or by weight."""
    by_name: dict[str, set[str]] = {}
    for node in graph:
        by_name.setdefault(node.name or "", set()).add(node.name or "")
    for layer in layers:
        weight = _weight_name(layer)
        for name in (weight, weight.removesuffix(".weight")):
            by_name.setdefault(name, set()).add(layer.name)
    unknown = [name for name in options.exclude if name not in by_name]
    if unknown:
        known = ", ".join(f"{layer.name} ({_weight_name(layer)})" for layer in layers) or "none"
        raise ValueError(
            f"quantize: there is no layer {', '.join(map(repr, unknown))} to exclude; the layers "
            f"and their weights: {known}"
        )
    return {name for given in options.exclude for name in by_name[given]}


def _weight_name(layer: Layer) -> str:
    """The name that the weight has in the model that was given."""
    return _SUFFIXES.sub("", layer.weight.name or "")


def _check_weights(layers: list[Layer]) -> None:
    problems = []
    for layer in layers:
        for value in layer.node.inputs[1:]:
            tensor = constant(value)
            if tensor is not None and not np.isfinite(tensor.numpy()).all():
                problems.append(f"layer {layer.name!r}: {value.name!r} is not finite")  # type: ignore
    if problems:
        raise ValueError(describe_problems("quantize", problems))


def _describe(
    layer: Layer,
    structure: Structure,
    activations: Mapping[str, Activation],
    errors: Mapping[str, LayerError],
    choice: Choice,
    options: Options,
) -> LayerPrecision:
    is_integer = any(layer.name == other.name for other in structure.layers)
    error = errors.get(layer.name)
    weight = x = y = None
    if is_integer:
        x = activations[layer.x.name or ""]
        weight = quantised_weight(layer, x, options, bias_of(layer))
        if layer.output in structure.tensors:
            y = activations[layer.output.name or ""]
    return replace(
        _describe_layer(layer, weight, options),
        sqnr=None if error is None else error.sqnr(options.bias_correction),
        output_error=(choice.output_errors or {}).get(layer.name),
        input_range=None if x is None else (x.low, x.high),
        output_range=None if y is None else (y.low, y.high),
        why="" if is_integer else choice.kept_float.get(layer.name, "excluded"),
    )


def _describe_layer(layer: Layer, weight: Weight | None, options: Options) -> LayerPrecision:
    """Says what is known of a layer without calibration; without a weight it stays in float."""
    tensor = constant(layer.weight)
    assert tensor is not None
    array = tensor.numpy()
    values = array if weight is None else weight.integers
    method = "dynamic" if options.dynamic else options.method
    return LayerPrecision(
        name=layer.name,
        weight=_weight_name(layer),
        op=layer.node.op_type,
        shape=tuple(int(size) for size in array.shape),
        precision="f32" if weight is None else "int8",
        zeros_before=array.size - int(np.count_nonzero(array)),
        zeros=array.size - int(np.count_nonzero(values)),
        sqnr=None,
        output_error=None,
        input_range=None,
        output_range=None,
        method="" if weight is None else method,
        why="excluded" if weight is None else "",
    )
