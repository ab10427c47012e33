"""What prune_until() returns: the points it measured, their front, and the chosen one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparsert.prune.report import PruneReport
from sparsert.prune.until.goals import BYTES, SPEEDUP, Goal
from sparsert.report.cost_table import CostTable
from sparsert.report.machine import Machine
from sparsert.report.model_report import FrontPoint
from sparsert.report.module_bench import Measured
from sparsert.runtime.table import Table, format_bytes

if TYPE_CHECKING:
    import torch

    from sparsert.prune.recipe import Recipe
    from sparsert.prune.until.journal import Journal, State


@dataclass(frozen=True)
class LayerChoice:
    """How a layer is pruned; "" and 0 while it is dense."""

    pattern: str = ""
    sparsity: float = 0.0


@dataclass(frozen=True)
class Point:
    """The model after one round of pruning and training, or before the first.

    Attributes:
        round: its number, 0 of the dense model.
        layers: how each layer is pruned.
        score: what `evaluate` returned.
        drop: what was lost of the dense model's.
        measured: its run, beside the reference's.
        predicted: cost (seconds or bytes) that the table foretold, before it was corrected.
        corrections: how often its choices were changed to come closer to the round's target.
        losses: of the epochs of training.
        is_accepted: False: it lost too much and was rolled back.
        state: name under which its weights are kept.
    """

    round: int
    layers: Mapping[str, LayerChoice]
    score: float
    drop: float
    measured: Measured
    predicted: float
    corrections: int = 0
    losses: Sequence[float] = ()
    is_accepted: bool = True
    state: str = ""

    @property
    def label(self) -> str:
        """As in tables."""
        return f"round {self.round}" if self.round else "dense"

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers for JSON."""
        names = ("round", "score", "drop", "predicted", "corrections", "is_accepted")
        facts = {name: getattr(self, name) for name in names}
        layers = {
            name: {"pattern": choice.pattern, "sparsity": choice.sparsity}
            for name, choice in self.layers.items()
        }
        return {**facts, "layers": layers, "losses": list(self.losses), **self.measured.to_dict()}


