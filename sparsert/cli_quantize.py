"""The command quantize."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sparsert import cli_feeds
from sparsert.cli_view import example, formats, progress, show
from sparsert.errors import SparsertError


def _accuracy(labels: Path | None, max_drop: float | None, data: Any) -> dict[str, Any]:
    """Returns the options of an accuracy budget: the share of right classes among the samples."""
    if labels is None:
        if max_drop is not None:
            raise click.UsageError("--max-drop needs --labels")
        return {}
    if data is None:
        raise click.UsageError("--labels needs --data")
    return {"evaluate": cli_feeds.class_accuracy(labels, data), "max_drop": max_drop}


def _output(ctx: click.Context, option: click.Parameter, path: Path) -> Path:
    """Refuses a file that cannot be written before anything runs."""
    if path.suffix not in (".onnx", ".sprt"):
        raise click.BadParameter(f"{str(path)!r}: expected a name that ends in .onnx or .sprt")
    if not path.parent.is_dir():
        raise click.BadParameter(f"{str(path)!r}: in a folder that does not exist")
    return path


@click.command(
    **example(
        "sparsert quantize model.onnx --data calib.npz -o model.int8.onnx",
        "sparsert quantize model.onnx --data images.npy --method mse --min-sqnr 20 -o int8.sprt",
        "sparsert quantize model.onnx --data images.npy --labels classes.npy --max-drop 0.01 "
        "-o int8.sprt",
        "sparsert quantize model.onnx --dynamic -o int8.sprt",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "data_files",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Calibration data, samples along the first dimension: an .npz file with arrays by input "
    "name, or an .npy file.",
)
@click.option(
    "--dynamic",
    is_flag=True,
    help="No data: each run finds the range of what a linear layer reads.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    callback=_output,
    help="The file to write: .onnx (QDQ) or .sprt.",
)
@click.option("--samples", type=click.IntRange(min=1), help="Use the first so many. [default: all]")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Samples of a run, where the model leaves it open.",
)
@click.option(
    "--method",
    type=click.Choice(["minmax", "percentile", "mse", "entropy"]),
    default="minmax",
    show_default=True,
    help="How the range of a tensor is chosen.",
)
@click.option(
    "--percentile",
    type=float,
    default=99.99,
    show_default=True,
    help="Share of the values within the range, for that method.",
)
@click.option(
    "--activation",
    type=click.Choice(["u8", "s8"]),
    default="u8",
    show_default=True,
    help="Type of activations.",
)
@click.option("--per-tensor", is_flag=True, help="One scale for a weight, not one per channel.")
@click.option("--reduce-range", is_flag=True, help="Weights from -64 to 64.")
@click.option("--bias-correction", is_flag=True, help="Take mean errors off the biases.")
@click.option("--op-types", help="Operators that may compute in integers, such as Conv,Gemm,Add.")
@click.option("--exclude", multiple=True, metavar="LAYER", help="A layer to leave in float.")
@click.option(
    "--min-sqnr",
    type=float,
    metavar="DB",
    help="Leave layers in float whose signal to noise ratio is below.",
)
@click.option(
    "--min-speedup",
    type=click.FloatRange(min=0, min_open=True),
    metavar="FACTOR",
    help="Leave layers in float that are not so many times as fast in integers here; such as 1.",
)
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The right class of each sample, an .npy file of integers: leave the layers in float that "
    "it takes to keep the accuracy.",
)
@click.option(
    "--max-drop",
    type=float,
    help="How much accuracy may be lost, with --labels.  [default: 0.01]",
)
@formats
def quantize(
    file: Path,
    data_files: Sequence[str],
    dynamic: bool,
    output: Path,
    samples: int | None,
    batch: int,
    method: str,
    percentile: float,
    activation: str,
    per_tensor: bool,
    reduce_range: bool,
    bias_correction: bool,
    op_types: str | None,
    exclude: Sequence[str],
    min_sqnr: float | None,
    min_speedup: float | None,
    labels: Path | None,
    max_drop: float | None,
    as_json: bool,
    markdown: bool,
) -> None:
    """Quantise an ONNX model to 8-bit integers; pruned weights stay zero.

    The ranges of activations come from calibration data: 100 to 500 samples that are typical of
    what the model will see; with --dynamic they are found in each run, for linear layers alone.
    """
    import sparsert as package
    from sparsert.report.race import file_bytes
    from sparsert.runtime.table import format_bytes

    if not dynamic and not data_files:
        raise click.UsageError("Missing option '--data' (or --dynamic)")
    data = None
    if data_files:
        data = cli_feeds.first_samples(cli_feeds.read_data(data_files), samples)
    budget = _accuracy(labels, max_drop, data)
    with progress() as bar:
        task = bar.add_task("calibrating and measuring", total=1.0)
        try:
            result = package.quantize.quantize(
                file,
                data,
                dynamic=dynamic,
                method=method,
                percentile=percentile,
                activation=activation,
                per_channel=not per_tensor,
                reduce_range=reduce_range,
                bias_correction=bias_correction,
                op_types=None if op_types is None else op_types.replace(" ", "").split(","),
                exclude=exclude,
                min_sqnr=min_sqnr,
                min_speedup=min_speedup,
                **budget,
                batch_size=batch,
                path=output,
                on_progress=lambda share: bar.update(task, completed=share),
            )
        except SparsertError:
            raise
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    before, after = file_bytes(file) or 0, output.stat().st_size
    if as_json:
        facts = {"bytes_in": before, "bytes_out": after, **result.report.to_dict()}
        click.echo(json.dumps(facts, indent=2))
        return
    table = result.report.table()
    table.notes.append(f"wrote {output}: {format_bytes(before)} -> {format_bytes(after)}")
    show(table, markdown)
