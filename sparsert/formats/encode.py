"""Encodes matrices of floats or bytes as DENSE, BITMASK or BLOCK and picks the smallest.

NumPy alone does it.

Arrays are walked in panels of whole rows, so temporaries stay at a few MB whatever the tensor.
A value is stored when it is not zero once rounded to the value dtype: NaN and infinities are
stored, -0.0 is not (only DENSE keeps its sign).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsert.formats.layout import (
    BLOCK_SHAPES,
    BLOCK_SIZES,
    F16,
    F32,
    I8,
    Encoding,
    IndexKind,
    Layout,
    ceil_div,
    matrix_shape,
    pad8,
)

Matrix = NDArray[np.float32]
Mask = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

_PANEL_ELEMS = 1 << 19
_PANEL_ROWS = max(BLOCK_SIZES)  # every block shape divides a panel
_VALUE_TYPES: dict[int, np.dtype[Any]] = {
    F32: np.dtype("<f4"),
    F16: np.dtype("<f2"),
    I8: np.dtype("|i1"),
}
_INDEX_TYPES: dict[int, np.dtype[Any]] = {
    IndexKind.U16: np.dtype("<u2"),
    IndexKind.U32: np.dtype("<u4"),
}
_F16_ZERO_BITS = 0x33000000  # f32 bits of 2^-25: up to here f16 rounds to zero
_F16_OVERFLOW_BITS = 0x477FF000  # f32 bits of 65520: from here f16 rounds to infinity
_F32_INF_BITS = 0x7F800000
_MAX_U32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Encoded:
    """An encoded tensor: its layout, the dtype of its values and its bytes in order.

    `parts` are 1-D uint8 arrays (padding included), possibly views of the caller's array.
    """

    layout: Layout
    value_dtype: int
    parts: tuple[Bytes, ...]

    @property
    def nbytes(self) -> int:
        """Size of the encoding."""
        return self.layout.nbytes

    def tobytes(self) -> bytes:
        """Returns the parts joined (a copy)."""
        return b"".join(part.tobytes() for part in self.parts)


def encode_smallest(array: NDArray[Any], value_dtype: int = F32) -> Encoded:
    """Encodes a float array in the encoding with the fewest bytes.

    Sizes are predicted first; only the smallest is built. DENSE wins ties.

    Args:
        array: f32 of any shape (other dtypes, strides and byte orders are converted); i8 with I8.
        value_dtype: F32 (1), F16 (10) or I8 (3), how values are stored.

    Returns:
        The encoding. Arrays of rank 0 and 1 and arrays without elements are always DENSE.

    Example:
        >>> encode_smallest(np.eye(64, dtype=np.float32)).layout.encoding
        <Encoding.BLOCK: 2>
    """
    matrix = _as_matrix(array)
    choice = _choose(matrix, value_dtype) if np.ndim(array) >= 2 else None
    if choice is None:
        return encode_dense(array, value_dtype)
    if choice.encoding == Encoding.BITMASK:
        return encode_bitmask(array, value_dtype)
    return encode_block(array, choice.block_rows, choice.block_cols, value_dtype)


def encode_dense(array: NDArray[Any], value_dtype: int = F32) -> Encoded:
    """Encodes every element. With F32 values the bytes are a view of a contiguous f32 `array`."""
    matrix = _as_matrix(array)
    dtype = _VALUE_TYPES[value_dtype]
    with np.errstate(over="ignore"):
        values = matrix.reshape(-1).astype(dtype, copy=False)
    layout = _layout(Encoding.DENSE, matrix, values)
    return Encoded(layout, value_dtype, (_as_bytes(values),))


def encode_bitmask(array: NDArray[Any], value_dtype: int = F32) -> Encoded:
    """Encodes one bit per element and the values whose bit is set."""
    matrix = _as_matrix(array)
    dtype = _VALUE_TYPES[value_dtype]
    bits = np.zeros(pad8(ceil_div(matrix.size, 8)), np.uint8)
    chunks = []
    used = 0
    for panel in _panels(matrix):
        mask = _stored_mask(panel, value_dtype)
        packed = np.packbits(mask, bitorder="little")
        bits[used : used + packed.size] = packed
        used += packed.size
        chunks.append(_cast(panel[mask], dtype))
    values = _concatenate(chunks, dtype)
    layout = _layout(Encoding.BITMASK, matrix, values)
    return Encoded(layout, value_dtype, (bits, _as_bytes(values)))


def encode_block(
    array: NDArray[Any],
    block_rows: int = 1,
    block_cols: int = 1,
    value_dtype: int = F32,
    index_kind: int | None = None,
) -> Encoded:
    """Encodes the blocks that hold a non-zero; 1 x 1 is CSR.

    Args:
        array: f32 of any shape, seen as a matrix.
        block_rows: 1, 2, 4, 8 or 16; one of the two block sizes must be 1.
        block_cols: as block_rows.
        value_dtype: F32, F16 or I8.
        index_kind: an IndexKind, or None for the smallest that can hold the columns.

    Raises:
        ValueError: unknown block shape, or an index kind too narrow for the columns.
    """
    if (block_rows, block_cols) not in BLOCK_SHAPES:
        raise ValueError(f"block of {block_rows} x {block_cols}; one side is 1, the other 1 to 16")
    matrix = _as_matrix(array)
    dtype = _VALUE_TYPES[value_dtype]
    rows, cols = matrix.shape
    bcols = ceil_div(cols, block_cols)
    wide = _wide_kind(bcols)
    if index_kind in (IndexKind.U16, IndexKind.U32):
        if index_kind == IndexKind.U16 and wide != IndexKind.U16:
            raise ValueError(f"{bcols} block-columns do not fit u16 indices")
        wide = IndexKind(index_kind)
    counts, deltas, columns, chunks = [], [], [], []
    for panel in _panels(matrix):
        mask = _block_mask(_stored_mask(panel, value_dtype), block_rows, block_cols)
        flat = np.flatnonzero(mask)
        bounds = np.searchsorted(flat, np.arange(mask.shape[0] + 1) * bcols)
        counts.append(np.diff(bounds))
        gap, column = _gaps(flat, bounds, bcols)
        if index_kind in (None, IndexKind.DELTA8):
            deltas.append(_delta_bytes(gap))
        if index_kind != IndexKind.DELTA8:
            columns.append(column.astype(_INDEX_TYPES[wide]))
        chunks.append(_cast(_block_values(panel, flat, bcols, block_rows, block_cols), dtype))
    block_counts = _concatenate(counts, np.dtype(np.int64))
    values = _concatenate(chunks, dtype)
    blocks = int(block_counts.sum())
    if blocks > _MAX_U32 or bcols > _MAX_U32:
        raise ValueError(f"{blocks} blocks in {bcols} block-columns do not fit 32 bits")
    if index_kind is None:
        index_kind = _smallest_kind(sum(d.size for d in deltas), blocks, bcols)[0]
    if index_kind == IndexKind.DELTA8:
        stream = _concatenate(deltas, np.dtype(np.uint8))
    else:
        stream = _as_bytes(_concatenate(columns, _INDEX_TYPES[wide]))
    row_ptr = np.zeros(ceil_div(rows, block_rows) + 1, "<u4")
    np.cumsum(block_counts, out=row_ptr[1:])
    layout = Layout(
        Encoding.BLOCK,
        dtype.itemsize,
        rows,
        cols,
        stored_values=values.size,
        index_kind=int(index_kind),
        block_rows=block_rows,
        block_cols=block_cols,
        index_bytes=stream.size,
    )
    parts = (_padded(_as_bytes(row_ptr)), _padded(stream), _as_bytes(values))
    return Encoded(layout, value_dtype, parts)


def fits_f16(array: NDArray[Any]) -> bool:
    """Says whether no finite value of an f32 array overflows to infinity as f16."""
    for panel in _panels(_as_matrix(array)):
        bits = panel.view(np.uint32) & np.uint32(0x7FFFFFFF)
        if ((bits >= _F16_OVERFLOW_BITS) & (bits < _F32_INF_BITS)).any():
            return False
    return True


@dataclass(frozen=True)
class _Candidate:
    """A sparse encoding with bounds of its size in bytes."""

    low: int
    high: int
    encoding: int
    block_rows: int = 1
    block_cols: int = 1


def _choose(matrix: Matrix, value_dtype: int) -> _Candidate | None:
    """Returns the smallest sparse encoding, or None when DENSE is not larger."""
    rows, cols = matrix.shape
    value_bytes = _VALUE_TYPES[value_dtype].itemsize
    dense = matrix.size * value_bytes
    nnz = sum(int(np.count_nonzero(_stored_mask(p, value_dtype))) for p in _panels(matrix))
    bitmask = pad8(ceil_div(matrix.size, 8)) + nnz * value_bytes
    widest = max(BLOCK_SIZES)
    perfect_blocks = nnz * value_bytes + nnz // widest + 4 * ceil_div(rows, widest)
    if matrix.size == 0 or min(bitmask, perfect_blocks) >= dense:
        return None
    candidates = [_Candidate(bitmask, bitmask, Encoding.BITMASK)]
    for (block_rows, block_cols), blocks in _count_blocks(matrix, value_dtype).items():
        brows, bcols = ceil_div(rows, block_rows), ceil_div(cols, block_cols)
        if blocks > _MAX_U32 or bcols > _MAX_U32:
            continue
        rest = pad8(4 * (brows + 1)) + blocks * block_rows * block_cols * value_bytes
        most = blocks + brows * ((bcols - 1) // 255)
        low = rest + pad8(blocks)
        high = rest + pad8(_smallest_kind(most, blocks, bcols)[1])
        candidates.append(_Candidate(low, high, Encoding.BLOCK, block_rows, block_cols))
    candidates.sort(key=lambda c: c.low)
    best: _Candidate | None = None
    best_bytes = dense
    for i, candidate in enumerate(candidates):
        if candidate.low >= best_bytes:
            break
        others = min([best_bytes, *(c.low for c in candidates[i + 1 :])])
        if candidate.high > others:
            size = _block_bytes(matrix, value_dtype, candidate)
            if size >= best_bytes:
                continue
        else:
            size = candidate.high
        best, best_bytes = candidate, size
    return best


def _count_blocks(matrix: Matrix, value_dtype: int) -> dict[tuple[int, int], int]:
    """Returns the number of blocks with a stored value, for each block shape."""
    counts = dict.fromkeys(BLOCK_SHAPES, 0)
    for panel in _panels(matrix):
        mask = _stored_mask(panel, value_dtype)
        counts[1, 1] += int(np.count_nonzero(mask))
        tall = wide = mask
        for n in BLOCK_SIZES:
            tall = _block_mask(tall, 2, 1)
            wide = _block_mask(wide, 1, 2)
            counts[n, 1] += int(np.count_nonzero(tall))
            counts[1, n] += int(np.count_nonzero(wide))
    return counts


def _block_bytes(matrix: Matrix, value_dtype: int, candidate: _Candidate) -> int:
    """Returns the exact size of a BLOCK candidate."""
    if candidate.encoding != Encoding.BLOCK:
        return candidate.high
    block_rows, block_cols = candidate.block_rows, candidate.block_cols
    rows, cols = matrix.shape
    bcols = ceil_div(cols, block_cols)
    blocks = skips = 0
    for panel in _panels(matrix):
        mask = _block_mask(_stored_mask(panel, value_dtype), block_rows, block_cols)
        flat = np.flatnonzero(mask)
        bounds = np.searchsorted(flat, np.arange(mask.shape[0] + 1) * bcols)
        blocks += flat.size
        skips += int(((_gaps(flat, bounds, bcols)[0] - 1) // 255).sum())
    index_bytes = _smallest_kind(blocks + skips, blocks, bcols)[1]
    value_bytes = _VALUE_TYPES[value_dtype].itemsize
    values = blocks * block_rows * block_cols * value_bytes
    return pad8(4 * (ceil_div(rows, block_rows) + 1)) + pad8(index_bytes) + values


def _smallest_kind(delta_bytes: int, blocks: int, bcols: int) -> tuple[IndexKind, int]:
    """Returns the index kind with the shortest stream and the stream's bytes."""
    wide = _wide_kind(bcols)
    wide_bytes = blocks * _INDEX_TYPES[wide].itemsize
    return (IndexKind.DELTA8, delta_bytes) if delta_bytes <= wide_bytes else (wide, wide_bytes)


