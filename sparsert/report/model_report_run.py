"""Measures reports: a pruned model and its relatives (dense, int8), in several engines."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.errors import BackendError, ModelFormatError, SparsertError, describe_problems
from sparsert.option_checks import OptionChecks, is_between, is_count
from sparsert.prune.keras_check import is_keras
from sparsert.report.forecast_run import make_feeds
from sparsert.report.machine import describe_machine
from sparsert.report.model_report import (
    DENSE,
    FLOAT,
    INT8,
    OWN_ENGINE,
    SPARSE,
    VARIANTS,
    EngineRow,
    FrontPoint,
    LayerRow,
    LevelRow,
    ModelReport,
)
from sparsert.report.race import Effort, Entrant, Result, race
from sparsert.runtime.graph_backend import WithoutLevels
from sparsert.runtime.model import Model
from sparsert.runtime.table import Table
from sparsert.runtime.types import Level, TensorSpec

if TYPE_CHECKING:
    from sparsert.prune.report import PruneReport

ENGINES = ("onnxruntime", "torch", "numba")
PROFILE_RUNS = 15
# A weight with more zeros than this was pruned: what stands for the dense model has none of them.
_FILLED_SHARE = 0.05

Feeds = dict[str, np.ndarray]
Variant = tuple[str, str]
Evaluate = Callable[[Model], float]


@dataclass(frozen=True)
class Sources:
    """The models of a report, in the forms that sparsert.report() takes."""

    sparse: Any
    dense: Any = None
    int8: Any = None
    dense_int8: Any = None
    levels: Any = None
    example_inputs: Any = None
    dynamic_shapes: Any = None


@dataclass(frozen=True)
class Conditions:
    """How a report is measured: further arguments of sparsert.report()."""

    against: tuple[str, ...] = ENGINES
    threads: int = 1
    effort: Effort = field(default_factory=Effort)
    tune: bool | str = "auto"
    seed: int = 0


def check_conditions(
    against: str | Sequence[str],
    threads: int,
    seconds: float,
    tune: bool | str,
    seed: int,
    **functions: Any,
) -> Conditions:
    """Checks arguments of sparsert.report(); engines that are not installed are left out later.

    Raises:
        ValueError: lists everything that is wrong.
    """
    checks = OptionChecks("report")
    engines = checks.names("against", against)
    for engine in engines:
        checks.require(engine in ENGINES, "against", engine, f"some of {', '.join(ENGINES)}")
    checks.require(is_count(threads, 1), "threads", threads, "at least 1")
    checks.require(is_between(seconds, 0, math.inf), "seconds", seconds, "a positive number")
    checks.tune(tune)
    checks.seed(seed)
    checks.functions(**functions)
    checks.refuse()
    rounds = 9
    effort = Effort(rounds=rounds, burst_seconds=seconds / rounds)
    return Conditions(tuple(dict.fromkeys(engines)), threads, effort, tune, seed)


def measure_report(
    sources: Sources,
    label: str,
    conditions: Conditions,
    *,
    calibration_data: Any = None,
    feeds: Any = None,
    evaluate: Evaluate | None = None,
    pruning: PruneReport | None = None,
    front: Sequence[FrontPoint] = (),
    command: Sequence[str] = (),
    on_progress: Callable[[float], None] | None = None,
) -> ModelReport:
    """Makes the models that were not given, and measures all; documented at sparsert.report().

    Args:
        sources: the models.
        label: names them.
        conditions: as check_conditions() returns them.
        calibration_data, feeds, evaluate, pruning, front, command: as in sparsert.report().
        on_progress: called with the share that is done, 0 to 1.
    """
    advance = _Steps(on_progress)
    with tempfile.TemporaryDirectory(prefix="sparsert-report-") as folder, _named(folder, label):
        files = _Files(Path(folder), sources, label)
        advance(0.05)
        inputs = files.specs()
        arrays = make_feeds(inputs, feeds, sources.example_inputs, conditions.seed)
        files.quantise([arrays] if calibration_data is None else calibration_data)
        if calibration_data is None and files.quantised:
            files.notes.append(
                f"{' and '.join(files.quantised)}: quantised by the ranges of the feeds, which do "
                "for times and sizes alone; give calibration_data."
            )
        advance(0.15)
        entrants, owners = _entrants(files, conditions, inputs)
        known_levels = files.levels()
        for level in known_levels:
            options = {"tune": conditions.tune, "level": level.name}
            entrants.append(Entrant(level.name, OWN_ENGINE, Path(sources.levels), options))
        share = 0.6 / (len(entrants) * (1 + conditions.effort.rounds))
        results = race(
            entrants,
            arrays,
            threads=conditions.threads,
            effort=conditions.effort,
            on_turn=lambda: advance(share),
        )
        rows = _rows(owners, results[: len(owners)], files)
        if evaluate is not None:
            rows = [_with_accuracy(row, files, inputs, evaluate) for row in rows]
        advance(0.1)
        layers = _layers(files, arrays, conditions)
        advance(0.1)
        reference = _reference(rows)
        rows = [
            replace(
                row, speedup=None if row.result.error else row.result.speedup_over(reference.result)
            )
            for row in rows
        ]
        levels = [
            _level_row(level, result, reference.result, sources.levels, evaluate)
            for level, result in zip(known_levels, results[len(owners) :], strict=True)
        ]
        return ModelReport(
            label=label,
            rows=rows,
            layers=layers,
            reference=next(r for r in rows if r.result is reference.result),
            feeds={name: array.shape for name, array in arrays.items()},
            threads=conditions.threads,
            rounds=conditions.effort.rounds,
            machine=describe_machine(),
            command=command,
            notes=[*files.notes, *_absent(conditions, files)],
            pruning=pruning,
            front=tuple(front),
            levels=levels,
        )


@contextmanager
def _named(folder: str, label: str) -> Iterator[None]:
    """Lets errors name the model instead of files made of it: "model.onnx (sparse-float32)"."""
    try:
        yield
    except SparsertError as error:
        made = re.compile(re.escape(folder) + r"[/\\]([\w-]+)\.\w+")
        text = made.sub(lambda found: f"{label} ({found[1]})", str(error))
        if text == str(error):
            raise
        raise type(error)(text) from error


class _Steps:
    """Adds up shares of the work."""

    def __init__(self, report: Callable[[float], None] | None) -> None:
        self._report = report
        self._done = 0.0

    def __call__(self, share: float) -> None:
        self._done = min(1.0, self._done + share)
        if self._report is not None:
            self._report(self._done)


class _Files:
    """The four models as files: ONNX for the other engines, .sprt for sparsert, .pt2 for torch.

    Attributes:
        notes: what was made up, for the report.
        quantised: int8 models that were made here, as words.
    """

    def __init__(self, folder: Path, sources: Sources, label: str) -> None:
        self._folder = folder
        self._sources = sources
        self.notes: list[str] = []
        self.quantised: list[str] = []
        self.is_filled = False
        self._write((SPARSE, FLOAT), sources.sparse, label)
        if sources.dense is None:
            self.is_filled = True
            self._fill()
            self.notes.append(
                "Dense: the sparse model with its zeros filled by random values, for times and "
                "sizes alone; its accuracy is not known."
            )
        else:
            self._write((DENSE, FLOAT), sources.dense, f"dense {label}")
        for weights, given in ((SPARSE, sources.int8), (DENSE, sources.dense_int8)):
            if given is not None:
                self._write((weights, INT8), given, f"{weights} int8 {label}")

    def onnx(self, variant: Variant) -> Path:
        """Returns the place of a model's ONNX file."""
        return self._folder / f"{'-'.join(variant)}.onnx"

    def path_of(self, engine: str) -> Callable[[Variant], Path]:
        """Returns what names an engine's file of a model."""
        return {"onnxruntime": self.onnx, "torch": self.pt2}.get(engine, self.sprt)

    def sprt(self, variant: Variant) -> Path:
        """Returns the place of a model's .sprt file."""
        return self.onnx(variant).with_suffix(".sprt")

    def pt2(self, variant: Variant) -> Path:
        """Returns the place of a torch module's exported program; there may be none."""
        return self.onnx(variant).with_suffix(".pt2")

    def specs(self) -> list[TensorSpec]:
        """Returns the inputs of the models."""
        return self.load((SPARSE, FLOAT), tune=False).inputs

    def load(self, variant: Variant, **options: Any) -> Model:
        """Loads a model in sparsert."""
        from sparsert.api import load

        return load(self.sprt(variant), **options)

    def levels(self) -> list[Level]:
        """Returns the levels of the file that has some."""
        from sparsert.api import load

        path = self._sources.levels
        if path is None:
            return []
        found = load(path, tune=False).levels
        if not found:
            raise ModelFormatError(f"{path}: there are no levels in this file")
        return found

    def quantise(self, data: Any) -> None:
        """Makes the int8 models that were not given."""
        from sparsert.quantize import quantize

        data = data if hasattr(data, "__len__") else list(data)  # it is used twice
        for weights in (DENSE, SPARSE):
            target = self.onnx((weights, INT8))
            if target.exists():
                continue
            quantize(self.onnx((weights, FLOAT)), data, path=target)
            self._convert((weights, INT8))
            self.quantised.append(f"{weights} int8")

    def _write(self, variant: Variant, source: Any, label: str) -> None:
        """Writes a source of sparsert.load() as ONNX and as .sprt."""
        target = self.onnx(variant)
        if isinstance(source, (str, Path)):
            if Path(source).suffix != ".onnx":
                raise ModelFormatError(
                    f"{source}: a report needs the ONNX file or the torch module of a model, since "
                    "other engines run it too"
                )
            if not Path(source).is_file():
                raise ModelFormatError(f"{source}: no such file")
            _link(Path(source), target)
        elif callable(getattr(source, "SerializeToString", None)):
            target.write_bytes(source.SerializeToString())
        else:
            _export(source, target, self._sources)
            _save_program(source, self.pt2(variant), self._sources)
        self._convert(variant)

    def _convert(self, variant: Variant) -> None:
        from sparsert.api import convert

        convert(self.onnx(variant), self.sprt(variant))

    def _fill(self) -> None:
        """Makes the dense model of the sparse one."""
        import onnx_ir as ir

        from sparsert.importers import import_model
        from sparsert.prune.random_zeros import fill_zeros

        model = import_model(self.onnx((SPARSE, FLOAT)))
        generator = np.random.default_rng(0)
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) < 2:
                continue
            weight = tensor.numpy()
            if np.count_nonzero(weight) < (1 - _FILLED_SHARE) * weight.size:
                value.const_value = ir.tensor(fill_zeros(weight, generator), name=value.name)
        ir.save(model, self.onnx((DENSE, FLOAT)))
        self._convert((DENSE, FLOAT))


def _link(source: Path, target: Path) -> None:
    """Puts an ONNX file, whose weights may lie in other files beside it, at `target`."""
    import onnx

    from sparsert.importers.payloads import external_tensors, read_external

    model = onnx.load(source, load_external_data=False)
    if external_tensors(model):
        read_external(model, source.parent)
        onnx.save(model, target)
    else:
        shutil.copyfile(source, target)


def _export(module: Any, target: Path, sources: Sources) -> None:
    import onnx_ir as ir

    from sparsert.importers import import_model

    model = import_model(module, sources.example_inputs, sources.dynamic_shapes)
    ir.save(model, target)


def _save_program(module: Any, target: Path, sources: Sources) -> None:
    """Saves a torch module as torch.export does; another kind of model has none."""
    import torch

    if not isinstance(module, torch.nn.Module) or is_keras(module):
        return
    example = sources.example_inputs
    is_named = isinstance(example, Mapping)
    args = () if is_named else (example,) if isinstance(example, torch.Tensor) else tuple(example)
    was_training = module.training
    module.eval()
    try:
        program = torch.export.export(
            module,
            args,
            dict(example) if is_named else None,
            dynamic_shapes=sources.dynamic_shapes,
        )
        torch.export.save(program, target)
    finally:
        module.train(was_training)


def _entrants(
    files: _Files, conditions: Conditions, inputs: Sequence[TensorSpec]
) -> tuple[list[Entrant], list[tuple[str, Variant]]]:
    """Returns who races, and of each the engine and the model."""
    entrants, owners = [], []
    names = [spec.name for spec in inputs]
    for engine in (OWN_ENGINE, *conditions.against):
        if engine != OWN_ENGINE and find_spec(engine) is None:
            continue
        for variant in VARIANTS:
            path = files.path_of(engine)
            if not path(variant).exists():
                continue
            options: dict[str, Any] = {}
            if engine == OWN_ENGINE:
                options = {"tune": conditions.tune}
            if engine == "torch":
                options = {"inputs": names}
            entrants.append(Entrant(" ".join(variant), engine, path(variant), options))
            owners.append((engine, variant))
    return entrants, owners


def _rows(
    owners: Sequence[tuple[str, Variant]], results: Sequence[Result], files: _Files
) -> list[EngineRow]:
    known = dict(zip(owners, results, strict=True))
    rows = []
    counts: dict[Variant, tuple[int, int]] = {}
    for (engine, variant), result in known.items():
        if variant not in counts:
            records = files.load(variant, tune=False).explain().records
            sums = (sum(r.get(key, 0) for r in records) for key in ("weights", "nonzeros"))
            counts[variant] = tuple(sums)  # type: ignore[assignment]
        base = known.get(("onnxruntime", variant))
        is_compared = base is not None and base is not result and not result.error
        error = result.error_against(base) if is_compared and base is not None else None
        rows.append(EngineRow(engine, *variant, result, *counts[variant], error=error))
    return rows


