"""What the commands of the command line share: examples, formats, tables, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparsert.errors import SparsertError

if TYPE_CHECKING:
    from rich.progress import Progress

    from sparsert.runtime.model import Model
    from sparsert.runtime.table import Table

# Values of --tune, as sparsert.load() takes them.
TUNE: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}

model_file = click.argument("file", type=click.Path(path_type=Path))
isa_option = click.option("--isa", metavar="NAME", help="Force an instruction set, such as avx2.")
seed_option = click.option("--seed", default=0, show_default=True, help="Of random inputs.")
dims_option = click.option(
    "--dim", "dims", multiple=True, metavar="SYMBOL=SIZE", help="Size of a symbolic dimension."
)


def example(*commands: str) -> Any:
    """Gives a command an epilog that ends its --help with examples."""
    lines = "\n".join(f"  $ {command}" for command in commands)
    return {"epilog": f"\b\nExample:\n{lines}"}


def kernels_from(function: Any) -> Any:
    """Adds --kernels-from: Python files that are run before a model is loaded."""

    def load(ctx: click.Context, option: click.Parameter, paths: Sequence[Path]) -> Sequence[Path]:
        from sparsert.report.kernel_bench import load_kernels

        load_kernels(paths)
        return paths

    return click.option(
        "--kernels-from",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE.py",
        callback=load,
        help="Run a Python file first that registers operators or kernels (docs/kernels.md).",
    )(function)


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


def io_table(file: Path, model: Model) -> Table:
    """Returns one row per input and output of a model."""
    from sparsert.runtime.table import Table, format_bytes

    rows: list[Sequence[Any]] = [
        (kind, spec.name, shape_text(spec.shape), str(spec.dtype))
        for kind, specs in (("input", model.inputs), ("output", model.outputs))
        for spec in specs
    ]
    notes = [f"file: {format_bytes(file.stat().st_size)}"]
    return Table(f"{file}: inputs and outputs", ["", "name", "shape", "dtype"], rows, notes)


def layer_table(file: Path, model: Model) -> Table:
    """Returns how each layer runs, or a table with a note alone where inputs have to tell that."""
    from sparsert.runtime.table import Table
    from sparsert.runtime.types import EXPLAIN_COLUMNS

    try:
        return model.explain()
    except SparsertError as error:
        note = f"{error}; give --input or --dim"
        return Table(f"{file}: how each layer runs", EXPLAIN_COLUMNS, [], [note])


def shape_text(shape: Sequence[int | str] | None) -> str:
    """Returns "[n, 3, 8]"; "[?]" for an unknown rank."""
    return "[?]" if shape is None else "[" + ", ".join(map(str, shape)) + "]"


def level_table(model: Model, title: str) -> Table:
    """Returns one row per level of a model."""
    from sparsert.runtime.table import Table, format_bytes

    rows: list[Sequence[Any]] = []
    records = []
    for level in model.levels:
        sizes = [format_bytes(size) for size in (level.file_bytes, level.packed_bytes)]
        in_use = "in use" if level.name == model.level else ""
        rows.append((level.name, f"{100 * level.sparsity:.1f} %", level.nonzeros, *sizes, in_use))
        records.append({**asdict(level), "sparsity": level.sparsity})
    columns = ["level", "zeros", "nonzeros", "bytes in the file", "packed", ""]
    notes = ["bytes in the file: what the level alone needs; of the first one: all the rest"]
    return Table(title, columns, rows, notes, records=records)


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on stderr, so that stdout holds results only."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # Without a terminal there is nothing to redraw, only a stray line to leave behind.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress
