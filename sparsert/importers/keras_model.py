"""Imports Keras models through Keras' own ONNX exporter."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsert.errors import ModelFormatError
from sparsert.importers.onnx_file import import_onnx

if TYPE_CHECKING:
    import onnx_ir as ir


def import_keras(model: Any) -> ir.Model:
    """Exports a Keras model and reads the file.

    Args:
        model: built, on a backend that Keras can export from.

    Returns:
        The exported model; dimensions without a size stay open where Keras leaves them so.

    Raises:
        ModelFormatError: Keras' exporter failed; its own message is included.
    """
    with tempfile.TemporaryDirectory(prefix="sparsert-keras-") as folder:
        path = Path(folder, "model.onnx")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the exporter about itself
                model.export(str(path), format="onnx", verbose=False)
        except Exception as error:
            raise ModelFormatError(
                f"Keras model {model.name}: its export to ONNX failed: {error}"
            ) from error
        return import_onnx(path.read_bytes())
