"""What the commands of the command line share: examples, formats, tables, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from sparsert.runtime.table import Table

# Values of --tune, as sparsert.load() takes them.
TUNE: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}


def example(*commands: str) -> Any:
    """Gives a command an epilog that ends its --help with examples."""
    lines = "\n".join(f"  $ {command}" for command in commands)
    return {"epilog": f"\b\nExample:\n{lines}"}


def formats(function: Any) -> Any:
    """Adds --json and --markdown."""
    function = click.option("--markdown", is_flag=True, help="Print Markdown.")(function)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def show(table: Table, markdown: bool = False) -> None:
    """Prints a table: Markdown, or plain text; coloured and wrapped on a terminal."""
    if markdown:
        click.echo(table.to_markdown() + "\n")
        return
    if not sys.stdout.isatty():
        click.echo(f"{table}\n")
        return
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    from sparsert.runtime.table import cell_text

    view = RichTable(title=Text(table.title), title_justify="left", header_style="bold")
    for name in table.columns:
        view.add_column(Text(name), overflow="fold")
    for row in table.rows:
        view.add_row(*(Text(cell_text(value)) for value in row))
    console = Console()
    console.print(view)
    for note in table.notes:
        console.print(Text(note))
    console.print()


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on stderr, so that stdout holds results only."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # Without a terminal there is nothing to redraw, only a stray line to leave behind.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress
