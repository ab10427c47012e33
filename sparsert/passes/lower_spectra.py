"""Turns DFT into a matrix product and STFT into a convolution, both with constant weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    constant_array,
    constant_scalar,
    dim_at,
    input_at,
    is_f32,
    is_op,
    nodes_of,
    rank_of,
)

# Larger matrices are left to an engine that has a fast Fourier transform.
_MAX_ELEMS = 1 << 22


def run(model: ir.Model) -> None:
    """Lowers f32 nodes with a known length, and STFT of real signals with a known window."""
    for node in nodes_of(model.graph):
        x = input_at(node, 0)
        if x is None or not is_f32(x):
            continue
        if is_op(node, "DFT"):
            _lower_dft(node, x, Chain(node, model.graph))
        elif is_op(node, "STFT"):
            _lower_stft(node, x, Chain(node, model.graph))


def _rotations(rows: int, columns: int, length: int, sign: int) -> np.ndarray:
    """Returns exp(sign * 2 pi i r c / length), the angle reduced first."""
    turns = np.outer(np.arange(rows), np.arange(columns)) % length
    return np.asarray(np.exp(sign * 2j * np.pi * turns / length))


def _forward(size: int, parts: int, length: int, onesided: bool) -> np.ndarray:
    """Returns the matrix [size * parts, bins * 2] of a transform."""
    bins = length // 2 + 1 if onesided else length
    turned = _rotations(size, bins, length, -1)
    real = np.stack([turned.real, turned.imag], axis=-1)
    rows = [real, np.stack([-turned.imag, turned.real], axis=-1)][:parts]
    return np.stack(rows, axis=1).reshape(size * parts, bins * 2)


def _inverse(size: int, parts: int, length: int, onesided: bool) -> np.ndarray:
    """Returns the matrix [size * parts, length * results] of an inverse transform."""
    turned = _rotations(size, length, length, 1) / length
    if onesided:  # every bin but the first and the middle one stands for its mirror image too
        factor = np.full((size, 1), 2.0)
        factor[0] = 1.0
        if length % 2 == 0 and size > length // 2:
            factor[length // 2] = 1.0
        turned = turned * factor
        rows = [turned.real, -turned.imag][:parts]
        return np.stack(rows, axis=1).reshape(size * parts, length)
    real = np.stack([turned.real, turned.imag], axis=-1)
    rows = [real, np.stack([-turned.imag, turned.real], axis=-1)][:parts]
    return np.stack(rows, axis=1).reshape(size * parts, length * 2)


def _lower_dft(node: ir.Node, x: ir.Value, chain: Chain) -> None:
    rank = rank_of(x)
    axis_input = input_at(node, 2)
    axis = -2.0 if axis_input is None else constant_scalar(axis_input)
    if rank is None or rank < 2 or axis is None or not -rank <= axis < rank - 1:
        return
    at = int(axis) % rank
    size, parts = dim_at(x, at), dim_at(x, rank - 1)
    inverse, onesided = bool(attribute(node, "inverse", 0)), bool(attribute(node, "onesided", 0))
    if size is None or parts not in (1, 2) or at == rank - 1:
        return
    default = 2 * (size - 1) if inverse and onesided else size
    given = input_at(node, 1)
    wanted = default if given is None else constant_scalar(given)
    if wanted is None or wanted < 1:
        return
    length = int(wanted)
    used = min(size, length // 2 + 1 if inverse and onesided else length)
    if used * parts * length * 2 > _MAX_ELEMS or (inverse and onesided and used < 1):
        return
    make = _inverse if inverse else _forward
    matrix = make(used, parts, length, onesided).astype(np.float32)
    matrix = np.pad(matrix, ((0, (size - used) * parts), (0, 0)))
    results = 1 if inverse and onesided else 2
    bins = matrix.shape[1] // results
    # The axis comes next to the parts, and goes back at the end.
    order = [d for d in range(rank) if d not in (at, rank - 1)] + [at, rank - 1]
    back = [order.index(d) for d in range(rank)]
    moved = x if order == list(range(rank)) else chain.add("Transpose", [x], perm=order)
    kept = [0] * (rank - 2)
    flat = chain.add("Reshape", [moved, chain.constant("flat", np.array([*kept, size * parts]))])
    y = chain.add("MatMul", [flat, chain.constant("matrix", matrix)])
    y = chain.add("Reshape", [y, chain.constant("bins", np.array([*kept, bins, results]))])
    if order != list(range(rank)):
        chain.add("Transpose", [y], perm=back)
    chain.replace()


def _lower_stft(node: ir.Node, x: ir.Value, chain: Chain) -> None:
    step, length = constant_scalar(input_at(node, 1)), constant_scalar(input_at(node, 3))
    window = None
    if input_at(node, 2) is not None:
        window = constant_array(input_at(node, 2))
        if window is None or window.ndim != 1:
            return
        length = window.size if input_at(node, 3) is None else length
    rank = rank_of(x)
    if step is None or length is None or rank not in (2, 3):
        return
    if rank == 3 and dim_at(x, 2) != 1:  # complex, or not known to be real
        return
    size = int(length)
    if window is not None and window.size != size:
        return
    matrix = _forward(size, 1, size, bool(attribute(node, "onesided", 1)))
    if matrix.size > _MAX_ELEMS:
        return
    if window is not None:
        matrix = matrix * window.astype(np.float64)[:, None]
    weight = matrix.T.astype(np.float32).reshape(-1, 1, size)
    signal = chain.add("Reshape", [x, chain.constant("signal", np.array([0, 1, -1]))])
    y = chain.add(
        "Conv",
        [signal, chain.constant("weight", np.ascontiguousarray(weight))],
        kernel_shape=[size],
        strides=[int(step)],
    )
    y = chain.add("Transpose", [y], perm=[0, 2, 1])
    bins = weight.shape[0] // 2
    chain.add("Reshape", [y, chain.constant("bins", np.array([0, 0, bins, 2]))])
    chain.replace()
