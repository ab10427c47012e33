"""The commands of sparsert: demo, convert, inspect, run, forecast.

Those with files of their own are added to them: bench, prune, prune-until, quantize, report.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import rich  # noqa: F401  named here so that one error tells what the command needs

from sparsert import cli_feeds
from sparsert.cli_bench import bench
from sparsert.cli_prune import prune
from sparsert.cli_prune_until import prune_until
from sparsert.cli_quantize import quantize
from sparsert.cli_report import report
from sparsert.cli_view import TUNE, io_table, layer_table, level_table, shape_text
from sparsert.cli_view import dims_option as _dims
from sparsert.cli_view import example as _example
from sparsert.cli_view import formats as _formats
from sparsert.cli_view import isa_option as _isa
from sparsert.cli_view import kernels_from as _kernels_from
from sparsert.cli_view import model_file as _model_file
from sparsert.cli_view import progress as _progress
from sparsert.cli_view import seed_option as _seed
from sparsert.cli_view import show as _show
from sparsert.errors import SparsertError
from sparsert.option_checks import MAX_THREADS

if TYPE_CHECKING:
    from sparsert.runtime.model import Model


class _Commands(click.Group):
    """Ends with status 1 and a message, not a traceback, on errors that are explained."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.showwarning = _print_warning
                return super().invoke(ctx)
        except (SparsertError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            click.echo(f"sparsert: {error}", err=True)
            ctx.exit(1)


def _print_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning) and category.__module__ != "torch":
        click.echo(f"warning: {message}", err=True)


@click.group(cls=_Commands, **_example("sparsert demo", "sparsert run model.sprt --random"))
@click.version_option(package_name="sparsert")
def sparsert() -> None:
    """Runs pruned neural networks on CPUs, with sparse kernels of its own."""


sparsert.add_command(bench)
sparsert.add_command(prune)
sparsert.add_command(prune_until)
sparsert.add_command(quantize)
sparsert.add_command(report)


_level = click.option(
    "--level", metavar="NAME", help="Of a .sprt file with levels. [default: first]"
)
_tune = click.option(
    "--tune",
    type=click.Choice(list(TUNE)),
    default="auto",
    show_default=True,
    help="Measure the candidate kernels of each layer first.",
)


@sparsert.command(**_example("sparsert demo", "sparsert demo --quick --output /tmp/demo"))
@click.option("--seed", default=0, show_default=True, help="Of weights, split and batches.")
@click.option("--epochs", type=click.IntRange(min=1), help="Of the first training. [default: 10]")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sparsert-demo"),
    show_default=True,
    help="Folder for the models and the report.",
)
@click.option("--quick", is_flag=True, help="A short run: less training, fewer timings.")
def demo(seed: int, epochs: int | None, output: Path, quick: bool) -> None:
    """Train, prune, convert, run and measure a small CNN on real images.

    In PyTorch, and in Keras if it is installed. Takes 2 to 3 minutes. Leaves the dense and the
    pruned models as .onnx and .sprt files; report.md, which holds the printed tables; and
    report.html, on the sparsest model: dense and sparse, fp32 and int8, with plots.
    """
    from sparsert.demo import run_demo

    with _progress() as progress:
        result = run_demo(output, seed=seed, epochs=epochs, quick=quick, progress=progress)
    for table in result.tables:
        _show(table)
    click.echo(f"wrote {', '.join(sorted(path.name for path in result.files))} into {output}")


@sparsert.command(
    **_example(
        "sparsert convert model.onnx model.sprt --weights f16",
        "sparsert convert pruned.onnx smaller.onnx",
    )
)
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("destination", metavar="DST", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--weights",
    type=click.Choice(["f32", "f16"]),
    default="f32",
    show_default=True,
    help="How the weights of convolutions, linear and recurrent layers are stored in a .sprt file.",
)
@_formats
def convert(source: Path, destination: Path, weights: str, as_json: bool, markdown: bool) -> None:
    """Convert an ONNX model to a .sprt file and say how it is stored.

    Where DST ends in .onnx, it is an ONNX file whose mostly zero weights are sparse initializers.
    """
    import sparsert as package
    from sparsert.modelfile import read
    from sparsert.report.race import file_bytes
    from sparsert.report.storage import encoding_table, initializer_table
    from sparsert.runtime.table import format_bytes

    if destination.suffix == ".onnx" and weights != "f32":
        raise click.UsageError(f"--weights {weights} is for .sprt files, not for {destination}")
    package.convert(source, destination, weights=weights)
    before, after = file_bytes(source) or 0, destination.stat().st_size
    title = f"{destination}: how the weights are stored"
    if destination.suffix == ".onnx":
        table = initializer_table(destination, title)
    else:
        table = encoding_table(read(destination), title)
    ratio = after / before if before else 0.0
    table.notes.append(
        f"file: {format_bytes(before)} -> {format_bytes(after)}, {ratio:.3f} of the source"
    )
    if as_json:
        facts = {"bytes_in": before, "bytes_out": after, "ratio": ratio, **table.to_dict()}
        click.echo(json.dumps(facts, indent=2))
    else:
        _show(table, markdown)


