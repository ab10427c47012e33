"""Reads ONNX's sparse initializers: they become dense ones that are expanded when they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

# Where the stub of an expanded tensor says its data are.
LOCATION = "sparsert:sparse"
# More elements than this are a corrupt shape rather than a weight.
_MAX_ELEMS = 1 << 34


def expand_sparse(
    proto: onnx.ModelProto,
    loaders: dict[str, Callable[[], np.ndarray]],
    problems: list[str],
) -> None:
    """Turns the main graph's sparse initializers into stubs of dense ones.

    Args:
        proto: the model; changed in place.
        loaders: gets a function per tensor that returns its dense array.
        problems: gets what is wrong.
    """
    import onnx

    for sparse in proto.graph.sparse_initializer:
        name = sparse.values.name
        try:
            values, flat, dims = _checked(sparse)
        except ValueError as error:
            problems.append(f"sparse initializer '{name}': {error}")
            # Its users are in order all the same.
            values, flat, dims = np.zeros(0, np.float32), np.zeros(0, np.int64), ()
        stub = onnx.TensorProto(name=name, dims=dims, data_type=sparse.values.data_type)
        stub.data_location = onnx.TensorProto.EXTERNAL
        stub.external_data.add(key="location", value=LOCATION)
        proto.graph.initializer.append(stub)
        loaders[name] = _loader(values, flat, dims)
    del proto.graph.sparse_initializer[:]


def _loader(
    values: np.ndarray, flat: np.ndarray, dims: tuple[int, ...]
) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        dense = np.zeros(int(np.prod(dims, dtype=np.int64)), values.dtype)
        dense[flat] = values
        return dense.reshape(dims)

    return load


def _checked(sparse: onnx.SparseTensorProto) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Returns the values, their places in the flat tensor, and its shape."""
    import onnx
    from onnx import numpy_helper

    for tensor in (sparse.values, sparse.indices):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError("its data are in another file, which is not supported")
    dims = tuple(int(dim) for dim in sparse.dims)
    count = int(np.prod(dims, dtype=object))
    if any(dim < 0 for dim in dims) or count > _MAX_ELEMS:
        raise ValueError(f"its shape is {list(dims)}")
    try:
        values = np.asarray(numpy_helper.to_array(sparse.values))
        indices = np.asarray(numpy_helper.to_array(sparse.indices))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"its values or indices are corrupt ({error})") from error
    if indices.dtype != np.int64 or values.ndim != 1:
        raise ValueError("values must be a vector, and indices int64")
    if indices.shape == (values.size,):
        flat = indices
        inside = bool(np.all((flat >= 0) & (flat < count)))
    elif indices.shape == (values.size, len(dims)):
        inside = bool(np.all((indices >= 0) & (indices < np.array(dims, np.int64))))
        flat = np.ravel_multi_index(tuple(indices.T), dims) if inside and dims else indices[:, :0]
    else:
        raise ValueError(
            f"indices of shape {list(indices.shape)} for {values.size} values in {list(dims)}"
        )
    if not inside:
        raise ValueError(f"an index is outside of its shape {list(dims)}")
    flat = np.asarray(flat, np.int64).reshape(-1)
    if np.any(flat[1:] <= flat[:-1]):
        raise ValueError("its indices are not in ascending order, each once")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"its values are of the type {values.dtype}")
    return values, flat, dims
