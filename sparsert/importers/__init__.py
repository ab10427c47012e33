"""Importers: every source of models becomes an onnx_ir.Model."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from sparsert.errors import ModelFormatError
from sparsert.importers.own_weights import own_weights

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["import_model"]


def import_model(src: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> ir.Model:
    """Reads a model from any supported source.

    Args:
        src: path of an .onnx file, its bytes, an onnx.ModelProto, an onnx_ir.Model (left
            unchanged), a torch.nn.Module, a torch.export.ExportedProgram or a Keras model.
        example_inputs: torch modules only: a tensor, a tuple or a dict of tensors.
        dynamic_shapes: torch modules only: as in torch.onnx.export.

    Returns:
        The model, as read: not yet canonical. Later changes of what lay in memory do not reach
        what is read of its weights before.

    Raises:
        ModelFormatError: the source is of an unknown type, missing, corrupt or ill-formed.
        UnsupportedOpError: the model uses operators that ONNX does not define.

    Example:
        >>> model = import_model("resnet50.onnx")  # doctest: +SKIP
    """
    if isinstance(src, str | os.PathLike | bytes | bytearray | memoryview):
        from sparsert.importers.onnx_file import import_onnx

        return import_onnx(src)  # type: ignore[arg-type]
    # An object of a class from one of these packages exists only if the package is loaded.
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(src, keras.Model):
        from sparsert.importers.keras_model import import_keras

        return import_keras(src)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(src, torch.nn.Module):
        from sparsert.importers.torch_module import import_torch

        return own_weights(import_torch(src, example_inputs, dynamic_shapes))
    exported = sys.modules.get("torch.export")
    if exported is not None and isinstance(src, exported.ExportedProgram):
        from sparsert.importers.torch_module import import_exported

        return own_weights(import_exported(src))
    onnx = sys.modules.get("onnx")
    if onnx is not None and isinstance(src, onnx.ModelProto):
        from sparsert.importers.onnx_file import import_onnx

        return import_onnx(src)
    onnx_ir = sys.modules.get("onnx_ir")
    if onnx_ir is not None and isinstance(src, onnx_ir.Model):
        return own_weights(src.clone())
    raise ModelFormatError(
        f"cannot import a model from {type(src).__module__}.{type(src).__qualname__}; expected a "
        "path to an .onnx file, its bytes, an onnx.ModelProto, a torch.nn.Module, a "
        "torch.export.ExportedProgram or a Keras model"
    )
