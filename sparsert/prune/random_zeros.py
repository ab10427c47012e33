"""Random zeros in a layer's weights, one by one or in blocks: what a pruning would leave behind.

For forecasts: speed and size depend on where the zeros are, not on the values that are left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[Any]  # f32, or i8 of quantised layers

_CHUNK = 1 << 20  # blocks that are drawn at a time; each chunk has its part of the zeros


def random_zeros(
    weight: NDArray[Any],
    sparsity: float,
    generator: np.random.Generator,
    *,
    block: tuple[int, int] = (1, 1),
    groups: int = 1,
    transposed: bool = False,
) -> Weights:
    """Returns a weight with zeros in random blocks.

    What is left of floats is scaled by sqrt(weights / weights left), so that activations keep about
    their size: neither overflows nor denormals distort the times of a deep model.

    Args:
        weight: f32 or i8, [out, in / groups, taps...] of Conv and Linear, or
            [in, out / groups, taps...] if `transposed`; without zeros of its own.
        sparsity: share of zeros, 0 to 1 (1 excluded).
        generator: draws the blocks.
        block: rows and columns of a block, of the matrix [out / groups, in / groups * taps] of each
            group; one of them is 1. Blocks that an edge cuts are smaller.
        groups: of a convolution.
        transposed: ConvTranspose.

    Returns:
        A new array of the weight's shape with round(sparsity * weight.size) zeros; with blocks, as
        near to it as whole blocks allow.
    """
    first, second = weight.shape[:2]
    rows = second if transposed else first // groups
    cols = weight.size // max(groups * rows, 1)
    zero = _zero_blocks((groups, rows, cols), sparsity, generator, block)
    if transposed:
        zero = zero.reshape(groups, rows, first // groups, -1).transpose(0, 2, 1, 3)
    zero = zero.reshape(weight.shape)
    if weight.dtype == np.int8:
        return np.where(zero, np.int8(0), weight)
    left = weight.size - int(np.count_nonzero(zero))
    scale = np.float32(np.sqrt(weight.size / left)) if left else np.float32(1)
    result: Weights = weight * scale
    result[zero] = 0
    return result


def fill_zeros(weight: NDArray[Any], generator: np.random.Generator) -> Weights:
    """Returns a weight without zeros: they become +c or -c, of floats with the same sum of squares.

    Of i8, c is 1: the sums of a layer that fit into 32 bits must go on to do so.
    """
    zero = weight == 0
    count = int(np.count_nonzero(zero))
    if count == 0:
        return weight
    if weight.dtype == np.int8:
        signs = generator.choice(np.array([-1, 1], np.int8), weight.shape)
        return np.where(zero, signs, weight)
    mean_square = float(np.square(weight, dtype=np.float64).mean())
    size = np.sqrt(mean_square) if np.isfinite(mean_square) else 0.0
    if size < 1e-6:
        size = 1 / np.sqrt(max(1, weight[0].size))
    result: Weights = weight.astype(np.float32)
    result[zero] = generator.choice(np.array([-size, size], np.float32), count)
    result *= np.float32(1 / np.sqrt(1 + count / weight.size))
    return result


def _zero_blocks(
    shape: tuple[int, int, int],
    sparsity: float,
    generator: np.random.Generator,
    block: tuple[int, int],
) -> NDArray[np.bool_]:
    """Returns where the zeros are, [groups, rows, cols]."""
    groups, rows, cols = shape
    tall, wide = min(block[0], rows), min(block[1], cols)
    whole_rows, whole_cols = rows // tall, cols // wide
    elements, whole = groups * rows * cols, groups * whole_rows * whole_cols
    count = round(sparsity * whole)
    blocks = np.zeros((groups, -(-rows // tall), -(-cols // wide)), bool)
    blocks[:, :whole_rows, :whole_cols] = _choose(whole, count, generator).reshape(
        groups, whole_rows, whole_cols
    )
    left = elements - whole * tall * wide
    if left:
        # Blocks cut by an edge, all alike since one side of a block is 1, make up for the rounding.
        cut = blocks[:, whole_rows:] if rows % tall else blocks[:, :, whole_cols:]
        missing = round((sparsity * elements - count * tall * wide) * cut.size / left)
        chosen = _choose(cut.size, min(max(missing, 0), cut.size), generator)
        cut[...] = chosen.reshape(cut.shape)
    return np.repeat(np.repeat(blocks, tall, axis=1), wide, axis=2)[:, :rows, :cols]


def _choose(total: int, count: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Returns [total], True at `count` random places."""
    chosen = np.zeros(total, bool)
    for first in range(0, total, _CHUNK):
        size = min(_CHUNK, total - first)
        here = count * (first + size) // total - count * first // total
        chosen[first + generator.permutation(size)[:here]] = True
    return chosen
