"""Attention in Numba, over odd shapes, masks and layouts, as the interpreter computes it."""

from __future__ import annotations

import numpy as np
import pytest

from sparsert.runtime.packed_functions import unpack
from tests.kernels.one_node import compare, random_bytes

# Images, heads, those of the keys, queries, keys, features, features of the values; the mask.
SHAPES = {
    "one of all": ((1, 1, 1, 1, 1, 1, 1), ()),
    "mask of keys": ((2, 3, 3, 70, 65, 8, 12), (2, 1, 1, 65)),
    "whole mask": ((1, 4, 2, 130, 301, 17, 5), (1, 4, 130, 301)),
    "mask of queries": ((2, 2, 1, 19, 20, 64, 33), (2, 19, 1)),
    "nothing but -infinity": ((1, 2, 2, 64, 16, 16, 4), (64, 16)),
}


def mask_of(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    rng = np.random.default_rng(1)
    mask = rng.standard_normal(shape).astype(np.float32)
    if "infinity" in name:
        mask[rng.random(shape) < 0.7] = -np.inf
        mask[3] = -np.inf
    return mask if shape else None


@pytest.mark.parametrize("name", SHAPES)
def test_floats(name: str) -> None:
    rng = np.random.default_rng(0)
    (images, heads, shared, queries, keys, size, value_size), mask_shape = SHAPES[name]
    sizes = ((heads, queries, size), (shared, keys, size), (shared, keys, value_size))
    mask = mask_of(name, mask_shape)
    for zero_nan in (0, 1):
        first = [rng.standard_normal((images, *s)).astype(np.float32) for s in sizes]
        if zero_nan:
            first[0][0, 0, 0, 0] = np.nan
        tokens = [x.swapaxes(1, 2).reshape(images, x.shape[2], -1) for x in first]
        end = {"alpha": 0.3, "zero_nan": zero_nan, "to": 1}
        of_heads = {"heads": heads, "kv_heads": shared}
        for arrays, attributes in ((first, {}), (tokens, of_heads)):
            got, want, kernel = compare("Attention", [*arrays, mask], {}, **attributes, **end)
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)
            assert kernel.startswith("attention_f32_")


@pytest.mark.parametrize("to", [1, 12])
@pytest.mark.parametrize("name", SHAPES)
def test_bytes(name: str, to: int) -> None:
    rng = np.random.default_rng(2)
    (images, heads, _, queries, keys, planes, value_planes), mask_shape = SHAPES[name]
    sizes = ((planes, queries), (planes, keys), (value_planes, keys))
    arrays = [random_bytes(rng, images, 4 * heads * count, tokens) for count, tokens in sizes]
    steps = np.array(
        [
            *([2e-4, 0.02, 130, 0, 255], [0.5, 0.01, 120, 3, 250], [1, 0.013, 128, 0, 255]),
            *([1, 1 / 255, 3, 0, 255], [1 / 400, 0.02, 127, 1, 254]),
        ],
        np.float32,
    )
    if "infinity" in name:
        steps[2, 1] = 0  # the scores are not rounded, so that the softmax finds -infinity
    mask = mask_of(name, mask_shape)
    quant = [120, 131, 127]
    got, want, kernel = compare(
        "QAttention", [*arrays, mask], {3: steps}, heads=heads, quant=quant, to=to
    )
    assert kernel.startswith("qattention_i8_")
    if to == 1:  # a share may be rounded the other way
        unit = 255 * steps[4, 0]
        assert np.abs(got - want).max() <= 2 * unit
        assert (got != want).mean() < 0.02
        return
    off = np.abs(unpack(got).astype(np.int16) - unpack(want).astype(np.int16))
    assert off.max() <= np.ceil(2 * 255 * steps[4, 0] / steps[4, 1])
    assert (off > 0).mean() < 0.02
