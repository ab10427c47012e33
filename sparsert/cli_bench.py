"""The command bench."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

from sparsert import cli_feeds
from sparsert.cli_view import (
    dims_option,
    example,
    formats,
    isa_option,
    kernels_from,
    model_file,
    progress,
    seed_option,
    shape_text,
    show,
)
from sparsert.errors import SparsertError
from sparsert.option_checks import MAX_THREADS


def _thread_counts(ctx: click.Context, option: click.Parameter, text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if not all(1 <= count <= MAX_THREADS for count in counts):
        raise click.BadParameter(f"{text!r}: expected numbers from 1 to {MAX_THREADS}, such as 1,2")
    return counts


@click.command(
    **example(
        "sparsert bench model.sprt --threads 1,2",
        "sparsert bench model.onnx --against onnxruntime --profile",
        "sparsert bench pruned.onnx --dense model.onnx --int8 pruned.int8.onnx",
        "sparsert bench levels.sprt --level accurate --level fast",
        "sparsert bench model.onnx --kernels --kernels-from my_kernels.py",
    )
)
@model_file
@click.option("--threads", default="1", callback=_thread_counts, help="Such as 1,2. [default: 1]")
@click.option("--batch", type=click.IntRange(min=1), help="Size of the first dimension.")
@dims_option
@click.option(
    "--runs",
    type=click.IntRange(min=7),
    help="Timed runs of each engine. [default: about 3 seconds]",
)
@click.option(
    "--against", type=click.Choice(["onnxruntime", "numba"]), help="Race another engine or backend."
)
@click.option(
    "--against-file",
    type=click.Path(path_type=Path),
    help="The ONNX file for the other engine, when FILE is a .sprt.",
)
@click.option(
    "--dense",
    type=click.Path(path_type=Path),
    help="The model before it was pruned: race sparsert on it too.",
)
@click.option(
    "--int8",
    type=click.Path(path_type=Path),
    help="FILE, quantised: race sparsert on it too.",
)
@click.option(
    "--dense-int8",
    type=click.Path(path_type=Path),
    help="The model before it was pruned, quantised: race sparsert on it too.",
)
@isa_option
@click.option(
    "--level",
    "levels",
    multiple=True,
    metavar="NAME",
    help="Of a .sprt file with levels; several race each other. [default: first]",
)
@seed_option
@click.option("--profile", is_flag=True, help="Also time each layer.")
@click.option(
    "--kernels",
    is_flag=True,
    help="Instead, time each layer by itself: the native kernel, those in Numba, and yours.",
)
@kernels_from
@formats
def bench(
    file: Path,
    threads: list[int],
    batch: int | None,
    dims: Sequence[str],
    runs: int | None,
    against: str | None,
    against_file: Path | None,
    dense: Path | None,
    int8: Path | None,
    dense_int8: Path | None,
    isa: str | None,
    levels: Sequence[str],
    seed: int,
    profile: bool,
    kernels: bool,
    kernels_from: Sequence[Path],
    as_json: bool,
    markdown: bool,
) -> None:
    """Time a model, and measure its memory, in a process of its own.

    With --against the engines take turns, one at a time, on the same input and threads; so do the
    dense and the quantised models that are given, and are compared with the dense one. Spread is
    the distance of the quartiles over the median; peak RSS growth counts load and runs, not the
    engine's code.

    With --kernels, each layer with weights runs alone on the input that it has in the network, by
    the native kernel, by sparsert's in Numba and by those registered in --kernels-from, in turns;
    results that are not as the native ones are marked.
    """
    import sparsert as package
    from sparsert.report import (
        Effort,
        Entrant,
        describe_machine,
        precision_entrants,
        race,
        race_table,
    )

    level = levels[0] if levels else None
    model = package.load(file, threads=threads[0], isa=isa, level=level)
    feeds = cli_feeds.random_inputs(model.inputs, cli_feeds.parse_dims(dims), batch, seed)
    if kernels:
        if levels or against or dense or int8 or dense_int8 or profile:
            raise click.UsageError("--kernels goes with --threads, --isa and the input's options")
        _show_kernels(file, feeds, threads, isa, as_json, markdown)
        return
    options: dict[str, Any] = {"isa": isa}
    if kernels_from:
        options["kernels_from"] = [str(path) for path in kernels_from]
    entrants = [Entrant("sparsert", "sparsert", file, options)]
    if levels:
        entrants = [
            Entrant(f"level {name}", "sparsert", file, {**options, "level": name})
            for name in levels
        ]
    reference = against or (entrants[0].name if len(levels) > 1 else None)
    if dense or int8 or dense_int8:
        if levels:
            raise click.UsageError("--level goes with --against alone")
        entrants = precision_entrants(
            file, dense=dense, int8=int8, dense_int8=dense_int8, options=options
        )
        reference = against or entrants[0].name
    if against is not None:
        entrants.insert(0, Entrant(against, against, _rival_file(file, against_file, against)))
    effort = Effort(runs=runs, rounds=9 if runs is None else min(runs, 9))
    results = []
    with progress() as bar:
        total = len(threads) * len(entrants) * (1 + effort.rounds)
        task = bar.add_task("measuring", total=total)
        for count in threads:
            results += race(
                entrants,
                feeds,
                threads=count,
                effort=effort,
                on_turn=lambda: bar.advance(task),
            )
    failed = [f"{r.name}: {r.error}" for r in results if r.error]
    if failed:
        raise SparsertError("; ".join(failed))
    shapes = ", ".join(f"{name}{shape_text(x.shape)}" for name, x in feeds.items())
    tables = [race_table(f"{file}: {shapes}", results, reference)]
    machine = describe_machine()
    if profile:
        tables.append(model.profile(feeds))
    if as_json:
        names = ("bench", "profile")
        facts = {name: table.to_dict() for name, table in zip(names, tables, strict=False)}
        click.echo(json.dumps({"machine": machine.to_dict(), **facts}, indent=2))
        return
    for table in tables:
        show(table, markdown)
    click.echo("\n".join(machine.lines()))


def _show_kernels(
    file: Path,
    feeds: Mapping[str, np.ndarray],
    threads: Sequence[int],
    isa: str | None,
    as_json: bool,
    markdown: bool,
) -> None:
    from sparsert.api import native_graph
    from sparsert.report import describe_machine
    from sparsert.report.kernel_bench import kernel_table, time_kernels

    tables = []
    for count in threads:
        results = time_kernels(native_graph(file), feeds, str(file), count, isa)
        tables.append(kernel_table(results, f"{file}: layer by layer, {count} thread(s)"))
    machine = describe_machine()
    if as_json:
        facts = [table.to_dict() for table in tables]
        click.echo(json.dumps({"machine": machine.to_dict(), "kernels": facts}, indent=2))
        return
    for table in tables:
        show(table, markdown)
    click.echo("\n".join(machine.lines()))


def _rival_file(file: Path, rival_file: Path | None, engine: str) -> Path:
    if find_spec(engine) is None:
        raise SparsertError(f"{engine} is not installed; pip install {engine}")
    if engine == "numba":
        return file
    path = rival_file or file
    if path.suffix == ".sprt":
        raise click.UsageError(f"{engine} cannot read {path}: give its --against-file FILE.onnx")
    return path
