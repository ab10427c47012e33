"""Backends over the canonical graph in Python: the oracle, and native parts with fallbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.errors import BackendError, unknown_level
from sparsert.kernels.custom_ops import find_custom_op
from sparsert.runtime.custom_segment import CustomSegment
from sparsert.runtime.table import Table
from sparsert.runtime.types import EXPLAIN_COLUMNS, Backend, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

    from sparsert.modelfile import ModelFile


def specs_of(values: Any) -> list[TensorSpec]:
    """Returns the specs of a graph's inputs or outputs."""
    specs = []
    for value in values:
        shape: tuple[int | str, ...] | None = None
        if value.shape is not None:
            shape = tuple(
                dim if isinstance(dim, int) else str(dim.value or f"{value.name}_{i}")
                for i, dim in enumerate(value.shape)
            )
        dtype = np.dtype(value.dtype.numpy()) if value.dtype is not None else np.dtype(np.float32)
        specs.append(TensorSpec(value.name, shape, dtype))
    return specs


class WithoutLevels:
    """What a backend says of levels when there are none."""

    level_names: Sequence[str] = ()
    level: str | None = None
    _label: str

    def set_level(self, name: str) -> None:
        """There is none."""
        raise unknown_level(self._label, name, self.level_names)

    def levels(self) -> list[dict[str, Any]]:
        """Returns none."""
        return []


class OracleBackend(WithoutLevels):
    """Interprets the whole canonical graph in NumPy: slow, and the reference for all others."""

    def __init__(self, model: ir.Model, label: str) -> None:
        from sparsert.runtime.numpy_backend import NumpyBackend

        self._label = label
        self._model = model
        self._engine = NumpyBackend(model)
        self.inputs = specs_of(model.graph.inputs)
        self.outputs = specs_of(model.graph.outputs)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs from checked feeds."""
        return self._engine.run(feeds)

    def explain(self) -> Table:
        """Lists the nodes; all run in NumPy."""
        rows = []
        for node in self._model.graph:
            custom = find_custom_op(node.domain, node.op_type)
            kernel = "numpy" if custom is None else custom.kernel
            why = 'backend="numpy" interprets the graph'
            rows.append((node.name, node.op_type, kernel, why))
        return Table(f"{self._label}: how each layer runs", ["layer", "op", "kernel", "why"], rows)

    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 10) -> Table:
        """Times whole runs; the interpreter has no times per layer."""
        times = _times(lambda: self.run(feeds), runs)
        row = ("(whole graph)", "numpy", median(times) * 1e6)
        return Table(f"{self._label}: median of {runs} runs", ["layer", "kernel", "us"], [row])


class LevelBackend:
    """Runs the level in use of a .sprt file; makes each level's graph at its first use.

    Args:
        content: the file.
        label: names the model.
        level: which one; None: the first.
        make: the backend of a canonical graph.
    """

    def __init__(
        self, content: ModelFile, label: str, level: str | None, make: Callable[[ir.Model], Backend]
    ) -> None:
        self._content = content
        self._label = label
        self._make = make
        self._engines: dict[str, Backend] = {}
        self.level_names = [table.name for table in content.levels]
        self.set_level(self.level_names[0] if level is None else level)
        self.inputs = self._engine.inputs
        self.outputs = self._engine.outputs

    @property
    def level(self) -> str | None:
        """The level in use."""
        return self._level

    def set_level(self, name: str) -> None:
        """Chooses the level of the runs that begin from now on."""
        from sparsert.modelfile import at_level, to_ir

        if name not in self.level_names:
            raise unknown_level(self._label, name, self.level_names)
        if name not in self._engines:
            graph = to_ir(at_level(self._content, self.level_names.index(name)))
            self._engines[name] = self._make(graph)
        self._level = name

    def levels(self) -> list[dict[str, Any]]:
        """What each level weighs."""
        from sparsert.modelfile import level_facts

        return level_facts(self._content)

    @property
    def _engine(self) -> Backend:
        return self._engines[self._level]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs from checked feeds."""
        return self._engine.run(feeds)

    def explain(self) -> Table:
        """Says how each layer of the level in use runs."""
        return self._engine.explain()

    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 10) -> Table:
        """Times the level in use."""
        return self._engine.profile(feeds, runs)


