"""kernel and check: a user's kernels in every format, right ones and wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pytest

from sparsert.errors import BackendError
from sparsert.kernels import check, kernel, unregister
from sparsert.kernels.user_kernels import user_kernels


@numba.njit
def linear_csr(x: Any, w: Any, y: Any) -> None:
    for t in range(x.shape[0]):
        for m in range(y.shape[1]):
            total = np.float32(0)
            for p in range(w.row_ptr[m], w.row_ptr[m + 1]):
                total += w.values[p] * x[t, w.col_idx[p]]
            y[t, m] = total


def linear_dense(x: Any, w: Any, y: Any) -> None:
    y[:] = x @ w.values.T


def linear_bitmask(x: Any, w: Any, y: Any) -> None:
    columns = x.shape[1]
    bits = np.unpackbits(w.masks.view(np.uint8), axis=1, bitorder="little", count=columns)
    for m in range(y.shape[1]):
        values = w.values[w.row_ptr[m] : w.row_ptr[m + 1]]
        y[:, m] = x[:, bits[m] == 1] @ values


def linear_block(x: Any, w: Any, y: Any) -> None:
    high, wide = w.values.shape[1:]
    y[:] = 0
    for row in range(w.row_ptr.size - 1):
        for p in range(w.row_ptr[row], w.row_ptr[row + 1]):
            k = w.col_idx[p] * wide
            part = x[:, k : k + wide] @ w.values[p, :, : x.shape[1] - k].T
            y[:, row * high : row * high + high] += part[:, : y.shape[1] - row * high]


@numba.njit
def conv_csr(x: Any, w: Any, y: Any, window: Any) -> None:
    kernel, strides, dilations, group = window
    for image in range(y.shape[0]):
        for m in range(y.shape[1]):
            y[image, m] = 0
            first = m // (y.shape[1] // group) * (x.shape[1] // group)
            for p in range(w.row_ptr[m], w.row_ptr[m + 1]):
                channel, tap = divmod(w.col_idx[p], kernel[0] * kernel[1])
                row, column = divmod(tap, kernel[1])
                for i in range(y.shape[2]):
                    for j in range(y.shape[3]):
                        at = row * dilations[0] + i * strides[0]
                        beside = column * dilations[1] + j * strides[1]
                        part = x[image, first + channel, at, beside]
                        y[image, m, i, j] += w.values[p] * part


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    kernel(op="Linear", format="csr", name="linear_csr")(linear_csr)
    kernel(op="Linear", format="dense")(linear_dense)
    kernel(op="Linear", format="bitmask")(linear_bitmask)
    kernel(op="Conv", format="csr", name="conv_csr")(conv_csr)
    yield
    for made in user_kernels():
        unregister(made.function)


@pytest.mark.parametrize(
    ("function", "cases"),
    [(linear_csr, 32), (linear_dense, 32), (linear_bitmask, 32), (conv_csr, 20)],
)
def test_right_kernels(function: Callable[..., Any], cases: int) -> None:
    assert check(function) == cases


@pytest.mark.parametrize("block", [(4, 1), (1, 4), (3, 2)])
def test_blocks(block: tuple[int, int]) -> None:
    kernel(op="Linear", format="block", block=block)(linear_block)
    assert check(linear_block) == 32


def wrong(change: Callable[[Any, Any, Any], None]) -> Callable[..., Any]:
    def function(x: Any, w: Any, y: Any) -> None:
        y[:] = x @ w.values.T
        change(x, w, y)

    kernel(op="Linear", format="dense", name="wrong")(function)
    return function


def _forget_last(x: Any, w: Any, y: Any) -> None:
    y[:, -1] = np.nan


def _write_input(x: Any, w: Any, y: Any) -> None:
    x[:] = 1


def _add(x: Any, w: Any, y: Any) -> None:
    y[:, y.shape[1] // 3] += 0.01


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_forget_last, r"x \[1, 1\], W \[1, 1\] with 0% zeros: left 1 of 1 outputs unwritten"),
        (_write_input, "wrote to its input"),
        (_add, r"y\[0, 0\] is .*; expected"),
        (lambda x, w, y: w.nothing, "failed: AttributeError"),
    ],
)
def test_wrong_kernels(change: Callable[[Any, Any, Any], None], expected: str) -> None:
    with pytest.raises(BackendError, match=expected) as caught:
        check(wrong(change))
    assert "kernel 'wrong' (Linear)" in str(caught.value)


@pytest.mark.parametrize("dims", [1, 3])
def test_convolutions_of_other_dimensions(dims: int) -> None:
    def conv_dense(x: Any, w: Any, y: Any, window: Any) -> None:
        matrix = w.values.reshape(y.shape[1], -1, *window.kernel)
        width, rows = matrix.shape[1], y.shape[1] // window.group
        for place in np.ndindex(*y.shape[2:]):
            axes = zip(place, window.kernel, window.strides, window.dilations, strict=True)
            cut = tuple(slice(o * s, o * s + (k - 1) * d + 1, d) for o, k, s, d in axes)
            for m in range(y.shape[1]):
                first = m // rows * width
                part = x[(slice(None), slice(first, first + width), *cut)]
                y[(slice(None), m, *place)] = (part * matrix[m]).sum(axis=tuple(range(1, x.ndim)))

    kernel(op="Conv", format="dense", dims=dims)(conv_dense)
    assert check(conv_dense) == 12


def test_bad_registrations() -> None:
    for options in ({"op": "Gemm", "format": "csr"}, {"op": "Conv", "format": "sell"}):
        with pytest.raises(ValueError, match="expected one of"):
            kernel(**options)
    with pytest.raises(ValueError, match="block is"):
        kernel(op="Linear", format="block", block=(0, 1))
    with pytest.raises(ValueError, match="dims is 4"):
        kernel(op="Conv", format="csr", dims=4)
    with pytest.raises(ValueError, match="not registered"):
        check(lambda x, w, y: None)


def test_a_kernel_can_be_taken_back() -> None:
    unregister(linear_csr)
    assert linear_csr not in [made.function for made in user_kernels()]
    with pytest.raises(ValueError, match="not registered"):
        unregister(linear_csr)
