"""Packs matrices of signed bytes for Numba's kernels over packed channels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sparsert.kernels.lanes import LANES

# Time of a stored element of four rows at once, relative to one of a row alone.
_FOUR_COST = 0.6
# Below this share of elements, gathering beats reading all of them, for a single column.
_GATHER_SHARE = 0.1


@dataclasses.dataclass
class PackedBytes:
    """Weights in one format; an element is the weights of four successive channels.

    Attributes:
        format: csr; bsr4 or dense, four rows at a time.
        values: i32: the stored elements; of four rows, one row after the other.
        places: i32: the column (plane * taps + tap) of each element, or of each four.
        row_ptr: i32: where each row, or each four, begins.
        row_sums: i32 [rows]: of all weights of a row.
        why: the reason for the format.
    """

    format: str
    values: np.ndarray
    places: np.ndarray
    row_ptr: np.ndarray
    row_sums: np.ndarray
    why: str

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return self.values.nbytes + self.places.nbytes + self.row_ptr.nbytes


def as_matrix(weight: np.ndarray, group: int) -> np.ndarray:
    """Returns i8 [rows, kernel..., channels of a group] as i32 [rows, planes * taps].

    A plane has four successive channels of all, so that rows of different groups have the same
    columns.
    """
    rows, width = weight.shape[0], weight.shape[-1]
    channels = width * group
    planes = -(-channels // 4)
    taps = int(np.prod(weight.shape[1:-1]))
    spread = np.zeros((rows, taps, planes * 4), np.int8)
    by_taps = weight.reshape(rows, taps, width)
    of_group = rows // group
    for g in range(group):
        own = slice(g * of_group, (g + 1) * of_group)
        spread[own, :, g * width : (g + 1) * width] = by_taps[own]
    quads = spread.view(np.int32).reshape(rows, taps, planes)
    return np.ascontiguousarray(quads.transpose(0, 2, 1)).reshape(rows, planes * taps)


def pack_bytes(matrix: np.ndarray, weight: np.ndarray) -> PackedBytes:
    """Packs weights i8 [rows, ...], of which as_matrix() made `matrix`."""
    rows, columns = matrix.shape
    mask = matrix != 0
    stored = int(np.count_nonzero(mask))
    whole = np.zeros((-(-rows // 4) * 4, columns), np.int32)
    whole[:rows] = matrix
    fours = whole.reshape(-1, 4, columns)
    kept = (fours != 0).any(axis=1)
    row_sums = weight.reshape(rows, -1).sum(axis=1, dtype=np.int32)
    share = f"{100 * (1 - np.count_nonzero(weight) / max(1, weight.size)):.1f} % zeros"
    if stored <= 4 * int(np.count_nonzero(kept)) * _FOUR_COST:
        places = np.nonzero(mask)[1].astype(np.int32)
        why = f"{share}: four channels at a time"
        return PackedBytes("csr", matrix[mask], places, _ends(mask), row_sums, why)
    values = np.ascontiguousarray(fours.transpose(0, 2, 1)[kept]).reshape(-1)
    places = np.nonzero(kept)[1].astype(np.int32)
    is_dense = bool(kept.all())
    name = "dense" if is_dense else "bsr4"
    why = f"{share}: {'too few for a sparse format' if is_dense else 'in blocks of 4x4'}"
    return PackedBytes(name, values, places, _ends(kept), row_sums, why)


def of_one_column(matrix: np.ndarray) -> tuple[str, tuple[Any, ...]]:
    """Returns the format and the weights for kernels of a single column: whole vectors a row."""
    rows, columns = matrix.shape
    mask = matrix != 0
    if np.count_nonzero(mask) > _GATHER_SHARE * mask.size:
        width = -(-columns // LANES) * LANES
        values = np.zeros((rows, width), np.int32)
        values[:, :columns] = matrix
        return "dense", (values.reshape(-1), width)
    counts = -(-np.count_nonzero(mask, axis=1) // LANES) * LANES
    row_ptr = np.zeros(rows + 1, np.int32)
    np.cumsum(counts, out=row_ptr[1:])
    values = np.zeros(row_ptr[-1], np.int32)
    places = np.zeros(row_ptr[-1], np.int32)
    row, column = np.nonzero(mask)
    at = row_ptr[row] + np.arange(row.size) - _ends(mask)[row]
    values[at], places[at] = matrix[mask], column
    return "csr", (values, places, row_ptr)


def _ends(mask: np.ndarray) -> np.ndarray:
    row_ptr = np.zeros(mask.shape[0] + 1, np.int32)
    np.cumsum(np.count_nonzero(mask, axis=1), out=row_ptr[1:])
    return row_ptr
