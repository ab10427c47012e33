"""Table: rows that print well and convert to dict, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


def format_bytes(count: float) -> str:
    """Returns a byte count with a binary unit: 1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


@dataclass
class Table:
    """A titled table.

    Attributes:
        title: one line.
        columns: the header.
        rows: one sequence per row, as long as `columns`; None prints as an empty cell.
        notes: lines below the table.
        records: the same rows as dictionaries, unrounded, for programs.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    notes: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        cells = [[cell_text(value) for value in row] for row in self.rows]
        widths = [
            max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(self.columns)
        ]
        right = [
            bool(self.rows) and all(isinstance(row[i], int | float | None) for row in self.rows)
            for i in range(len(self.columns))
        ]

        def line(values: Sequence[str]) -> str:
            padded = (
                value.rjust(width) if flush else value.ljust(width)
                for value, width, flush in zip(values, widths, right, strict=True)
            )
            return "  ".join(padded).rstrip()

        rule = "  ".join("-" * width for width in widths)
        return "\n".join(
            [self.title, line(self.columns), rule, *(line(row) for row in cells), *self.notes]
        )

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Returns {"title", "rows": list of dicts, "notes"} with unrounded values."""
        rows = self.records or [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}

    def to_markdown(self) -> str:
        """Returns the table as GitHub Markdown, title and notes included."""
        lines = [f"**{self.title}**", ""] if self.title else []
        lines.append("| " + " | ".join(self.columns) + " |")
        lines.append("|" + "---|" * len(self.columns))
        for row in self.rows:
            lines.append(
                "| " + " | ".join(cell_text(value).replace("|", "\\|") for value in row) + " |"
            )
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines)


def cell_text(value: Any) -> str:
    """Returns a cell as it is printed; None is empty."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)
