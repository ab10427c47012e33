"""ModelReport: what pruning and quantising gained, as tables, Markdown and one HTML page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsert.report.document import Document
from sparsert.report.machine import Machine
from sparsert.report.race import Result
from sparsert.runtime.table import Table, format_bytes

if TYPE_CHECKING:
    from sparsert.prune.report import PruneReport

DENSE, SPARSE = "dense", "sparse"
FLOAT, INT8 = "float32", "int8"
VARIANTS = ((DENSE, FLOAT), (SPARSE, FLOAT), (DENSE, INT8), (SPARSE, INT8))
OWN_ENGINE = "sparsert"
SUFFIXES = (".html", ".md", ".json")


@dataclass(frozen=True)
class EngineRow:
    """One engine on one of the four models.

    Attributes:
        engine: "sparsert", "onnxruntime", "torch" or "numba".
        weights: "dense" or "sparse".
        dtype: "float32" or "int8".
        result: what was timed, and the memory.
        parameters: weights of convolutions, linear and recurrent layers.
        nonzeros: those that are not zero.
        accuracy: of evaluate(); None: not known.
        error: largest difference from ONNX Runtime's outputs of the same model over their largest;
            None: it is ONNX Runtime, or did not take part.
        speedup: over the reference, median over the turns; None: it failed.
    """

    engine: str
    weights: str
    dtype: str
    result: Result
    parameters: int
    nonzeros: int
    accuracy: float | None = None
    error: float | None = None
    speedup: float | None = None

    @property
    def label(self) -> str:
        """As in tables and plots: "sparsert, sparse int8"."""
        return f"{self.engine}, {self.weights} {self.dtype}"

    @property
    def compression_ratio(self) -> float | None:
        """All weights over those that are not zero."""
        return self.parameters / self.nonzeros if self.nonzeros else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers for JSON."""
        facts = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "result"}
        return {
            **facts,
            "compression_ratio": self.compression_ratio,
            **self.result.to_dict(),
        }


@dataclass(frozen=True)
class LayerRow:
    """One layer in sparsert, in each of the four models.

    Attributes:
        name, op: of its node in the sparse float32 model.
        weights: number of its weights; 0: it has none.
        zeros: how many of them are zero in the sparse model.
        us: microseconds by (weights, dtype); a model in which no layer has this name is missing.
        formats: of the weights as they are computed with, by the same.
    """

    name: str
    op: str
    weights: int
    zeros: int
    us: Mapping[tuple[str, str], float]
    formats: Mapping[tuple[str, str], str]

    @property
    def sparsity(self) -> float | None:
        """Share of zeros; None without weights."""
        return self.zeros / self.weights if self.weights else None


@dataclass(frozen=True)
class LevelRow:
    """One level of a file that holds several, in sparsert.

    Attributes:
        name: chooses it.
        sparsity: share of zeros of the layers' weights.
        file_bytes: what the level alone needs in the file; of the first one, all the rest.
        result: what was timed; its `file_bytes` are those of the whole file.
        accuracy: of evaluate(); None: not known.
        speedup: over the report's reference; None: it failed.
    """

    name: str
    sparsity: float
    file_bytes: int
    result: Result
    accuracy: float | None = None
    speedup: float | None = None


@dataclass(frozen=True)
class FrontPoint:
    """A model on the way from accurate to fast.

    Attributes:
        label: as in the plot.
        seconds: of a run.
        accuracy: as evaluate() returned it.
        file_bytes: of its .sprt file.
        is_chosen: whether it is the result of the search.
    """

    label: str
    seconds: float
    accuracy: float
    file_bytes: int
    is_chosen: bool = False


