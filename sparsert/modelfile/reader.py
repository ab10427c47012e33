"""Reads the tables of a .sprt file with NumPy alone, checking that they hold together.

The bytes of weights are checked when they are decoded (TensorInfo.decode); the values of
attributes (a stride of 0, say) when the graph is run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsert.errors import ModelFormatError, describe_problems
from sparsert.formats import F16, F32, I8, Encoding, IndexKind, Layout, decode
from sparsert.formats.layout import BLOCK_SHAPES, matrix_shape
from sparsert.modelfile import tables
from sparsert.modelfile.levels import LevelTable, read_levels
from sparsert.modelfile.opset import (
    ATTRS,
    DTYPE_BYTES,
    DTYPE_NUMPY,
    MAX_RANK,
    OP_RULES,
    OPS,
    VARIADIC,
    AttrType,
    attr_types,
    enum_names,
)
from sparsert.modelfile.tables import NO_INDEX, Section, align

_OP_NAMES = {number: name for name, number in OPS.items()}
_ATTR_NAMES = {number: name for name, number in ATTRS.items()}
# Zero in the records of activations.
_DATA_FIELDS = (
    "encoding",
    "data_offset",
    "data_bytes",
    "nnz",
    "block_rows",
    "block_cols",
    "value_dtype",
    "index_kind",
    "index_bytes",
)
_MAX_LISTED = 8
_MAX_INTS = 16
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\x80\x02", "a pickle"),
    (b"\x89HDF", "an HDF5 file"),
)

AttrValue = int | float | tuple[int, ...] | tuple[float, ...] | str


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the file.

    `dims` holds ints and, for symbolic dimensions, names; None when the rank is unknown.
    `layout`, `value_dtype` and `data` (uint8, the stored bytes) belong to constants; `keep` (which
    of the stored values count) and `scale` (of each row) to those of a level.
    """

    name: str
    dtype: int
    dims: tuple[int | str, ...] | None
    layout: Layout | None = None
    value_dtype: int = 0
    data: NDArray[np.uint8] | None = field(default=None, repr=False)
    keep: NDArray[np.bool_] | None = field(default=None, repr=False)
    scale: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def is_constant(self) -> bool:
        """Whether the file holds the tensor's values."""
        return self.data is not None

    def decode(self) -> NDArray[Any]:
        """Returns a constant's values, [dims], of its dtype.

        Raises:
            ModelFormatError: the stored bytes are invalid.
            ValueError: not a constant.
        """
        if self.data is None or self.layout is None or self.dims is None:
            raise ValueError(f"tensor '{self.name}' is not a constant")
        try:
            matrix = decode(self.layout, self._kept_data(), np.dtype(DTYPE_NUMPY[self.value_dtype]))
        except (ModelFormatError, MemoryError) as error:
            raise ModelFormatError(f"tensor '{self.name}': {error}") from None
        values = matrix.astype(DTYPE_NUMPY[self.dtype], copy=False)
        if self.scale is not None:
            values = values * self.scale[:, None]
        return values.reshape([dim for dim in self.dims if isinstance(dim, int)])

    def _kept_data(self) -> NDArray[np.uint8]:
        """Returns the stored bytes, with 0 for values that a level does not keep."""
        assert self.data is not None
        assert self.layout is not None
        if self.keep is None:
            return self.data
        data = self.data.copy()
        values = data[self.layout.values_offset :].view(DTYPE_NUMPY[self.value_dtype])
        values[~self.keep] = 0
        return data


@dataclass(frozen=True)
class NodeInfo:
    """A node of the file; inputs and outputs are indices of tensors, None for absent inputs."""

    op: str
    name: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    attrs: dict[str, AttrValue]


@dataclass(frozen=True)
class ModelFile:
    """The content of a .sprt file; inputs and outputs are indices of tensors.

    `tensors` are those of the first level; at_level() has the others.
    """

    version: tuple[int, int]
    file_bytes: int
    tensors: tuple[TensorInfo, ...]
    nodes: tuple[NodeInfo, ...]
    symbols: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: dict[str, Any]
    levels: tuple[LevelTable, ...] = ()


def read(source: Any, label: str | None = None) -> ModelFile:
    """Reads a .sprt file.

    Args:
        source: a path, or a buffer with the file's bytes (constants are then views of it).
        label: what messages call the file; None: its path, or "the model".

    Returns:
        The tables of the file.

    Raises:
        ModelFormatError: the file is missing or not a valid .sprt file; says what is wrong where.
    """
    raw = source
    if isinstance(source, str | os.PathLike):
        label = label or os.fspath(source)
        try:
            raw = Path(source).read_bytes()
        except OSError as error:
            raise ModelFormatError(f"{label}: {error.strerror or error}") from error
    label = label or "the model"
    data = np.frombuffer(raw, np.uint8)
    try:
        return _Reader(data).read()
    except _Problems as problems:
        raise ModelFormatError(describe_problems(label, problems.found)) from None


