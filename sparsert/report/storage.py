"""How the weights of a .sprt file are stored, tensor by tensor and by encoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.formats.layout import Encoding, IndexKind, Layout
from sparsert.runtime.table import Table, format_bytes

if TYPE_CHECKING:
    from sparsert.modelfile import ModelFile, TensorInfo

_SHORT_NAMES = {"float32": "f32", "float16": "f16"}
_INDEX_NAMES = {IndexKind.DELTA8: "u8", IndexKind.U16: "u16", IndexKind.U32: "u32"}


def encoding_name(layout: Layout) -> str:
    """Names a storage encoding with its index width: dense, bitmask, csr/u8, block 4x1/u16, ..."""
    if layout.encoding != Encoding.BLOCK:
        return Encoding(layout.encoding).name.lower()
    index = _INDEX_NAMES[IndexKind(layout.index_kind)]
    if (layout.block_rows, layout.block_cols) == (1, 1):
        return f"csr/{index}"
    return f"block {layout.block_rows}x{layout.block_cols}/{index}"


def tensor_table(file: ModelFile, title: str) -> Table:
    """Returns one row per constant of a file: shape, encoding, stored values, bytes."""
    records = [_record(tensor) for tensor in file.tensors if tensor.is_constant]
    rows: list[Sequence[Any]] = [
        (
            r["name"],
            "x".join(map(str, r["shape"])) or "scalar",
            r["encoding"],
            r["values"],
            r["elements"],
            r["stored_values"],
            format_bytes(r["bytes"]),
        )
        for r in records
    ]
    columns = ["tensor", "shape", "encoding", "values", "elements", "stored", "bytes"]
    data = sum(r["bytes"] for r in records)
    notes = [f"{len(records)} constants, {format_bytes(data)} of {format_bytes(file.file_bytes)}"]
    return Table(title, columns, rows, notes, records)


def encoding_table(file: ModelFile, title: str) -> Table:
    """Returns one row per encoding in use: tensors, elements, stored values, bytes."""
    return _sum_up([_record(tensor) for tensor in file.tensors if tensor.is_constant], title)


def initializer_table(path: Path, title: str) -> Table:
    """The same for an ONNX file, whose initializers are dense or sparse."""
    import onnx
    from onnx import helper

    graph = onnx.load(path, load_external_data=False).graph
    sparse = [(s.values, "sparse", s.dims, s.values.dims, s) for s in graph.sparse_initializer]
    dense = [(t, "dense", t.dims, t.dims, t) for t in graph.initializer]
    records = []
    for tensor, encoding, shape, stored, whole in [*dense, *sparse]:
        name = helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        records.append(
            {
                "encoding": encoding,
                "values": _SHORT_NAMES.get(name, name),
                "elements": math.prod(shape),
                "stored_values": math.prod(stored),
                "bytes": whole.ByteSize(),
            }
        )
    return _sum_up(records, title)


def _sum_up(parts: list[dict[str, Any]], title: str) -> Table:
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for record in parts:
        total = sums.setdefault(
            (record["encoding"], record["values"]),
            {
                "encoding": record["encoding"],
                "values": record["values"],
                "tensors": 0,
                "elements": 0,
                "stored_values": 0,
                "bytes": 0,
            },
        )
        total["tensors"] += 1
        for key in ("elements", "stored_values", "bytes"):
            total[key] += record[key]
    records = sorted(sums.values(), key=lambda r: -r["bytes"])
    rows: list[Sequence[Any]] = [
        (*(r[key] for key in list(r)[:-1]), format_bytes(r["bytes"])) for r in records
    ]
    columns = ["encoding", "values", "tensors", "elements", "stored", "bytes"]
    return Table(title, columns, rows, records=records)


def _record(tensor: TensorInfo) -> dict[str, Any]:
    layout = tensor.layout
    assert layout is not None
    assert tensor.dims is not None
    assert tensor.data is not None
    return {
        "name": tensor.name,
        "shape": list(tensor.dims),
        "encoding": encoding_name(layout),
        "values": _value_name(tensor),
        "elements": layout.rows * layout.cols,
        "stored_values": layout.stored_values,
        "bytes": tensor.data.size,
    }


def _value_name(tensor: TensorInfo) -> str:
    """Names the dtype of the stored values: f32, f16, int64, ..."""
    from sparsert.modelfile.opset import DTYPE_NUMPY

    name = np.dtype(DTYPE_NUMPY[tensor.value_dtype]).name
    return _SHORT_NAMES.get(name, name)
