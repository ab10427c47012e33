"""What every backend has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sparsert.errors import ShapeError, describe_problems
from sparsert.runtime.table import Table
from sparsert.runtime.torch_arrays import as_array

# NumPy dtypes by the numbers of onnx.TensorProto.DataType.
NUMPY_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
}

# ONNX's names of elements whose NumPy names differ.
_ELEMENT_NAMES = {"float32": "float", "float64": "double", "object": "string"}

# The header of the table that explain() returns.
EXPLAIN_COLUMNS = (
    *("layer", "op", "output", "zeros", "stored", "bytes", "computed", "packed", "kernel"),
    *("candidates", "why"),
)


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model.

    Attributes:
        name: its name in the graph.
        shape: ints, and strs for symbolic dimensions; None when the rank is unknown.
        dtype: of its elements.
    """

    name: str
    shape: tuple[int | str, ...] | None
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class NodeArg:
    """An input or output as ONNX Runtime describes it.

    Attributes:
        name: its name in the graph.
        type: such as "tensor(float)".
        shape: ints, and strs for symbolic dimensions; empty when the rank is unknown.
    """

    name: str
    type: str
    shape: list[int | str]

    @staticmethod
    def of(spec: TensorSpec) -> NodeArg:
        """Returns the description of an input or output."""
        element = _ELEMENT_NAMES.get(spec.dtype.name, spec.dtype.name)
        return NodeArg(spec.name, f"tensor({element})", list(spec.shape or ()))


@dataclass(frozen=True)
class Level:
    """One level of a model: the same network with other weights at zero.

    Attributes:
        name: chooses it.
        weights: elements of the weights of all layers.
        nonzeros: those that are not zero.
        file_bytes: of the constants in the file that this level alone needs; of the first level:
            all that are not for another one.
        packed_bytes: of its weights in memory, without those that all levels share; 0: not in use.
    """

    name: str
    weights: int
    nonzeros: int
    file_bytes: int
    packed_bytes: int

    @property
    def sparsity(self) -> float:
        """Share of zeros of the weights."""
        return 1 - self.nonzeros / self.weights if self.weights else 0.0


class Backend(Protocol):
    """An engine that runs one model."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]

    @property
    def level_names(self) -> Sequence[str]:
        """The levels, densest first; none of a model without levels."""
        ...

    @property
    def level(self) -> str | None:
        """The level in use; None for a model without levels."""
        ...

    def set_level(self, name: str) -> None:
        """Chooses the level of the runs that begin from now on."""
        ...

    def levels(self) -> list[dict[str, Any]]:
        """The facts of each level."""
        ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs from checked feeds (native byte order, C-contiguous)."""
        ...

    def explain(self) -> Table:
        """Says how each layer runs and why."""
        ...

    def profile(self, feeds: Mapping[str, np.ndarray], runs: int) -> Table:
        """Times each layer."""
        ...


def check_feeds(inputs: list[TensorSpec], feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the feeds as C-contiguous arrays of native byte order.

    Args:
        inputs: what the model expects.
        feeds: arrays by input name; any strides and byte order.

    Raises:
        ShapeError: a feed is missing, unknown, or of the wrong dtype, rank or size; lists all.
    """
    if len(feeds) == len(inputs) and all(_fits(spec, feeds.get(spec.name)) for spec in inputs):
        return dict(feeds)
    problems = []
    known = {spec.name for spec in inputs}
    for name in feeds:
        if name not in known:
            expected = ", ".join(f"'{spec.name}'" for spec in inputs) or "none"
            problems.append(
                f"there is no input '{name}'; the model's inputs: {expected} (one with an "
                "initializer is a constant)"
            )
    arrays = {}
    symbols: dict[str, tuple[int, str]] = {}
    for spec in inputs:
        if spec.name not in feeds:
            problems.append(f"input '{spec.name}' is missing")
            continue
        try:
            array = as_array(feeds[spec.name])
        except (TypeError, ValueError, RuntimeError, ImportError) as error:
            problems.append(f"input '{spec.name}' is not an array: {error}")
            continue
        if spec.dtype == object and array.dtype.kind in "UT":
            array = array.astype(object)
        if array.dtype.newbyteorder("=") != spec.dtype:
            problems.append(_dtype_problem(spec, array.dtype))
            continue
        problem = _shape_problem(spec, array.shape, symbols)
        if problem:
            problems.append(problem)
            continue
        arrays[spec.name] = np.require(array, spec.dtype, ("C", "A")).reshape(array.shape)
    if problems:
        raise ShapeError(describe_problems("feeds", problems))
    return arrays


def _dtype_problem(spec: TensorSpec, found: np.dtype[Any]) -> str:
    if spec.dtype == object:
        return f"input '{spec.name}' is {found}, expected strings"
    package = "numpy" if spec.dtype.isbuiltin == 1 else "ml_dtypes"
    return (
        f"input '{spec.name}' is {found}, expected {spec.dtype}; convert it with "
        f".astype({package}.{spec.dtype})"
    )


def _fits(spec: TensorSpec, feed: Any) -> bool:
    """The common case, checked fast: an aligned C-contiguous array of just this dtype and shape."""
    return (
        type(feed) is np.ndarray
        and feed.dtype is spec.dtype
        and feed.shape == spec.shape
        and feed.flags.c_contiguous
        and feed.flags.aligned
    )


def _shape_problem(
    spec: TensorSpec, shape: tuple[int, ...], symbols: dict[str, tuple[int, str]]
) -> str | None:
    # A file that declares an input empty means it; a run with an empty batch hardly does. Further
    # dimensions may be empty: the tokens before the first one have no keys.
    if shape and shape[0] == 0 and (spec.shape is None or spec.shape[:1] != (0,)):
        return f"input '{spec.name}' has shape {list(shape)}: a batch of size 0, which is refused"
    if spec.shape is None:
        return None
    expected = "[" + ", ".join(str(dim) for dim in spec.shape) + "]"
    if len(shape) != len(spec.shape):
        return f"input '{spec.name}' has shape {list(shape)}, expected {expected}"
    for have, want in zip(shape, spec.shape, strict=True):
        if isinstance(want, int):
            if have != want:
                return f"input '{spec.name}' has shape {list(shape)}, expected {expected}"
            continue
        size, where = symbols.setdefault(want, (have, spec.name))
        if size != have:
            return (
                f"input '{spec.name}' has shape {list(shape)}, expected {expected} with "
                f"{want} = {size} as in input '{where}'"
            )
    return None
