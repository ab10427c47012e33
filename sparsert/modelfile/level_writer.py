"""Writes one .sprt file of several models that are the same network with more and more zeros."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsert.errors import ModelFormatError, describe_problems
from sparsert.formats import F32, Encoded, Encoding, block_columns, encode_dense
from sparsert.modelfile import tables
from sparsert.modelfile.levels import U8, U32, WEIGHT_INPUTS
from sparsert.modelfile.lower_node import FileNode, lower_node
from sparsert.modelfile.opset import DTYPE_BYTES
from sparsert.modelfile.tables import NO_INDEX
from sparsert.modelfile.writer import (
    FileBuilder,
    encode_exact,
    encode_metadata,
    save_atomic,
)

if TYPE_CHECKING:
    import onnx_ir as ir

# Two roundings to f32 apart: weights times the factors of two batch norms.
_TOLERANCE = 2.0**-21
_MAX_LISTED = 8


def write_level_file(
    models: Mapping[str, ir.Model],
    path: str | os.PathLike[str],
    weights: str = "f32",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes canonical models as the levels of one file, atomically; the densest comes first.

    Args:
        models: by the names of the levels; the same graph, its weights nested: what is not zero in
            a level is not zero in a denser one, and the same, or the same times one factor for
            each output channel. Biases and other small constants are free.
        path: the file.
        weights: as in write_bytes.
        metadata: as in write_bytes.

    Raises:
        UnsupportedOpError: names every node that is not in the sparsert opset.
        ModelFormatError: the graphs differ, or the weights are not nested; names every node and
            tensor with the level.
        ValueError: fewer than two models, or more than 64; unknown `weights`.
        OSError: the file cannot be written.
    """
    if not 2 <= len(models) <= tables.MAX_LEVELS or "" in models:
        raise ValueError(f"{len(models)} levels, expected 2 to {tables.MAX_LEVELS} with names")
    first = next(iter(models.values()))
    builder = _LevelBuilder(models, weights)
    builder.build()
    save_atomic(path, builder.chunks(encode_metadata(first, metadata)))


@dataclass(frozen=True)
class _Slot:
    """A constant of the file: the value in each level, and whether it is but weights of layers."""

    values: tuple[ir.Value, ...]
    is_weight: bool
    is_transposed: bool

    def arrays(self) -> list[NDArray[Any]]:
        """Computes the values of each level."""
        import onnx_ir as ir

        tensors = [ir.convenience.get_const_tensor(value) for value in self.values]
        return [tensor.numpy() for tensor in tensors if tensor is not None]


@dataclass
class _Patched:
    """What the levels have of a tensor: one entry of `keeps` and `scales` for each level."""

    tensor: int
    unit: int
    keeps: list[Encoded | None]
    scales: list[Encoded | None]
    dims: tuple[int, ...] = ()  # of `keeps`, where they take the tensor's place
    dtype: int = U8
    placed: list[tuple[int, int]] = field(default_factory=list)


