"""Kernels of a user's own for layers with weights: the decorator kernel, and the formats."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sparsert.kernels.custom_ops import name_of

OPS = ("Linear", "Conv")
FORMATS = ("dense", "csr", "bitmask", "block")
_WORD = 64

_registry: list[UserKernel] = []
_lock = threading.Lock()


class Dense(NamedTuple):
    """A matrix as it is."""

    values: np.ndarray  # f32 [rows, columns]


class Csr(NamedTuple):
    """The weights of each row that are not zero."""

    row_ptr: np.ndarray  # i32 [rows + 1]: where each row begins in the others
    col_idx: np.ndarray  # i32 [nnz]: rising within a row
    values: np.ndarray  # f32 [nnz]


class Bitmask(NamedTuple):
    """A bit for each weight, and those that are not zero."""

    row_ptr: np.ndarray  # i32 [rows + 1]: where each row begins in values
    masks: np.ndarray  # u64 [rows, words]: bit k % 64 of word k // 64 is column k
    values: np.ndarray  # f32 [nnz]


class Blocks(NamedTuple):
    """Blocks of r x c weights that are not all zero; the matrix is filled up with zeros to fit."""

    row_ptr: np.ndarray  # i32 [rows of blocks + 1]: where each begins in the others
    col_idx: np.ndarray  # i32 [blocks]: which column of blocks
    values: np.ndarray  # f32 [blocks, r, c]


class Window(NamedTuple):
    """Where a convolution reads: output o and tap k of an axis at o * stride + k * dilation."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int


Weights = Dense | Csr | Bitmask | Blocks


@dataclasses.dataclass(frozen=True)
class UserKernel:
    """A registered kernel: see kernel()."""

    function: Callable[..., Any]
    op: str
    format: str
    block: tuple[int, int]
    dims: int
    name: str
    when: Callable[[np.ndarray], bool] | None

    @property
    def packed_format(self) -> str:
        """The format's name in tables: "csr", "block4x1"."""
        return self.format + ("{}x{}".format(*self.block) if self.format == "block" else "")

    def takes(self, op: str, matrix: np.ndarray, dims: int) -> bool:
        """Whether it is for a layer with these weights and as many spatial dimensions."""
        if op != self.op or (op == "Conv" and dims != self.dims):
            return False
        return self.when is None or bool(self.when(matrix))

    def pack(self, matrix: np.ndarray) -> Weights:
        """Returns weights f32 [rows, columns] in the kernel's format."""
        return pack(matrix, self.format, self.block)


def kernel(
    *,
    op: str,
    format: str,
    block: tuple[int, int] = (4, 1),
    dims: int = 2,
    name: str | None = None,
    when: Callable[[np.ndarray], bool] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as a kernel that backend="numba" may run layers of f32 weights with.

    The function writes every element of its output y, and adds neither bias nor activation:

        Linear: function(x, w, y)          x f32 [rows of x, columns], y = x W', f32 [rows of x, M]
        Conv:   function(x, w, y, window)  x f32 [N, C, ...] with its padding, y f32 [N, M, ...]

    All arrays are C-contiguous. W is a matrix of M rows; of a convolution its columns are
    [C / group, *kernel], and rows of group g read channels from g * C / group on. `w` is W as a
    named tuple: see Dense, Csr, Bitmask and Blocks; `window` is a Window. Numba compiles all of
    these. Several threads call the function at once when several run the model.

    Of each layer that the kernel takes it is a candidate: with sparsert.load(tune=False) it is
    used, else the fastest one is, measured when an input of some shape comes first. explain() names
    it. check() compares a kernel with a reference; `sparsert bench --kernels` times it.

    Args:
        op: "Linear" (products with a constant matrix) or "Conv".
        format: "dense", "csr", "bitmask" or "block".
        block: rows and columns of a block.
        dims: spatial dimensions of the convolutions that it is for, 1 to 3.
        name: in tables and messages; None: the function's own.
        when: takes the matrix of a layer and says whether the kernel is for it; None: always.

    Returns:
        A decorator; it leaves the function as it is. A kernel of the same op and name replaces the
        one before for the models that are loaded later.

    Raises:
        ValueError: the op or format is unknown, the block is empty, or dims is out of range.

    Example:
        >>> @kernel(op="Linear", format="dense")
        ... def product(x, w, y):
        ...     y[:] = x @ w.values.T
    """
    if op not in OPS:
        raise ValueError(f"op is {op!r}, expected one of {', '.join(OPS)}")
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    if len(block) != 2 or min(block) < 1:
        raise ValueError(f"block is {block!r}, expected rows and columns of at least 1")
    if dims not in (1, 2, 3):
        raise ValueError(f"dims is {dims!r}, expected 1, 2 or 3")

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        size = (int(block[0]), int(block[1]))
        made = UserKernel(function, op, format, size, dims, name or name_of(function), when)
        with _lock:
            _registry[:] = [k for k in _registry if (k.op, k.name) != (op, made.name)] + [made]
        return function

    return register


def unregister(function: Callable[..., Any]) -> None:
    """Takes a kernel back; models that were loaded with it keep it.

    Raises:
        ValueError: the function is not registered.
    """
    with _lock:
        left = [made for made in _registry if made.function is not function]
        if len(left) == len(_registry):
            raise ValueError(f"{name_of(function)} is not registered as a kernel")
        _registry[:] = left


def user_kernels() -> list[UserKernel]:
    """Returns all that are registered."""
    with _lock:
        return list(_registry)


def kernel_of(function: Callable[..., Any]) -> UserKernel:
    """Returns what a function is registered as, last.

    Raises:
        ValueError: it is not.
    """
    for found in reversed(user_kernels()):
        if found.function is function:
            return found
    raise ValueError(f"{name_of(function)} is not registered with sparsert.kernels.kernel")


def pack(matrix: np.ndarray, format: str, block: tuple[int, int] = (4, 1)) -> Weights:
    """Returns f32 [rows, columns] in one of FORMATS."""
    matrix = np.ascontiguousarray(matrix, np.float32)
    mask = matrix != 0
    if format == "dense":
        return Dense(matrix)
    if format == "csr":
        return Csr(_ends(mask), np.nonzero(mask)[1].astype(np.int32), matrix[mask])
    rows, columns = matrix.shape
    if format == "bitmask":
        bits = _filled(mask, rows, -(-columns // _WORD) * _WORD)
        masks = np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64)
        return Bitmask(_ends(mask), masks, matrix[mask])
    high, wide = block
    whole = _filled(matrix, -(-rows // high) * high, -(-columns // wide) * wide)
    blocks = whole.reshape(whole.shape[0] // high, high, whole.shape[1] // wide, wide)
    blocks = blocks.transpose(0, 2, 1, 3)
    kept = (blocks != 0).any(axis=(2, 3))
    col_idx = np.nonzero(kept)[1].astype(np.int32)
    return Blocks(_ends(kept), col_idx, np.ascontiguousarray(blocks[kept]))


def _filled(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return np.pad(x, ((0, rows - x.shape[0]), (0, columns - x.shape[1])))


def _ends(mask: np.ndarray) -> np.ndarray:
    row_ptr = np.zeros(mask.shape[0] + 1, np.int32)
    np.cumsum(np.count_nonzero(mask, axis=1), out=row_ptr[1:])
    return row_ptr
