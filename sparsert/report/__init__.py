"""Reports: what pruning gained, measured; and their building blocks: documents, storage, races.

The module itself can be called: sparsert.report(model) is sparsert.report.report(...).
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sparsert.report.document import Document
from sparsert.report.machine import Machine, describe_machine
from sparsert.report.model_report import FrontPoint, ModelReport
from sparsert.report.race import Effort, Entrant, Result, precision_entrants, race, race_table
from sparsert.report.storage import encoding_table, tensor_table

if TYPE_CHECKING:
    from sparsert.prune.report import PruneReport
    from sparsert.runtime.model import Model

__all__ = [
    "Document",
    "Effort",
    "Entrant",
    "FrontPoint",
    "Machine",
    "ModelReport",
    "Result",
    "describe_machine",
    "encoding_table",
    "precision_entrants",
    "race",
    "race_table",
    "report",
    "tensor_table",
]


def report(
    model: Any,
    *,
    dense: Any = None,
    int8: Any = None,
    dense_int8: Any = None,
    levels: str | os.PathLike[str] | None = None,
    calibration_data: Any = None,
    feeds: Any = None,
    evaluate: Callable[[Model], float] | None = None,
    pruning: PruneReport | None = None,
    front: Sequence[FrontPoint] = (),
    against: str | Sequence[str] = ("onnxruntime", "torch", "numba"),
    threads: int = 1,
    seconds: float = 3.0,
    tune: bool | str = "auto",
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    command: Sequence[str] = (),
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    on_progress: Callable[[float], None] | None = None,
) -> ModelReport:
    """Measures what pruning gained: the model dense and sparse, in fp32 and int8, in each engine.

    Models that are not given are made: the dense one by filling the zeros with random values (for
    times and sizes alone), the int8 ones by sparsert.quantize(). Each engine runs in a process of
    its own; they take turns on the same feeds and threads.

    Args:
        model: the pruned float model: path to an .onnx file, an onnx.ModelProto, or a
            torch.nn.Module (with example_inputs).
        dense: the same before it was pruned.
        int8: `model`, quantised (QDQ or QOperator).
        dense_int8: `dense`, quantised.
        levels: a .sprt file of the same network with several levels of sparsity.
        calibration_data: as in sparsert.quantize(), for the int8 models that are not given; None:
            the feeds, which do for times and sizes alone.
        feeds: arrays by input name, or one array for a model of one input; None: the example
            inputs, or random values, with 1 for symbolic dimensions.
        evaluate: a function of a sparsert.Model that returns its accuracy, higher is better. It is
            called for every row; other engines are wrapped so that they run like one.
        pruning: what sparsert.prune() returned: adds its layers and what went, and why.
        front: models between accurate and fast, for the plot, such as front_points() of what
            sparsert.prune.prune_until() returned.
        against: other engines, "onnxruntime" and "torch", and "numba", sparsert's own backend of
            that name; torch runs torch modules alone, and what is not installed is left out and
            named.
        threads: of every engine.
        seconds: about how long each engine is timed on each model.
        tune: as in sparsert.load().
        seed: of random feeds.
        path: also write the report: .html (one self-contained page with plots), .md or .json.
        command: the words of the command that repeats it; nothing: those of this process.
        example_inputs: torch modules only: a tensor, a tuple or a dict of tensors.
        dynamic_shapes: torch modules only: as in torch.onnx.export.
        on_progress: called with the share of the work that is done, 0 to 1.

    Returns:
        A row per engine and model, with zeros, compression ratio, accuracy, accuracy lost, time,
        spread, speedup over dense ONNX Runtime, file and memory; tables of layers; `.save()`,
        `.to_html()`, `.to_markdown()` and `.to_dict()`.

    Raises:
        ModelFormatError: a source is missing, corrupt or of an unknown type; or a .sprt file, which
            other engines cannot run.
        UnsupportedOpError: lists every operator that is not native.
        ShapeError: feeds or calibration data do not fit.
        BackendError: a package that is needed is not installed.
        ValueError: an option is out of range, or `path` ends in something else.

    Example:
        >>> report = sparsert.report("pruned.onnx", dense="model.onnx")  # doctest: +SKIP
        >>> report.save("report.html")                                  # doctest: +SKIP
    """
    from sparsert.report.model_report import check_suffix
    from sparsert.report.model_report_run import Sources, check_conditions, measure_report

    if path is not None:
        check_suffix(path)
    conditions = check_conditions(
        against, threads, seconds, tune, seed, evaluate=evaluate, on_progress=on_progress
    )
    label = os.fspath(model) if isinstance(model, (str, os.PathLike)) else type(model).__name__
    result = measure_report(
        Sources(model, dense, int8, dense_int8, levels, example_inputs, dynamic_shapes),
        os.path.basename(label),
        conditions,
        calibration_data=calibration_data,
        feeds=feeds,
        evaluate=evaluate,
        pruning=pruning,
        front=front,
        command=command or (os.path.basename(sys.executable) or "python", *sys.argv),
        on_progress=on_progress,
    )
    if path is not None:
        result.save(path)
    return result


class _CallableModule(types.ModuleType):
    """Lets sparsert.report be both this package and the function."""

    __call__ = staticmethod(report)


sys.modules[__name__].__class__ = _CallableModule
