"""What prune_until() is to reach, and how far it goes: its arguments, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsert.errors import SparsertError, describe_problems
from sparsert.prune.criteria import CRITERIA
from sparsert.prune.patterns import UNSTRUCTURED, parse_pattern
from sparsert.prune.selection import DEFAULT_METHOD

if TYPE_CHECKING:
    from sparsert.report.cost_table import Cost
    from sparsert.report.module_bench import Measured

SPEEDUP, LATENCY, BYTES = "target_speedup", "target_latency", "target_bytes"
TARGETS = (SPEEDUP, LATENCY, BYTES)
PATTERNS = (UNSTRUCTURED, "4x1", "8x1")  # those that kernels are made for
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


class TargetError(SparsertError, ValueError):
    """A target cannot be reached.

    Attributes:
        nearest: the nearest one that can, to judge by the table of costs.
    """

    def __init__(self, message: str, nearest: float) -> None:
        super().__init__(message)
        self.nearest = nearest


@dataclass(frozen=True)
class Goal:
    """What to reach.

    Attributes:
        kind: one of TARGETS, or "": as fast as max_drop allows.
        value: of it.
        max_drop: how much of the score may be lost; None: any.
    """

    kind: str
    value: float
    max_drop: float | None

    @property
    def is_size(self) -> bool:
        """Whether costs are bytes; they are seconds otherwise."""
        return self.kind == BYTES

    def cost_of_layer(self, cost: Cost) -> float:
        """Returns what counts of a layer's costs."""
        return cost.file_bytes if self.is_size else cost.seconds

    def cost_of(self, measured: Measured, dense: Measured) -> float:
        """Returns what counts of a measured module.

        Args:
            measured: the module.
            dense: the one that it was. A speedup counts by the reference's time beside that one,
                so that a machine that slows down for a while does not change it.
        """
        if self.is_size:
            return float(measured.file_bytes)
        if self.kind == LATENCY:
            return measured.seconds
        return dense.reference_seconds / measured.speedup

    def target(self, dense: Measured) -> float | None:
        """Returns the cost to reach; None if there is none."""
        if not self.kind:
            return None
        return dense.reference_seconds / self.value if self.kind == SPEEDUP else self.value

    def value_at(self, cost: float, dense: Measured) -> float:
        """Returns the value of the target that a cost would just reach."""
        return dense.reference_seconds / cost if self.kind == SPEEDUP else cost

    def text(self, value: float) -> str:
        """Returns a value of the target as messages have it."""
        if self.kind == SPEEDUP:
            return f"{value:.3g}"
        return f"{value:,.0f}" if self.is_size else f"{value:.3g} s"


@dataclass(frozen=True)
class Settings:
    """How prune_until() goes about it; it documents them."""

    method: str = DEFAULT_METHOD
    patterns: Sequence[str] = PATTERNS
    sparsities: Sequence[float] = SPARSITIES
    exclude: Sequence[str] = ()
    epochs: int = 2
    learning_rate: float = 1e-4
    rounds: int = 3
    retries: int = 2
    tolerance: float = 0.02
    batches: int = 4
    trials: int = 32
    threads: int = 1
    seed: int = 0


def check_goal(
    max_drop: float | None,
    target_speedup: float | None,
    target_latency: float | None,
    target_bytes: float | None,
) -> tuple[Goal, list[str]]:
    """Returns the goal, and all that is wrong with it."""
    problems = []
    given = dict(zip(TARGETS, (target_speedup, target_latency, target_bytes), strict=True))
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) > 1:
        problems.append(f"give one of {', '.join(chosen)}: one target at a time")
    if not chosen and max_drop is None:
        problems.append(f"there is no goal: give max_drop, or one of {', '.join(TARGETS)}, or both")
    for name, value in chosen.items():
        if not _is_number(value) or not 0 < value < math.inf:
            problems.append(f"{name} is {value!r}, expected a number above 0")
    if max_drop is not None and not (_is_number(max_drop) and 0 <= max_drop < math.inf):
        problems.append(f"max_drop is {max_drop!r}, expected a number of at least 0")
    kind, value = next(iter(chosen.items()), ("", 0.0))
    return Goal(kind, value, max_drop), problems


def check_settings(settings: Settings) -> list[str]:
    """Returns all that is wrong with the settings, whatever the model."""
    problems = []
    if settings.method not in CRITERIA:
        problems.append(f"method is {settings.method!r}, expected one of {', '.join(CRITERIA)}")
    from sparsert.report.pruned_file import PATTERNS as TIMED

    for name in settings.patterns:
        if name not in TIMED:
            problems.append(f"pattern is {name!r}, expected some of {', '.join(TIMED)}")
        else:
            parse_pattern(name)
    shares = list(settings.sparsities)
    is_rising = all(_is_number(s) and 0 < s < 1 for s in shares) and shares == sorted(set(shares))
    if not shares or not is_rising:
        problems.append(f"sparsities are {shares}, expected ascending numbers between 0 and 1")
    if not settings.patterns:
        problems.append("patterns is empty")
    counts = {"rounds": 1, "retries": 0, "epochs": 1, "batches": 1, "trials": 0}
    for name, least in counts.items():
        value = getattr(settings, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            problems.append(f"{name} is {value!r}, expected a whole number of at least {least}")
    for name in ("tolerance", "learning_rate"):
        value = getattr(settings, name)
        if not _is_number(value) or not 0 < value < math.inf:
            problems.append(f"{name} is {value!r}, expected a number above 0")
    return problems


def refuse(problems: Sequence[str]) -> None:
    """Raises a ValueError that lists the problems, if there are any."""
    if problems:
        raise ValueError(describe_problems("prune_until", problems))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
