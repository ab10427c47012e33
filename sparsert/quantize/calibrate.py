"""Runs the float model on the calibration data and chooses the range of every tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir

from sparsert.errors import describe_problems
from sparsert.quantize.engine import make_runner
from sparsert.quantize.feeds import Feeds
from sparsert.quantize.numbers import LEVELS, Activation, quantise_range
from sparsert.quantize.options import Options
from sparsert.quantize.ranges import METHODS, Histogram

# Ranges below have scales that are no normal f32 numbers.
_LEAST_WIDTH = LEVELS * 2.0 * float(np.finfo(np.float32).tiny)


def calibrate(
    model: ir.Model,
    tensors: dict[ir.Value, ir.Value],
    feeds: Feeds,
    options: Options,
    on_run: Callable[[], None],
) -> dict[str, Activation]:
    """Returns how each tensor is quantised, by name.

    Args:
        model: the float graph.
        tensors: what to quantise -> the tensor that stands for its group, which shares a range.
        feeds: of all runs.
        options: the method and the type of activations.
        on_run: called after each run.

    Raises:
        ValueError: a value is not finite, or a tensor is zero throughout; lists all.
    """
    run = make_runner(_with_outputs(model, tensors))
    names = [value.name or "" for value in tensors]
    outputs = [value.name or "" for value in model.graph.outputs]
    checked = dict.fromkeys([*names, *outputs])
    least, greatest = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for feed in feeds:
        results = {**feed, **run(feed)}
        _check_finite({name: results[name] for name in checked})
        for name in names:
            least[name] = min(least[name], float(results[name].min(initial=0)))
            greatest[name] = max(greatest[name], float(results[name].max(initial=0)))
        on_run()
    silent = [name for name in names if greatest[name] - least[name] < _LEAST_WIDTH]
    _check_excited(silent, tensors)
    histograms = {name: Histogram.empty(least[name], greatest[name]) for name in names}
    if options.method != "minmax":
        for feed in feeds:
            results = {**feed, **run(feed)}
            for name, histogram in histograms.items():
                histogram.add(results[name])
            on_run()
    return _choose(histograms, tensors, options)


def runs_per_feed(options: Options) -> int:
    """Returns how often calibrate() runs the model on each feed."""
    return 1 if options.method == "minmax" else 2


def _with_outputs(model: ir.Model, tensors: Iterable[ir.Value]) -> onnx.ModelProto:
    """Returns the model as a proto with these tensors as further outputs."""
    proto = ir.to_proto(model)
    present = {value.name for value in [*proto.graph.output, *proto.graph.input]}
    for value in tensors:
        if value.name not in present:
            made = onnx.helper.make_tensor_value_info(
                value.name or "", onnx.TensorProto.FLOAT, None
            )
            proto.graph.output.append(made)
    return proto


def _check_finite(results: dict[str, np.ndarray]) -> None:
    floats = {name: array for name, array in results.items() if array.dtype.kind == "f"}
    bad = [name for name, array in floats.items() if not np.isfinite(array).all()]
    if bad:
        more = f" and {len(bad) - 1} tensors after it" if len(bad) > 1 else ""
        raise ValueError(
            f"quantize: NaN or infinite values in {bad[0]!r}{more} while calibrating; check the "
            "calibration data and the model"
        )


def _check_excited(silent: Sequence[str], tensors: Iterable[ir.Value]) -> None:
    if not silent:
        return
    named = {value.name: value for value in tensors}
    problems = []
    for name in silent:
        readers = ", ".join(repr(use.node.name) for use in named[name].uses())
        problems.append(
            f"{name!r} is zero or below {_LEAST_WIDTH:.0e} for all calibration data: exclude what "
            f"reads it ({readers}), or give data that reaches it"
        )
    raise ValueError(describe_problems("quantize", problems))


def _choose(
    histograms: dict[str, Histogram], tensors: dict[ir.Value, ir.Value], options: Options
) -> dict[str, Activation]:
    choose = METHODS[options.method]
    if options.method == "percentile":
        choose = partial(choose, percentile=options.percentile)
    groups: dict[str, list[str]] = {}
    for value, representative in tensors.items():
        groups.setdefault(representative.name or "", []).append(value.name or "")
    chosen: dict[str, Activation] = {}
    for members in groups.values():
        merged = histograms[members[0]]
        for name in members[1:]:
            merged = merged.merge(histograms[name])
        low, high = choose(merged, LEVELS)
        if high - low < _LEAST_WIDTH:  # all but a few outliers are zero
            low, high = merged.low, merged.high
        quantised = quantise_range(low, high, options.activation)
        chosen.update(dict.fromkeys(members, quantised))
    return chosen
