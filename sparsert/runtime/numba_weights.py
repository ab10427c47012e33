"""Packs matrices of weights for Numba's kernels, in the format that costs least."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

# Time of a product of one stored weight with a vector, relative to that of the format csr. Dense
# weights are blocks of 4x1 that are all there.
_COSTS = {"csr": 1.0, "bits": 1.25, "four": 0.6, "wide": 0.9}
_WIDE_SIZES = (16, 8, 4, 2)
# Bits take less memory than csr; they are worth their time where rows are as full as this.
_BITS_SHARE = 0.25
_WORD = 64


@dataclasses.dataclass
class Packed:
    """Weights in one format.

    Attributes:
        format: dense, csr, bits, bsr4 (blocks of 4x1) or a size of blocks of 1xn.
        values: the stored weights, f32.
        places: i32: the column of each value (csr), of each block; u64 [rows, words] for bits.
        row_ptr: i32: where each row begins in values, or in blocks.
        size: of blocks of 1xn.
        why: the reason for the format.
    """

    format: str
    values: np.ndarray
    places: np.ndarray
    row_ptr: np.ndarray
    size: int
    why: str

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return self.values.nbytes + self.places.nbytes + self.row_ptr.nbytes

    @property
    def is_four(self) -> bool:
        """Whether rows are taken four at a time."""
        return self.format in ("dense", "bsr4")


def pack(matrix: np.ndarray, groups: int = 1) -> Packed:
    """Packs weights.

    Args:
        matrix: f32 [rows, columns of a group].
        groups: of successive rows; group g has the columns from g * matrix.shape[1].

    Returns:
        The weights in the format that is expected to be the fastest.
    """
    rows, width = matrix.shape
    mask = matrix != 0
    nonzeros = int(np.count_nonzero(mask))
    zeros = 1 - nonzeros / mask.size if mask.size else 1.0
    costs = {"csr": nonzeros * _COSTS["csr"]}
    in_fours = rows // groups % 4 == 0 or groups == 1
    if in_fours:
        blocks = _fours(mask)
        costs["four"] = 4 * int(np.count_nonzero(blocks)) * _COSTS["four"]
    if groups == 1:
        if nonzeros >= _BITS_SHARE * mask.size:
            costs["bits"] = nonzeros * _COSTS["bits"]
        for size in _WIDE_SIZES:
            if width % size == 0 and nonzeros:
                stored = size * int(np.count_nonzero(mask.reshape(rows, -1, size).any(axis=2)))
                costs[f"1x{size}"] = stored * (_COSTS["wide"] + 0.2 / size)
    best = min(costs, key=lambda name: costs[name])
    share = f"{100 * zeros:.1f} % zeros"
    if best == "csr":
        return pack_csr(matrix, groups, share)
    if best == "bits":
        return pack_bits(matrix, share)
    if best == "four":
        return pack_blocks(matrix, blocks, groups, share)
    return pack_wide(matrix, int(best[2:]), share)


def _ends(counts: np.ndarray) -> np.ndarray:
    row_ptr = np.zeros(counts.size + 1, np.int32)
    np.cumsum(counts, out=row_ptr[1:])
    return row_ptr


def _base(rows: np.ndarray, count: int, groups: int, width: int) -> np.ndarray:
    """The first column of each row's group."""
    return rows // max(1, count // groups) * width


def pack_csr(matrix: np.ndarray, groups: int = 1, share: str = "") -> Packed:
    """Packs each nonzero with its column."""
    mask = matrix != 0
    rows, places = np.nonzero(mask)
    values = matrix[mask]
    places = places + _base(rows, matrix.shape[0], groups, matrix.shape[1])
    row_ptr = _ends(np.count_nonzero(mask, axis=1))
    return Packed("csr", values, places.astype(np.int32), row_ptr, 0, f"{share}: one by one")


def pack_bits(matrix: np.ndarray, share: str = "") -> Packed:
    """Packs the nonzeros, and a bit for each weight."""
    mask = matrix != 0
    rows, width = mask.shape
    words = -(-width // _WORD)
    padded = np.zeros((rows, words * _WORD), np.bool_)
    padded[:, :width] = mask
    bits = np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)
    row_ptr = _ends(np.count_nonzero(mask, axis=1))
    return Packed("bits", matrix[mask], bits, row_ptr, 0, f"{share}: a bit for each weight")


def _fours(mask: np.ndarray) -> np.ndarray:
    rows, width = mask.shape
    padded = np.zeros((-(-rows // 4) * 4, width), np.bool_)
    padded[:rows] = mask
    return np.asarray(padded.reshape(-1, 4, width).any(axis=1))


def pack_blocks(
    matrix: np.ndarray, blocks: np.ndarray | None = None, groups: int = 1, share: str = ""
) -> Packed:
    """Packs blocks of 4x1: those that `blocks` says, or that are not all zero."""
    if blocks is None:
        blocks = _fours(matrix != 0)
    rows, width = matrix.shape
    padded = np.zeros((blocks.shape[0] * 4, width), np.float32)
    padded[:rows] = matrix
    block_rows, places = np.nonzero(blocks)
    values = padded.reshape(-1, 4, width).transpose(0, 2, 1)[blocks]
    places = places + _base(block_rows * 4, rows, groups, width)
    row_ptr = _ends(np.count_nonzero(blocks, axis=1))
    is_dense = bool(blocks.all())
    why = "too few for a sparse format" if is_dense else "in blocks of 4x1"
    name = "dense" if is_dense else "bsr4"
    flat = np.ascontiguousarray(values).reshape(-1)
    return Packed(name, flat, places.astype(np.int32), row_ptr, 0, f"{share}: {why}")


def pack_wide(matrix: np.ndarray, size: int, share: str = "") -> Packed:
    """Packs blocks of 1 x size that are not all zero."""
    mask = matrix != 0
    rows, width = matrix.shape
    blocks = mask.reshape(rows, width // size, size).any(axis=2)
    _, places = np.nonzero(blocks)
    values = np.ascontiguousarray(matrix.reshape(rows, -1, size)[blocks]).reshape(-1)
    row_ptr = _ends(np.count_nonzero(blocks, axis=1))
    why = f"{share}: in blocks of 1x{size}"
    return Packed(f"1x{size}", values, places.astype(np.int32), row_ptr, size, why)


def arguments(packed: Packed, shift: np.ndarray, slab: int = 0) -> tuple[Any, ...]:
    """Returns the weights as the kernels of rows take them.

    Args:
        packed: the weights.
        shift: i32: where the plane of each column begins.
        slab: columns to take at a time; 0: all.
    """
    if packed.format == "bits":
        return packed.values, packed.places, packed.row_ptr, shift
    if packed.size:
        return packed.values, packed.places, packed.row_ptr, shift, packed.size
    ends = [packed.row_ptr[:-1], packed.row_ptr[1:]]
    if slab:
        row_of = np.repeat(np.arange(packed.row_ptr.size - 1), np.diff(packed.row_ptr))
        keys = row_of * shift.size + packed.places
        starts = np.arange(packed.row_ptr.size - 1) * shift.size
        cuts = range(slab, shift.size, slab)
        ends[1:1] = [np.searchsorted(keys, starts + cut).astype(np.int32) for cut in cuts]
    return packed.values, shift[packed.places], np.stack(ends)
