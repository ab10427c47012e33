"""Imports ONNX models: a path, serialised bytes or an onnx.ModelProto."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sparsert.errors import ModelFormatError, describe_problems
from sparsert.importers.check_proto import check_proto
from sparsert.importers.payloads import Payloads, ReadSelf, bytes_reader, file_reader
from sparsert.importers.rename_contribs import rename_contribs
from sparsert.importers.slim_proto import (
    FileBytes,
    MemoryBytes,
    Source,
    WireError,
    slim_bytes,
    slim_copy,
)
from sparsert.importers.sparse_tensors import expand_sparse

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def import_onnx(src: str | os.PathLike[str] | bytes | onnx.ModelProto) -> ir.Model:
    """Reads an ONNX model into onnx_ir.

    Weights are not read here: large initializers are lazy tensors that read their bytes from the
    file, the bytes object or the proto whenever they are asked for, so the source must stay as it
    is until the model has been converted. No file stays open. An initializer that is also a graph
    input becomes a plain constant.

    Args:
        src: path of an .onnx file, its bytes, or an onnx.ModelProto (left unchanged).

    Returns:
        The model; its nodes are in topological order and its graph has passed every check.

    Raises:
        ModelFormatError: missing, truncated, corrupt or wrong-type source; missing external data;
            a cyclic or ill-typed graph. The message lists every problem found.
        UnsupportedOpError: the only problem is that operators are unknown to ONNX.
    """
    import onnx

    if isinstance(src, onnx.ModelProto):
        proto, label, base_dir = slim_copy(src), "onnx.ModelProto", os.getcwd()
        return _to_ir(proto, label, base_dir, None, src)
    if isinstance(src, bytes | bytearray | memoryview):
        data = memoryview(src).cast("B")
        label = f"ONNX bytes ({len(data)} bytes)"
        proto = _parse(MemoryBytes(data), label)
        return _to_ir(proto, label, os.getcwd(), bytes_reader(data), None)
    path = os.fspath(src)
    proto = _parse_file(path)
    return _to_ir(proto, path, os.path.dirname(os.path.abspath(path)), file_reader(path), None)


def _parse_file(path: str) -> onnx.ModelProto:
    if not os.path.exists(path):
        raise ModelFormatError(f"{path}: no such file; expected an ONNX model")
    if os.path.isdir(path):
        raise ModelFormatError(f"{path}: is a folder; expected an ONNX model file")
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise ModelFormatError(f"{path}: the file is empty; expected an ONNX model")
            return _parse(FileBytes(file.fileno()), path)
    except OSError as error:
        raise ModelFormatError(f"{path}: cannot be read: {error.strerror or error}") from error


_KNOWN_MAGIC = (
    (b"\x89SPRT", "a .sprt model (open it with sparsert.load)"),
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint, a .keras file or an .npz?)"),
    (b"\x89HDF", "an HDF5 file (a Keras model?)"),
    (b"\x80\x02", "a Python pickle (a PyTorch checkpoint?)"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"{", "JSON text"),
    (b"<", "XML text"),
)


def _parse(data: Source, label: str) -> onnx.ModelProto:
    import google.protobuf.message
    import onnx

    start = data.read(0, min(8, len(data)))
    for magic, what in _KNOWN_MAGIC:
        if start.startswith(magic):
            raise ModelFormatError(f"{label}: this is {what}; expected an ONNX protobuf")
    try:
        proto = onnx.ModelProto.FromString(slim_bytes(data))
    except (WireError, google.protobuf.message.DecodeError) as error:
        raise ModelFormatError(f"{label}: not a readable ONNX protobuf: {error}") from error
    if not proto.HasField("graph"):
        raise ModelFormatError(
            f"{label}: not an ONNX model: it holds no graph; expected a serialised onnx.ModelProto"
        )
    return proto


def _to_ir(
    proto: onnx.ModelProto,
    label: str,
    base_dir: str,
    read_self: ReadSelf | None,
    original: onnx.ModelProto | None,
) -> ir.Model:
    import onnx_ir as ir

    problems: list[str] = []
    payloads = Payloads(proto, base_dir, read_self, original, problems)
    expand_sparse(proto, payloads.loaders, problems)
    rename_contribs(proto)
    check_proto(proto, label, problems)
    try:
        model = ir.from_proto(proto)
        payloads.bind(model)
        _drop_constant_inputs(model)
        _forget_placeholder_symbols(model)
        model.graph.sort()
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason: BaseException = error
        while isinstance(reason, ir.serde.SerdeError) and reason.__cause__ is not None:
            reason = reason.__cause__  # the wrapper shows whole parts of the model
        raise ModelFormatError(describe_problems(label, [f"malformed graph: {reason}"])) from error
    return model


def _drop_constant_inputs(model: ir.Model) -> None:
    kept = [value for value in model.graph.inputs if not value.is_initializer()]
    if len(kept) != len(model.graph.inputs):
        model.graph.inputs.clear()
        model.graph.inputs.extend(kept)


# Spellings of "unknown" that exporters write as a symbol's name; two of them need not be equal.
# Others write a negative size.
_PLACEHOLDER_SYMBOLS = frozenset({"", "?", "-1", "None", "unknown", "Unknown", "*"})


def _forget_placeholder_symbols(model: ir.Model) -> None:
    import onnx_ir as ir

    values = [*model.graph.inputs]
    for node in model.graph:
        values.extend(node.outputs)
    for value in values:
        if value.shape is None:
            continue
        dims = [
            None if _is_placeholder(dim, value, axis) else dim
            for axis, dim in enumerate(value.shape)
        ]
        value.shape = ir.Shape(dims)


def _is_placeholder(dim: int | ir.SymbolicDim, value: ir.Value, axis: int) -> bool:
    if isinstance(dim, int):
        return dim < 0
    node = value.producer()
    # torch's exporter names an unknown size of an output so.
    made_up = node is not None and dim.value == f"{node.op_type}{value.name}_dim_{axis}"
    return made_up or dim.value in _PLACEHOLDER_SYMBOLS
