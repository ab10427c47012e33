"""Compares a registered kernel with a reference in NumPy, over odd shapes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sparsert.errors import BackendError, describe_problems
from sparsert.kernels.user_kernels import UserKernel, Window, kernel_of

_MAX_PROBLEMS = 5
# Rows of x, columns and rows of W.
_PRODUCTS = (
    *((1, 1, 1), (1, 7, 5), (2, 64, 16), (3, 17, 13), (5, 130, 31), (33, 31, 4), (67, 3, 9)),
    (0, 5, 3),
)
# Images, channels, rows of W; size, kernel, strides, dilations; groups.
_CONVOLUTIONS = (
    (1, 1, 1, (1,), (1,), (1,), (1,), 1),
    (2, 3, 4, (17,), (5,), (2,), (3,), 1),
    (1, 6, 9, (11,), (3,), (1,), (1,), 3),
    (1, 1, 1, (1, 1), (1, 1), (1, 1), (1, 1), 1),
    (2, 3, 5, (7, 9), (3, 3), (1, 1), (1, 1), 1),
    (1, 5, 7, (11, 6), (3, 2), (2, 3), (2, 1), 1),
    (1, 6, 9, (5, 5), (1, 1), (2, 2), (1, 1), 3),
    (3, 4, 4, (6, 7), (3, 3), (1, 2), (1, 1), 4),
    (1, 1, 1, (1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    (2, 4, 6, (3, 5, 7), (1, 3, 3), (1, 1, 1), (1, 1, 2), 2),
    (1, 2, 3, (4, 5, 6), (2, 3, 2), (1, 1, 2), (1, 1, 1), 1),
)
_ZEROS = (0.0, 0.6, 0.95, 1.0)


def check(function: Callable[..., Any], tolerance: float = 1e-5) -> int:
    """Runs a registered kernel on odd shapes and compares it with NumPy.

    Sizes of 1, primes and tails; no zeros, many, and nothing but zeros; rows of zeros; batches of
    none, one and many. The output holds NaN before, so that what is not written shows.

    Args:
        function: registered with sparsert.kernels.kernel, compiled or not.
        tolerance: of the error, relative to the largest sum of absolute products.

    Returns:
        The number of cases.

    Raises:
        BackendError: names what went wrong, with the shapes.
        ValueError: the function is not registered.

    Example:
        >>> sparsert.kernels.check(my_kernel)  # doctest: +SKIP
        32
    """
    kernel = kernel_of(function)
    cases = _products() if kernel.op == "Linear" else _convolutions(kernel.dims)
    problems: list[str] = []
    count = 0
    for what, x, matrix, window, want, scale in cases:
        count += 1
        problem = _compare(kernel, x, matrix, window, want, tolerance * scale)
        if problem:
            problems.append(f"{what}: {problem}")
        if len(problems) == _MAX_PROBLEMS:
            break
    if problems:
        raise BackendError(describe_problems(f"kernel '{kernel.name}' ({kernel.op})", problems))
    return count


_Case = tuple[str, np.ndarray, np.ndarray, Window | None, np.ndarray, float]


def _compare(
    kernel: UserKernel,
    x: np.ndarray,
    matrix: np.ndarray,
    window: Window | None,
    want: np.ndarray,
    limit: float,
) -> str:
    """Returns what is wrong with the kernel's result; empty if nothing is."""
    y = np.full(want.shape, np.nan, np.float32)
    given = x.copy()
    arguments = (given, kernel.pack(matrix), y) + (() if window is None else (window,))
    try:
        kernel.function(*arguments)
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"
    if not np.array_equal(given, x):
        return "wrote to its input"
    missing = int(np.isnan(y).sum())
    if missing:
        return f"left {missing} of {y.size} outputs unwritten (or made them NaN)"
    off = np.abs(y - want)
    if off.size and off.max() > limit:
        at = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
        return f"y[{', '.join(map(str, at))}] is {y[at]:.7g}; expected {want[at]:.7g}"
    return ""


def _weights(rng: np.random.Generator, shape: tuple[int, int], zeros: float) -> np.ndarray:
    w = rng.standard_normal(shape, dtype=np.float32)
    w[rng.random(shape) < zeros] = 0
    if 0 < zeros:
        w[shape[0] // 2] = 0  # a row of zeros
    return w


def _products() -> Iterator[_Case]:
    rng = np.random.default_rng(0)
    for (batch, columns, rows), zeros in itertools.product(_PRODUCTS, _ZEROS):
        x = rng.standard_normal((batch, columns), dtype=np.float32)
        w = _weights(rng, (rows, columns), zeros)
        exact = x.astype(np.float64) @ w.T
        scale = float((np.abs(x) @ np.abs(w).T).max(initial=1))
        what = f"x [{batch}, {columns}], W [{rows}, {columns}] with {zeros:.0%} zeros"
        yield what, x, w, None, exact, scale


def _convolutions(dims: int) -> Iterator[_Case]:
    rng = np.random.default_rng(0)
    chosen = [case for case in _CONVOLUTIONS if len(case[3]) == dims]
    for case, zeros in itertools.product(chosen, _ZEROS):
        batch, channels, rows, size, taps, strides, dilations, group = case
        window = Window(taps, strides, dilations, group)
        x = rng.standard_normal((batch, channels, *size), dtype=np.float32)
        w = _weights(rng, (rows, channels // group * math.prod(taps)), zeros)
        exact = _convolved(x.astype(np.float64), w, window)
        scale = float(_convolved(np.abs(x), np.abs(w), window).max(initial=1))
        what = f"x {list(x.shape)}, W {list(w.shape)} with {zeros:.0%} zeros, {window}"
        yield what, x, w, window, exact, scale


def _convolved(x: np.ndarray, matrix: np.ndarray, window: Window) -> np.ndarray:
    size = x.shape[2:]
    axes = list(zip(size, window.kernel, window.strides, window.dilations, strict=True))
    out = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in axes]
    rows, group = matrix.shape[0], window.group
    width = x.shape[1] // group
    w = matrix.reshape(group, rows // group, width, *window.kernel)
    y = np.zeros((x.shape[0], group, rows // group, *out), x.dtype)
    for tap in np.ndindex(*window.kernel):
        places = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, n, (_, _, s, d) in zip(tap, out, axes, strict=True)
        )
        part = x[(slice(None), slice(None), *places)].reshape(x.shape[0], group, width, *out)
        factors = w[(slice(None), slice(None), slice(None), *tap)]
        y += np.einsum("grc,bgc...->bgr...", factors, part)
    return y.reshape(x.shape[0], rows, *out)