_inputs = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]FILE",
    help="An .npy file for an input, or an .npz file with arrays by input name.",
)


@sparsert.command(
    **_example(
        "sparsert inspect model.sprt",
        "sparsert inspect model.onnx --json",
        "sparsert inspect model.onnx --dim batch=8 --tune on",
    )
)
@_model_file
@_inputs
@_dims
@_isa
@_tune
@_level
@click.option("--threads", type=click.IntRange(1, MAX_THREADS), help="Threads to plan for.")
@click.option("--strict", is_flag=True, help="Fail when an operator is not native.")
@_kernels_from
@_formats
def inspect(
    file: Path,
    kernels_from: Sequence[Path],
    inputs: Sequence[str],
    dims: Sequence[str],
    isa: str | None,
    tune: str,
    level: str | None,
    threads: int | None,
    strict: bool,
    as_json: bool,
    markdown: bool,
) -> None:
    """Show a model's inputs and outputs, how each layer runs and why, and how it is stored.

    The kernels are those of sparsert.load() with the same options. With --input or --dim, the model
    runs once before, with random values for the other inputs; else symbolic dimensions count as 1.
    """
    model = _load(file, isa=isa, threads=threads, tune=TUNE[tune], strict=strict, level=level)
    if inputs or dims:
        feeds = cli_feeds.random_inputs(model.inputs, cli_feeds.parse_dims(dims), None, 0)
        model.run(None, {**feeds, **cli_feeds.read_inputs(model.inputs, inputs)})
    tables = [io_table(file, model), layer_table(file, model)]
    metadata: dict[str, Any] = {}
    version = ""
    if file.suffix == ".sprt":
        from sparsert.modelfile import read
        from sparsert.report.storage import tensor_table

        content = read(file)
        tables.append(tensor_table(content, f"{file}: how the weights are stored"))
        metadata = content.metadata
        version = ".".join(map(str, content.version))
    if model.levels:
        tables.append(level_table(model, f"{file}: levels"))
    if as_json:
        names = ("io", "layers", "storage", "levels")
        facts = {name: table.to_dict() for name, table in zip(names, tables, strict=False)}
        click.echo(json.dumps({**facts, "metadata": metadata, "version": version}, indent=2))
        return
    for table in tables:
        _show(table, markdown)
    if version:
        click.echo(f"format version {version}, metadata {json.dumps(metadata)}")


@sparsert.command(
    **_example(
        "sparsert run model.sprt --input image=image.npy --output result.npz",
        "sparsert run model.onnx --random --dim batch=8 --threads 2",
    )
)
@_model_file
@_inputs
@click.option("--random", "is_random", is_flag=True, help="Random values for the other inputs.")
@_seed
@_dims
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Save the outputs: FILE.npz, or a folder for one .npy file each.",
)
@click.option("--threads", type=click.IntRange(1, MAX_THREADS), help="Default: all cores.")
@_isa
@click.option(
    "--backend", type=click.Choice(["native", "capi", "numba", "numpy"]), help="Default: native."
)
@_tune
@_level
@click.option("--strict", is_flag=True, help="Fail when an operator is not native.")
@_kernels_from
def run(
    file: Path,
    kernels_from: Sequence[Path],
    inputs: Sequence[str],
    is_random: bool,
    seed: int,
    dims: Sequence[str],
    output: Path | None,
    threads: int | None,
    isa: str | None,
    backend: str | None,
    tune: str,
    level: str | None,
    strict: bool,
) -> None:
    """Run a model once and summarise its outputs."""
    start = time.perf_counter()
    options = {"backend": backend, "threads": threads, "isa": isa, "level": level}
    model = _load(file, tune=TUNE[tune], strict=strict, **options)
    loaded = time.perf_counter()
    feeds = cli_feeds.read_inputs(model.inputs, inputs)
    if is_random:
        random = cli_feeds.random_inputs(model.inputs, cli_feeds.parse_dims(dims), None, seed)
        feeds = {**random, **feeds}
    elif not feeds and model.inputs:
        expected = ", ".join(f"{s.name} {s.dtype}{shape_text(s.shape)}" for s in model.inputs)
        raise click.UsageError(f"give --input or --random; the model's inputs: {expected}")
    before = time.perf_counter()
    outputs = model.run(None, feeds)
    seconds = time.perf_counter() - before
    named = {spec.name: y for spec, y in zip(model.outputs, outputs, strict=True)}
    table = cli_feeds.summary_table(f"{file}: outputs", named)
    table.notes.append(
        f"loaded in {1e3 * (loaded - start):.0f} ms, first run {1e3 * seconds:.3f} ms"
    )
    if output is not None:
        table.notes.append(f"wrote {', '.join(cli_feeds.write_outputs(output, named))}")
    _show(table)


