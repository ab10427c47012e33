"""What was taken out of a module: a report and the reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparsert.prune.explanation import list_places
from sparsert.runtime.table import Table


@dataclass(frozen=True)
class GroupChange:
    """What happened to channels, heads or blocks that can only go together.

    Attributes:
        name: of the first layer that makes the channels, of the attention, or of the block.
        kind: "channels", "heads" or "block".
        makers: the layers whose outputs they are.
        readers: the layers that lost the inputs.
        before: how many there were.
        gone: the numbers of those that went, counted as they were before.
        importance_kept: share of the sum of importance that is left, 0 to 1; None: not measured.
        highest_gone: the greatest importance that went; None: nothing went, or not measured.
        lowest_kept: the least importance that stayed. It is below `highest_gone` where the order
            was broken by heads.
        reason: why so many went, or none.
    """

    name: str
    kind: str
    makers: Sequence[str]
    readers: Sequence[str]
    before: int
    gone: Sequence[int] = ()
    importance_kept: float | None = None
    highest_gone: float | None = None
    lowest_kept: float | None = None
    reason: str = ""

    @property
    def kept(self) -> int:
        """How many are left."""
        return self.before - len(self.gone)


@dataclass(frozen=True)
class ShrinkReport:
    """What a module lost physically; prints as a table.

    Attributes:
        method: what importance was measured by.
        strategy: how the numbers were chosen.
        groups: in the order of the module, those left alone included.
        parameters_before: all trainable values of the module, before.
        parameters: after.
        error: the largest difference between the outputs for the example inputs and those of the
            module whose readers ignore what went, over the largest output.
    """

    method: str
    strategy: str
    groups: Sequence[GroupChange]
    parameters_before: int
    parameters: int
    error: float

    @property
    def sparsity(self) -> float:
        """Share of the parameters that went."""
        return 1 - self.parameters / self.parameters_before if self.parameters_before else 0.0

    @property
    def compression_ratio(self) -> float:
        """Parameters before over those after."""
        return self.parameters_before / self.parameters if self.parameters else math.inf

    def explain(self) -> Table:
        """Returns which channels, heads and blocks went, and why."""
        rows = [
            (
                group.name,
                group.kind,
                list_places(group.gone),
                None if group.importance_kept is None else f"{100 * group.importance_kept:.2f} %",
                group.highest_gone,
                group.lowest_kept,
                ", ".join(group.readers),
                group.reason,
            )
            for group in self.groups
        ]
        columns = [
            *("layer", "of", "gone", "importance kept", "highest gone", "lowest kept"),
            *("read by", "why"),
        ]
        notes = [f"importance: {self.method}; numbers as they were before"]
        return Table("What went, and why", columns, rows, notes, self._records())

    def table(self) -> Table:
        """Returns one row per group."""
        rows = [
            (
                " + ".join(group.makers),
                group.kind,
                group.before,
                group.kept,
                f"{100 * len(group.gone) / group.before:.1f} %",
            )
            for group in self.groups
        ]
        notes = [
            f"{self.parameters_before:,} parameters, {self.parameters:,} left: "
            f"{100 * self.sparsity:.1f} % went, compression ratio {self.compression_ratio:.2f}"
        ]
        columns = ["layers", "of", "before", "left", "share"]
        title = f"Shrunk by {self.method}, {self.strategy}"
        return Table(title, columns, rows, notes, self._records())

    def _records(self) -> list[dict[str, Any]]:
        return [{**asdict(group), "kept": group.kept} for group in self.groups]

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers, unrounded, with one dictionary per group under "rows"."""
        return {
            **self.table().to_dict(),
            "method": self.method,
            "strategy": self.strategy,
            "parameters_before": self.parameters_before,
            "parameters": self.parameters,
            "sparsity": self.sparsity,
            "compression_ratio": self.compression_ratio,
            "error": self.error,
        }

    def to_markdown(self) -> str:
        """Returns the table as Markdown."""
        return self.table().to_markdown()

    def __str__(self) -> str:
        return str(self.table())