def _wide_kind(bcols: int) -> IndexKind:
    """Returns the narrowest kind that stores block-columns as they are."""
    return IndexKind.U16 if bcols <= 1 << 16 else IndexKind.U32


def _as_matrix(array: NDArray[Any]) -> Matrix:
    """Returns `array` as a contiguous little-endian f32 matrix [rows, cols]."""
    return np.ascontiguousarray(array, dtype="<f4").reshape(matrix_shape(np.shape(array)))


def _panels(matrix: Matrix) -> Iterator[Matrix]:
    """Yields the rows of `matrix` in groups of a multiple of _PANEL_ROWS."""
    rows, cols = matrix.shape
    step = max(1, _PANEL_ELEMS // max(1, cols * _PANEL_ROWS)) * _PANEL_ROWS
    for first in range(0, rows, step):
        yield matrix[first : first + step]


def _stored_mask(panel: Matrix, value_dtype: int) -> Mask:
    """Returns which elements are not zero once rounded to the value dtype."""
    if value_dtype != F16:
        return np.not_equal(panel, 0)
    return (panel.view(np.uint32) & np.uint32(0x7FFFFFFF)) > np.uint32(_F16_ZERO_BITS)


def _block_mask(mask: Mask, block_rows: int, block_cols: int) -> Mask:
    """Returns [ceil(rows / block_rows), ceil(cols / block_cols)]: which blocks hold a True."""
    rows, cols = mask.shape
    pad_rows, pad_cols = -rows % block_rows, -cols % block_cols
    if pad_rows or pad_cols:
        mask = np.pad(mask, ((0, pad_rows), (0, pad_cols)))
    if block_rows == 2:
        mask = mask[0::2] | mask[1::2]
    elif block_rows > 1:
        mask = np.logical_or.reduce(mask.reshape(-1, block_rows, mask.shape[1]), axis=1)
    while block_cols > 1:
        step = min(block_cols, 8)
        word = {2: np.uint16, 4: np.uint32, 8: np.uint64}[step]
        mask = np.not_equal(np.ascontiguousarray(mask).view(word), 0)
        block_cols //= step
    return mask


def _block_values(
    panel: Matrix, flat: NDArray[np.int64], bcols: int, block_rows: int, block_cols: int
) -> NDArray[Any]:
    """Gathers the blocks at `flat` (block-row * bcols + block-column), zero past the edges."""
    if block_rows == block_cols == 1:
        return panel.reshape(-1)[flat]
    rows, cols = panel.shape
    pad_rows, pad_cols = -rows % block_rows, -cols % block_cols
    if pad_rows or pad_cols:
        panel = np.pad(panel, ((0, pad_rows), (0, pad_cols)))
    if block_rows == 1:
        return panel.reshape(-1, block_cols)[flat].reshape(-1)
    stacked = panel.reshape(-1, block_rows, panel.shape[1])
    brow, bcol = np.divmod(flat, bcols)
    return stacked[brow, :, bcol].reshape(-1)


def _gaps(
    flat: NDArray[np.int64], bounds: NDArray[np.int64], bcols: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns (gap, column) of each block; a row's first gap counts from column -1."""
    columns = flat - np.repeat(np.arange(bounds.size - 1) * bcols, np.diff(bounds))
    gap = np.diff(columns, prepend=-1)
    starts = bounds[:-1][bounds[:-1] < bounds[1:]]
    gap[starts] = columns[starts] + 1
    return gap, columns


def _delta_bytes(gap: NDArray[np.int64]) -> Bytes:
    """Encodes gaps >= 1: 255 for each 255 columns skipped, then a byte below 255."""
    skips = (gap - 1) // 255
    if not skips.any():
        return (gap - 1).astype(np.uint8)
    last = np.cumsum(skips + 1)
    stream = np.full(int(last[-1]), 255, np.uint8)
    stream[last - 1] = gap - 1 - 255 * skips
    return stream


def _cast(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return values.astype(dtype, copy=False)


def _concatenate(chunks: list[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not chunks:
        return np.empty(0, dtype)
    return np.concatenate(chunks).astype(dtype, copy=False)


def _as_bytes(values: NDArray[Any]) -> Bytes:
    return values.reshape(-1).view(np.uint8)


def _layout(encoding: Encoding, matrix: Matrix, values: NDArray[Any]) -> Layout:
    rows, cols = matrix.shape
    return Layout(encoding, values.itemsize, rows, cols, stored_values=values.size)


def _padded(stream: Bytes) -> Bytes:
    missing = pad8(stream.size) - stream.size
    return np.concatenate([stream, np.zeros(missing, np.uint8)]) if missing else stream
