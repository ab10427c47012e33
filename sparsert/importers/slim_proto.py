"""Reads an ONNX protobuf without its weights: large payloads stay where they are until read."""

from __future__ import annotations

import dataclasses
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# Tensors up to this size stay inside the slim proto: shape inference reads their values.
INLINE_BYTES = 1024
# External-data location that marks a payload found in the ONNX file itself. It is of this process
# alone, so that no file can name it.
SELF_LOCATION = f"sparsert:self:{secrets.token_hex(16)}"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW_DATA = 9
_TENSOR_DATA_LOCATION = 14


class WireError(ValueError):
    """The bytes are not a well-formed protobuf message."""


class FileBytes:
    """The bytes of a file, read on demand in small pieces: int and slice indexing as in bytes.

    A memory map would do the same but counts as resident wherever the kernel reads ahead.
    """

    _PIECE_BYTES = 1 << 14

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._piece = b""
        self._piece_start = 0

    def __len__(self) -> int:
        return self._size

    def read(self, start: int, end: int) -> bytes:
        """Returns the bytes [start, end)."""
        parts = []
        while start < end:
            part = os.pread(self._descriptor, end - start, start)
            if not part:
                raise WireError(f"truncated at byte {start}")
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def byte(self, at: int) -> int:
        """Returns one byte."""
        if not self._piece_start <= at < self._piece_start + len(self._piece):
            self._piece_start = at
            self._piece = self.read(at, min(at + self._PIECE_BYTES, self._size))
        return self._piece[at - self._piece_start]


class MemoryBytes:
    """The same interface over bytes in memory."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def read(self, start: int, end: int) -> bytes:
        """Returns the bytes [start, end)."""
        return bytes(self._data[start:end])

    def byte(self, at: int) -> int:
        """Returns one byte."""
        return self._data[at]


Source = FileBytes | MemoryBytes


@dataclasses.dataclass(frozen=True)
class _Field:
    number: int
    wire_type: int
    start: int  # first byte of the key
    payload: int  # first byte of the value
    end: int  # one past the value


def _read_varint(data: Source, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data.byte(at)
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError(f"truncated or corrupt at byte {at}")


def _fields(data: Source, at: int, end: int) -> list[_Field]:
    """Splits data[at:end] into the fields of one message."""
    fields = []
    while at < end:
        start = at
        key, at = _read_varint(data, at, end)
        number, wire_type = key >> 3, key & 7
        payload = at
        if number == 0:
            raise WireError(f"corrupt field key at byte {start}")
        if wire_type == _VARINT:
            _, at = _read_varint(data, at, end)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _BYTES:
            length, payload = _read_varint(data, at, end)
            at = payload + length
        elif wire_type == _FIXED32:
            at += 4
        else:
            raise WireError(f"unknown wire type {wire_type} at byte {start}")
        if at > end:
            raise WireError(
                f"truncated: field {number} at byte {start} ends at byte {at}, "
                f"but only {end} bytes are there"
            )
        fields.append(_Field(number, wire_type, start, payload, at))
    return fields


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _length_delimited(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(body)) + body


def _external_entry(key: str, value: str) -> bytes:
    body = _length_delimited(1, key.encode()) + _length_delimited(2, value.encode())
    return _length_delimited(13, body)  # TensorProto.external_data


def _is_large_payload(field: _Field) -> bool:
    return field.number == _TENSOR_RAW_DATA and field.end - field.payload > INLINE_BYTES


def _slim_tensor(data: Source, tensor: _Field) -> bytes:
    """Returns a TensorProto with a large raw_data replaced by its place in the file."""
    kept = bytearray()
    fields = _fields(data, tensor.payload, tensor.end)
    if not any(_is_large_payload(field) for field in fields):
        return data.read(tensor.payload, tensor.end)
    for field in fields:
        if field.number == _TENSOR_DATA_LOCATION:
            continue  # what writers say explicitly would come after, and undo, what is said here
        if _is_large_payload(field):
            kept += _external_entry("location", SELF_LOCATION)
            kept += _external_entry("offset", str(field.payload))
            kept += _external_entry("length", str(field.end - field.payload))
            kept += _varint(_TENSOR_DATA_LOCATION << 3 | _VARINT) + b"\x01"  # EXTERNAL
        else:
            kept += data.read(field.start, field.end)
    return bytes(kept)


def slim_bytes(data: Source) -> bytes:
    """Returns a serialised onnx.ModelProto in which no initializer holds more than INLINE_BYTES.

    Larger ones say, as external data at SELF_LOCATION, at which offset of `data` they lie. Only
    the bytes around the weights are read.

    Args:
        data: a serialised onnx.ModelProto.

    Raises:
        WireError: `data` is not a well-formed message.
    """
    out = bytearray()
    for field in _fields(data, 0, len(data)):
        if field.number != _MODEL_GRAPH or field.wire_type != _BYTES:
            out += data.read(field.start, field.end)
            continue
        graph = bytearray()
        for inner in _fields(data, field.payload, field.end):
            if inner.number == _GRAPH_INITIALIZER and inner.end - inner.payload > INLINE_BYTES:
                graph += _length_delimited(_GRAPH_INITIALIZER, _slim_tensor(data, inner))
            else:
                graph += data.read(inner.start, inner.end)
        out += _length_delimited(_MODEL_GRAPH, bytes(graph))
    return bytes(out)


def slim_copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of `proto` in which large initializers are SELF_LOCATION stubs.

    The stub's offset is the initializer's index in `proto.graph.initializer`.
    """
    import onnx

    copy = onnx.ModelProto()
    for descriptor, value in proto.ListFields():
        if descriptor.name != "graph":
            _copy_field(copy, descriptor.name, value)
    copy.graph.SetInParent()
    for descriptor, value in proto.graph.ListFields():
        if descriptor.name != "initializer":
            _copy_field(copy.graph, descriptor.name, value)
    for index, tensor in enumerate(proto.graph.initializer):
        stub = copy.graph.initializer.add()
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.ByteSize() <= INLINE_BYTES:
            stub.CopyFrom(tensor)
            continue
        stub.name = tensor.name
        stub.dims.extend(tensor.dims)
        stub.data_type = tensor.data_type
        stub.data_location = onnx.TensorProto.EXTERNAL
        for key, text in (("location", SELF_LOCATION), ("offset", str(index))):
            entry = stub.external_data.add()
            entry.key, entry.value = key, text
    return copy


def _copy_field(message: object, name: str, value: object) -> None:
    target = getattr(message, name)
    if hasattr(value, "CopyFrom"):
        target.CopyFrom(value)
    elif hasattr(target, "extend"):
        target.extend(value)
    else:
        setattr(message, name, value)
