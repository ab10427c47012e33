"""sparsert.prune.random_zeros: exact shares, whole blocks, values that stay in range."""

from __future__ import annotations

import numpy as np
import pytest

from sparsert.prune.random_zeros import fill_zeros, random_zeros

# shape, groups, transposed
WEIGHTS = [
    ((64, 48), 1, False),
    ((10, 7), 1, False),
    ((3, 5, 3, 3), 1, False),
    ((24, 4, 3, 3), 3, False),
    ((12, 6, 5), 2, True),
    ((8, 16, 2, 2), 1, True),
    ((1, 1), 1, False),
]
BLOCKS = [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (1, 2), (1, 4), (1, 16)]


def random_weight(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 1.0, shape).astype(np.float32)


def as_matrices(weight: np.ndarray, groups: int, transposed: bool) -> np.ndarray:
    """[groups, outputs, inputs * taps], element by element from the definition."""
    taps = int(np.prod(weight.shape[2:]))
    flat = weight.reshape(*weight.shape[:2], taps)
    if transposed:
        per_group, rows = weight.shape[0] // groups, weight.shape[1]
    else:
        per_group, rows = weight.shape[1], weight.shape[0] // groups
    found = np.empty((groups, rows, per_group * taps), weight.dtype)
    for g in range(groups):
        for r in range(rows):
            for c in range(per_group):
                source = flat[g * per_group + c, r] if transposed else flat[g * rows + r, c]
                found[g, r, c * taps : (c + 1) * taps] = source
    return found


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize(("shape", "groups", "transposed"), WEIGHTS, ids=str)
def test_share_and_blocks(shape, groups, transposed, block, sparsity):
    weight = random_weight(shape)
    before = weight.copy()
    found = random_zeros(
        weight,
        sparsity,
        np.random.default_rng(1),
        block=block,
        groups=groups,
        transposed=transposed,
    )
    np.testing.assert_array_equal(weight, before)
    assert found.shape == shape and found.dtype == np.float32
    zeros = int((found == 0).sum())
    size = block[0] * block[1]
    if size == 1:
        assert zeros == round(sparsity * weight.size)
    else:
        assert abs(zeros - sparsity * weight.size) <= size / 2
    matrices = as_matrices(found, groups, transposed)
    for first_row in range(0, matrices.shape[1], block[0]):
        for first_col in range(0, matrices.shape[2], block[1]):
            part = matrices[:, first_row : first_row + block[0], first_col : first_col + block[1]]
            empty = (part == 0).all(axis=(1, 2))
            full = (part != 0).all(axis=(1, 2))
            assert (empty | full).all()
    kept = found != 0
    if zeros < weight.size:
        scale = np.sqrt(weight.size / (weight.size - zeros))
        np.testing.assert_allclose(found[kept], before[kept] * scale, rtol=1e-6)


def test_large_weights_are_drawn_in_chunks_with_an_exact_share():
    weight = np.ones((1500, 1501), np.float32)
    found = random_zeros(weight, 0.937, np.random.default_rng(0))
    assert (found == 0).sum() == round(0.937 * weight.size)
    rows = (found == 0).mean(axis=1)
    assert abs(rows - 0.937).max() < 0.05


def test_the_seed_decides():
    weight = random_weight((64, 64))
    first, again, other = (
        random_zeros(weight, 0.5, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95, 1.0])
def test_fill_zeros(sparsity):
    weight = random_zeros(random_weight((40, 50)), min(sparsity, 0.999), np.random.default_rng(0))
    if sparsity == 1.0:
        weight[...] = 0
    before = weight.copy()
    found = fill_zeros(weight, np.random.default_rng(0))
    np.testing.assert_array_equal(weight, before)
    assert (found != 0).all()
    assert found.dtype == np.float32
    if sparsity < 1:
        np.testing.assert_allclose(np.square(found).sum(), np.square(before).sum(), rtol=1e-3)
    else:
        assert np.abs(found).max() < 1


def test_fill_zeros_of_strange_weights():
    weight = np.array([[0, np.nan], [np.inf, 1e-40], [0, 0]], np.float32)
    found = fill_zeros(weight, np.random.default_rng(0))
    assert np.isfinite(found[weight == 0]).all() and (found[weight == 0] != 0).all()
