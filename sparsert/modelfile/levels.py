"""Levels of a .sprt file: one network with several shares of zeros, what they share stored once.

The first level is what the file holds without its levels. A further one has, of the weights that
differ, bits that say which of the values it keeps, and perhaps a factor for each row; other
constants that differ are stored once more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsert.formats import F32, I8, Encoding
from sparsert.modelfile import tables
from sparsert.modelfile.opset import DTYPE_BYTES

if TYPE_CHECKING:
    from sparsert.modelfile.reader import ModelFile, NodeInfo, TensorInfo

U8, U32 = 2, 12  # onnx.TensorProto.DataType
# Inputs of ops that are matrices of weights, which engines decode before they use them.
WEIGHT_INPUTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Linear", "QConv", "QDepthwise"), (1,)),
    "Recurrent": (1, 3),
}


@dataclass(frozen=True)
class LevelPatch:
    """A tensor that differs between levels, as one level has it.

    Attributes:
        tensor: its index.
        unit: stored values that a bit stands for; 0: the tensor `keep` takes its place.
        keep: index of the bits of the units that the level before keeps; None: as there.
        scale: index of the factors of its rows; None: 1.
    """

    tensor: int
    unit: int
    keep: int | None
    scale: int | None


@dataclass(frozen=True)
class LevelTable:
    """One level of a file: its name, and the same tensors in every level."""

    name: str
    patches: tuple[LevelPatch, ...]


def at_level(content: ModelFile, index: int) -> ModelFile:
    """Returns what a file holds at one of its levels, as a file without levels.

    Raises:
        ModelFormatError: bits are invalid.
    """
    if not content.levels:
        return content
    changed = list(content.tensors)
    for position, patch in enumerate(content.levels[index].patches):
        base = content.tensors[patch.tensor]
        if patch.unit == 0:
            if patch.keep is not None:
                other = content.tensors[patch.keep]
                changed[patch.tensor] = dataclasses.replace(other, name=base.name)
            continue
        keep = None
        for level in content.levels[1 : index + 1]:
            bits = level.patches[position].keep
            if bits is None:
                continue
            if keep is None:
                keep = np.ones(_units(base, patch.unit), np.bool_)
            keep[keep] = _bits(content.tensors[bits], int(np.count_nonzero(keep)))
        scale = None if patch.scale is None else content.tensors[patch.scale].decode()
        changed[patch.tensor] = dataclasses.replace(
            base, keep=None if keep is None else np.repeat(keep, patch.unit), scale=scale
        )
    return dataclasses.replace(content, tensors=tuple(changed), levels=())


def level_facts(content: ModelFile) -> list[dict[str, Any]]:
    """Counts the weights of each level, those that are not zero, and the bytes that it adds."""
    own = [sum(_bytes(content, patch) for patch in level.patches) for level in content.levels]
    all_bytes = sum(t.data.size for t in content.tensors if t.data is not None)
    facts = []
    for index, level in enumerate(content.levels):
        file = at_level(content, index)
        arrays = [file.tensors[i].decode() for i in _weights_of(file.nodes)]
        facts.append(
            {
                "name": level.name,
                "weights": sum(array.size for array in arrays),
                "nonzeros": sum(int(np.count_nonzero(array)) for array in arrays),
                "file_bytes": own[index] if index else all_bytes - sum(own),
                "packed_bytes": 0,
            }
        )
    return facts


def _weights_of(nodes: tuple[NodeInfo, ...]) -> list[int]:
    return [
        index
        for node in nodes
        for position in WEIGHT_INPUTS.get(node.op, ())
        if position < len(node.inputs) and (index := node.inputs[position]) is not None
    ]


def _bytes(content: ModelFile, patch: LevelPatch) -> int:
    parts = [content.tensors[i].data for i in (patch.keep, patch.scale) if i is not None]
    return sum(part.size for part in parts if part is not None)


def _units(tensor: TensorInfo, unit: int) -> int:
    assert tensor.layout is not None
    return tensor.layout.stored_values // unit


def _bits(tensor: TensorInfo, count: int) -> NDArray[np.bool_]:
    assert tensor.data is not None
    return np.unpackbits(tensor.data, count=count, bitorder="little").view(np.bool_)


def read_levels(
    content: ModelFile, first: int, count: int, report: Callable[[str], None]
) -> tuple[LevelTable, ...]:
    """Reads the tables of the levels, which are tensors of the file.

    Args:
        content: the file without its levels.
        first: the tensor of the first one.
        count: how many there are.
        report: called with each problem.
    """
    n_tensors = len(content.tensors)
    if first + count > n_tensors or count > tables.MAX_LEVELS:
        report(
            f"{count} levels from tensor {first} of {n_tensors}, expected {tables.MAX_LEVELS} at"
            " most"
        )
        return ()
    found: list[LevelTable] = []
    for number, tensor in enumerate(content.tensors[first : first + count]):
        shape = tensor.dims or ()
        fields = tables.LEVEL_FIELDS
        if tensor.data is None or tensor.dtype != U32 or len(shape) != 2 or shape[1] != fields:
            report(f"level {number} is tensor {first + number}, no u32 constant [n, {fields}]")
            return ()
        if not tensor.name or tensor.name in [level.name for level in found]:
            report(f"level {number} has no name of its own: '{tensor.name}'")
        rows = tensor.data.view(tables.LEVEL_PATCH).tolist()
        patches = [
            LevelPatch(row[0], row[1], *(None if i == tables.NO_INDEX else i for i in row[2:]))
            for row in rows
        ]
        found.append(LevelTable(tensor.name, tuple(patches)))
        if len(patches) != len(found[0].patches):
            expected = len(found[0].patches)
            report(f"level {number} has {len(patches)} entries, the first one {expected}")
            return ()
    _Checker(content, found, report).check()
    return tuple(found)


class _Checker:
    """Checks what levels say of each tensor."""

    def __init__(
        self, content: ModelFile, levels: list[LevelTable], report: Callable[[str], None]
    ) -> None:
        self._content = content
        self._levels = levels
        self._report = report

    def check(self) -> None:
        for position in range(len(self._levels[0].patches)):
            units = 0
            for number, level in enumerate(self._levels):
                problem, units = self._patch(number, position, units)
                if problem:
                    self._report(f"level {number} '{level.name}', entry {position}: {problem}")
                    return
        patched = [patch.tensor for patch in self._levels[0].patches]
        if len(set(patched)) != len(patched):
            self._report("level 0: a tensor is there twice")
        self._check_uses({patch.tensor for patch in self._levels[0].patches if patch.unit})

    def _constant(self, index: int | None) -> TensorInfo | None:
        tensors = self._content.tensors
        if index is None or index >= len(tensors) or not tensors[index].is_constant:
            return None
        return tensors[index]

    def _patch(self, number: int, position: int, units: int) -> tuple[str, int]:
        """Returns what is wrong with an entry, and the units that its level keeps."""
        patch = self._levels[number].patches[position]
        first = self._levels[0].patches[position]
        tensor = self._constant(patch.tensor)
        if (patch.tensor, patch.unit) != (first.tensor, first.unit):
            return "its tensor or unit is not that of the first level", 0
        if tensor is None or tensor.layout is None:
            return "its tensor is no constant", 0
        if number == 0:
            block = tensor.layout.block_rows * tensor.layout.block_cols
            if patch.unit > 1 and patch.unit != block:
                return "a unit is neither value nor block", 0
            if patch.unit and tensor.dtype not in (F32, I8):
                return "only f32 and i8 tensors have bits or scales", 0
            if patch.keep is not None or patch.scale is not None:
                return "the first level has bits or scales", 0
            return "", _units(tensor, patch.unit) if patch.unit else 0
        keep, scale = self._constant(patch.keep), self._constant(patch.scale)
        if (patch.keep is not None and keep is None) or (patch.scale is not None and scale is None):
            return "it names a tensor that is no constant", 0
        if patch.unit == 0:
            if scale is not None:
                return "a tensor of its own has scales", 0
            if keep is not None and not _takes_place(keep, tensor):
                return "its own tensor has another dtype, shape or encoding", 0
            return "", 0
        if keep is not None:
            if not _is_vector(keep, U8, -(-units // 8)):
                return "its bits are not as many as units are left", 0
            if _bits(keep, 8 * -(-units // 8))[units:].any():
                return "bits are set past the last unit", 0
            units = int(np.count_nonzero(_bits(keep, units)))
        if scale is not None:
            if tensor.dtype != F32 or not _is_vector(scale, F32, tensor.layout.rows):
                return "its scales are not one f32 for each row of f32 weights", 0
            if not np.isfinite(scale.decode()).all():
                return "a scale is not finite", 0
        return "", units

    def _check_uses(self, patched: set[int]) -> None:
        others = set(self._content.outputs)
        for node in self._content.nodes:
            weights = WEIGHT_INPUTS.get(node.op, ())
            others |= {v for i, v in enumerate(node.inputs) if i not in weights and v is not None}
        for index in sorted(patched & others):
            name = self._content.tensors[index].name
            self._report(
                f"tensor {index} '{name}' has bits or scales of levels and is not only weights"
            )


def _takes_place(own: TensorInfo, tensor: TensorInfo) -> bool:
    assert own.layout is not None
    is_plain = own.layout.encoding == Encoding.DENSE
    return own.dtype == tensor.dtype and own.dims == tensor.dims and (own.dtype == F32 or is_plain)


def _is_vector(tensor: TensorInfo, dtype: int, size: int) -> bool:
    return (
        (tensor.dtype, tensor.value_dtype, tensor.dims) == (dtype, dtype, (size,))
        and tensor.data is not None
        and tensor.data.size == size * DTYPE_BYTES[dtype]
    )
