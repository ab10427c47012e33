"""A graph of one node of the sparsert opset, in Numba and in the interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from sparsert.runtime.numba_backend import NumbaBackend
from sparsert.runtime.numpy_backend import NumpyBackend
from sparsert.runtime.packed_functions import pack
from tests.modelfile.sample_models import constant, make_model


def random_bytes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Packed bytes [N, channels, ...]; the values of channels that do not exist are any."""
    return pack(rng.integers(0, 256, shape, np.uint8), 77)


def compare(
    op: str, feeds: list[np.ndarray | None], constants: dict[int, Any], **attributes: Any
) -> tuple[np.ndarray, np.ndarray, str]:
    """Runs one node, and returns its result in Numba and in NumPy, and the name of the kernel."""
    inputs: list[ir.Value | None] = []
    given = iter(feeds)
    arrays: dict[str, np.ndarray] = {}
    for i in range(len(feeds) + len(constants)):
        if i in constants:
            inputs.append(None if constants[i] is None else constant(f"c{i}", constants[i]))
            continue
        array = next(given)
        if array is None:
            inputs.append(None)
            continue
        dtype = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        inputs.append(ir.Value(name=f"x{i}", shape=ir.Shape(array.shape), type=dtype))
        arrays[f"x{i}"] = array
    kind = ir.DataType.FLOAT if attributes.get("to") == 1 or "Dyn" in op else ir.DataType.UINT32
    out = ir.Value(name="y", type=ir.TensorType(kind))
    node = ir.node(op, inputs, attributes, domain="sparsert", outputs=[out], name="n")
    model = make_model([v for v in inputs if v is not None and v.name in arrays], [out], [node])
    backend = NumbaBackend(model, "the case", threads=2)
    want = NumpyBackend(model).run(arrays)["y"]
    for _ in range(2):  # the second run finds what the first one laid out
        got = backend.run(arrays)["y"]
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
    (row,) = backend.explain().to_dict()["rows"]
    assert row["step"], row["reason"]
    return got, want, row["kernel"]
