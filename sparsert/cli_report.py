"""The command report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from sparsert import cli_feeds
from sparsert.cli_view import TUNE, example, formats, progress, show
from sparsert.errors import SparsertError
from sparsert.option_checks import MAX_THREADS


def _outputs(
    ctx: click.Context, option: click.Parameter, paths: Sequence[Path]
) -> tuple[Path, ...]:
    """Refuses files that cannot be written before anything is measured."""
    from sparsert.report.model_report import check_suffix

    for path in paths:
        try:
            check_suffix(path)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
        if not path.parent.is_dir():
            raise click.BadParameter(f"{str(path)!r}: in a folder that does not exist")
    return tuple(paths)


def _model(name: str, help_text: str) -> Any:
    return click.option(
        f"--{name}", type=click.Path(dir_okay=False, path_type=Path), help=help_text
    )


@click.command(
    **example(
        "sparsert report pruned.onnx --dense model.onnx -o report.html",
        "sparsert report pruned.onnx --dense model.onnx --data images.npy --labels classes.npy "
        "-o report.html -o report.md",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@_model("dense", "The model before it was pruned.  [default: FILE, its zeros filled]")
@_model("int8", "FILE, quantised.  [default: quantised here]")
@_model("dense-int8", "The dense model, quantised.  [default: quantised here]")
@_model("levels", "A .sprt file of the same network with several levels.")
@click.option(
    "--data",
    "data_files",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Samples along the first dimension, to calibrate and to judge with: an .npz file with "
    "arrays by input name, or an .npy file.",
)
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The right class of each sample, an .npy file of integers.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Samples of a run."
)
@click.option(
    "--dim", "dims", multiple=True, metavar="SYMBOL=SIZE", help="Size of a symbolic dimension."
)
@click.option(
    "--against",
    multiple=True,
    type=click.Choice(["onnxruntime", "numba", "none"]),
    default=["onnxruntime", "numba"],
    show_default=True,
    help="The other engines. Torch runs torch modules: see sparsert.report() in Python.",
)
@click.option("--threads", type=click.IntRange(1, MAX_THREADS), default=1, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="About how long to time each engine on each model.",
)
@click.option(
    "--tune",
    type=click.Choice(list(TUNE)),
    default="auto",
    show_default=True,
    help="Measure the candidate kernels of each layer first.",
)
@click.option("--seed", default=0, show_default=True, help="Of random inputs.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_outputs,
    help="A file to write: .html (one page with plots), .md or .json.",
)
@formats
def report(
    file: Path,
    dense: Path | None,
    int8: Path | None,
    dense_int8: Path | None,
    levels: Path | None,
    data_files: Sequence[str],
    labels: Path | None,
    batch: int,
    dims: Sequence[str],
    against: Sequence[str],
    threads: int,
    seconds: float,
    tune: str,
    seed: int,
    outputs: Sequence[Path],
    as_json: bool,
    markdown: bool,
) -> None:
    """Measure what pruning gained: dense and sparse, fp32 and int8, beside ONNX Runtime.

    FILE is the pruned ONNX model. Each engine runs in a process of its own, and they take turns.
    The report has accuracy (with --labels), time, spread, speedup, files, memory and layers.
    """
    import sparsert as package

    if labels is not None and not data_files:
        raise click.UsageError("--labels needs --data")
    data = cli_feeds.read_data(data_files) if data_files else None

    def feeds(specs: Any) -> Any:
        if data is None:
            return cli_feeds.random_inputs(specs, cli_feeds.parse_dims(dims), batch, seed)
        first = cli_feeds.first_samples(data, batch)
        return first if isinstance(first, Mapping) else {specs[0].name: first}

    with progress() as bar:
        task = bar.add_task("measuring", total=1.0)
        try:
            result = package.report.report(
                file,
                dense=dense,
                int8=int8,
                dense_int8=dense_int8,
                levels=levels,
                calibration_data=data,
                feeds=feeds,
                evaluate=None if labels is None else cli_feeds.class_accuracy(labels, data),
                against=[name for name in against if name != "none"],
                threads=threads,
                seconds=seconds,
                tune=TUNE[tune],
                seed=seed,
                command=["sparsert", *sys.argv[1:]],
                on_progress=lambda share: bar.update(task, completed=share),
            )
        except SparsertError:
            raise
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    for path in outputs:
        result.save(path)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2))
        return
    for table in result.tables():
        show(table, markdown)
    click.echo("\n".join([*result.headline(), *result.method()]))
    if outputs:
        click.echo(f"wrote {', '.join(map(str, outputs))}")
