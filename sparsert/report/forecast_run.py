"""Measures forecasts: a model at each pattern and sparsity, in turns with the dense one."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsert.errors import ShapeError
from sparsert.option_checks import OptionChecks, is_between, is_count, is_number
from sparsert.report.forecast import DENSE, DTYPES, FLOAT, INT8, Forecast, LayerTime, Level
from sparsert.report.machine import describe_machine
from sparsert.report.pruned_file import PATTERNS, PrunableLayer, PrunedFile, is_quantised
from sparsert.report.race import Effort
from sparsert.report.turns import runs_of_a_turn
from sparsert.runtime.native_backend import NativeBackend
from sparsert.runtime.types import TensorSpec, check_feeds

PROFILE_RUNS = 15
LONG_RUN_SECONDS = 0.1  # what the other model left in the caches does not matter any more
_LISTED = 6  # names in a note

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Conditions:
    """What is forecast, and how it is measured: the arguments of sparsert.forecast()."""

    sparsity: tuple[float, ...]
    pattern: tuple[str, ...]
    dtype: tuple[str, ...] = (FLOAT,)
    exclude: tuple[str, ...] = ()
    all_layers: bool = False
    threads: int | None = None
    isa: str | None = None
    tune: bool | str = "auto"
    seed: int = 0
    effort: Effort = field(default_factory=Effort)


def check_conditions(
    sparsity: float | Sequence[float],
    pattern: str | Sequence[str],
    dtype: str | Sequence[str],
    exclude: Sequence[str],
    seconds: float,
    runs: int | None,
    on_progress: Any = None,
    **others: Any,
) -> Conditions:
    """Checks arguments of sparsert.forecast(); repeated patterns and sparsities count once.

    Raises:
        ValueError: lists everything that is wrong.
    """
    checks = OptionChecks("forecast")
    problems = checks.problems
    shares: list[Any] = list(sparsity) if isinstance(sparsity, Iterable) else [sparsity]
    if not shares:
        problems.append("sparsity is empty, expected shares of zeros such as 0.9")
    for share in shares:
        is_right = is_number(share) and 0 <= share < 1
        checks.require(is_right, "sparsity", share, "at least 0 and less than 1")
    chosen = {}
    for name, given, known in (("pattern", pattern, PATTERNS), ("dtype", dtype, DTYPES)):
        chosen[name] = checks.names(name, given)
        if isinstance(given, Sequence) and not given:
            problems.append(f"{name} is empty, expected some of {', '.join(known)}")
        for entry in chosen[name]:
            checks.word(name, entry, known)
    names = checks.names("exclude", exclude)
    checks.flags(all_layers=others.get("all_layers", False))
    checks.seed(others.get("seed", 0))
    is_right = runs is None or is_count(runs, 7)
    checks.require(is_right, "runs", runs, "None or an integer of at least 7")
    checks.require(is_between(seconds, 0, math.inf), "seconds", seconds, "a positive number")
    checks.functions(on_progress=on_progress)
    checks.refuse()
    rounds = 9 if runs is None else min(runs, 9)
    return Conditions(
        sparsity=tuple(dict.fromkeys(float(share) for share in shares)),
        pattern=tuple(dict.fromkeys(chosen["pattern"])),
        dtype=tuple(sorted(dict.fromkeys(chosen["dtype"]), key=DTYPES.index)),
        exclude=names,
        effort=Effort(rounds=rounds, burst_seconds=seconds / (2 * rounds), runs=runs),
        **others,
    )


def measure_forecast(
    file: Any,
    label: str,
    conditions: Conditions,
    feeds: Any = None,
    example: Any = None,
    on_progress: Callable[[float], None] | None = None,
    quantise: Callable[[Feeds], Any] | None = None,
) -> Forecast:
    """Measures every level of a forecast.

    Args:
        file: the bytes of a .sprt file (any buffer).
        label: names the model.
        conditions: as check_conditions() returns them.
        feeds: as in sparsert.forecast().
        example: example_inputs of a torch module, used instead of random values where they fit.
        on_progress: called with the share that is done, 0 to 1.
        quantise: makes a .sprt file of the same model in int8, its ranges being those of the feeds;
            None where there is only the file.

    Raises:
        As sparsert.forecast().
    """
    steps = _Steps(on_progress, conditions)
    wanted = conditions.dtype
    if is_quantised(file, label):
        if FLOAT in wanted:
            raise ValueError(f'{label}: the model is quantised already: give dtype="int8"')
        quantise = None
    elif INT8 in wanted and quantise is None:
        raise ValueError(
            f"{label}: the weights of a .sprt file are not quantised here; give the ONNX model or "
            'the torch module for dtype="int8", or what sparsert.quantize() made of it'
        )
    exclude = conditions.exclude, conditions.all_layers, conditions.seed
    source = PrunedFile(file, label, *exclude)
    del file  # as large as the model: kept no longer than it is needed
    if quantise is not None and wanted == (INT8,):
        dense = _load(source.dense, label, conditions, tune=False)
        like, feeds = source.layers, make_feeds(dense.inputs, feeds, example, conditions.seed)
        del dense
        source = PrunedFile(quantise(feeds), label, (), *exclude[1:], like)
    bench = _Bench(source, label, conditions, (feeds, example), steps)
    levels = bench.measure_all(source, wanted[0])
    if len(wanted) > 1:
        assert quantise is not None
        source = PrunedFile(quantise(bench.feeds), label, (), *exclude[1:], source.layers)
        levels += [bench.measure(source, INT8, DENSE, 0.0), *bench.measure_all(source, INT8)]
    return bench.forecast(levels)


def make_feeds(specs: Sequence[TensorSpec], feeds: Any, example: Any, seed: int) -> Feeds:
    """Returns what sparsert.forecast() is to run on, checked."""
    if callable(feeds):
        feeds = feeds(specs)
    if feeds is None:
        feeds = example_feeds(specs, example)
    if feeds is None:
        feeds = random_feeds(specs, seed)
    elif not isinstance(feeds, Mapping):
        if len(specs) != 1:
            raise ShapeError(f"feeds: one array for {len(specs)} inputs; give a dict by name")
        feeds = {specs[0].name: feeds}
    return check_feeds(list(specs), feeds)


def random_feeds(
    specs: Sequence[TensorSpec], seed: int, sizes: Mapping[str, int] | None = None
) -> Feeds:
    """Makes an array for every input: normal for floats, 0 or 1 for others.

    `sizes`: of symbolic dimensions; 1 for those that are not named.
    """
    known = sizes or {}
    generator = np.random.default_rng(seed)
    feeds: Feeds = {}
    for spec in specs:
        if spec.shape is None:
            raise ShapeError(f"input '{spec.name}' is of unknown rank: give feeds")
        if spec.dtype == object:
            raise ShapeError(f"input '{spec.name}' is of strings: give feeds")
        shape = [dim if isinstance(dim, int) else known.get(dim, 1) for dim in spec.shape]
        if spec.dtype.kind == "f":
            feeds[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
        else:
            feeds[spec.name] = generator.integers(0, 2, shape).astype(spec.dtype)
    return feeds


def example_feeds(specs: Sequence[TensorSpec], example: Any) -> Feeds | None:
    """Returns the example inputs of a torch module as feeds, or None if they are not such."""
    values = list(example.values()) if isinstance(example, Mapping) else example
    values = list(values) if isinstance(values, list | tuple) else [values]
    if example is None or len(values) != len(specs):
        return None
    try:
        return check_feeds(list(specs), {s.name: x for s, x in zip(specs, values, strict=True)})
    except ShapeError:
        return None


class _Steps:
    """Turns steps of work into the share that is done."""

    def __init__(self, report: Callable[[float], None] | None, conditions: Conditions) -> None:
        levels = len(conditions.pattern) * len(conditions.sparsity) * len(conditions.dtype)
        levels += len(conditions.dtype) - 1  # the dense int8 model is compared like the others
        self._report = report
        self._total = 1 + levels * (conditions.effort.rounds + 2)
        self._done = 0

    def advance(self) -> None:
        """Tells that a step is done."""
        self._done += 1
        if self._report is not None:
            self._report(self._done / self._total)


class _Bench:
    """Holds the dense model while the pruned ones come and go."""

    def __init__(
        self,
        source: PrunedFile,
        label: str,
        conditions: Conditions,
        feeds: tuple[Any, Any],
        steps: _Steps,
    ) -> None:
        self._source = source
        self._label = label
        self._conditions = conditions
        self._steps = steps
        self._dense = _load(source.dense, label, conditions)
        self._feeds = make_feeds(self._dense.inputs, *feeds, conditions.seed)
        outputs = self._dense.run(self._feeds)
        self._is_finite = _all_finite(outputs)
        begin = time.perf_counter()
        self._dense.run(self._feeds)
        seconds = time.perf_counter() - begin
        effort = conditions.effort
        self._turn_runs = (
            runs_of_a_turn(effort.burst_seconds, [seconds])
            if effort.runs is None
            else math.ceil(effort.runs / effort.rounds)
        )
        self._warm_ups = 1 if seconds < LONG_RUN_SECONDS else 0
        self._nodes = self._dense.explain().records
        self._node_of = {layer.name: layer.node for layer in source.layers}
        self._dense_seconds: list[float] = []
        self._dense_layers: list[Mapping[int | None, LayerTime]] = []
        self._not_finite: list[str] = []
        steps.advance()

    @property
    def feeds(self) -> Feeds:
        """What the models run on."""
        return self._feeds

    def measure_all(self, source: PrunedFile, dtype: str) -> list[Level]:
        """Races a source at every level that was asked for."""
        return [
            self.measure(source, dtype, pattern, sparsity)
            for pattern in self._conditions.pattern
            for sparsity in self._conditions.sparsity
        ]

    def measure(self, source: PrunedFile, dtype: str, pattern: str, sparsity: float) -> Level:
        """Races a source at one level, or without zeros, against the first dense model."""
        if pattern == DENSE:
            file, f16_bytes = source.dense, source.f16_bytes()
        else:
            file, f16_bytes = source.pruned(pattern, sparsity)
        model = _load(file, self._label, self._conditions)
        is_finite = _all_finite(model.run(self._feeds))
        self._steps.advance()
        seconds: list[float] = []
        dense_seconds: list[float] = []
        ratios = []
        for number in range(self._conditions.effort.rounds):
            times: dict[bool, list[float]] = {}
            for is_dense in (True, False) if number % 2 == 0 else (False, True):
                times[is_dense] = self._take_turn(self._dense if is_dense else model)
            ratios.append(statistics.median(times[True]) / statistics.median(times[False]))
            seconds += times[False]
            dense_seconds += times[True]
            self._steps.advance()
        self._dense_seconds += dense_seconds
        dense_times, _ = self._layer_times(self._dense, self._source, None)
        self._dense_layers.append(dense_times)
        layers, nodes = self._layer_times(model, source, dense_times)
        self._steps.advance()
        weights, zeros = _count(source, nodes)
        level = Level(
            pattern=pattern,
            sparsity=sparsity,
            weights=weights,
            zeros=zeros,
            seconds=seconds,
            dense_seconds=dense_seconds,
            speedup=statistics.median(ratios),
            ideal_speedup=_ideal_speedup(source, nodes),
            f16_bytes=f16_bytes,
            layers=layers,
            dtype=dtype,
            **_memory_of(model),
        )
        if self._is_finite and not is_finite:
            self._not_finite.append(level.label)
        return level

    def forecast(self, levels: Sequence[Level]) -> Forecast:
        """Puts the levels together, the dense model first."""
        weights, zeros = _count(self._source, self._nodes)
        dense = Level(
            pattern=DENSE,
            sparsity=0.0,
            weights=weights,
            zeros=zeros,
            seconds=self._dense_seconds,
            dense_seconds=self._dense_seconds,
            speedup=1.0,
            ideal_speedup=1.0,
            f16_bytes=self._source.f16_bytes(),
            layers=_median_times(self._dense_layers),
            dtype=self._conditions.dtype[0],
            **_memory_of(self._dense),
        )
        return Forecast(
            label=self._label,
            levels=[dense, *levels],
            prunable=self._source.layers,
            outputs={
                layer.node: tuple(self._nodes[layer.node]["output_shape"])
                for layer in self._source.layers
            },
            feeds={name: x.shape for name, x in self._feeds.items()},
            machine=describe_machine(),
            notes=self._notes(),
        )

    def _number_of(self, source: PrunedFile, layer: PrunableLayer) -> int | None:
        """Returns the node of the first dense model that is this layer; None if there is none."""
        return layer.node if source is self._source else self._node_of.get(layer.name)

    def _take_turn(self, model: NativeBackend) -> list[float]:
        """Times the runs of one turn, after one that does not count unless runs are long."""
        for _ in range(self._warm_ups):
            model.run(self._feeds)
        seconds = []
        for _ in range(self._turn_runs):
            begin = time.perf_counter()
            model.run(self._feeds)
            seconds.append(time.perf_counter() - begin)
        return seconds

    def _layer_times(
        self,
        model: NativeBackend,
        source: PrunedFile,
        dense: Mapping[int | None, LayerTime] | None,
    ) -> tuple[dict[int | None, LayerTime], list[dict[str, Any]]]:
        """Returns the times of the prunable layers by the dense model's node; others at None."""
        runs = min(PROFILE_RUNS, self._turn_runs * self._conditions.effort.rounds)
        nodes = model.profile(self._feeds, runs).records
        known = {
            number: nodes[layer.node]
            for layer in source.layers
            if (number := self._number_of(source, layer)) is not None
        }
        others = sum(n["time_ns"] for n in nodes) - sum(n["time_ns"] for n in known.values())
        found: dict[int | None, tuple[str, str, float, int]] = {
            i: (n["compute_format"], n["kernel"], n["time_ns"], n["storage_bytes"])
            for i, n in sorted(known.items())
        }
        found[None] = ("", "", others, 0)
        times = {
            i: LayerTime(layout, kernel, ns, ns if dense is None else dense[i].ns, size)
            for i, (layout, kernel, ns, size) in found.items()
        }
        return times, nodes

    def _notes(self) -> list[str]:
        effort = self._conditions.effort
        shapes = ", ".join(f"{name}{list(x.shape)}" for name, x in self._feeds.items())
        notes = [
            f"{shapes}; {self._dense.threads} thread(s), isa {self._dense.isa}; "
            f"{effort.rounds * self._turn_runs} timed runs in {effort.rounds} rounds, in turns "
            "with the first dense model (dense ms); speedup: median over the rounds",
            "zeros: random, the same share in each pruned layer, no training: accuracy is not "
            "forecast; of all: share of zeros among the weights of all layers",
            "ideal: multiply-adds of the dense model over those of the weights that are left; "
            "memory: packed weights and arena, besides the file",
        ]
        if INT8 in self._conditions.dtype:
            notes.append(
                "int8: weights and activations of the layers that have kernels for it; 1x4 is four "
                "input channels of a tap there, which the kernels skip as a whole"
            )
        left = [layer for layer in self._source.layers if layer.left_alone]
        if left:
            named = ", ".join(f"{layer.name} ({layer.left_alone})" for layer in left[:_LISTED])
            more = f" and {len(left) - _LISTED} more" if len(left) > _LISTED else ""
            notes.append(f"left alone: {named}{more}")
        if self._not_finite:
            notes.append(
                f"outputs are not finite at {', '.join(self._not_finite)}; times may be off"
            )
        return notes


def _load(
    file: Any, label: str, asked: Conditions, tune: bool | str | None = None
) -> NativeBackend:
    tune = asked.tune if tune is None else tune
    return NativeBackend(file, label, asked.threads, asked.isa, tune)


def _ideal_speedup(source: PrunedFile, nodes: Sequence[Mapping[str, Any]]) -> float:
    """Multiply-adds of all prunable layers over those of their weights that are left.

    A weight of Conv, Linear and Recurrent is used once per position of the output, one of
    ConvTranspose once per position of the input; borders count like the rest.
    """
    all_macs = macs_left = 0.0
    for layer in source.layers:
        node = nodes[layer.node]
        output = node["output_shape"]
        positions = math.prod(output)
        positions /= max(1, output[-1] if layer.op in ("Linear", "Recurrent") else output[1])
        if layer.op == "ConvTranspose":
            positions /= max(1, math.prod(layer.strides))
        weights = math.prod(layer.shape) if layer.is_padded else node["weights"]
        share_left = node["nonzeros"] / weights if weights else 1.0
        all_macs += positions * math.prod(layer.shape)
        macs_left += positions * math.prod(layer.shape) * share_left
    return all_macs / macs_left if macs_left else math.inf


def _count(source: PrunedFile, nodes: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Returns the weights of all layers and how many of them are zero."""
    weights = sum(n["weights"] for n in nodes)
    weights -= sum(
        nodes[layer.node]["weights"] - math.prod(layer.shape)
        for layer in source.layers
        if layer.is_padded
    )
    return weights, weights - sum(n["nonzeros"] for n in nodes)


def _median_times(
    found: Sequence[Mapping[int | None, LayerTime]],
) -> dict[int | None, LayerTime]:
    times = {}
    for number, first in found[0].items():
        ns = statistics.median(layers[number].ns for layers in found)
        times[number] = LayerTime(first.format, first.kernel, ns, ns, first.file_bytes)
    return times


def _memory_of(model: NativeBackend) -> dict[str, int]:
    """Bytes of the file, the packed weights and the arena."""
    return {name: n for name, n in model.memory().items() if name != "plan_bytes"}


def _all_finite(outputs: Mapping[str, np.ndarray]) -> bool:
    return all(bool(np.isfinite(y).all()) for y in outputs.values() if y.dtype.kind == "f")