def _shares(ctx: click.Context, option: click.Parameter, text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = [-1.0]
    if not all(0 <= share < 1 for share in shares):
        raise click.BadParameter(
            f"{text!r}: expected shares of at least 0 and less than 1, such as 0.5,0.9"
        )
    return shares


def _patterns(ctx: click.Context, option: click.Parameter, text: str) -> list[str]:
    from sparsert.report.pruned_file import PATTERNS

    patterns = [part.strip() for part in text.split(",")]
    unknown = [pattern for pattern in patterns if pattern not in PATTERNS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r}: expected some of {', '.join(PATTERNS)}")
    return patterns


def _dtypes(ctx: click.Context, option: click.Parameter, text: str) -> list[str]:
    from sparsert.report.forecast import DTYPES

    dtypes = [part.strip() for part in text.split(",")]
    unknown = [dtype for dtype in dtypes if dtype not in DTYPES]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r}: expected some of {', '.join(DTYPES)}")
    return dtypes


def _report_file(ctx: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """Refuses a file that cannot be written before anything is measured."""
    if text not in (None, "-") and (Path(text).is_dir() or not Path(text).parent.is_dir()):
        raise click.BadParameter(f"{text!r}: a folder, or in a folder that does not exist")
    return text


@sparsert.command(
    **_example(
        "sparsert forecast model.onnx --sparsity 0.8,0.9 --pattern unstructured,4x1",
        "sparsert forecast model.onnx --dtype float32,int8 --pattern unstructured,1x4",
        "sparsert forecast model.sprt --batch 8 --layers --json forecast.json",
    )
)
@_model_file
@click.option(
    "--sparsity",
    default="0.5,0.8,0.9",
    show_default=True,
    callback=_shares,
    help="Shares of zeros of each layer.",
)
@click.option(
    "--pattern",
    default="unstructured,4x1",
    show_default=True,
    callback=_patterns,
    help="Unstructured, or blocks of zeros: rows x columns of the weight matrix.",
)
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    callback=_dtypes,
    help="float32, int8 or both; int8 of an ONNX model, quantised for its times alone.",
)
@click.option("--exclude", multiple=True, metavar="LAYER", help="A layer to leave alone.")
@click.option(
    "--all-layers",
    is_flag=True,
    help="Also prune the first convolution and depthwise convolutions.",
)
@click.option("--threads", type=click.IntRange(1, MAX_THREADS), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), help="Size of the first dimension.")
@_dims
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="About how long to time each pattern and sparsity.",
)
@click.option("--runs", type=click.IntRange(min=7), help="Timed runs of each, instead.")
@_isa
@_tune
@click.option("--seed", default=0, show_default=True, help="Of zeros and inputs.")
@click.option("--layers", "with_layers", is_flag=True, help="Also show each layer.")
@click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    callback=_report_file,
    help="Write JSON to a file; without FILE, print it.",
)
@click.option(
    "--markdown",
    "markdown_file",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    callback=_report_file,
    help="Write Markdown to a file; without FILE, print it.",
)
def forecast(
    file: Path,
    sparsity: list[float],
    pattern: list[str],
    dtype: list[str],
    exclude: Sequence[str],
    all_layers: bool,
    threads: int,
    batch: int | None,
    dims: Sequence[str],
    seconds: float,
    runs: int | None,
    isa: str | None,
    tune: str,
    seed: int,
    with_layers: bool,
    json_file: str | None,
    markdown_file: str | None,
) -> None:
    """Measure how fast and how small a model would be if it were pruned, before any training.

    Random zeros go into its layers; it then runs in turns with the dense model. Accuracy is not
    forecast.
    """
    import sparsert as package

    with _progress() as progress:
        task = progress.add_task("measuring", total=1.0)
        try:
            result = package.forecast(
                file,
                sparsity=sparsity,
                pattern=pattern,
                dtype=dtype,
                exclude=exclude,
                all_layers=all_layers,
                feeds=lambda specs: cli_feeds.random_inputs(
                    specs, cli_feeds.parse_dims(dims), batch, seed
                ),
                threads=threads,
                isa=isa,
                tune=TUNE[tune],
                seed=seed,
                seconds=seconds,
                runs=runs,
                on_progress=lambda share: progress.update(task, completed=share),
            )
        except SparsertError:
            raise
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    texts = (
        (json_file, lambda: json.dumps(result.to_dict(), indent=2)),
        (markdown_file, result.to_markdown),
    )
    for target, text in texts:
        if target == "-":
            click.echo(text())
        elif target is not None:
            Path(target).write_text(text() + "\n", encoding="utf-8")
    if "-" in (json_file, markdown_file):
        return
    _show(result.table)
    if with_layers:
        _show(result.layers)
    click.echo("\n".join(result.machine.lines()))


def _load(file: Path, **options: Any) -> Model:
    import sparsert as package

    return package.load(file, **options)
