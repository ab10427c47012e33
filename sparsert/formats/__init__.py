"""Storage encodings of weights: encode, choose the smallest, decode."""

from sparsert.formats.decode import block_columns, decode
from sparsert.formats.encode import (
    Encoded,
    encode_bitmask,
    encode_block,
    encode_dense,
    encode_smallest,
    fits_f16,
)
from sparsert.formats.layout import F16, F32, I8, Encoding, IndexKind, Layout

__all__ = [
    "F16",
    "F32",
    "I8",
    "Encoded",
    "Encoding",
    "IndexKind",
    "Layout",
    "block_columns",
    "decode",
    "encode_bitmask",
    "encode_block",
    "encode_dense",
    "encode_smallest",
    "fits_f16",
]