def _reference(rows: Sequence[EngineRow]) -> EngineRow:
    """Returns what runs the dense float32 model: ONNX Runtime, or else sparsert.

    Raises:
        BackendError: neither could.
    """
    dense = {r.engine: r for r in rows if (r.weights, r.dtype) == (DENSE, FLOAT)}
    for engine in ("onnxruntime", OWN_ENGINE):
        if engine in dense and not dense[engine].result.error:
            return dense[engine]
    problems = [f"{engine}: {row.result.error}" for engine, row in dense.items()]
    raise BackendError(describe_problems("the dense float32 model runs nowhere", problems))


def _absent(conditions: Conditions, files: _Files) -> list[str]:
    """Says which engines did not take part."""
    notes = [
        f"{engine} is not installed and did not take part."
        for engine in conditions.against
        if find_spec(engine) is None
    ]
    has_module = files.pt2((SPARSE, FLOAT)).exists()
    if "torch" in conditions.against and not has_module and find_spec("torch") is not None:
        notes.append("torch runs torch modules alone: the model is an ONNX file.")
    return notes


def _with_accuracy(
    row: EngineRow, files: _Files, inputs: Sequence[TensorSpec], evaluate: Evaluate
) -> EngineRow:
    variant = (row.weights, row.dtype)
    if row.result.error or (files.is_filled and row.weights == DENSE):
        return row
    if row.engine == OWN_ENGINE:
        model = files.load(variant, tune=False)
    else:
        path = files.path_of(row.engine)(variant)
        outputs = files.load(variant, tune=False).outputs
        model = Model(_OtherEngine(row.engine, path, list(inputs), outputs), None, {})
    return replace(row, accuracy=float(evaluate(model)))


def _level_row(
    level: Level, result: Result, reference: Result, path: Any, evaluate: Evaluate | None
) -> LevelRow:
    from sparsert.api import load

    accuracy = None
    if evaluate is not None and not result.error:
        accuracy = float(evaluate(load(path, tune=False, level=level.name)))
    speedup = None if result.error else result.speedup_over(reference)
    return LevelRow(level.name, level.sparsity, level.file_bytes, result, accuracy, speedup)


class _OtherEngine(WithoutLevels):
    """Another engine behind sparsert.Model, so that one function evaluates all."""

    def __init__(
        self, engine: str, path: Path, inputs: list[TensorSpec], outputs: list[TensorSpec]
    ) -> None:
        from sparsert.report.worker import ENGINES as WORKER_ENGINES

        self.inputs = inputs
        self.outputs = outputs
        self._label = engine
        options = {"inputs": [spec.name for spec in inputs]}
        self._engine = WORKER_ENGINES[engine](str(path), 1, options)
        self._engine.load()

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs."""
        results = self._engine.run(dict(feeds))
        return {spec.name: y for spec, y in zip(self.outputs, results, strict=True)}

    def explain(self) -> Table:
        """There is nothing to tell."""
        raise BackendError("another engine does not explain itself")

    def profile(self, feeds: Mapping[str, np.ndarray], runs: int) -> Table:
        """There is nothing to tell."""
        raise BackendError("another engine is not profiled")


def _layers(files: _Files, feeds: Feeds, conditions: Conditions) -> list[LayerRow]:
    """Profiles sparsert on every model; layers are matched by name."""
    times: dict[Variant, dict[str, dict[str, Any]]] = {}
    for variant in VARIANTS:
        model = files.load(variant, threads=conditions.threads, tune=conditions.tune)
        records = model.profile(feeds, PROFILE_RUNS).records
        times[variant] = {r["name"]: r for r in records if r.get("time_ns")}
    rows = []
    for name, record in times[(SPARSE, FLOAT)].items():
        found = {v: times[v][name] for v in VARIANTS if name in times[v]}
        rows.append(
            LayerRow(
                name=name,
                op=record["op"],
                weights=record["weights"],
                zeros=record["weights"] - record["nonzeros"],
                us={v: r["time_ns"] / 1e3 for v, r in found.items()},
                formats={v: r["compute_format"] for v, r in found.items()},
            )
        )
    return rows
