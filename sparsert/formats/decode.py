"""Decodes the storage encodings of a .sprt file into NumPy arrays, checking every index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsert.errors import ModelFormatError
from sparsert.formats.layout import BLOCK_SHAPES, Encoding, IndexKind, Layout

Bytes = NDArray[np.uint8]


def decode(layout: Layout, data: Bytes, value_type: np.dtype[Any]) -> NDArray[Any]:
    """Decodes a tensor's bytes.

    Args:
        layout: sizes of the parts; layout.nbytes must be data.size.
        data: uint8 [layout.nbytes].
        value_type: little-endian dtype of the stored values.

    Returns:
        [rows, cols] of value_type; a view of `data` for DENSE, a new array otherwise.

    Raises:
        ModelFormatError: the bytes contradict the layout or an index is out of range.
    """
    _require(value_type.itemsize == layout.value_bytes, "wrong size of a value")
    _require(data.size == layout.nbytes, f"{data.size} bytes where {layout.nbytes} were expected")
    shape = layout.rows, layout.cols
    values = data[layout.values_offset :].view(value_type)
    if layout.encoding == Encoding.DENSE:
        _require(values.size == shape[0] * shape[1], "wrong number of values")
        return values.reshape(shape)
    if layout.encoding == Encoding.BITMASK:
        return _decode_bitmask(layout, data, values).reshape(shape)
    if layout.encoding == Encoding.BLOCK:
        return _decode_block(layout, data, values)
    raise ModelFormatError(f"unknown encoding {layout.encoding}")


def block_columns(layout: Layout, data: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Reads the index of a BLOCK tensor.

    Returns:
        (row_ptr, columns): int64 [block rows + 1] and the block-column of each block.

    Raises:
        ModelFormatError: row_ptr or the index stream is invalid.
    """
    _require((layout.block_rows, layout.block_cols) in BLOCK_SHAPES, "unknown block shape")
    brows = layout.block_row_count
    row_ptr = data[: 4 * (brows + 1)].view("<u4").astype(np.int64)
    blocks = layout.stored_values // (layout.block_rows * layout.block_cols)
    _require(row_ptr[0] == 0 and bool((np.diff(row_ptr) >= 0).all()), "row_ptr is not sorted")
    _require(row_ptr[-1] == blocks, f"row_ptr ends at {row_ptr[-1]}, not at {blocks} blocks")
    _require(
        layout.stored_values == blocks * layout.block_rows * layout.block_cols,
        "stored values are not a whole number of blocks",
    )
    _require(not data[4 * (brows + 1) : layout.index_offset].any(), "padding is not zero")
    stream_end = layout.index_offset + layout.index_bytes
    _require(not data[stream_end : layout.values_offset].any(), "padding is not zero")
    stream = data[layout.index_offset : stream_end]
    if layout.index_kind == IndexKind.DELTA8:
        columns = _delta_columns(stream, row_ptr)
    else:
        kinds = {int(IndexKind.U16): "<u2", int(IndexKind.U32): "<u4"}
        _require(layout.index_kind in kinds, f"unknown index kind {layout.index_kind}")
        kind = np.dtype(kinds[layout.index_kind])
        _require(stream.size == blocks * kind.itemsize, "wrong length of the index stream")
        columns = stream.view(kind).astype(np.int64)
    _require(columns.size == blocks, f"{columns.size} indices for {blocks} blocks")
    if blocks:
        _require(int(columns.max()) < layout.block_col_count, "a column is out of range")
        rises = np.diff(columns) > 0
        starts = row_ptr[1:-1]
        rises[starts[(starts > 0) & (starts < blocks)] - 1] = True
        _require(bool(rises.all()), "columns do not increase within a row")
    return row_ptr, columns


def _decode_bitmask(layout: Layout, data: Bytes, values: NDArray[Any]) -> NDArray[Any]:
    count = layout.rows * layout.cols
    bits = np.unpackbits(data[: layout.values_offset], bitorder="little")
    _require(not bits[count:].any(), "bits past the last element are set")
    mask = bits[:count].view(np.bool_)
    stored = int(np.count_nonzero(mask))
    _require(stored == values.size, f"{stored} bits set for {values.size} values")
    out = np.zeros(count, values.dtype)
    out[mask] = values
    return out


def _decode_block(layout: Layout, data: Bytes, values: NDArray[Any]) -> NDArray[Any]:
    row_ptr, columns = block_columns(layout, data)
    block_rows, block_cols = layout.block_rows, layout.block_cols
    brows, bcols = layout.block_row_count, layout.block_col_count
    brow = np.repeat(np.arange(brows), np.diff(row_ptr))
    out = np.zeros((brows * block_rows, bcols * block_cols), values.dtype)
    blocks = values.reshape(-1, block_rows * block_cols)
    if block_rows == 1:
        out.reshape(brows, bcols, block_cols)[brow, columns] = blocks
    else:
        out.reshape(brows, block_rows, bcols)[brow, :, columns] = blocks
    outside = out[layout.rows :].any() or out[:, layout.cols :].any()
    _require(not outside, "values past the edge are not zero")
    return np.ascontiguousarray(out[: layout.rows, : layout.cols])


def _delta_columns(stream: Bytes, row_ptr: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns block-columns; bytes after a row's last block belong to the next row."""
    names_block = stream != 255
    _require(stream.size == 0 or bool(names_block[-1]), "the index stream ends in a skip")
    reached = np.cumsum(stream.astype(np.int64) + names_block)[names_block]
    _require(reached.size == row_ptr[-1], f"{reached.size} indices for {row_ptr[-1]} blocks")
    before = np.concatenate([np.zeros(1, np.int64), reached])[row_ptr[:-1]]
    columns: NDArray[np.int64] = reached - 1 - np.repeat(before, np.diff(row_ptr))
    return columns


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ModelFormatError(problem)
