"""The step of recipes that writes a report: the module as it is beside what it was at first."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsert.errors import ModelFormatError

if TYPE_CHECKING:
    from sparsert.prune.recipe_steps import Kitchen
    from sparsert.report.model_report import ModelReport

ENGINES = ("onnxruntime", "torch")  # beside sparsert
SECONDS = 3.0


def check_report(given: Mapping[str, Any]) -> None:
    """Raises ValueError for options that sparsert.report() refuses."""
    from sparsert.report.model_report import SUFFIXES
    from sparsert.report.model_report_run import check_conditions

    if not given["path"].endswith(SUFFIXES):
        raise ValueError(
            f"report: path is {given['path']!r}, expected a name that ends in {', '.join(SUFFIXES)}"
        )
    threads, seconds = given.get("threads", 1), given.get("seconds", SECONDS)
    check_conditions(given.get("against", ENGINES), threads, seconds, "auto", 0)


def open_batch(example: Any) -> Any:
    """Returns dynamic_shapes that leave the number of samples open; None if that cannot be.

    Args:
        example: example_inputs: a tuple of arguments, or a mapping of keyword ones.
    """
    import torch

    values = list(example.values() if isinstance(example, Mapping) else example)
    # Exporters take a batch of 1 for a fixed size.
    if not all(isinstance(value, torch.Tensor) and len(value) > 1 for value in values):
        return None
    batch = torch.export.Dim("batch")
    if isinstance(example, Mapping):
        return {name: {0: batch} for name in example}
    return tuple({0: batch} for _ in values)


def write_report(kitchen: Kitchen, given: Mapping[str, Any]) -> ModelReport:
    """Measures the module and what it was before the first step, and writes the file.

    Args:
        kitchen: what the steps before left.
        given: the options.
    """
    from sparsert.prune.masking import bake_masks
    from sparsert.report import report

    assert kitchen.dense is not None
    evaluate: Any = kitchen.evaluate if given["accuracy"] else None  # takes a sparsert.Model too
    modules = [copy.deepcopy(module) for module in (kitchen.model, kitchen.dense)]
    for module in modules:
        bake_masks(module)
    example = kitchen.example_inputs()
    feeds = data = None
    if isinstance(example, Sequence) and len(example) == 1:
        feeds = example[0][:1].cpu().numpy()
        data = _inputs(kitchen, given["batches"])

    def measure(shapes: Any) -> ModelReport:
        return report(
            modules[0],
            dense=modules[1],
            calibration_data=data,
            feeds=feeds,
            evaluate=evaluate,
            pruning=kitchen.last_pruning,
            front=kitchen.front,
            against=given["against"],
            threads=given["threads"],
            seconds=given["seconds"],
            seed=kitchen.seed,
            path=given["path"],
            example_inputs=example,
            dynamic_shapes=shapes,
        )

    shapes = open_batch(example)
    try:
        return measure(shapes)
    except ModelFormatError:  # a module may fix the size of its batches
        if shapes is None:
            raise
        return measure(None)


def _inputs(kitchen: Kitchen, count: int) -> Any:
    """Returns the only argument of some batches, as one array."""
    import torch

    from sparsert.prune.calibration import split_batch

    batches = [split_batch(batch)[0][0] for batch in kitchen.first_batches(count)]
    return torch.cat(batches).cpu().numpy()
