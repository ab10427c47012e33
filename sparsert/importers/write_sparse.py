"""Writes ONNX models whose mostly zero weights are sparse initializers."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.errors import ModelFormatError
from sparsert.importers.payloads import read_external

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

# Below this, a tensor's name and shape outweigh what is saved.
_MIN_ELEMS = 64
# The first version of the format that has sparse initializers.
_IR_VERSION = 5
_MAX_BYTES = (1 << 31) - 1


def write_sparse(model: onnx.ModelProto, metadata: dict[str, Any] | None = None) -> bytes:
    """Returns a model as ONNX bytes, each initializer in the smaller of two ways.

    Dense, or sparse: its values and their places in the flat tensor. The graph stays as it is.

    Args:
        model: with all its data inside; it is changed.
        metadata: added to the model's properties; values that are no text as JSON.

    Raises:
        ModelFormatError: the result would be larger than an ONNX file can be.
    """
    import google.protobuf.message

    declared = {value.name for value in model.graph.input}
    dense = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in dense:
        sparse = None if tensor.name in declared else _sparse_of(tensor)
        if sparse is None:
            model.graph.initializer.append(tensor)
        else:
            model.graph.sparse_initializer.append(sparse)
            model.ir_version = max(model.ir_version, _IR_VERSION)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    try:
        if model.ByteSize() <= _MAX_BYTES:
            return model.SerializeToString()
    except (ValueError, google.protobuf.message.EncodeError):
        pass
    raise ModelFormatError(
        "the model does not fit into one ONNX file of 2 GiB; convert it to a .sprt file"
    )


def read_whole(src: Any, imported: ir.Model) -> onnx.ModelProto:
    """Returns a model as a proto of its own, with all its data inside.

    Args:
        src: what import_model took.
        imported: what it returned.
    """
    import onnx
    import onnx_ir as ir

    model, folder = onnx.ModelProto(), os.getcwd()
    if isinstance(src, onnx.ModelProto):
        model.CopyFrom(src)
    elif isinstance(src, bytes | bytearray | memoryview):
        model.ParseFromString(bytes(src))
    elif isinstance(src, str | os.PathLike):
        with open(src, "rb") as file:
            model.ParseFromString(file.read())
        folder = os.path.dirname(os.path.abspath(src))
    else:
        return ir.to_proto(imported)
    read_external(model, folder)
    return model


def _sparse_of(tensor: onnx.TensorProto) -> onnx.SparseTensorProto | None:
    """Returns the tensor in sparse form, or None where that is not smaller."""
    import onnx
    from onnx import numpy_helper

    if tensor.data_type == onnx.TensorProto.STRING or not tensor.name:
        return None
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind not in "fiu" or array.size < _MIN_ELEMS:
        return None
    flat = np.ascontiguousarray(array).reshape(-1)
    # By their bits: a negative zero is kept.
    places = np.flatnonzero(flat.view(f"u{array.itemsize}"))
    # More than this are larger whatever their places.
    if places.size * (array.itemsize + 1) >= flat.nbytes:
        return None
    sparse = onnx.SparseTensorProto(dims=array.shape)
    sparse.values.CopyFrom(numpy_helper.from_array(flat[places], tensor.name))
    # As numbers of variable length, most places take three bytes or less instead of eight.
    sparse.indices.data_type = onnx.TensorProto.INT64
    sparse.indices.dims.append(places.size)
    sparse.indices.int64_data.extend(places.tolist())
    return sparse if sparse.ByteSize() < tensor.ByteSize() else None
