"""How an encoded tensor lies in bytes: the numbers of the file and the sizes of the parts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

F32 = 1  # onnx.TensorProto.FLOAT
F16 = 10  # onnx.TensorProto.FLOAT16
I8 = 3  # onnx.TensorProto.INT8

BLOCK_SIZES = (2, 4, 8, 16)
BLOCK_SHAPES = ((1, 1), *((n, 1) for n in BLOCK_SIZES), *((1, n) for n in BLOCK_SIZES))


class Encoding(IntEnum):
    """Storage encodings, as numbered in the file."""

    DENSE = 0
    BITMASK = 1
    BLOCK = 2


class IndexKind(IntEnum):
    """How BLOCK stores block columns, as numbered in the file."""

    DELTA8 = 0
    U16 = 1
    U32 = 2


def pad8(n: int) -> int:
    """Returns n rounded up to a multiple of 8."""
    return (n + 7) & ~7


def ceil_div(a: int, b: int) -> int:
    """Returns a / b rounded up."""
    return -(-a // b)


def matrix_shape(dims: tuple[int, ...]) -> tuple[int, int]:
    """Returns (rows, cols) of the matrix that a constant of shape `dims` is stored as."""
    if not dims:
        return 1, 1
    if len(dims) == 1:
        return 1, dims[0]
    cols = 1
    for dim in dims[1:]:
        cols *= dim
    return dims[0], cols


@dataclass(frozen=True)
class Layout:
    """The facts of a tensor record that say how to read its bytes.

    `value_bytes` is the size of one stored value; `stored_values` counts the padding of blocks
    too. `block_rows`, `block_cols`, `index_kind` and `index_bytes` matter to BLOCK only.
    """

    encoding: int
    value_bytes: int
    rows: int
    cols: int
    stored_values: int
    index_kind: int = 0
    block_rows: int = 1
    block_cols: int = 1
    index_bytes: int = 0

    @property
    def block_row_count(self) -> int:
        """Number of block-rows."""
        return ceil_div(self.rows, self.block_rows)

    @property
    def block_col_count(self) -> int:
        """Number of block-columns."""
        return ceil_div(self.cols, self.block_cols)

    @property
    def index_offset(self) -> int:
        """Offset of the index stream (BLOCK) from the start of the tensor's bytes."""
        return pad8(4 * (self.block_row_count + 1))

    @property
    def values_offset(self) -> int:
        """Offset of the first value from the start of the tensor's bytes."""
        if self.encoding == Encoding.BITMASK:
            return pad8(ceil_div(self.rows * self.cols, 8))
        if self.encoding == Encoding.BLOCK:
            return self.index_offset + pad8(self.index_bytes)
        return 0

    @property
    def nbytes(self) -> int:
        """Size of the whole encoding."""
        return self.values_offset + self.stored_values * self.value_bytes
