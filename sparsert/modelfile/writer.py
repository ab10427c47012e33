"""Writes a canonical onnx_ir model as a .sprt file."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsert.errors import (
    ModelFormatError,
    SparsertError,
    UnsupportedOpError,
    describe_problems,
)
from sparsert.formats import (
    F16,
    F32,
    I8,
    Encoded,
    Encoding,
    encode_dense,
    encode_smallest,
    fits_f16,
)
from sparsert.formats.layout import Layout, matrix_shape
from sparsert.modelfile import tables
from sparsert.modelfile.lower_node import FileNode, lower_node
from sparsert.modelfile.opset import (
    ATTRS,
    DTYPE_BYTES,
    DTYPE_NUMPY,
    MAX_RANK,
    OP_RULES,
    OPS,
    AttrType,
)
from sparsert.modelfile.tables import NO_INDEX, Section, align

if TYPE_CHECKING:
    import onnx_ir as ir

    from sparsert.modelfile.reader import NodeInfo

Buffer = bytes | bytearray | memoryview

WEIGHTS = ("f32", "f16")
# Ops whose input 1 is a matrix of weights: what weights="f16" rounds. Other constants (biases,
# scales, epsilons) keep every bit.
WEIGHTED_OPS = ("Conv", "ConvTranspose", "Linear", "Recurrent")
# Bytes that are written to a file at a time. Linux keeps a file in memory in pieces as large as
# they were written, and a process that maps it gets whole pieces: else 2 MB for a row of a table.
_WRITTEN_BYTES = 1 << 16
# Ops whose input 1 is a matrix of i8.
BYTE_OPS = ("QConv", "QDepthwise", "QConvDynamic")


def write_bytes(
    model: ir.Model, weights: str = "f32", metadata: Mapping[str, Any] | None = None
) -> bytes:
    """Returns a canonical model as the bytes of a .sprt file.

    Args:
        model: canonical graph (sparsert opset), nodes in topological order.
        weights: "f32", or "f16" to store the weights of Conv, ConvTranspose and Linear as f16
            (a weight tensor with values beyond the range of f16 stays f32).
        metadata: anything that json.dumps takes; kept as it is, not used to run the model.

    Raises:
        UnsupportedOpError: names every node that is not in the sparsert opset.
        ModelFormatError: the graph is cyclic, out of order or ill-typed; names every problem.
        ValueError: unknown `weights`.
    """
    return b"".join(_chunks(model, weights, metadata))


def write_aligned(model: ir.Model, weights: str = "f32") -> NDArray[np.uint8]:
    """Returns what write_bytes() does as an array that the native backend reads in place.

    The weights of a model that was read lazily are in memory once, not twice: each buffer is given
    up when it has been copied.
    """
    chunks = _chunks(model, weights, None)
    size = sum(len(chunk) for chunk in chunks)
    room = np.empty(size + tables.ALIGNMENT, np.uint8)
    start = -room.ctypes.data % tables.ALIGNMENT
    file = room[start : start + size]
    left: Any = memoryview(file.data)
    chunks.reverse()
    while chunks:
        chunk = chunks.pop()
        left[: len(chunk)] = chunk
        left = left[len(chunk) :]
    return file


def write_file(
    model: ir.Model,
    path: str | os.PathLike[str],
    weights: str = "f32",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a canonical model to `path` atomically, without joining its bytes in memory.

    Arguments and errors are those of write_bytes, and OSError. When anything fails, a file that
    was at `path` stays as it was.
    """
    save_atomic(path, _chunks(model, weights, metadata))


