"""Imports torch modules through torch's own ONNX exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sparsert.errors import ModelFormatError

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch


def import_torch(
    module: torch.nn.Module, example_inputs: Any, dynamic_shapes: Any = None
) -> ir.Model:
    """Traces a torch module in eval mode into onnx_ir.

    The weights of the result share memory with the module's parameters.

    Args:
        module: the module; its training flags and its parameters are left as they were.
        example_inputs: one tensor, a tuple of positional arguments, or a dict of keyword ones.
        dynamic_shapes: as in torch.onnx.export; None fixes every dimension to the example's.

    Returns:
        The exported model.

    Raises:
        ModelFormatError: `example_inputs` is missing or the exporter failed; its own message is
            included.
    """
    import torch

    if example_inputs is None:
        raise ModelFormatError(
            f"torch module {type(module).__name__}: example_inputs is missing; pass a tensor or a "
            "tuple of tensors of the shapes the module takes"
        )
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    if isinstance(example_inputs, torch.Tensor):
        args = (example_inputs,)
    elif isinstance(example_inputs, dict):
        kwargs = dict(example_inputs)
    else:
        args = tuple(example_inputs)
    label = f"torch module {type(module).__name__}"
    with _eval_mode(module):
        return _export(module, label, args, kwargs=kwargs, dynamic_shapes=dynamic_shapes)


def import_exported(program: torch.export.ExportedProgram) -> ir.Model:
    """Turns what torch.export.export made, a quantised (PT2E) program too, into onnx_ir.

    The weights of the result share memory with the program's parameters; its dimensions are as
    dynamic as the program's.

    Raises:
        ModelFormatError: the exporter failed; its own message is included.
    """
    return _export(program, "torch.export.ExportedProgram", ())


def _export(source: Any, label: str, args: tuple[Any, ...], **options: Any) -> ir.Model:
    import torch

    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(source, args, dynamo=True, verbose=False, **options)
        except Exception as error:
            raise ModelFormatError(f"{label}: torch.onnx.export failed: {error}") from error
    assert program is not None
    return program.model


@contextlib.contextmanager
def _eval_mode(module: torch.nn.Module) -> Iterator[None]:
    flags = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in flags:
            part.training = False
        yield
    finally:
        for part, training in flags:
            part.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's progress lines and warnings; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
