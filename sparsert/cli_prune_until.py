"""The command prune-until."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sparsert.cli_prune import (
    batch_option,
    data_option,
    evaluate_option,
    load_data,
    load_function,
    load_model,
    loss_option,
    model_option,
    output_option,
    recipe_output_option,
    weights_option,
    write_model,
)
from sparsert.cli_view import example, formats, progress, show
from sparsert.errors import SparsertError


@click.command(
    "prune-until",
    **example(
        "sparsert prune-until --target-speedup 4 --max-drop 0.01 --model net.py:build --weights "
        "net.pt --data net.py:batches --evaluate net.py:accuracy --state run -o net.sprt",
    ),
)
@model_option
@weights_option
@data_option
@batch_option
@evaluate_option(required=True)
@loss_option
@click.option("--target-speedup", type=float, help="Times as fast as dense in ONNX Runtime.")
@click.option("--target-latency", type=float, metavar="SECONDS", help="Of a run on one sample.")
@click.option("--target-bytes", type=float, help="Of the .sprt file.")
@click.option("--max-drop", type=float, help="How much of the score may be lost. [default: any]")
@click.option("--method", help="What a weight's importance is. [default: magnitude]")
@click.option("--pattern", "patterns", multiple=True, help="One to choose from; again for more.")
@click.option(
    "--sparsity",
    "sparsities",
    type=float,
    multiple=True,
    help="A share of zeros to time, ascending; again for more. [default: 0.5 to 0.98]",
)
@click.option("--exclude", multiple=True, metavar="LAYER", help="A layer to leave alone.")
@click.option("--epochs", type=int, help="Of each training. [default: 2]")
@click.option("--learning-rate", type=float, help="[default: 0.0001]")
@click.option("--rounds", type=int, help="In how many rounds to go. [default: 3]")
@click.option("--threads", type=int, help="Of a run, in each engine. [default: 1]")
@click.option("--seed", default=0, show_default=True, help="Of training and zeros.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder for what is done: after a kill, the same command goes on where it was.",
)
@recipe_output_option
@output_option
@formats
def prune_until(
    model_from: str,
    weights: Path | None,
    data_from: str | None,
    batch: int,
    evaluate_from: str,
    loss_from: str | None,
    state: Path | None,
    seed: int,
    save_recipe: Path | None,
    output: Path | None,
    as_json: bool,
    markdown: bool,
    **options: Any,
) -> None:
    """Prune and train a PyTorch module until it is as fast, or as small, as asked for.

    Layers are timed on this machine; those are pruned most that gain most and harm least.
    """
    from sparsert.prune import Recipe, Step, remove

    given = {
        name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in {**options, "state": state and str(state)}.items()
        if value not in (None, ())
    }
    recipe = Recipe([Step("prune_until", given)], seed)
    model = load_model(model_from, weights)
    data = None if data_from is None else load_data(data_from, batch)
    evaluate = load_function("--evaluate", evaluate_from)
    loss = None if loss_from is None else load_function("--loss", loss_from)
    with progress() as bar:
        task = bar.add_task("", total=1.0)
        try:
            done = recipe.run(
                model,
                data,
                loss=loss,
                evaluate=evaluate,
                on_progress=lambda stage, share: bar.update(
                    task, description=stage, completed=share
                ),
            )
        except SparsertError:
            raise
        except (ValueError, RuntimeError) as error:
            raise SparsertError(str(error)) from error
    result = done.steps[0].until
    assert result is not None
    remove(model)
    if save_recipe is not None:
        result.recipe().save(save_recipe)
    tables = [result.table, result.layers]
    if output is not None:
        write_model(model, output, data)
        tables[-1].notes.append(f"wrote {output}")
    if as_json:
        click.echo(json.dumps({"recipe": recipe.to_dict(), **result.to_dict()}, indent=2))
        return
    for table in tables:
        show(table, markdown)
    click.echo("\n".join(result.machine.lines()))
