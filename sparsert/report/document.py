"""Document: a Markdown report, built part by part."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from sparsert.runtime.table import Table


class Document:
    """Collects the parts of a Markdown file; parts are separated by empty lines."""

    def __init__(self, title: str) -> None:
        self._parts = [f"# {title}"]

    def heading(self, text: str) -> None:
        """Adds a section's heading."""
        self._parts.append(f"## {text}")

    def paragraph(self, *lines: str) -> None:
        """Adds lines of running text."""
        self._parts.append("\n".join(lines))

    def bullets(self, items: Sequence[str]) -> None:
        """Adds a list."""
        self._parts.append("\n".join(f"- {item}" for item in items))

    def command(self, words: Sequence[str]) -> None:
        """Adds a shell command that can be copied."""
        self._parts.append(f"```sh\n{shlex.join(words)}\n```")

    def table(self, table: Table) -> None:
        """Adds a table with its title and notes."""
        self._parts.append(table.to_markdown())

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the file."""
        Path(path).write_text(str(self), encoding="utf-8")

    def __str__(self) -> str:
        return "\n\n".join(self._parts) + "\n"
