"""Scales, zero points and integers."""

from __future__ import annotations

import numpy as np
import pytest

from sparsert.quantize.numbers import (
    least_weight_scale,
    quantise_bias,
    quantise_range,
    quantise_weight,
)


def weight(*shape: int) -> np.ndarray:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    array[np.abs(array) < 0.5] = 0
    return array


@pytest.mark.parametrize("activation", ["u8", "s8"])
@pytest.mark.parametrize("ends", [(0, 1), (-1, 0), (-3, 7), (-1e-30, 1e-30), (0, 3e38)])
def test_zero_is_one_of_the_integers(activation, ends):
    made = quantise_range(*map(float, ends), activation)
    limits = np.iinfo(made.zero.dtype)
    assert limits.min <= made.zero <= limits.max
    assert made.scale.dtype == np.float32
    assert made.scale > 0
    low = (limits.min - int(made.zero)) * float(made.scale)
    high = (limits.max - int(made.zero)) * float(made.scale)
    assert low == pytest.approx(ends[0], abs=float(made.scale))
    assert high == pytest.approx(ends[1], abs=float(made.scale))
    assert (made.zero == limits.min) == (ends[0] == 0)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("shape", "axis"), [((5, 3, 3, 3), 0), ((3, 7), 1), ((1, 1), 0)])
def test_weights_round_to_the_nearest_and_zeros_stay(per_channel, shape, axis):
    array = weight(*shape)
    none = np.zeros(shape[axis])
    made = quantise_weight(array, axis, per_channel=per_channel, limit=127, least_scale=none)
    assert made.integers.dtype == np.int8
    assert not made.integers[array == 0].any()
    step = (
        made.scale.max()
        if not per_channel
        else made.scale.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    )
    assert (np.abs(made.dequantised() - array) <= 0.5001 * step).all()
    assert (made.axis is None) == (not per_channel)


def test_a_channel_of_zeros_keeps_its_bias():
    array = weight(4, 6)
    array[1:3] = 0
    bias = np.array([0.3, -1.7, 0.0, 2.0], np.float32)
    least = least_weight_scale(array, 0, bias, 0.02, 1)
    made = quantise_weight(array, 0, per_channel=True, limit=127, least_scale=least)
    integers, scale = quantise_bias(bias, np.float32(0.02), made, 1)
    assert integers.dtype == np.int32
    np.testing.assert_allclose(integers * scale.astype(np.float64), bias, rtol=1e-3, atol=1e-4)
    assert abs(integers[1] * float(scale[1]) - bias[1]) < 1e-6
    assert (made.scale > 0).all()
    assert not made.integers[1:3].any()


def test_a_bias_that_is_huge_beside_the_weights_still_fits():
    array = np.array([[1e-8, -1e-8], [1.0, 0.5]], np.float32)
    bias = np.array([1000.0, 1.0], np.float32)
    least = least_weight_scale(array, 0, bias, 0.01, 1)
    made = quantise_weight(array, 0, per_channel=True, limit=127, least_scale=least)
    integers, scale = quantise_bias(bias, np.float32(0.01), made, 1)
    np.testing.assert_allclose(integers * scale.astype(np.float64), bias, rtol=1e-3)


def test_groups_of_a_transposed_convolution_share_scales():
    array = weight(4, 3, 2, 2)
    bias = np.arange(6, dtype=np.float32)
    least = least_weight_scale(array, 1, bias, 0.1, 2)
    made = quantise_weight(array, 1, per_channel=True, limit=127, least_scale=least)
    integers, scale = quantise_bias(bias, np.float32(0.1), made, 2)
    assert scale.shape == (6,)
    np.testing.assert_array_equal(scale[:3], scale[3:])
    np.testing.assert_allclose(integers * scale, bias, atol=float(scale.max()))