class _LevelBuilder(FileBuilder):
    """Fills the tables of one file with levels."""

    def __init__(self, models: Mapping[str, ir.Model], weights: str) -> None:
        self._models = dict(models)
        self._names = list(models)
        self._slots: dict[int, _Slot] = {}  # by the id of the value that stands for it
        self._patched: list[_Patched] = []
        super().__init__(next(iter(models.values())).graph, weights)

    def build(self) -> None:
        """Fills every table, or raises one error that lists all problems."""
        super().build()
        for patched in self._patched:
            name = self._tensor_name(patched.tensor)
            for level, (keep, scale) in enumerate(zip(patched.keeps, patched.scales, strict=True)):
                label = f"{self._names[level]}/{name}"
                places = [NO_INDEX, NO_INDEX]
                if keep is not None:
                    dims = patched.dims if patched.unit == 0 else (keep.layout.cols,)
                    places[0] = self._append_constant(label, dims, patched.dtype, keep)
                if scale is not None:
                    dims = (scale.layout.cols,)
                    places[1] = self._append_constant(f"{label}/scale", dims, F32, scale)
                patched.placed.append((places[0], places[1]))
        self._levels = len(self._names), len(self._tensors)
        for level, name in enumerate(self._names):
            rows = [(p.tensor, p.unit, *p.placed[level]) for p in self._patched]
            table = np.array(rows, np.uint32).reshape(-1, tables.LEVEL_FIELDS)
            self._append_constant(name, table.shape, U32, encode_exact(table, U32))

    def _tensor_name(self, index: int) -> str:
        start, length = self._tensors[index][:2]
        return self._strings[start : start + length].decode()

    def _lower_nodes(self) -> list[FileNode]:
        nodes = {name: self._nodes_of(model) for name, model in self._models.items()}
        self._raise_problems()
        matched = _Match(self._models, nodes)
        self._names = matched.order()
        self._graph = self._models[self._names[0]].graph
        found, self._slots = matched.nodes(self._names)
        return found

    def _nodes_of(self, model: ir.Model) -> list[FileNode]:
        found: list[FileNode] = []
        for node in model.graph:
            if node.op_type != "Constant" or node.domain:
                self._try(lambda node=node: found.append(lower_node(node)))
        return found

    def _add_constant(self, value: ir.Value, tensor: ir.TensorProtocol, where: str) -> int:
        slot = self._slots.get(id(value))
        if slot is None:
            return super()._add_constant(value, tensor, where)
        arrays = slot.arrays()
        if all(_same(array, arrays[0]) for array in arrays[1:]):
            return super()._add_constant(value, tensor, where)
        dtype, dims = int(tensor.dtype), arrays[0].shape
        if dtype not in DTYPE_BYTES:
            return super()._add_constant(value, tensor, where)  # says what is wrong
        encoded = self._encode(value, arrays[0], dtype)
        index = self._append_constant(value.name or "", dims, dtype, encoded)
        self._values[id(value)] = index
        if not slot.is_weight or len(dims) < 2:
            self._replace(value, index, arrays, dtype)
            return index
        problem, scales = _nested(arrays, self._names, dtype == F32)
        if problem and slot.is_transposed and scales is not None:
            self._replace(value, index, arrays, dtype)
            return index
        if problem or scales is None:
            self._problems.append(ModelFormatError(f"{where}: weights '{value.name}': {problem}"))
            return index
        unit, keeps = _bits_of(encoded, arrays)
        self._patched.append(
            _Patched(
                index,
                unit,
                [bits if bits is None else encode_exact(bits, U8) for bits in keeps],
                [scale if scale is None else encode_dense(scale, F32) for scale in scales],
            )
        )
        return index

    def _replace(self, value: ir.Value, index: int, arrays: list[NDArray[Any]], dtype: int) -> None:
        """Stores the values of each level that has others than the first one."""
        others = [
            None
            if _same(array, arrays[0])
            else self._encode(value, array, dtype)
            if dtype == F32
            else encode_exact(array, dtype)
            for array in arrays
        ]
        nothing: list[Encoded | None] = [None] * len(arrays)
        self._patched.append(_Patched(index, 0, others, nothing, arrays[0].shape, dtype))


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays have the same values; NaN is NaN."""
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


class _Match:
    """The same graph, several times: which value is which."""

    def __init__(self, models: Mapping[str, ir.Model], nodes: Mapping[str, list[FileNode]]) -> None:
        self._models = models
        self._nodes = nodes
        self._first = next(iter(models))
        self._problems: list[str] = []
        self._slots: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        self._values: dict[tuple[int, ...], tuple[ir.Value, ...]] = {}
        for name in list(models)[1:]:
            self._compare(name)
        if self._problems:
            shown = self._problems[:_MAX_LISTED]
            advice = "levels are one network: convert models that differ to files of their own"
            raise ModelFormatError(describe_problems("the levels", [*shown, advice]))
        self._find_slots()

    def _compare(self, name: str) -> None:
        """Reports where the graph of a level is not that of the first one."""
        here, first = self._models[name].graph, self._models[self._first].graph
        same = f"level '{name}' is not the graph of level '{self._first}'"
        nodes, expected = self._nodes[name], self._nodes[self._first]
        ops = [[node.op for node in side] for side in (nodes, expected)]
        if ops[0] != ops[1]:
            at = next((i for i, (a, b) in enumerate(zip(*ops, strict=False)) if a != b), None)
            where = (
                f"{len(nodes)} nodes, not {len(expected)}"
                if at is None
                else f"node {at} '{nodes[at].name}' is a {ops[0][at]}, not a {ops[1][at]}"
            )
            self._problems.append(f"{same}: {where}")
            return
        partner: dict[int, int] = {}
        for kind, ours, theirs in (
            ("inputs", here.inputs, first.inputs),
            ("outputs", here.outputs, first.outputs),
        ):
            sides = [[_describe(value) for value in side] for side in (ours, theirs)]
            if sides[0] != sides[1]:
                text = [", ".join(side) for side in sides]
                self._problems.append(f"{same}: {kind} {text[0]}, not {text[1]}")
                return
        pair = zip(first.inputs, here.inputs, strict=True)
        partner.update((id(a), id(b)) for a, b in pair)
        for theirs_node, ours_node in zip(expected, nodes, strict=True):
            problem = _difference(theirs_node, ours_node, partner)
            if problem:
                where = f"node '{theirs_node.name}' ({theirs_node.op})"
                self._problems.append(f"{same}: {where}: {problem}")
                return
        for a, b in zip(first.outputs, here.outputs, strict=True):
            left, right = _constant(a), _constant(b)
            if left is not None and right is not None:
                is_same = _same(left.numpy(), right.numpy())
            else:
                is_same = partner.get(id(a)) == id(b)
            if not is_same:
                self._problems.append(f"{same}: output '{a.name}' is another tensor")

    def _find_slots(self) -> None:
        """Finds the constants: a slot is one value of each level."""
        for number, node in enumerate(self._nodes[self._first]):
            for position, value in enumerate(node.inputs):
                if value is None or _constant(value) is None:
                    continue
                values = tuple(nodes[number].inputs[position] for nodes in self._nodes.values())
                key = tuple(map(id, values))
                self._slots.setdefault(key, []).append((number, position))
                self._values[key] = tuple(v for v in values if v is not None)

    def _is_weight(self, uses: Sequence[tuple[int, int]], op: str | None = None) -> bool:
        nodes = self._nodes[self._first]
        return all(
            position in WEIGHT_INPUTS.get(nodes[number].op, ()) and op in (None, nodes[number].op)
            for number, position in uses
        )

    def order(self) -> list[str]:
        """Returns the names of the levels by falling numbers of weights that are not zero."""
        counts = dict.fromkeys(self._models, 0)
        for key, uses in self._slots.items():
            if self._is_weight(uses):
                arrays = _Slot(self._values[key], True, False).arrays()
                for name, array in zip(self._models, arrays, strict=True):
                    counts[name] += int(np.count_nonzero(array))
        return sorted(counts, key=lambda name: -counts[name])

    def nodes(self, names: Sequence[str]) -> tuple[list[FileNode], dict[int, _Slot]]:
        """Returns the nodes of the first of `names`, and what its constants are in each level."""
        import onnx_ir as ir

        places = [list(self._models).index(name) for name in names]
        nodes = self._nodes[names[0]]
        outputs = {id(value) for value in self._models[names[0]].graph.outputs}
        slots: dict[int, _Slot] = {}
        for key, uses in self._slots.items():
            values = tuple(self._values[key][place] for place in places)
            stands = values[0]
            if id(stands) in slots:  # equal here, but not in every level
                stands = ir.Value(name=stands.name, const_value=_constant(stands))
                for number, position in uses:
                    nodes[number].inputs[position] = stands
            is_weight = self._is_weight(uses) and id(stands) not in outputs
            slots[id(stands)] = _Slot(values, is_weight, self._is_weight(uses, "ConvTranspose"))
        return nodes, slots


def _constant(value: ir.Value) -> Any:
    import onnx_ir as ir

    return ir.convenience.get_const_tensor(value)


def _describe(value: ir.Value) -> str:
    return f"{value.name} {value.dtype} {value.shape}"


def _difference(first: FileNode, other: FileNode, partner: dict[int, int]) -> str:
    """Says how a node differs from the same one of the first level; learns its outputs."""
    for name in sorted({*first.attrs, *other.attrs}):
        if first.attrs.get(name) != other.attrs.get(name):
            return f"{name} is {other.attrs.get(name)}, not {first.attrs.get(name)}"
    if len(first.inputs) != len(other.inputs) or len(first.outputs) != len(other.outputs):
        return "other inputs or outputs"
    for i, (a, b) in enumerate(zip(first.inputs, other.inputs, strict=True)):
        if (a is None) != (b is None):
            return f"input {i} is absent in one of them"
        if a is None or b is None:
            continue
        left, right = _constant(a), _constant(b)
        if (left is None) != (right is None):
            return f"input {i} is a constant in one of them"
        if left is None:
            if partner.get(id(a)) != id(b):
                return f"input {i} is '{b.name}', not '{a.name}'"
        elif left.dtype != right.dtype or left.shape != right.shape:
            text = [f"{tensor.dtype} {tensor.shape}" for tensor in (right, left)]
            return f"constant '{a.name}' is {text[0]}, not {text[1]}"
    partner.update((id(a), id(b)) for a, b in zip(first.outputs, other.outputs, strict=True))
    return ""


def _nested(
    arrays: Sequence[NDArray[Any]], names: Sequence[str], may_scale: bool
) -> tuple[str, list[NDArray[np.float32] | None] | None]:
    """Checks that each array holds values of the one before.

    Returns:
        What is wrong, or "", and the factors of the rows of each level; None for the factors if not
        even the places of the zeros are nested.
    """
    base = arrays[0].reshape(arrays[0].shape[0], -1)
    scales: list[NDArray[np.float32] | None] = [None]
    before = base != 0
    for index, array in enumerate(arrays[1:], 1):
        matrix = array.reshape(base.shape)
        kept = matrix != 0
        extra = kept & ~before
        if extra.any():
            at = np.unravel_index(int(np.argmax(extra)), extra.shape)
            place = np.unravel_index(np.ravel_multi_index(at, extra.shape), arrays[0].shape)
            problem = (
                f"level '{names[index]}' is not nested in '{names[index - 1]}': "
                f"{int(extra.sum())} weights are zero in the denser level only, the first at "
                f"{[int(i) for i in place]}; prune the sparser level from the denser one, such as "
                "by sparsert.prune.fine_tune_levels()"
            )
            return problem, None
        before = kept
    for index, array in enumerate(arrays[1:], 1):
        matrix = array.reshape(base.shape)
        kept = matrix != 0
        changed = (kept & (matrix != base)).any(1)
        if not changed.any():
            scales.append(None)
            continue
        scale = np.ones(base.shape[0], np.float32)
        if may_scale:
            first = np.where(kept[changed], base[changed], 0)
            scale[changed] = _factors(first, matrix[changed])
        with np.errstate(invalid="ignore"):
            wrong = np.abs(np.where(kept, base * scale[:, None], 0) - matrix)
        close = wrong <= _TOLERANCE * np.abs(matrix) + np.finfo(np.float32).tiny
        if not close.all():  # NaN is not
            row = int(np.argmin(close.all(1)))
            problem = (
                f"level '{names[index]}' has other values than '{names[0]}', and not by one factor "
                f"for each output channel (output channel {row}): train the levels together, such "
                "as by sparsert.prune.fine_tune_levels(), or convert them to files of their own"
            )
            return problem, scales
        scales.append(scale)
    return "", scales


def _factors(first: NDArray[Any], own: NDArray[Any]) -> NDArray[np.float32]:
    """Returns the f32 by which each row of `own` is that of `first`, as exactly as there is one."""
    wide = first.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        best = ((own * wide).sum(1) / np.square(wide).sum(1)).astype(np.float32)
        near = [best, *(np.nextafter(best, np.float32(to)) for to in (-np.inf, np.inf))]
        equal = [(first * scale[:, None] == own).sum(1) for scale in near]
    return np.choose(np.argmax(equal, 0), near)


def _bits_of(
    encoded: Encoded, arrays: Sequence[NDArray[Any]]
) -> tuple[int, list[NDArray[np.uint8] | None]]:
    """Returns the unit, and for each level the bits of the units that the one before keeps."""
    layout = encoded.layout
    stored = [_in_order(encoded, array != 0) for array in arrays]
    unit = layout.block_rows * layout.block_cols
    units: list[NDArray[np.bool_]] = [np.any(v.reshape(-1, unit), 1) for v in stored]
    for index, whole in enumerate(units[1:], 1):
        # A block goes as a whole, or its values go one by one.
        if not np.array_equal(stored[index - 1] & np.repeat(whole, unit), stored[index]):
            unit, units = 1, stored
            break
    keeps: list[NDArray[np.uint8] | None] = [None]
    kept = np.ones(units[0].size, np.bool_)
    for own in units[1:]:
        bits = own[kept]
        keeps.append(None if bits.all() else np.packbits(bits, bitorder="little"))
        kept = own & kept
    return unit, keeps


def _in_order(encoded: Encoded, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns the elements of a mask in the order in which the values are stored."""
    layout = encoded.layout
    matrix = mask.reshape(layout.rows, layout.cols)
    if layout.encoding == Encoding.DENSE:
        return matrix.reshape(-1)
    if layout.encoding == Encoding.BITMASK:
        bits = np.unpackbits(encoded.parts[0], count=matrix.size, bitorder="little")
        return matrix.reshape(-1)[bits.view(np.bool_)]
    data = np.concatenate(encoded.parts)
    row_ptr, columns = block_columns(layout, data)
    rows, cols = layout.block_rows, layout.block_cols
    padded = np.pad(matrix, ((0, -layout.rows % rows), (0, -layout.cols % cols)))
    brow = np.repeat(np.arange(layout.block_row_count), np.diff(row_ptr))
    if rows == 1:
        blocks = padded.reshape(layout.block_row_count, -1, cols)[brow, columns]
    else:
        blocks = padded.reshape(layout.block_row_count, rows, -1)[brow, :, columns]
    return blocks.reshape(-1)
