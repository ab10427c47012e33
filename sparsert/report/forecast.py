"""Forecast: what a model would run like if it were pruned, as tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsert.report.machine import Machine
from sparsert.report.pruned_file import PrunableLayer
from sparsert.report.turns import spread_of
from sparsert.runtime.table import Table, format_bytes

DENSE = "dense"
FLOAT, INT8 = "float32", "int8"
DTYPES = (FLOAT, INT8)


@dataclass(frozen=True)
class LayerTime:
    """One layer at one level.

    Attributes:
        format: of its packed weights.
        kernel: as explain() names it.
        ns: median nanoseconds of its steps.
        dense_ns: the same of the first dense model, measured at the same time.
        file_bytes: of its weights in the file.
    """

    format: str
    kernel: str
    ns: float
    dense_ns: float
    file_bytes: int = 0


@dataclass(frozen=True)
class Level:
    """The model in one dtype, at one pattern and sparsity; "dense" is the model without zeros.

    Attributes:
        sparsity: asked for, in each pruned layer.
        weights, zeros: of all convolutions, linear and recurrent layers, those left alone included.
        seconds: of every timed run.
        dense_seconds: the same of the first dense model, in the same rounds.
        speedup: median over the rounds of that model's time divided by this one's.
        ideal_speedup: multiply-adds of the dense model over those of weights that are left.
        file_bytes, f16_bytes: of the .sprt file as it is measured, and with f32 weights as f16.
        packed_bytes, arena_bytes: in memory, besides the file.
        layers: by node of the first dense model; the others' time is under None.
        dtype: "float32", or "int8": of weights and activations, where there are kernels for it.
    """

    pattern: str
    sparsity: float
    weights: int
    zeros: int
    seconds: Sequence[float]
    dense_seconds: Sequence[float]
    speedup: float
    ideal_speedup: float
    file_bytes: int
    f16_bytes: int
    packed_bytes: int
    arena_bytes: int
    layers: Mapping[int | None, LayerTime]
    dtype: str = FLOAT

    @property
    def label(self) -> str:
        """As in tables: "dense", "4x1 90 %" or "int8 4x1 90 %"."""
        dtype = "" if self.dtype == FLOAT else f"{self.dtype} "
        zeros = "" if self.pattern == DENSE else f" {_percent(self.sparsity)}"
        return f"{dtype}{self.pattern}{zeros}"

    @property
    def median(self) -> float:
        """Median seconds of a run."""
        return statistics.median(self.seconds)

    @property
    def dense_median(self) -> float:
        """Median seconds of the dense model's runs in the same rounds."""
        return statistics.median(self.dense_seconds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median."""
        return spread_of(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers for JSON, without layers."""
        names = (
            *(
                "dtype",
                "pattern",
                "sparsity",
                "weights",
                "zeros",
                "median",
                "dense_median",
                "spread",
            ),
            *("speedup", "ideal_speedup", "file_bytes", "f16_bytes", "packed_bytes", "arena_bytes"),
        )
        facts = {name: getattr(self, name) for name in names}
        memory = self.packed_bytes + self.arena_bytes
        times = {"seconds": list(self.seconds), "dense_seconds": list(self.dense_seconds)}
        return {**facts, "memory_bytes": memory, **times}


@dataclass(frozen=True)
class Forecast:
    """What sparsert.forecast() returns; prints as a table.

    Attributes:
        label: names the model.
        levels: for each dtype the dense model, then each pattern at each sparsity, in the order
            asked for; all are compared with the first.
        prunable: every convolution and linear layer of the first, those left alone included.
        outputs: shape of each prunable layer's output, by node.
        feeds: shapes by input name.
        machine: what was measured on.
        notes: lines below the table.
    """

    label: str
    levels: Sequence[Level]
    prunable: Sequence[PrunableLayer]
    outputs: Mapping[int, tuple[int, ...]]
    feeds: Mapping[str, tuple[int, ...]]
    machine: Machine
    notes: Sequence[str]

    @property
    def table(self) -> Table:
        """One row for the dense model and one per pattern and sparsity, of each dtype."""
        has_int8 = any(level.dtype == INT8 for level in self.levels)
        columns = ["pattern", "zeros", "of all", "ms", "spread", "dense ms", "speedup", "ideal"]
        columns += ["file" if has_int8 else "f32 file", "f16 file", "memory"]
        rows: list[Sequence[Any]] = [
            (
                level.pattern,
                _percent(level.sparsity),
                f"{100 * level.zeros / max(1, level.weights):.1f} %",
                f"{1e3 * level.median:.3f}",
                f"{100 * level.spread:.0f} %",
                f"{1e3 * level.dense_median:.3f}",
                f"{level.speedup:.2f}",
                f"{level.ideal_speedup:.2f}",
                format_bytes(level.file_bytes),
                format_bytes(level.f16_bytes) if level.dtype == FLOAT else None,
                format_bytes(level.packed_bytes + level.arena_bytes),
            )
            for level in self.levels
        ]
        if has_int8:
            columns.insert(0, "dtype")
            rows = [(level.dtype, *row) for level, row in zip(self.levels, rows, strict=True)]
        title = f"{self.label}: what random pruning would make of it"
        records = [level.to_dict() for level in self.levels]
        return Table(title, columns, rows, [*self.notes], records)

    @property
    def layers(self) -> Table:
        """One row per prunable layer, and one for the others together: format and us at each level.

        The records have a list "levels" with format, kernel, time and speedup. A layer that does
        not keep its name when it is quantised is among the others there.
        """
        rows: list[Sequence[Any]] = []
        records: list[dict[str, Any]] = []
        numbers: list[int | None] = [layer.node for layer in self.prunable]
        for layer, number in zip([*self.prunable, None], [*numbers, None], strict=True):
            times = [level.layers.get(number) for level in self.levels]
            cells = [None if t is None else f"{t.format} {t.ns / 1e3:.1f}".strip() for t in times]
            name = "(all other layers)" if layer is None else layer.name
            shape = () if layer is None else layer.shape
            output = () if layer is None else self.outputs[layer.node]
            rows.append((name, _by(shape), _by(output), *cells))
            records.append(
                {
                    "name": name,
                    "op": None if layer is None else layer.op,
                    "shape": list(shape),
                    "output_shape": list(output),
                    "left_alone": "" if layer is None else layer.left_alone,
                    "levels": [
                        {
                            "dtype": level.dtype,
                            "pattern": level.pattern,
                            "sparsity": level.sparsity,
                            "format": t.format,
                            "kernel": t.kernel,
                            "time_ns": t.ns,
                            "speedup": t.dense_ns / t.ns if t.ns else None,
                        }
                        for level, t in zip(self.levels, times, strict=True)
                        if t is not None
                    ],
                }
            )
        title = f"{self.label}: format and microseconds of each layer"
        columns = ["layer", "weight", "output", *(level.label for level in self.levels)]
        return Table(title, columns, rows, records=records)

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers, unrounded: one dictionary per level under "rows"."""
        return {
            **self.table.to_dict(),
            "layers": self.layers.to_dict()["rows"],
            "feeds": {name: list(shape) for name, shape in self.feeds.items()},
            "machine": self.machine.to_dict(),
        }

    def to_markdown(self) -> str:
        """Returns both tables and the machine as Markdown."""
        parts = [self.table.to_markdown(), self.layers.to_markdown()]
        return "\n\n".join([*parts, "\n".join(f"- {line}" for line in self.machine.lines())])

    def __str__(self) -> str:
        return "\n".join([str(self.table), *self.machine.lines()])

    __repr__ = __str__


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