def save_atomic(path: str | os.PathLike[str], data: Any) -> None:
    """Replaces the file at `path` by `data`, or leaves it untouched when anything fails.

    The bytes go to a temporary file in the same directory, are synced to disk, and the temporary
    file then takes the place (and the permissions) of the old one. Symbolic links are followed.

    Args:
        path: the file to write.
        data: a buffer (bytes, a contiguous array, ...), or an iterable of buffers to be written
            one after the other.

    Raises:
        OSError: the directory is missing or not writable, the disk is full, ...
    """
    try:
        chunks: Iterable[Any] = (memoryview(data).cast("B"),)
    except TypeError:
        chunks = data
    target = Path(os.path.realpath(path))
    try:
        _replace(target, chunks)
    except OSError as error:
        named = os.path.basename(error.filename or "")
        if error.errno is None or (named and not named.startswith(f".{target.name}.")):
            raise  # of what the chunks are read from
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def _replace(target: Path, chunks: Iterable[Any]) -> None:
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                view = memoryview(chunk).cast("B")
                for start in range(0, len(view), _WRITTEN_BYTES):
                    file.write(view[start : start + _WRITTEN_BYTES])
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _file_mode(target))
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(target.parent)


def join_sections(
    sections: Mapping[Section, Sequence[Buffer]], level_count: int = 0, levels_first: int = 0
) -> list[Buffer]:
    """Returns a file with these sections, each given in parts: buffers in order, header first.

    Args:
        sections: all of them.
        level_count: how many levels the file has; 0: it has none.
        levels_first: the tensor that is the table of the first level.
    """
    header = np.zeros(1, tables.HEADER)
    body: list[Buffer] = []
    offset = tables.HEADER_BYTES
    for section in Section:
        size = sum(len(chunk) for chunk in sections[section])
        header["sections"][0][section] = offset, size
        body.extend(sections[section])
        end = offset + size
        if section != Section.METADATA:
            offset = align(end)
            body.append(bytes(offset - end))
    header["magic"] = np.void(tables.MAGIC)
    header["version_major"] = tables.VERSION_MAJOR
    header["version_minor"] = tables.VERSION_MINOR_LEVELS if level_count else tables.VERSION_MINOR
    header["level_count"], header["levels_first"] = level_count, levels_first
    header["header_bytes"] = tables.HEADER_BYTES
    header["file_bytes"] = end
    crc = zlib.crc32(header.tobytes()[tables.CRC_START :])
    for chunk in body:
        crc = zlib.crc32(chunk, crc)
    header["crc32"] = crc
    return [header.tobytes(), *body]


def encode_float(array: NDArray[Any], is_weight: bool, weights: str) -> Encoded:
    """Encodes an f32 constant.

    Args:
        array: its values.
        is_weight: whether it is the matrix of a Conv, ConvTranspose or Linear (input 1).
        weights: how such matrices are stored, "f32" or "f16".
    """
    if array.ndim < 2:
        return encode_dense(array, F32)
    narrow = is_weight and weights == "f16" and fits_f16(array)
    return encode_smallest(array, F16 if narrow else F32)


def _file_mode(target: Path) -> int:
    """Returns the permissions of the file to be replaced, or those of a new file."""
    try:
        return target.stat().st_mode & 0o7777
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


def _sync_directory(directory: Path) -> None:
    """Makes the new name durable, where the system can."""
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _chunks(model: ir.Model, weights: str, metadata: Mapping[str, Any] | None) -> list[Buffer]:
    """Returns the file as buffers in order; dense weights are views of the model's arrays."""
    builder = FileBuilder(model.graph, weights)
    builder.build()
    return builder.chunks(encode_metadata(model, metadata))


def encode_metadata(model: ir.Model, metadata: Mapping[str, Any] | None) -> bytes:
    """Returns the user's metadata, and what a canonical model knows of itself, as JSON."""
    facts = dict(metadata or {})
    if tables.FLOAT_LAYERS in model.metadata_props:
        facts.setdefault(tables.FLOAT_LAYERS, json.loads(model.metadata_props[tables.FLOAT_LAYERS]))
    return json.dumps(facts, ensure_ascii=False).encode()


