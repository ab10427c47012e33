"""The command prune."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from sparsert.cli_view import example, formats, progress, show
from sparsert.errors import ModelFormatError, SparsertError

OUTPUTS = (".pt", ".onnx", ".sprt")


def load_function(option: str, value: str) -> Callable[..., Any]:
    """Returns FUNCTION of FILE.py:FUNCTION; runs the file."""
    path, separator, name = value.rpartition(":")
    if not separator or not name.isidentifier() or not path.endswith(".py"):
        raise click.BadParameter(f"{option} {value}: expected FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise click.BadParameter(f"{option} {value}: {error}") from error
    except Exception as error:
        raise SparsertError(f"{path} failed: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise click.BadParameter(f"{option} {value}: {path} has no function {name}")
    return function  # type: ignore[no-any-return]


class _ArrayBatches:
    """Batches of arrays, shuffled anew in each epoch."""

    def __init__(self, x: np.ndarray, y: np.ndarray, size: int) -> None:
        import torch

        self._x, self._y = torch.from_numpy(x), torch.from_numpy(y)
        self._size = size

    def __len__(self) -> int:
        return -(-len(self._x) // self._size)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        import torch

        order = torch.randperm(len(self._x))  # by the seed of the recipe
        for picked in torch.split(order, self._size):
            yield self._x[picked], self._y[picked]


def load_data(value: str, batch: int) -> Any:
    """Returns the batches of --data."""
    if not value.endswith(".npz"):
        return load_function("--data", value)()
    try:
        with np.load(value, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise click.BadParameter(f"--data {value}: {error}") from error
    if set(arrays) != {"x", "y"} or len(arrays["x"]) != len(arrays["y"]):
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise click.BadParameter(
            f"--data {value}: expected arrays x (inputs) and y (targets) of one length, not "
            f"{shapes or 'none'}"
        )
    return _ArrayBatches(arrays["x"], arrays["y"], batch)


def _output(ctx: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refuses a file that cannot be written before anything runs."""
    if path is not None and path.suffix not in OUTPUTS:
        raise click.BadParameter(f"{str(path)!r}: expected a name that ends in {'/'.join(OUTPUTS)}")
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"{str(path)!r}: in a folder that does not exist")
    return path


model_option = click.option(
    "--model",
    "model_from",
    required=True,
    metavar="FILE.py:FUNCTION",
    help="Returns the torch module. The file is run as a program: use your own files only.",
)
weights_option = click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A state dict for it (.pt), read without running code in it.",
)
recipe_output_option = click.option(
    "--save-recipe", type=click.Path(path_type=Path), help="Write what is done as YAML."
)
data_option = click.option(
    "--data",
    "data_from",
    metavar="FILE.npz|FILE.py:FUNCTION",
    help="Arrays x and y, or a function that returns batches (inputs, targets), as a DataLoader.",
)
batch_option = click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Samples of a batch from an .npz file.",
)
loss_option = click.option(
    "--loss",
    "loss_from",
    metavar="FILE.py:FUNCTION",
    help="Takes outputs and targets, returns the loss. [default: cross entropy]",
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_output,
    help="The file to write: .pt (a state dict of plain weights), .onnx or .sprt.",
)


def evaluate_option(*, required: bool = False) -> Any:
    """Returns the option --evaluate."""
    return click.option(
        "--evaluate",
        "evaluate_from",
        required=required,
        metavar="FILE.py:FUNCTION",
        help="Takes the module, returns a number such as its accuracy; called after each step.",
    )


def load_model(model_from: str, weights: Path | None) -> Any:
    """Returns the module of --model with the weights of --weights."""
    from sparsert.prune import load_state

    model = load_function("--model", model_from)()
    if weights is not None:
        import torch

        try:
            load_state(model, torch.load(weights, weights_only=True, map_location="cpu"))
        except Exception as error:
            raise SparsertError(f"--weights {weights}: {error}") from error
    return model