class HybridBackend(WithoutLevels):
    """Runs native segments in the core and the others in registered kernels or a fallback engine.

    Args:
        parts: (why it runs in a fallback engine or None, input names, output names, engine), in the
            order in which they run.
        inputs: of the whole graph.
        outputs: of the whole graph.
        label: names the model.
    """

    def __init__(
        self,
        parts: list[tuple[str | None, list[str], list[str], Any]],
        inputs: list[TensorSpec],
        outputs: list[TensorSpec],
        label: str,
    ) -> None:
        self._parts = parts
        self._label = label
        self.inputs = inputs
        self.outputs = outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs from checked feeds."""
        values = self._run_parts(feeds, None)
        outputs = {spec.name: values[spec.name] for spec in self.outputs}
        for name, y in outputs.items():
            if any(np.may_share_memory(y, x) for x in feeds.values()):
                outputs[name] = np.array(y)
        return outputs

    def _run_parts(
        self, feeds: Mapping[str, np.ndarray], seconds: list[float] | None
    ) -> dict[str, np.ndarray]:
        values = dict(feeds)
        for _, names, _, engine in self._parts:
            begin = time.perf_counter()
            part_feeds = {name: np.asarray(values[name], order="C") for name in names}
            if isinstance(engine, CustomSegment):
                values.update(engine.run(part_feeds, seconds))
                continue
            values.update(engine.run(part_feeds))
            if seconds is not None:
                seconds.append(time.perf_counter() - begin)
        return values

    def _timed_rows(self) -> list[tuple[str, str, str]]:
        """Returns layer, kernel and reason of each time that _run_parts takes."""
        rows = []
        for index, (reason, _, _, engine) in enumerate(self._parts):
            if isinstance(engine, CustomSegment):
                rows += [(name, kernel, "") for name, _, kernel in engine.layers]
            else:
                kernel = "native" if reason is None else engine.engine
                rows.append((f"(part {index})", kernel, reason or ""))
        return rows

    def explain(self) -> Table:
        """Says how each layer runs; fallback segments are one row each, with their reason."""
        rows: list[tuple[Any, ...]] = []
        records: list[dict[str, Any]] = []
        notes = []
        for index, (why_foreign, _, _, engine) in enumerate(self._parts):
            if why_foreign is not None:
                op, kernel, reason = "fallback", engine.engine, why_foreign
            else:
                try:
                    table = engine.explain()
                except BackendError as error:  # another part's outputs tell its sizes
                    op, kernel, reason = "native", "native", str(error)
                else:
                    rows += [tuple(row) for row in table.rows]
                    records += table.records
                    notes += [note for note in table.notes if note not in notes]
                    continue
            name = f"(part {index})"
            rows.append((name, op, *[""] * 6, kernel, "", reason))
            records.append({"name": name, "op": op, "kernel": kernel, "reason": reason})
        title = f"{self._label}: how each layer runs"
        return Table(title, EXPLAIN_COLUMNS, rows, notes, records=records)

    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 10) -> Table:
        """Times each part, and each node with a registered kernel: medians of `runs` runs."""
        timings: list[list[float]] = []
        for _ in range(runs + 1):
            timings.append([])
            self._run_parts(feeds, timings[-1])
        times = [median(column) for column in zip(*timings[1:], strict=True)]
        total = sum(times)
        rows, records = [], []
        slow = 0.0
        for (name, kernel, reason), seconds in zip(self._timed_rows(), times, strict=True):
            share = 100 * seconds / total if total else 0.0
            rows.append((name, kernel, seconds * 1e6, share, reason))
            records.append(
                {"name": name, "kernel": kernel, "time_ns": seconds * 1e9, "reason": reason}
            )
            slow += seconds if reason else 0.0
        notes = [f"total {total * 1e3:.3f} ms, {slow * 1e3:.3f} ms of it in fallbacks"]
        columns = ["layer", "kernel", "us", "%", "why"]
        title = f"{self._label}: median of {runs} runs"
        return Table(title, columns, rows, notes, records=records)


def _times(call: Any, runs: int) -> list[float]:
    call()
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times