class FileBuilder:
    """Fills the tables of one file."""

    def __init__(self, graph: ir.Graph, weights: str) -> None:
        if weights not in WEIGHTS:
            raise ValueError(f"weights={weights!r}, expected one of {', '.join(WEIGHTS)}")
        self._graph = graph
        self._weights_as = weights
        self._strings = bytearray()
        self._string_offsets: dict[str, int] = {}
        self._symbols: dict[str, int] = {}
        self._values: dict[int, int] = {}  # id of a value -> index of its tensor
        self._tensors: list[tuple[Any, ...]] = []
        self._nodes: list[tuple[Any, ...]] = []
        self._node_io: list[int] = []
        self._attrs: list[tuple[Any, ...]] = []
        self._ints: list[int] = []
        self._dims: list[int] = []
        self._graph_io: list[int] = []
        self._data: list[Buffer] = []
        self._data_bytes = 0
        self._weights: set[int] = set()
        self._byte_weights: set[int] = set()
        self._problems: list[SparsertError] = []
        self._levels = (0, 0)  # how many, and the tensor of the first one's table

    def build(self) -> None:
        """Fills every table, or raises one error that lists all problems."""
        nodes = self._lower_nodes()
        self._weights = {id(n.inputs[1]) for n in nodes if n.op in WEIGHTED_OPS}
        self._weights |= {id(n.inputs[3]) for n in nodes if has_candidate(n)}
        self._byte_weights = {id(n.inputs[1]) for n in nodes if n.op in BYTE_OPS}
        inputs = [value for value in self._graph.inputs if value.const_value is None]
        for value in inputs:
            self._try(lambda value=value: self._add_activation(value, boundary=True))
        outputs = {id(value) for value in self._graph.outputs}
        for node in nodes:
            self._try(lambda node=node: self._add_node(node, outputs))
        for value in self._graph.outputs:
            self._try(lambda value=value: self._use(value, "the graph's outputs"))
        self._raise_problems()
        ends = [*inputs, *self._graph.outputs]
        indices = [self._values[id(value)] for value in ends]
        self._graph_io = [len(inputs), len(self._graph.outputs), *indices]
        for kind, values in (("inputs", inputs), ("outputs", list(self._graph.outputs))):
            names = [value.name or "" for value in values]
            if len(set(names)) != len(names):
                raise ModelFormatError(f"the graph's {kind} repeat a name: {', '.join(names)}")

    def chunks(self, metadata: bytes) -> list[Buffer]:
        """Returns the finished file as buffers in order."""
        arrays: dict[Section, list[Any]] = {
            Section.TENSORS: self._tensors,
            Section.NODES: self._nodes,
            Section.NODE_IO: self._node_io,
            Section.ATTRS: self._attrs,
            Section.INTS: self._ints,
            Section.FLOATS: [],
            Section.DIMS: self._dims,
            Section.SYMBOLS: [self._string(name) for name in self._symbols],
            Section.GRAPH_IO: self._graph_io,
        }
        sections: dict[Section, list[Buffer]] = {
            section: [np.array(rows, tables.SECTION_DTYPES[section]).tobytes()]
            for section, rows in arrays.items()
        }
        sections[Section.STRINGS] = [self._strings]
        sections[Section.DATA] = self._data
        sections[Section.METADATA] = [metadata]
        return join_sections(sections, *self._levels)

    def _lower_nodes(self) -> list[FileNode]:
        nodes: list[FileNode] = []
        for node in self._graph:
            if node.op_type == "Constant" and node.domain == "":
                continue
            self._try(lambda node=node: nodes.append(lower_node(node)))
        self._raise_problems()
        return nodes

    def _try(self, action: Any) -> None:
        try:
            action()
        except (UnsupportedOpError, ModelFormatError) as error:
            self._problems.append(error)

    def _raise_problems(self) -> None:
        if not self._problems:
            return
        unsupported = any(isinstance(p, UnsupportedOpError) for p in self._problems)
        kind = UnsupportedOpError if unsupported else ModelFormatError
        raise kind(describe_problems("the graph", [str(p) for p in self._problems]))

    def _add_node(self, node: FileNode, graph_outputs: set[int]) -> None:
        where = f"node '{node.name}' ({node.op})"
        io_first = len(self._node_io)
        for i, value in enumerate(node.inputs):
            index = NO_INDEX if value is None else self._use(value, where)
            is_constant = index != NO_INDEX and self._tensors[index][3] == 1
            if i in OP_RULES[node.op].constants and index != NO_INDEX and not is_constant:
                raise UnsupportedOpError(f"{where}: input {i} must be a constant")
            self._node_io.append(index)
        for value in node.outputs:
            boundary = id(value) in graph_outputs
            self._node_io.append(self._add_activation(value, boundary=boundary))
        attrs_first = len(self._attrs)
        for name in sorted(node.attrs, key=lambda name: ATTRS[name]):
            self._add_attr(name, node.attrs[name], where)
        n_attrs = len(self._attrs) - attrs_first
        self._nodes.append(
            (
                OPS[node.op],
                1,
                *self._string(node.name),
                io_first,
                len(node.inputs),
                len(node.outputs),
                attrs_first,
                n_attrs,
                b"",
            )
        )

    def _add_attr(self, name: str, value: int | float | tuple[int, ...], where: str) -> None:
        key = ATTRS[name]
        try:
            if isinstance(value, tuple):
                payload = len(self._ints)
                self._attrs.append((key, AttrType.INTS, 0, len(value), payload))
                self._ints.extend(value)
            elif isinstance(value, float):
                payload = struct.unpack("<I", struct.pack("<f", value))[0]
                self._attrs.append((key, AttrType.FLOAT, 0, 1, payload))
            else:
                payload = struct.unpack("<Q", struct.pack("<q", value))[0]
                self._attrs.append((key, AttrType.INT, 0, 1, payload))
        except (struct.error, OverflowError):
            raise ModelFormatError(f"{where}: {name}={value} is out of range") from None

    def _use(self, value: ir.Value, where: str) -> int:
        """Returns the tensor of a value that must exist by now; adds it if it is a constant."""
        import onnx_ir as ir

        index = self._values.get(id(value))
        if index is not None:
            return index
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None:
            raise ModelFormatError(
                f"{where}: tensor '{value.name}' is used before it is produced"
                " (the graph is cyclic, out of order or incomplete)"
            )
        return self._add_constant(value, tensor, where)

    def _add_activation(self, value: ir.Value, *, boundary: bool) -> int:
        """Adds an input or a node's output; `boundary` tensors keep unnamed dims as symbols."""
        name = value.name or ""
        if id(value) in self._values:
            raise ModelFormatError(f"tensor '{name}' is produced twice")
        if boundary and not name:
            raise ModelFormatError("an input or output of the graph has no name")
        dtype = int(value.dtype) if value.dtype is not None else 0
        if dtype not in (0, *DTYPE_BYTES):
            raise UnsupportedOpError(f"tensor '{name}': dtype {value.dtype} is not supported")
        if dtype == 0 and value.is_graph_input():
            raise ModelFormatError(f"input '{name}' of the graph has no dtype")
        rank, dims_first = tables.UNKNOWN_RANK, 0
        dims = self._symbolic_dims(value, boundary)
        if dims is not None:
            rank, dims_first = len(dims), self._append_dims(dims)
        record = (*self._string(name), dtype, 0, 0, rank, dims_first)
        self._values[id(value)] = len(self._tensors)
        self._tensors.append((*record, 0, 0, 0, 0, 0, 0, 0, 0, NO_INDEX, 0, 0))
        return len(self._tensors) - 1

    def _symbolic_dims(self, value: ir.Value, boundary: bool) -> list[int] | None:
        """Returns the dims of an activation, None when its rank is (or may stay) unknown."""
        if value.shape is None:
            return None
        if len(value.shape) > MAX_RANK:
            raise UnsupportedOpError(f"tensor '{value.name}': rank {len(value.shape)} > {MAX_RANK}")
        names: list[int | str] = []
        for i, dim in enumerate(value.shape):
            size = dim if isinstance(dim, int) else dim.value
            if size is None:
                if not boundary:
                    return None
                size = f"{value.name}_dim{i}"
            names.append(size if isinstance(size, int) else str(size))
        return [
            n if isinstance(n, int) else -1 - self._symbols.setdefault(n, len(self._symbols))
            for n in names
        ]

    def _add_constant(self, value: ir.Value, tensor: ir.TensorProtocol, where: str) -> int:
        name = value.name or ""
        dtype = int(tensor.dtype)
        dims = tuple(int(dim) for dim in tensor.shape.numpy())
        if dtype not in DTYPE_BYTES or len(dims) > MAX_RANK:
            raise UnsupportedOpError(
                f"{where}: constant '{name}' of dtype {tensor.dtype} and shape {list(dims)}"
                " is not supported"
            )
        array = tensor.numpy()
        if array.shape != dims:
            raise ModelFormatError(f"{where}: constant '{name}': {array.shape} is not {dims}")
        index = self._append_constant(name, dims, dtype, self._encode(value, array, dtype))
        self._values[id(value)] = index
        return index

    def _encode(self, value: ir.Value, array: NDArray[Any], dtype: int) -> Encoded:
        """Encodes the values of a constant."""
        if dtype == F32:
            return encode_float(array, id(value) in self._weights, self._weights_as)
        if dtype == I8 and id(value) in self._byte_weights:
            return encode_smallest(array, I8)
        return encode_exact(array, dtype)

    def _append_constant(
        self, name: str, dims: tuple[int, ...], dtype: int, encoded: Encoded
    ) -> int:
        layout = encoded.layout
        padding = align(self._data_bytes) - self._data_bytes
        self._data.append(bytes(padding))
        self._data_bytes += padding
        record = (
            *self._string(name),
            dtype,
            1,
            int(layout.encoding),
            len(dims),
            self._append_dims(dims),
            self._data_bytes,
            encoded.nbytes,
            layout.stored_values,
            layout.block_rows,
            layout.block_cols,
            encoded.value_dtype,
            layout.index_kind,
            0,
            NO_INDEX,
            0,
            layout.index_bytes,
        )
        self._data.extend(part.data for part in encoded.parts)
        self._data_bytes += encoded.nbytes
        self._tensors.append(record)
        return len(self._tensors) - 1

    def _append_dims(self, dims: Iterable[int]) -> int:
        first = len(self._dims)
        self._dims.extend(dims)
        return first

    def _string(self, text: str) -> tuple[int, int]:
        """Returns (offset, length) of a string in the strings section."""
        encoded = text.encode()
        if b"\0" in encoded:
            raise ModelFormatError(f"the name {text!r} holds a zero byte")
        if text not in self._string_offsets:
            self._string_offsets[text] = len(self._strings)
            self._strings += encoded
        return self._string_offsets[text], len(encoded)


def has_candidate(node: FileNode | NodeInfo) -> bool:
    """Whether input 3 is a matrix of weights too: of a Recurrent."""
    return node.op == "Recurrent" and len(node.inputs) > 3 and node.inputs[3] is not None


def encode_exact(array: NDArray[Any], dtype: int) -> Encoded:
    """Stores a constant that is not f32 as it is."""
    stored = np.ascontiguousarray(array).astype(DTYPE_NUMPY[dtype], copy=False)
    rows, cols = matrix_shape(array.shape)
    layout = Layout(Encoding.DENSE, stored.itemsize, rows, cols, stored_values=stored.size)
    return Encoded(layout, dtype, (stored.reshape(-1).view(np.uint8),))