@click.command(
    **example(
        "sparsert prune --recipe r.yaml --model net.py:build --data net.py:batches -o net.sprt",
        "sparsert prune --method magnitude --sparsity 0.9 --model net.py:build --weights net.pt "
        "-o pruned.pt",
    )
)
@model_option
@weights_option
@click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The steps, in YAML: docs/pruning.md.",
)
@click.option("--method", help="Instead of a recipe: a single pruning. [default: magnitude]")
@click.option("--sparsity", type=float, help="Its share of zeros, 0 to 1.")
@click.option("--pattern", help="unstructured, 4x1, 1x4, 2:4, channel, ...")
@click.option("--scope", help="layer, row or global. [default: layer]")
@click.option("--exclude", multiple=True, metavar="LAYER", help="A layer to leave alone.")
@recipe_output_option
@data_option
@batch_option
@evaluate_option()
@loss_option
@output_option
@click.option("--explain", is_flag=True, help="Also show what went in each layer, and why.")
@formats
def prune(
    model_from: str,
    weights: Path | None,
    recipe_file: Path | None,
    method: str | None,
    sparsity: float | None,
    pattern: str | None,
    scope: str | None,
    exclude: Sequence[str],
    save_recipe: Path | None,
    data_from: str | None,
    batch: int,
    evaluate_from: str | None,
    loss_from: str | None,
    output: Path | None,
    explain: bool,
    as_json: bool,
    markdown: bool,
) -> None:
    """Prune and fine-tune a PyTorch module, by a recipe or in a single step."""
    from sparsert.prune import Recipe, Step, remove

    single = {"method": method, "sparsity": sparsity, "pattern": pattern, "scope": scope}
    single = {name: value for name, value in single.items() if value is not None}
    if (recipe_file is None) == (not single):
        raise click.UsageError("give either --recipe or --method, --sparsity, ...")
    if recipe_file is not None:
        if exclude:
            raise click.UsageError("--exclude goes into the recipe")
        recipe = Recipe.load(recipe_file)
    else:
        recipe = Recipe([Step("prune", {**single, **({"exclude": exclude} if exclude else {})})])
    has_levels = recipe.steps[-1].kind == "levels"
    if has_levels and output is not None and output.suffix != ".sprt":
        raise click.UsageError(f"--output {output}: only a .sprt file holds the recipe's levels")
    if save_recipe is not None:
        recipe.save(save_recipe)
    model = load_model(model_from, weights)
    data = None if data_from is None else load_data(data_from, batch)
    evaluate = None if evaluate_from is None else load_function("--evaluate", evaluate_from)
    loss = None if loss_from is None else load_function("--loss", loss_from)
    with progress() as bar:
        task = bar.add_task("", total=None)

        def on_step(number: int, step: Any) -> None:
            title = f"step {number} of {len(recipe.steps)}: {step.kind}"
            bar.update(task, description=title, completed=number - 1, total=len(recipe.steps))

        try:
            result = recipe.run(
                model,
                data,
                loss=loss,
                evaluate=evaluate,
                on_step=on_step,
                on_progress=lambda stage, _share: bar.update(task, description=stage),
            )
        except SparsertError:
            raise
        except (ValueError, RuntimeError) as error:
            raise SparsertError(str(error)) from error
    remove(model)
    if output is not None:
        write_model(dict(result.levels) or model, output, data)
    tables = [result.table()]
    for done in result.steps:
        if done.until is not None:
            tables += [done.until.table, done.until.layers]
        if done.measured is not None:
            tables += [done.measured.table]
            tables[-1].notes.append(f"wrote {done.step.options['path']}")
    if result.report is not None:
        tables += [result.report.table()] + ([result.report.explain()] if explain else [])
    if output is not None:
        tables[-1].notes.append(f"wrote {output}")
    if as_json:
        facts = {"recipe": recipe.to_dict(), **result.to_dict()}
        if result.report is not None:
            facts["report"] = result.report.to_dict()
        click.echo(json.dumps(facts, indent=2))
        return
    for table in tables:
        show(table, markdown)


def write_model(model: Any, path: Path, data: Any) -> None:
    """Writes the weights, or the whole model or its levels; inputs are as the first batch's."""
    import torch

    if path.suffix == ".pt":
        torch.save(model.state_dict(), path)
        return
    from sparsert.api import convert
    from sparsert.prune.calibration import split_batch
    from sparsert.prune.recipe_report import open_batch

    if data is None:
        raise click.UsageError(f"{path.suffix} needs --data, for the shapes of the inputs")
    args, kwargs, _ = split_batch(next(iter(data)))
    example = kwargs or args
    shapes = open_batch(example)
    try:
        convert(model, path, example_inputs=example, dynamic_shapes=shapes)
    except ModelFormatError:  # a module may fix the size of its batches
        if shapes is None:
            raise
        convert(model, path, example_inputs=example)
