"""What each layer of a module costs at each pattern and sparsity: seconds of our kernels, bytes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparsert.runtime.table import Table


@dataclass(frozen=True)
class Cost:
    """What a layer costs at one sparsity.

    Attributes:
        sparsity: share of zeros.
        seconds: of a run.
        file_bytes: of its weights in the file.
        format: of its packed weights; "" if it is not known.
    """

    sparsity: float
    seconds: float
    file_bytes: float
    format: str = ""


@dataclass(frozen=True)
class CostTable:
    """The costs of all layers that may be pruned, and of everything else.

    Attributes:
        layers: costs by layer and pattern, with ascending sparsity, the first at 0; a layer that
            could not be found in the file is missing.
        other_seconds: of all other layers.
        other_bytes: of the rest of the file.
        notes: what to know about it.
    """

    layers: Mapping[str, Mapping[str, Sequence[Cost]]]
    other_seconds: float
    other_bytes: float
    notes: Sequence[str] = ()

    def cost(self, layer: str, pattern: str, sparsity: float) -> Cost:
        """Returns what a layer costs, between the measured sparsities on straight lines.

        More zeros never cost more here: a layer that they do not help runs as one with fewer.
        """
        rows = self.layers[layer][pattern]
        place = min(bisect_left([row.sparsity for row in rows], sparsity), len(rows) - 1)
        after, before = rows[place], rows[max(place - 1, 0)]
        way = after.sparsity - before.sparsity
        share = min((sparsity - before.sparsity) / way, 1.0) if way else 0.0
        high = _least(rows[:place] or rows[:1])
        low = _least(rows[: place + 1])
        return Cost(
            sparsity,
            high[0] + share * (low[0] - high[0]),
            high[1] + share * (low[1] - high[1]),
            after.format if share > 0.5 else before.format,
        )

    def table(self) -> Table:
        """Returns one row per layer, with microseconds and KiB at each pattern and sparsity."""
        shown = dict.fromkeys(
            (pattern, row.sparsity)
            for patterns in self.layers.values()
            for pattern, rows in patterns.items()
            for row in rows[1:]
        )
        rows: list[Sequence[Any]] = []
        for name, patterns in self.layers.items():
            found = {(p, c.sparsity): c for p, costs in patterns.items() for c in costs}
            dense = next(iter(patterns.values()))[0]
            cells = [found.get(key) for key in shown]
            times = [None if c is None else f"{1e6 * c.seconds:.1f} {c.format}" for c in cells]
            rows.append((name, f"{1e6 * dense.seconds:.1f} {dense.format}", *times))
        rows.append(("(all others)", f"{1e6 * self.other_seconds:.1f}", *(None for _ in shown)))
        columns = ["layer", "dense", *(f"{pattern} {100 * s:g} %" for pattern, s in shown)]
        records = [
            {"layer": name, "pattern": pattern, **asdict(cost)}
            for name, patterns in self.layers.items()
            for pattern, costs in patterns.items()
            for cost in costs
        ]
        title = "Microseconds of each layer with random zeros, and its format"
        return Table(title, columns, rows, [*self.notes], records)

    def to_dict(self) -> dict[str, Any]:
        """Returns what from_dict() takes, for JSON."""
        layers = {
            name: {pattern: [asdict(cost) for cost in costs] for pattern, costs in patterns.items()}
            for name, patterns in self.layers.items()
        }
        rest = {"other_seconds": self.other_seconds, "other_bytes": self.other_bytes}
        return {"layers": layers, **rest, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CostTable:
        """Undoes to_dict()."""
        layers = {
            name: {pattern: [Cost(**cost) for cost in costs] for pattern, costs in patterns.items()}
            for name, patterns in content["layers"].items()
        }
        return cls(
            layers, content["other_seconds"], content["other_bytes"], tuple(content["notes"])
        )


def _least(rows: Sequence[Cost]) -> tuple[float, float]:
    seconds = min((row.seconds for row in rows), default=math.inf)
    return seconds, min((row.file_bytes for row in rows), default=math.inf)
