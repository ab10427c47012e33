"""Finds the data of an ONNX model's tensors, and checks where they are said to be.

They are in the message itself, elsewhere in the model's own file, or in files below its folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from sparsert.errors import ModelFormatError
from sparsert.importers.slim_proto import INLINE_BYTES, SELF_LOCATION

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

# Reads one payload of the model's own file: (offset, length) -> uint8[length].
ReadSelf = Callable[[int, int], np.ndarray]
Load = Callable[[], np.ndarray]

# Where the stub of a tensor inside of a node or function says its data are; its offset is a number.
_NESTED_LOCATION = "sparsert:nested"


class Payloads:
    """Reads the external data of a model's tensors.

    Args:
        proto: the model; tensors inside of nodes get stubs that bind() knows.
        base_dir: the folder that external data must be below.
        read_self: reads the model's own file.
        original: the model whose tensors the stubs of slim_copy() stand for.
        problems: gets what is wrong.

    Attributes:
        loaders: by name, what reads each external initializer of the main graph.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        base_dir: str,
        read_self: ReadSelf | None,
        original: onnx.ModelProto | None,
        problems: list[str],
    ) -> None:
        self.loaders: dict[str, Load] = {}
        self._nested: list[Load] = []
        self._base_dir = base_dir
        self._read_self = read_self
        self._original = original
        self._problems = problems
        for tensor in proto.graph.initializer:
            load = self._find(tensor, f"initializer '{tensor.name}'")
            if load is not None:
                self.loaders[tensor.name] = load
        for where, tensor in _nested_tensors(proto):
            load = self._find(tensor, where)
            if load is None:
                continue
            del tensor.external_data[:]
            tensor.external_data.add(key="location", value=_NESTED_LOCATION)
            tensor.external_data.add(key="offset", value=str(len(self._nested)))
            self._nested.append(load)

    def bind(self, model: ir.Model) -> None:
        """Makes lazy tensors of the stubs in the model that was made of the proto."""
        for name, value in model.graph.initializers.items():
            if name in self.loaders:
                assert value.const_value is not None
                value.const_value = _lazy_tensor(value.const_value, self.loaders[name])
        if not self._nested:
            return
        bodies = [*model.graph.subgraphs()]
        for function in model.functions.values():
            bodies += [function.graph, *function.subgraphs()]
        for graph in (model.graph, *bodies):
            for value in graph.initializers.values():
                if value.const_value is not None:
                    value.const_value = self._bound(value.const_value)
            for node in graph:
                self._bind_attributes(node)

    def _bind_attributes(self, node: ir.Node) -> None:
        import onnx_ir as ir

        for name, attribute in [*node.attributes.items()]:
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                node.attributes[name] = ir.AttrTensor(name, self._bound(attribute.as_tensor()))
            elif attribute.type == ir.AttributeType.TENSORS:
                tensors = [self._bound(tensor) for tensor in attribute.as_tensors()]
                node.attributes[name] = ir.AttrTensors(name, tensors)

    def _bound(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        import onnx_ir as ir

        if not isinstance(tensor, ir.ExternalTensor) or tensor.location != _NESTED_LOCATION:
            return tensor
        return _lazy_tensor(tensor, self._nested[tensor.offset or 0])

    def _find(self, tensor: onnx.TensorProto, where: str) -> Load | None:
        """Returns what reads a tensor's external data; None if it has none, or a problem."""
        import onnx

        try:
            itemsize = _bytes_per_element(tensor.data_type)
        except (KeyError, TypeError):
            self._problems.append(f"{where}: unknown element type {tensor.data_type}")
            return None
        if any(dim < 0 for dim in tensor.dims):
            self._problems.append(f"{where}: negative shape {list(tensor.dims)}")
            return None
        count = int(np.prod([int(dim) for dim in tensor.dims], dtype=object))
        expected = -(-int(count * itemsize * 2) // 2) if itemsize else None
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return self._find_external(tensor, where, expected)
        _check_inline(tensor, where, count, expected, self._problems)
        return None

    def _find_external(
        self, tensor: onnx.TensorProto, where: str, expected: int | None
    ) -> Load | None:
        info = {entry.key: entry.value for entry in tensor.external_data}
        location = info.get("location", "")
        try:
            offset = int(info.get("offset", 0))
            length = int(info["length"]) if "length" in info else expected or 0
        except ValueError:
            self._problems.append(f"{where}: corrupt external data entry {info}")
            return None
        if location == SELF_LOCATION:
            if self._original is not None:
                return _proto_loader(self._original.graph.initializer[offset])
            reader, what = self._read_self, f"{length} bytes of data"
        else:
            reader = self._external_reader(where, location, offset, length)
            what = f"its external data has {length} bytes"
        if reader is None:
            return None
        if length != expected:
            self._problems.append(
                f"{where}: {what}, but shape {list(tensor.dims)} needs {expected}"
            )
            return None
        if location != SELF_LOCATION and length <= INLINE_BYTES:
            tensor.raw_data = reader(offset, length).tobytes()
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            return None
        return _typed_loader(tensor, reader, offset, length)

    def _external_reader(
        self, where: str, location: str, offset: int, length: int
    ) -> ReadSelf | None:
        """Returns a reader for one external tensor, or None after saying what is wrong with it."""
        what = f"{where}: external data '{location}'"
        base_dir, problems = self._base_dir, self._problems
        parts = location.replace("\\", "/").split("/")
        if not location or os.path.isabs(location) or ".." in parts or ":" in parts[0]:
            problems.append(f"{what}: the location must be a path below the model's folder")
            return None
        path = os.path.join(base_dir, location)
        if "\0" in path or not os.path.isfile(path):
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
        return file_reader(path)


def external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Returns every tensor of a model whose data are in other files."""
    import onnx

    sparse = [tensor.values for tensor in proto.graph.sparse_initializer]
    nested = [tensor for _, tensor in _nested_tensors(proto)]
    tensors = [*proto.graph.initializer, *sparse, *nested]
    return [t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL]


def read_external(proto: onnx.ModelProto, folder: str | os.PathLike[str]) -> None:
    """Takes all data from other files into the model."""
    from onnx.external_data_helper import load_external_data_for_tensor

    for tensor in external_tensors(proto):
        load_external_data_for_tensor(tensor, os.fspath(folder))
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")


def _nested_tensors(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yields the tensors in nodes, subgraphs and functions, with the words that name each."""
    yield from _tensors_of_nodes(proto.graph.node, "")
    for function in proto.functions:
        name = f"{function.domain}.{function.name}".lstrip(".")
        yield from _tensors_of_nodes(function.node, f"function '{name}', ")


def _tensors_of_nodes(
    nodes: Iterator[onnx.NodeProto], outer: str
) -> Iterator[tuple[str, onnx.TensorProto]]:
    for index, node in enumerate(nodes):
        where = f"{outer}node '{node.name or f'#{index}'}' ({node.op_type})"
        for attribute in node.attribute:
            tensors = [attribute.t] if attribute.HasField("t") else []
            for tensor in [*tensors, *attribute.tensors]:
                yield f"{where}, attribute '{attribute.name}'", tensor
            graphs = [attribute.g] if attribute.HasField("g") else []
            for graph in [*graphs, *attribute.graphs]:
                inner = f"{where}, {attribute.name}: "
                for tensor in graph.initializer:
                    yield f"{inner}initializer '{tensor.name}'", tensor
                yield from _tensors_of_nodes(graph.node, inner)


def bytes_reader(data: memoryview) -> ReadSelf:
    """Returns a reader of a model in memory; what can change there is copied."""

    def read(offset: int, length: int) -> np.ndarray:
        found = np.frombuffer(data, np.uint8, length, offset)
        return found if isinstance(data.obj, bytes) else found.copy()

    return read


def file_reader(path: str) -> ReadSelf:
    """Returns a reader of a file that must not change from now on."""
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


def _lazy_tensor(stub: ir.TensorProtocol, load: Load) -> ir.LazyTensor:
    import onnx_ir as ir

    name, dtype, shape = stub.name, stub.dtype, stub.shape
    assert isinstance(shape, ir.Shape)

    def evaluate() -> ir.Tensor:
        return ir.Tensor(load(), dtype=dtype, shape=shape, name=name)

    return ir.LazyTensor(evaluate, dtype=dtype, shape=shape, name=name)


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
    tensor: onnx.TensorProto, where: str, count: int, expected: int | None, problems: list[str]
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
            f"{where}: {found} {unit} of data, but shape {list(tensor.dims)} needs {needed}"
        )


def _typed_loader(tensor: onnx.TensorProto, read: ReadSelf, offset: int, length: int) -> Load:
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


def _proto_loader(tensor: onnx.TensorProto) -> Load:
    def load() -> np.ndarray:
        from onnx import numpy_helper

        return numpy_helper.to_array(tensor)

    return load