@dataclass(frozen=True)
class ModelReport:
    """What sparsert.report() returns; prints as a table.

    Attributes:
        label: names the model.
        rows: sparsert on the four models, then the other engines.
        layers: in sparsert, of the sparse float32 model.
        reference: the row whose time is 1.
        feeds: shapes by input name.
        threads: of every engine.
        rounds: turns of each engine.
        machine: what was measured on.
        command: what repeats the measurement.
        notes: lines below the table.
        pruning: what the pruning did, if it was given.
        front: models between accurate and fast, if they were given.
        levels: of a file that holds several, if one was given.
    """

    label: str
    rows: Sequence[EngineRow]
    layers: Sequence[LayerRow]
    reference: EngineRow
    feeds: Mapping[str, tuple[int, ...]]
    threads: int
    rounds: int
    machine: Machine
    command: Sequence[str]
    notes: Sequence[str] = ()
    pruning: PruneReport | None = None
    front: Sequence[FrontPoint] = field(default_factory=tuple)
    levels: Sequence[LevelRow] = field(default_factory=tuple)

    def row(self, engine: str, weights: str, dtype: str) -> EngineRow | None:
        """Returns the row of an engine and a model, or None."""
        wanted = (engine, weights, dtype)
        return next((r for r in self.rows if (r.engine, r.weights, r.dtype) == wanted), None)

    @property
    def table(self) -> Table:
        """One row per engine and model: zeros, accuracy, time, speed, file and memory."""
        base = self._accuracy_of_reference()
        columns = ["engine", "weights", "dtype", "zeros", "compression", "accuracy", "lost"]
        columns += ["error", "ms", "spread", "times faster", "file", "peak RSS growth"]
        rows: list[Sequence[Any]] = []
        records = []
        for r in self.rows:
            lost = None if base is None or r.accuracy is None else base - r.accuracy
            sizes = (r.result.file_bytes, r.result.peak_growth_bytes)
            timed = not r.result.error
            ratio = r.compression_ratio
            rows.append(
                (
                    *(r.engine, r.weights, r.dtype),
                    f"{100 * (1 - r.nonzeros / max(1, r.parameters)):.1f} %",
                    None if ratio is None else f"{ratio:.2f}",
                    None if r.accuracy is None else f"{r.accuracy:.4f}",
                    None if lost is None else f"{lost:+.4f}",
                    None if r.error is None else f"{r.error:.1e}",
                    f"{1e3 * r.result.median:.3f}" if timed else "failed",
                    f"{100 * r.result.spread:.0f} %" if timed else None,
                    None if r.speedup is None else f"{r.speedup:.2f}",
                    *(None if n is None else format_bytes(n) for n in sizes),
                )
            )
            records.append({**r.to_dict(), "lost": lost})
        notes = [
            "Compression: weights over those that are not zero. Lost: accuracy below "
            f"{self.reference.label}'s. Error: largest difference from ONNX Runtime's outputs of "
            "the same model, over their largest.",
            f"Milliseconds of a run of {_shapes(self.feeds)}, {self.threads} thread(s), medians; "
            "spread: distance of the quartiles over the median; times faster than "
            f"{self.reference.label}, median over the turns. Peak RSS growth: over load and runs, "
            "the engine's code not counted.",
            *self.notes,
            *(f"{r.label}: {r.result.error}" for r in self.rows if r.result.error),
        ]
        return Table(f"{self.label}: what pruning gained", columns, rows, notes, records)

    @property
    def layer_table(self) -> Table:
        """One row per layer of the sparse model: zeros, and format and microseconds in each."""
        models = [v for v in VARIANTS if any(v in layer.us for layer in self.layers)]
        columns = ["layer", "op", "weights", "zeros", *(f"{w} {d}, us" for w, d in models)]
        rows: list[Sequence[Any]] = []
        records = []
        for layer in self.layers:
            share = layer.sparsity
            cells = [
                f"{layer.formats[v]} {layer.us[v]:.1f}".strip() if v in layer.us else None
                for v in models
            ]
            zeros = None if share is None else f"{100 * share:.1f} %"
            rows.append((layer.name, layer.op, layer.weights or None, zeros, *cells))
            records.append(
                {
                    **{key: getattr(layer, key) for key in ("name", "op", "weights", "zeros")},
                    "models": [
                        {"weights": v[0], "dtype": v[1], "us": us, "format": layer.formats[v]}
                        for v, us in layer.us.items()
                    ],
                }
            )
        notes = [
            "Format of the weights as sparsert computes with them, and microseconds of the layer "
            "with what is fused into it."
        ]
        return Table(f"{self.label}: layers in sparsert", columns, rows, notes, records)

    @property
    def level_table(self) -> Table:
        """One row per level: zeros, accuracy, time, speed and file."""
        columns = ["level", "zeros", "accuracy", "ms", "spread", "times faster", "of the file"]
        rows: list[Sequence[Any]] = []
        records = []
        for level in self.levels:
            timed = not level.result.error
            rows.append(
                (
                    level.name,
                    f"{100 * level.sparsity:.1f} %",
                    None if level.accuracy is None else f"{level.accuracy:.4f}",
                    f"{1e3 * level.result.median:.3f}" if timed else "failed",
                    f"{100 * level.result.spread:.0f} %" if timed else None,
                    None if level.speedup is None else f"{level.speedup:.2f}",
                    format_bytes(level.file_bytes),
                )
            )
            facts = {k: getattr(level, k) for k in level.__dataclass_fields__ if k != "result"}
            records.append({**level.result.to_dict(), **facts})
        notes = [
            "One file with all levels. Of the file: what the level alone needs; of the first one, "
            "all the rest.",
            *(f"{level.name}: {level.result.error}" for level in self.levels if level.result.error),
        ]
        return Table(f"{self.label}: levels in sparsert", columns, rows, notes, records)

    def headline(self) -> list[str]:
        """Returns what was gained as sentences: speed, file, accuracy, of sparse models."""
        lines = []
        base = self._accuracy_of_reference()
        dense_bytes = self.reference.result.file_bytes
        for dtype in (FLOAT, INT8):
            r = self.row(OWN_ENGINE, SPARSE, dtype)
            if r is None or r.speedup is None:
                continue
            parts = [f"{r.speedup:.2f} times as fast as {self.reference.label}"]
            if dense_bytes and r.result.file_bytes:
                parts.append(f"a file of {r.result.file_bytes / dense_bytes:.3f} of the dense one")
            if base is not None and r.accuracy is not None:
                parts.append(f"accuracy {r.accuracy:.4f} ({r.accuracy - base:+.4f})")
            lines.append(f"Sparse {dtype} in sparsert: {', '.join(parts)}.")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers, unrounded: one dictionary per engine and model under "rows"."""
        return {
            **self.table.to_dict(),
            "headline": self.headline(),
            "layers": self.layer_table.to_dict()["rows"],
            "front": [asdict(point) for point in self.front],
            "levels": self.level_table.records,
            "pruning": None if self.pruning is None else self.pruning.to_dict(),
            "feeds": {name: list(shape) for name, shape in self.feeds.items()},
            "threads": self.threads,
            "machine": self.machine.to_dict(),
            "command": list(self.command),
        }

    def tables(self) -> list[Table]:
        """Returns all tables, the summary first."""
        found = [self.table, self.layer_table]
        if self.levels:
            found.insert(1, self.level_table)
        if self.pruning is not None:
            found += [self.pruning.table(), self.pruning.explain()]
        return found

    def method(self) -> list[str]:
        """Returns how it was measured, as lines."""
        return [
            *self.machine.lines(),
            "Each engine ran in a process of its own; they took turns, one at a time, "
            f"{self.rounds} turns each.",
        ]

    def to_markdown(self) -> str:
        """Returns the report as Markdown, without plots."""
        document = Document(f"Report on {self.label}")
        if self.headline():
            document.bullets(self.headline())
        document.command(self.command)
        for table in self.tables():
            document.table(table)
        document.heading("How it was measured")
        document.bullets(self.method())
        return str(document)

    def to_html(self) -> str:
        """Returns the report as one self-contained page with plots.

        Raises:
            BackendError: matplotlib or jinja2 is not installed.
        """
        from sparsert.report.page import render

        return render(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the report, atomically: .html, .md or .json, by the name's end.

        Raises:
            ValueError: another end.
            OSError: the file cannot be written.
        """
        import json

        from sparsert.modelfile import save_atomic

        check_suffix(path)
        make = {
            ".html": self.to_html,
            ".md": self.to_markdown,
            ".json": lambda: json.dumps(self.to_dict(), indent=2),
        }
        save_atomic(path, [make[Path(path).suffix]().encode("utf-8")])

    def __str__(self) -> str:
        return "\n".join([str(self.table), *self.machine.lines()])

    __repr__ = __str__

    def _accuracy_of_reference(self) -> float | None:
        """Accuracy of the dense float32 model: the reference's, or that of any engine."""
        dense = [r.accuracy for r in self.rows if (r.weights, r.dtype) == (DENSE, FLOAT)]
        return next((a for a in [self.reference.accuracy, *dense] if a is not None), None)


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuses names that no report can be written to."""
    is_path = isinstance(path, str | os.PathLike)
    if not is_path or Path(path).suffix not in SUFFIXES:
        name = os.fspath(path) if is_path else path
        raise ValueError(f"path is {name!r}, expected a name that ends in {', '.join(SUFFIXES)}")


def _shapes(feeds: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} [{', '.join(map(str, s))}]" for name, s in feeds.items())