def has_levels(file: Any) -> bool:
    """Whether the header of a file, given as any buffer, says that it has levels."""
    data = np.frombuffer(file, np.uint8)
    if data.size < tables.HEADER_BYTES:
        return False
    return int(data[: tables.HEADER_BYTES].view(tables.HEADER)[0]["level_count"]) > 0


def read_metadata(file: Any) -> dict[str, Any]:
    """Returns the metadata of a file that is valid but for it; {} if it is no JSON object.

    Args:
        file: the file's bytes (any buffer).
    """
    data = np.frombuffer(file, np.uint8)
    header = data[: tables.HEADER_BYTES].view(tables.HEADER)[0]
    offset, size = (int(v) for v in header["sections"][Section.METADATA])
    try:
        metadata = json.loads(data[offset : offset + size].tobytes())
    except (ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


class _Problems(Exception):
    """Carries what is wrong with the file."""

    def __init__(self, *found: str) -> None:
        super().__init__(*found)
        self.found = list(found)


class _Reader:
    """Reads one file; checks collect their problems in `_found`."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data = data
        self._found: list[str] = []
        self._tables: dict[Section, NDArray[Any]] = {}
        self._starts: dict[Section, int] = {}

    def read(self) -> ModelFile:
        header = _read_header(self._data)
        self._split(header)
        symbols = tuple(
            self._text(int(row["str_off"]), int(row["str_len"]), f"symbol {i}")
            for i, row in enumerate(self._tables[Section.SYMBOLS])
        )
        tensors = self._read_tensors(symbols)
        self._stop_if_problems()
        nodes = self._read_nodes(len(tensors))
        self._stop_if_problems()
        inputs, outputs = self._read_graph_io(tensors)
        self._check_order(tensors, nodes, inputs, outputs)
        metadata = self._read_metadata()
        self._stop_if_problems()
        version = int(header["version_major"]), int(header["version_minor"])
        size = int(header["file_bytes"])
        file = ModelFile(version, size, tensors, nodes, symbols, inputs, outputs, metadata)
        count, first = int(header["level_count"]), int(header["levels_first"])
        if count:
            levels = read_levels(file, first, count, self._found.append)
            file = dataclasses.replace(file, levels=levels)
            self._stop_if_problems()
        return file

    def _stop_if_problems(self) -> None:
        if self._found:
            more = len(self._found) - _MAX_LISTED
            listed = self._found[:_MAX_LISTED]
            raise _Problems(*listed, *([f"and {more} more problems"] if more > 0 else []))

    def _split(self, header: Any) -> None:
        """Cuts the file into its sections."""
        end = tables.HEADER_BYTES
        for section in Section:
            offset, size = (int(v) for v in header["sections"][section])
            name = section.name.lower()
            if offset != align(end) or size > self._data.size - offset:
                raise _Problems(
                    f"section {name} is at {offset} with {size} bytes, expected at {align(end)}"
                    f" and within the file's {self._data.size} bytes"
                )
            end = offset + size
            dtype = tables.SECTION_DTYPES.get(section, np.dtype(np.uint8))
            if size % dtype.itemsize:
                raise _Problems(
                    f"section {name} at {offset}: {size} bytes are not a whole number of"
                    f" {dtype.itemsize}-byte records"
                )
            self._starts[section] = offset
            self._tables[section] = self._data[offset:end].view(dtype)
        if end != self._data.size:
            raise _Problems(f"the last section ends at {end}, the file at {self._data.size}")

    def _at(self, section: Section, index: int) -> str:
        return f"at byte {self._starts[section] + index * tables.SECTION_DTYPES[section].itemsize}"

    def _text(self, offset: int, length: int, what: str) -> str:
        strings = self._tables[Section.STRINGS]
        if offset > strings.size or length > strings.size - offset:
            self._found.append(f"{what}: its name at {offset} + {length} is past the strings")
            return ""
        try:
            text = strings[offset : offset + length].tobytes().decode()
        except UnicodeDecodeError:
            self._found.append(f"{what}: its name is not valid UTF-8")
            return ""
        if "\0" in text:
            self._found.append(f"{what}: its name holds a zero byte")
        return text

    def _read_tensors(self, symbols: tuple[str, ...]) -> tuple[TensorInfo, ...]:
        tensors = []
        data_end = 0
        for i, row in enumerate(self._tables[Section.TENSORS]):
            record = {name: row[name].item() for name in tables.TENSOR.names or ()}
            what = f"tensor {i} {self._at(Section.TENSORS, i)}"
            name = self._text(record["name_off"], record["name_len"], what)
            what = f"tensor {i} '{name}' {self._at(Section.TENSORS, i)}"
            if record["reserved"] or record["reserved2"] or record["quant"] != NO_INDEX:
                self._found.append(f"{what}: a reserved field is not as expected")
            dims = self._dims(record, symbols, what)
            if record["kind"] == 0:
                has_data = any(record[key] for key in _DATA_FIELDS)
                if has_data or record["dtype"] not in (0, *DTYPE_BYTES):
                    self._found.append(f"{what}: an invalid record of an activation")
                tensors.append(TensorInfo(name, record["dtype"], dims))
                continue
            try:
                tensor, data_end = self._constant(name, record, dims, data_end)
                tensors.append(tensor)
            except ModelFormatError as error:
                self._found.append(f"{what}: {error}")
                data_end = record["data_offset"] + record["data_bytes"]
        if not self._found and data_end != self._tables[Section.DATA].size:
            self._found.append(
                f"tensors use {data_end} bytes of the {self._tables[Section.DATA].size} of data"
            )
        return tuple(tensors)

    def _dims(
        self, record: dict[str, Any], symbols: tuple[str, ...], what: str
    ) -> tuple[int | str, ...] | None:
        rank, first = record["rank"], record["dims_first"]
        if rank == tables.UNKNOWN_RANK:
            return None
        table = self._tables[Section.DIMS]
        if rank > MAX_RANK or first + rank > table.size:
            self._found.append(f"{what}: rank {rank} with dims at {first} of {table.size}")
            return None
        dims: list[int | str] = []
        elements = 1
        for dim in table[first : first + rank].tolist():
            if dim < -len(symbols):
                self._found.append(f"{what}: dim {dim} names no symbol")
                return None
            dims.append(dim if dim >= 0 else symbols[-dim - 1])
            elements *= max(dim, 1)
        if elements > tables.MAX_ELEMENTS:
            self._found.append(f"{what}: more than 2^40 elements")
        return tuple(dims)

    def _constant(
        self, name: str, record: dict[str, Any], dims: tuple[int | str, ...] | None, data_end: int
    ) -> tuple[TensorInfo, int]:
        dtype, value_dtype = record["dtype"], record["value_dtype"]
        if record["kind"] != 1:
            raise ModelFormatError(f"kind {record['kind']}, expected 0 or 1")
        static = tuple(dim for dim in dims or () if isinstance(dim, int))
        if dims is None or len(static) != len(dims):
            raise ModelFormatError("a constant needs static dims")
        stored_as = (F32, F16) if dtype == F32 else (dtype,)
        if dtype not in DTYPE_BYTES or value_dtype not in stored_as:
            raise ModelFormatError(f"dtype {dtype} with values of dtype {value_dtype}")
        encoding = record["encoding"]
        if encoding not in list(Encoding):
            raise ModelFormatError(f"encoding {encoding}, expected 0 to 2")
        if encoding != Encoding.DENSE and (
            dtype not in (F32, I8) or len(static) < 2 or 0 in static
        ):
            raise ModelFormatError("only f32 and i8 matrices with elements may be sparse")
        layout = Layout(
            encoding,
            DTYPE_BYTES[value_dtype],
            *matrix_shape(static),
            stored_values=record["nnz"],
            index_kind=record["index_kind"],
            block_rows=record["block_rows"],
            block_cols=record["block_cols"],
            index_bytes=record["index_bytes"],
        )
        block = (layout.block_rows, layout.block_cols)
        is_block = encoding == Encoding.BLOCK
        if block not in (BLOCK_SHAPES if is_block else ((1, 1),)):
            raise ModelFormatError(f"blocks of {block[0]} x {block[1]}")
        if not is_block and (layout.index_kind or layout.index_bytes):
            raise ModelFormatError("index fields must be zero without blocks")
        if is_block and layout.index_kind not in list(IndexKind):
            raise ModelFormatError(f"index kind {layout.index_kind}, expected 0 to 2")
        offset, size = record["data_offset"], record["data_bytes"]
        if layout.nbytes != size:
            raise ModelFormatError(f"{size} bytes of data, its shape needs {layout.nbytes}")
        if encoding == Encoding.DENSE and layout.stored_values != layout.rows * layout.cols:
            raise ModelFormatError(f"{layout.stored_values} values for the shape {list(static)}")
        data = self._tables[Section.DATA]
        if offset != align(data_end) or offset + size > data.size:
            raise ModelFormatError(f"data at {offset} + {size}, expected at {align(data_end)}")
        view = data[offset : offset + size]
        return TensorInfo(name, dtype, dims, layout, value_dtype, view), offset + size

    def _read_nodes(self, n_tensors: int) -> tuple[NodeInfo, ...]:
        nodes = []
        io_used = attrs_used = 0
        io = self._tables[Section.NODE_IO]
        for i, row in enumerate(self._tables[Section.NODES]):
            record = {name: row[name].item() for name in tables.NODE.names or ()}
            what = f"node {i} {self._at(Section.NODES, i)}"
            name = self._text(record["name_off"], record["name_len"], what)
            what = f"node {i} '{name}' {self._at(Section.NODES, i)}"
            op = _OP_NAMES.get(record["op"])
            if op is None or record["op_version"] != 1:
                self._found.append(
                    f"{what}: unknown op {record['op']} version {record['op_version']}"
                    " (written by a newer sparsert?)"
                )
                return ()
            n_inputs, n_outputs = record["n_inputs"], record["n_outputs"]
            io_end = io_used + n_inputs + n_outputs
            attrs_end = attrs_used + record["n_attrs"]
            firsts = record["io_first"], record["attrs_first"]
            if firsts != (io_used, attrs_used) or io_end > io.size:
                self._found.append(f"{what}: inputs, outputs or attributes are not where expected")
                return ()
            if attrs_end > self._tables[Section.ATTRS].size:
                self._found.append(f"{what}: attributes past the end of their table")
                return ()
            indices = io[io_used:io_end].tolist()
            inputs = tuple(None if v == NO_INDEX else v for v in indices[:n_inputs])
            outputs = tuple(indices[n_inputs:])
            if any(v is not None and v >= n_tensors for v in (*inputs, *outputs)):
                self._found.append(f"{what}: an input or output is not one of {n_tensors} tensors")
            self._check_arity(op, inputs, outputs, what)
            attrs = {}
            for a in range(attrs_used, attrs_end):
                key, value = self._read_attr(op, a, what)
                if key in attrs:
                    self._found.append(f"{what}: attribute {key} is there twice")
                attrs[key] = value
            missing = set(OP_RULES[op].required) - set(attrs)
            if missing:
                self._found.append(f"{what}: attributes {', '.join(sorted(missing))} are missing")
            nodes.append(NodeInfo(op, name, inputs, outputs, attrs))
            io_used, attrs_used = io_end, attrs_end
        if (io_used, attrs_used) != (io.size, self._tables[Section.ATTRS].size):
            self._found.append("node_io or attrs holds entries of no node")
        return tuple(nodes)

    def _check_arity(
        self, op: str, inputs: tuple[int | None, ...], outputs: tuple[int, ...], what: str
    ) -> None:
        rule = OP_RULES[op]
        required = len(inputs) if rule.max_inputs == VARIADIC else rule.min_inputs
        if not rule.min_inputs <= len(inputs) <= rule.max_inputs or None in inputs[:required]:
            self._found.append(f"{what}: wrong number of inputs for {op}: {len(inputs)}")
        if not rule.min_outputs <= len(outputs) <= rule.max_outputs:
            self._found.append(f"{what}: wrong number of outputs for {op}: {len(outputs)}")

    def _read_attr(self, op: str, index: int, what: str) -> tuple[str, AttrValue]:
        row = self._tables[Section.ATTRS][index]
        key, kind, count = int(row["key"]), int(row["type"]), int(row["count"])
        name = _ATTR_NAMES.get(key, "")
        what = f"{what}, attribute {name or key}"
        if name not in OP_RULES[op].attrs or kind not in attr_types(name):
            self._found.append(f"{what} of type {kind} is not one of {op}")
            return name or str(key), 0
        payload = row["payload"]
        if kind == AttrType.INT:
            value = int(payload.astype(np.int64))
            names = enum_names(op, name)
            first = 1 if name == "fn" and op == "Unary" else 0
            if names is not None and not first <= value < len(names):
                self._found.append(f"{what}: {value} is out of range")
            return name, value
        if kind == AttrType.FLOAT:
            return name, float(np.uint32(int(payload) & NO_INDEX).view(np.float32))
        pool = self._tables[Section.INTS]
        if count > _MAX_INTS or int(payload) + count > pool.size:
            self._found.append(f"{what}: {count} values at {int(payload)} of {pool.size}")
            return name, ()
        return name, tuple(pool[int(payload) : int(payload) + count].tolist())

    def _read_graph_io(
        self, tensors: tuple[TensorInfo, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        table = self._tables[Section.GRAPH_IO].tolist()
        if len(table) < 2 or len(table) != 2 + table[0] + table[1]:
            raise _Problems("graph_io does not hold what its counts say")
        inputs, outputs = tuple(table[2 : 2 + table[0]]), tuple(table[2 + table[0] :])
        if any(index >= len(tensors) for index in (*inputs, *outputs)):
            raise _Problems(f"graph_io names a tensor past the {len(tensors)} there are")
        for kind, indices in (("input", inputs), ("output", outputs)):
            names = [tensors[index].name for index in indices]
            if len(set(names)) != len(names) or "" in names:
                self._found.append(f"{kind}s of the graph need names of their own")
        for index in inputs:
            if tensors[index].is_constant or tensors[index].dtype not in DTYPE_BYTES:
                self._found.append(f"input '{tensors[index].name}' needs a dtype and no values")
        return inputs, outputs

    def _check_order(
        self,
        tensors: tuple[TensorInfo, ...],
        nodes: tuple[NodeInfo, ...],
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
    ) -> None:
        ready = {i for i, tensor in enumerate(tensors) if tensor.is_constant} | set(inputs)
        for i, node in enumerate(nodes):
            what = f"node {i} '{node.name}' {self._at(Section.NODES, i)}"
            for position, index in enumerate(node.inputs):
                if index is not None and index not in ready:
                    self._found.append(
                        f"{what}: input {position} '{tensors[index].name}' is not produced before"
                    )
                is_constant = index is None or tensors[index].is_constant
                if position in OP_RULES[node.op].constants and not is_constant:
                    self._found.append(f"{what}: input {position} must be a constant")
            for index in node.outputs:
                if index in ready:
                    self._found.append(f"{what}: '{tensors[index].name}' is produced twice")
                ready.add(index)
        for index in outputs:
            if index not in ready:
                self._found.append(f"output '{tensors[index].name}' is never produced")

    def _read_metadata(self) -> dict[str, Any]:
        text = self._tables[Section.METADATA].tobytes()
        if not text:
            return {}
        try:
            metadata = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._found.append(f"metadata at {self._starts[Section.METADATA]}: {error}")
            return {}
        return metadata if isinstance(metadata, dict) else {"metadata": metadata}


def _read_header(data: NDArray[np.uint8]) -> Any:
    """Returns the header record once magic, version, size and checksum are right."""
    start = data[:16].tobytes()
    if not start.startswith(tables.MAGIC):
        if start and tables.MAGIC.startswith(start):
            raise _Problems(f"truncated: {data.size} bytes, not even a header")
        raise _Problems(f"not a .sprt file: {_guess_format(data)}")
    if data.size < tables.HEADER_BYTES:
        raise _Problems(f"truncated: {data.size} bytes, the header alone has 256")
    header = data[: tables.HEADER_BYTES].view(tables.HEADER)[0]
    major, minor = int(header["version_major"]), int(header["version_minor"])
    if major != tables.VERSION_MAJOR:
        newer = " (written by a newer sparsert: update this one)" if major > 1 else ""
        raise _Problems(f"version {major}.{minor} of the format, this build reads 1.x{newer}")
    if int(header["header_bytes"]) != tables.HEADER_BYTES or int(header["flags"]) != 0:
        raise _Problems("at byte 12: the header is invalid")
    expected = int(header["file_bytes"])
    if expected != data.size:
        kind = "truncated" if data.size < expected else "bytes past the end"
        raise _Problems(f"{kind}: expected {expected} bytes, the file has {data.size}")
    crc = zlib.crc32(data[tables.CRC_START :].data)
    if crc != int(header["crc32"]):
        raise _Problems(
            f"checksum mismatch: the header says {int(header['crc32']):08x}, the bytes give"
            f" {crc:08x}; the file is corrupt"
        )
    if minor == 0 and data[224 : tables.HEADER_BYTES].any():
        raise _Problems("at byte 224: the reserved bytes of the header are not zero")
    return header


def _guess_format(data: NDArray[np.uint8]) -> str:
    start = data[:512].tobytes()
    if not start:
        return "it is empty"
    for magic, name in _OTHER_FORMATS:
        if start.startswith(magic):
            return f"it looks like {name}"
    if start[0] == 8 and 0 < start[1] < 32 and b":" in start[:512]:
        return "it looks like an ONNX model (sparsert convert makes a .sprt file of it)"
    return f"it starts with {start[:8].hex(' ')}"