@dataclass(frozen=True)
class PruneUntilResult:
    """What prune_until() did; prints as a table.

    Attributes:
        points: the dense model, then every round in order, those rolled back included.
        chosen: index of the point that the model is left at.
        is_reached: whether the target was reached within max_drop.
        reason: why it stopped.
        goal: what was asked for.
        costs: of each layer at each pattern and sparsity, with random zeros.
        sensitivity: of the first round: layer -> pattern -> [sparsity, loss] rows.
        report: the zeros of each layer, as the model was left.
        reference: the engine that speedups are against.
        machine: what was measured on.
        epochs, learning_rate, seed: of every training.
    """

    points: Sequence[Point]
    chosen: int
    is_reached: bool
    reason: str
    goal: Goal
    costs: CostTable
    sensitivity: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
    report: PruneReport
    reference: str
    machine: Machine
    epochs: int
    learning_rate: float
    seed: int
    journal: Journal = field(repr=False, compare=False)

    @property
    def point(self) -> Point:
        """The chosen point."""
        return self.points[self.chosen]

    @property
    def front(self) -> list[Point]:
        """The points that no other one beats in score, time and size at once, fastest last."""
        kept = [p for p in self.points if not any(_beats(other, p) for other in self.points)]
        return sorted(kept, key=lambda p: (-p.measured.seconds, p.measured.file_bytes))

    def front_points(self) -> list[FrontPoint]:
        """Returns the front as sparsert.report() takes it."""
        return [
            FrontPoint(
                label=p.label,
                seconds=p.measured.seconds,
                accuracy=p.score,
                file_bytes=p.measured.file_bytes,
                is_chosen=p is self.point,
            )
            for p in self.front
        ]

    def restore(self, model: torch.nn.Module, point: Point) -> None:
        """Gives a model the weights and masks of a point.

        Args:
            model: of the same architecture; changed in place.
            point: one of `points`.
        """
        from sparsert.prune.until.journal import restore

        state: State = self.journal.state(point.state)
        restore(model, state)

    def recipe(self) -> Recipe:
        """Returns the accepted rounds as plain steps: replayed, they measure nothing."""
        from sparsert.prune.recipe import Recipe, Step

        steps = []
        for point in self.points[1 : self.chosen + 1]:
            if not point.is_accepted:
                continue
            patterns: dict[str, dict[str, float]] = {}
            for name, choice in point.layers.items():
                if choice.sparsity:
                    patterns.setdefault(choice.pattern, {})[name] = choice.sparsity
            steps += [
                Step(
                    "prune", {"method": self.report.method, "pattern": pattern, "sparsity": shares}
                )
                for pattern, shares in patterns.items()
            ]
            training = {"epochs": self.epochs, "learning_rate": self.learning_rate}
            times = round(len(point.losses) / self.epochs) or 1
            steps += [Step("fine_tune", training)] * times
        return Recipe(steps, self.seed)

    @property
    def table(self) -> Table:
        """One row per point."""
        front = self.front
        rows: list[Sequence[Any]] = []
        for number, point in enumerate(self.points):
            measured = point.measured
            mark = "rolled back" if not point.is_accepted else "chosen" if self._is(number) else ""
            rows.append(
                (
                    point.label,
                    f"{point.score:.4f}",
                    f"{point.drop:+.4f}",
                    f"{1e3 * measured.seconds:.3f}",
                    f"{100 * measured.spread:.0f} %",
                    f"{1e3 * measured.reference_seconds:.3f}",
                    f"{100 * measured.reference_spread:.0f} %",
                    f"{measured.speedup:.2f}",
                    format_bytes(measured.file_bytes),
                    "yes" if point in front else "",
                    mark,
                )
            )
        columns = ["point", "score", "drop", "ms", "spread", "reference ms", "spread", "speedup"]
        columns += ["file", "on the front", ""]
        notes = [
            f"reference: {self.reference}, timed in turns, which count by their fastest run; "
            "speedup: median over the turns",
            self.reason,
            *self.costs.notes,
        ]
        records = [
            {**p.to_dict(), "is_chosen": self._is(n), "is_on_front": p in front}
            for n, p in enumerate(self.points)
        ]
        return Table("Pruned until the target", columns, rows, notes, records)

    @property
    def layers(self) -> Table:
        """One row per layer: how it is pruned, its time with random zeros, and its sensitivity."""
        rows: list[Sequence[Any]] = []
        records = []
        sparsities = {layer.name: layer.sparsity for layer in self.report.layers}
        for name, choice in self.point.layers.items():
            patterns = self.costs.layers[name]
            dense = next(iter(patterns.values()))[0]
            cost = (
                self.costs.cost(name, choice.pattern, choice.sparsity) if choice.sparsity else dense
            )
            zeros = sparsities[name]
            rows.append(
                (
                    name,
                    choice.pattern or "dense",
                    f"{100 * zeros:.1f} %",
                    f"{1e6 * dense.seconds:.1f}",
                    f"{1e6 * cost.seconds:.1f}",
                    cost.format,
                )
            )
            records.append(
                {
                    "name": name,
                    "pattern": choice.pattern,
                    "sparsity": zeros,
                    "dense_seconds": dense.seconds,
                    "seconds": cost.seconds,
                    "format": cost.format,
                }
            )
        columns = ["layer", "pattern", "zeros", "dense us", "us", "format"]
        notes = ["us: from the table of costs, with random zeros"]
        return Table("How each layer was pruned", columns, rows, notes, records)

    def plot(self) -> dict[str, Any]:
        """Returns the series of the plots: the points, each layer's sparsity, times and losses."""
        front = self.front
        points = [
            {
                "label": point.label,
                "milliseconds": 1e3 * point.measured.seconds,
                "speedup": point.measured.speedup,
                "file_bytes": point.measured.file_bytes,
                "score": point.score,
                "is_accepted": point.is_accepted,
                "is_chosen": self._is(number),
                "is_on_front": point in front,
            }
            for number, point in enumerate(self.points)
        ]
        costs = {
            name: {
                pattern: {
                    "sparsity": [cost.sparsity for cost in costs],
                    "microseconds": [1e6 * cost.seconds for cost in costs],
                    "file_bytes": [cost.file_bytes for cost in costs],
                }
                for pattern, costs in patterns.items()
            }
            for name, patterns in self.costs.layers.items()
        }
        sensitivity = {
            name: {
                pattern: {"sparsity": [r[0] for r in rows], "loss": [r[1] for r in rows]}
                for pattern, rows in patterns.items()
            }
            for name, patterns in self.sensitivity.items()
        }
        return {
            "points": points,
            "layers": self.layers.records,
            "costs": costs,
            "sensitivity": sensitivity,
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers, unrounded, with one dictionary per point under "rows"."""
        return {
            **self.table.to_dict(),
            "goal": {self.goal.kind: self.goal.value, "max_drop": self.goal.max_drop}
            if self.goal.kind
            else {"max_drop": self.goal.max_drop},
            "chosen": self.chosen,
            "is_reached": self.is_reached,
            "reason": self.reason,
            "reference": self.reference,
            "plot": self.plot(),
            "machine": self.machine.to_dict(),
        }

    def to_markdown(self) -> str:
        """Returns both tables and the machine as Markdown."""
        parts = [self.table.to_markdown(), self.layers.to_markdown()]
        return "\n\n".join([*parts, "\n".join(f"- {line}" for line in self.machine.lines())])

    def _is(self, number: int) -> bool:
        return number == self.chosen

    def __str__(self) -> str:
        return "\n".join([str(self.table), "", str(self.layers), *self.machine.lines()])

    __repr__ = __str__


def _beats(one: Point, other: Point) -> bool:
    """Whether a point is at least as good as another one in everything, and better in something."""

    def worth(point: Point) -> tuple[float, ...]:
        return (point.score, -point.measured.seconds, -point.measured.file_bytes)

    pairs = list(zip(worth(one), worth(other), strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def describe_goal(goal: Goal) -> str:
    """Returns the goal in words."""
    words = {SPEEDUP: "a speedup of {}", BYTES: "a file of {} bytes"}
    parts = [words.get(goal.kind, "a run of {}").format(goal.text(goal.value))] if goal.kind else []
    if goal.max_drop is not None:
        parts.append(f"a drop of at most {goal.max_drop:g}")
    return " with ".join(parts)
