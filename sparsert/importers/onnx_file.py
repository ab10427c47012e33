"""Imports ONNX models: a path, serialised bytes or an onnx.ModelProto."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sparsert.errors import ModelFormatError, describe_problems
from sparsert.importers.check_proto import check_proto
from sparsert.importers.rename_contribs import rename_contribs
from sparsert.importers.slim_proto import (
    SELF_LOCATION,
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

# Reads one payload of the model's own file: (offset, length) -> uint8[length].
_ReadSelf = Callable[[int, int], np.ndarray]


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
        return _to_ir(proto, label, os.getcwd(), _bytes_reader(data), None)
    path = os.fspath(src)
    proto = _parse_file(path)
    return _to_ir(proto, path, os.path.dirname(os.path.abspath(path)), _file_reader(path), None)


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


def _bytes_reader(data: memoryview) -> _ReadSelf:
    def read(offset: int, length: int) -> np.ndarray:
        return np.frombuffer(data, np.uint8, length, offset)

    return read


def _file_reader(path: str) -> _ReadSelf:
    status = os.stat(path)
    stamp = (status.st_size, status.st_mtime_ns)
    absolute = os.path.abspath(path)

    def read(offset: int, length: int) -> np.ndarray:
        return _read_file(absolute, offset, length, stamp)

    return read


def _read_file(path: str, offset: int, length: int, stamp: tuple[int, int]) -> np.ndarray:
    """Reads uint8[length] at `offset`; the file must still have this (size, mtime in ns)."""
    try:
        status = os.stat(path)
        if (status.st_size, status.st_mtime_ns) != stamp:
            raise ModelFormatError(f"{path}: the file changed while the model was being imported")
        data = np.fromfile(path, np.uint8, length, offset=offset)
    except OSError as error:
        raise ModelFormatError(
            f"{path}: weights cannot be read: {error.strerror or error}"
        ) from error
    if data.size != length:
        raise ModelFormatError(f"{path}: truncated: {length} bytes expected at byte {offset}")
    return data


def _to_ir(
    proto: onnx.ModelProto,
    label: str,
    base_dir: str,
    read_self: _ReadSelf | None,
    original: onnx.ModelProto | None,
) -> ir.Model:
    import onnx_ir as ir

    problems: list[str] = []
    loaders = _find_payloads(proto, base_dir, read_self, original, problems)
    expand_sparse(proto, loaders, problems)
    rename_contribs(proto)
    check_proto(proto, label, problems)
    try:
        model = ir.from_proto(proto)
        for name, value in list(model.graph.initializers.items()):
            if name in loaders:
                value.const_value = _lazy_tensor(name, value, loaders[name])
        _drop_constant_inputs(model)
        _forget_placeholder_symbols(model)
        model.graph.sort()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFormatError(describe_problems(label, [f"malformed graph: {error}"])) from error
    return model


def _lazy_tensor(name: str, value: ir.Value, load: Callable[[], np.ndarray]) -> ir.LazyTensor:
    import onnx_ir as ir

    tensor = value.const_value
    assert tensor is not None
    dtype, shape = tensor.dtype, tensor.shape
    assert isinstance(shape, ir.Shape)

    def evaluate() -> ir.Tensor:
        return ir.Tensor(load(), dtype=dtype, shape=shape, name=name)

    return ir.LazyTensor(evaluate, dtype=dtype, shape=shape, name=name)


def _find_payloads(
    proto: onnx.ModelProto,
    base_dir: str,
    read_self: _ReadSelf | None,
    original: onnx.ModelProto | None,
    problems: list[str],
) -> dict[str, Callable[[], np.ndarray]]:
    """Returns, per external initializer, a function that reads it; appends what is wrong."""
    import onnx

    loaders: dict[str, Callable[[], np.ndarray]] = {}
    for tensor in proto.graph.initializer:
        try:
            itemsize = _bytes_per_element(tensor.data_type)
        except (KeyError, TypeError):
            problems.append(f"initializer '{tensor.name}': unknown element type {tensor.data_type}")
            continue
        if any(dim < 0 for dim in tensor.dims):
            problems.append(f"initializer '{tensor.name}': negative shape {list(tensor.dims)}")
            continue
        count = int(np.prod([int(dim) for dim in tensor.dims], dtype=object))
        expected = -(-int(count * itemsize * 2) // 2) if itemsize else None
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            _check_inline(tensor, count, expected, problems)
            continue
        info = {entry.key: entry.value for entry in tensor.external_data}
        location = info.get("location", "")
        try:
            offset = int(info.get("offset", 0))
            length = int(info["length"]) if "length" in info else expected or 0
        except ValueError:
            problems.append(f"initializer '{tensor.name}': corrupt external data entry {info}")
            continue
        if location == SELF_LOCATION:
            if original is not None:
                loaders[tensor.name] = _proto_loader(original.graph.initializer[offset])
                continue
            if length != expected:
                problems.append(
                    f"initializer '{tensor.name}': {length} bytes of data, but shape "
                    f"{list(tensor.dims)} needs {expected}"
                )
                continue
            assert read_self is not None
            loaders[tensor.name] = _typed_loader(tensor, read_self, offset, length)
            continue
        reader = _external_reader(tensor.name, location, base_dir, offset, length, problems)
        if reader is None:
            continue
        if length != expected:
            problems.append(
                f"initializer '{tensor.name}': its external data has {length} bytes, but shape "
                f"{list(tensor.dims)} needs {expected}"
            )
            continue
        loaders[tensor.name] = _typed_loader(tensor, reader, offset, length)
    return loaders


def _bytes_per_element(data_type: int) -> float:
    """Bytes of one element in raw_data: 0.5 for 4-bit types, 0 for strings."""
    import onnx
    import onnx_ir as ir

    if data_type == onnx.TensorProto.STRING:
        return 0
    if data_type == onnx.TensorProto.UNDEFINED:
        raise KeyError(data_type)
    try:
        return ir.DataType(data_type).itemsize
    except ValueError as error:
        raise KeyError(data_type) from error


def _check_inline(
    tensor: onnx.TensorProto, count: int, expected: int | None, problems: list[str]
) -> None:
    import onnx

    if tensor.HasField("raw_data"):
        found, unit, needed = len(tensor.raw_data), "bytes", expected
    else:
        lists = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
        found = sum(len(getattr(tensor, name)) for name in lists) + len(tensor.string_data)
        unit, needed = "elements", count
        if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
            needed = 2 * count
        elif expected is not None and 0 < expected < count:  # packed 4-bit and 2-bit types
            needed = expected
    if needed is not None and found != needed:
        problems.append(
            f"initializer '{tensor.name}': {found} {unit} of data, but shape "
            f"{list(tensor.dims)} needs {needed}"
        )


def _external_reader(
    name: str, location: str, base_dir: str, offset: int, length: int, problems: list[str]
) -> _ReadSelf | None:
    """Returns a reader for one external tensor, or None after saying what is wrong with it."""
    what = f"initializer '{name}': external data '{location}'"
    parts = location.replace("\\", "/").split("/")
    if not location or os.path.isabs(location) or ".." in parts or ":" in parts[0]:
        problems.append(f"{what}: the location must be a path below the model's folder")
        return None
    path = os.path.join(base_dir, location)
    if not os.path.isfile(path):
        problems.append(f"{what}: no such file in {base_dir}; put it beside the model")
        return None
    if not os.path.realpath(path).startswith(os.path.join(os.path.realpath(base_dir), "")):
        problems.append(f"{what}: the location leads outside the model's folder")
        return None
    size = os.path.getsize(path)
    if offset < 0 or length < 0 or offset + length > size:
        problems.append(
            f"{what}: needs bytes {offset} to {offset + length}, but the file has {size}"
        )
        return None
    return _file_reader(path)


def _typed_loader(
    tensor: onnx.TensorProto, read: _ReadSelf, offset: int, length: int
) -> Callable[[], np.ndarray]:
    import onnx_ir as ir

    dtype = ir.DataType(tensor.data_type)
    dims = tuple(tensor.dims)

    def load() -> np.ndarray:
        raw = read(offset, length)
        if dtype.bitwidth < 8:
            import onnx
            from onnx import numpy_helper

            packed = onnx.TensorProto(dims=dims, data_type=int(dtype), raw_data=raw.tobytes())
            return numpy_helper.to_array(packed)
        typed = raw.view(dtype.numpy().newbyteorder("<"))
        return typed.astype(dtype.numpy(), copy=False).reshape(dims)

    return load


def _proto_loader(tensor: onnx.TensorProto) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        from onnx import numpy_helper

        return numpy_helper.to_array(tensor)

    return load


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
