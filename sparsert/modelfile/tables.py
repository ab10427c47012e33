"""The fixed-layout records of a .sprt file as NumPy dtypes, and the header's constants."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

MAGIC = b"\x89SPRT\r\n\x1a"
VERSION_MAJOR = 1
VERSION_MINOR = 0
VERSION_MINOR_LEVELS = 1  # of files with levels
HEADER_BYTES = 256
CRC_START = 32  # the checksum covers the file from here
ALIGNMENT = 64
NO_INDEX = 0xFFFFFFFF  # absent optional input; no quantisation
UNKNOWN_RANK = 254
MAX_ELEMENTS = 1 << 40
# In the file's metadata, and as JSON in that of a canonical graph: the layers of a quantised model
# that stay in f32, each with the reason. explain() prints them.
FLOAT_LAYERS = "float_layers"
# Property of an ONNX model that sparsert.quantize wrote: JSON of the layers that it left in float.
KEPT_FLOAT = "sparsert.float_layers"


class Section(IntEnum):
    """Sections, in the order of the header's table and of the file."""

    TENSORS = 0
    NODES = 1
    NODE_IO = 2
    ATTRS = 3
    INTS = 4
    FLOATS = 5
    DIMS = 6
    SYMBOLS = 7
    GRAPH_IO = 8
    STRINGS = 9
    DATA = 10
    METADATA = 11


HEADER = np.dtype(
    [
        ("magic", "V8"),
        ("version_major", "<u2"),
        ("version_minor", "<u2"),
        ("header_bytes", "<u4"),
        ("file_bytes", "<u8"),
        ("crc32", "<u4"),
        ("flags", "<u4"),
        ("sections", [("offset", "<u8"), ("bytes", "<u8")], len(Section)),
        ("level_count", "<u4"),
        ("levels_first", "<u4"),
        ("reserved", "V24"),
    ]
)
TENSOR = np.dtype(
    [
        ("name_off", "<u4"),
        ("name_len", "<u4"),
        ("dtype", "u1"),
        ("kind", "u1"),
        ("encoding", "u1"),
        ("rank", "u1"),
        ("dims_first", "<u4"),
        ("data_offset", "<u8"),
        ("data_bytes", "<u8"),
        ("nnz", "<u8"),
        ("block_rows", "<u2"),
        ("block_cols", "<u2"),
        ("value_dtype", "u1"),
        ("index_kind", "u1"),
        ("reserved", "<u2"),
        ("quant", "<u4"),
        ("reserved2", "<u4"),
        ("index_bytes", "<u8"),
    ]
)
NODE = np.dtype(
    [
        ("op", "<u2"),
        ("op_version", "<u2"),
        ("name_off", "<u4"),
        ("name_len", "<u4"),
        ("io_first", "<u4"),
        ("n_inputs", "<u2"),
        ("n_outputs", "<u2"),
        ("attrs_first", "<u4"),
        ("n_attrs", "<u2"),
        ("reserved", "V14"),
    ]
)
ATTR = np.dtype(
    [
        ("key", "<u2"),
        ("type", "u1"),
        ("reserved", "u1"),
        ("count", "<u4"),
        ("payload", "<u8"),
    ]
)
# An entry of a level's table; `keep` and `scale` may be NO_INDEX.
LEVEL_PATCH = np.dtype([("tensor", "<u4"), ("unit", "<u4"), ("keep", "<u4"), ("scale", "<u4")])
LEVEL_FIELDS = len(LEVEL_PATCH.names or ())
MAX_LEVELS = 64
SYMBOL = np.dtype([("str_off", "<u4"), ("str_len", "<u4")])

# What the sections that are arrays hold.
SECTION_DTYPES: dict[Section, np.dtype[Any]] = {
    Section.TENSORS: TENSOR,
    Section.NODES: NODE,
    Section.NODE_IO: np.dtype("<u4"),
    Section.ATTRS: ATTR,
    Section.INTS: np.dtype("<i8"),
    Section.FLOATS: np.dtype("<f4"),
    Section.DIMS: np.dtype("<i8"),
    Section.SYMBOLS: SYMBOL,
    Section.GRAPH_IO: np.dtype("<u4"),
}


def align(n: int) -> int:
    """Returns n rounded up to a multiple of ALIGNMENT."""
    return (n + ALIGNMENT - 1) & ~(ALIGNMENT - 1)
