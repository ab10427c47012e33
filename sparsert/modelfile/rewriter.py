"""Gives a .sprt file other weights, with NumPy alone: the graph stays as it is, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsert.formats import F16, F32, I8, encode_smallest
from sparsert.modelfile import tables
from sparsert.modelfile.reader import ModelFile, TensorInfo
from sparsert.modelfile.tables import Section, align
from sparsert.modelfile.writer import (
    WEIGHTED_OPS,
    Buffer,
    encode_float,
    has_candidate,
    join_sections,
)


def replace_weights(
    file: Any, content: ModelFile, arrays: Mapping[int, NDArray[Any]], weights: str = "f32"
) -> list[Buffer]:
    """Returns a file with other values of some of its constants.

    Args:
        file: the bytes of a valid .sprt file without levels (any buffer).
        content: the same file, read.
        arrays: new values by index of an f32 constant, or of an i8 weight of QConv or QDepthwise;
            of its shape.
        weights: "f32", or "f16": how the weights of Conv, ConvTranspose and Linear are stored, also
            those that keep their values; as in write_bytes.

    Returns:
        The file in parts, in order; constants that change neither values nor dtype are views of
        `file`. It is as large as a conversion of the model with these values.
    """
    data = np.frombuffer(file, np.uint8)
    header = data[: tables.HEADER_BYTES].view(tables.HEADER)[0]
    sections: dict[Section, list[Buffer]] = {}
    for section in Section:
        offset, size = (int(v) for v in header["sections"][section])
        sections[section] = [data[offset : offset + size].data]
    records = np.frombuffer(sections[Section.TENSORS][0], tables.TENSOR).copy()
    weight_inputs = {node.inputs[1] for node in content.nodes if node.op in WEIGHTED_OPS}
    weight_inputs |= {node.inputs[3] for node in content.nodes if has_candidate(node)}
    parts: list[Buffer] = []
    used = 0
    for index, tensor in enumerate(content.tensors):
        if tensor.data is None:
            continue
        parts.append(bytes(align(used) - used))
        used = align(used)
        record = records[index]
        record["data_offset"] = used
        array = _new_values(tensor, arrays.get(index), index in weight_inputs, weights)
        if array is None:
            parts.append(tensor.data.data)
            used += tensor.data.size
            continue
        if tensor.dtype == I8:
            encoded = encode_smallest(array, I8)
        else:
            encoded = encode_float(array, index in weight_inputs, weights)
        layout = encoded.layout
        record["encoding"] = int(layout.encoding)
        record["data_bytes"] = encoded.nbytes
        record["nnz"] = layout.stored_values
        record["block_rows"], record["block_cols"] = layout.block_rows, layout.block_cols
        record["value_dtype"] = encoded.value_dtype
        record["index_kind"] = layout.index_kind
        record["index_bytes"] = layout.index_bytes
        parts.extend(part.data for part in encoded.parts)
        used += encoded.nbytes
    sections[Section.TENSORS] = [records.tobytes()]
    sections[Section.DATA] = parts
    return join_sections(sections)


def _new_values(
    tensor: TensorInfo, array: NDArray[Any] | None, is_weight: bool, weights: str
) -> NDArray[Any] | None:
    """Returns the values to encode; None when the stored bytes may stay."""
    if array is not None:
        return array
    if not is_weight or tensor.dtype != F32 or len(tensor.dims or ()) < 2:
        return None
    wanted = F16 if weights == "f16" else F32
    return None if tensor.value_dtype == wanted else tensor.decode()
