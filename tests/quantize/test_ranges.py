"""The methods that choose a range, on distributions whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from sparsert.quantize.numbers import quantise_range
from sparsert.quantize.ranges import METHODS, Histogram

LEVELS = 256


def histogram(values: np.ndarray) -> Histogram:
    values = values.astype(np.float32)
    made = Histogram.empty(min(float(values.min()), 0.0), max(float(values.max()), 0.0))
    made.add(values)
    return made


def squared_error(values: np.ndarray, low: float, high: float) -> float:
    chosen = quantise_range(low, high, "u8")
    q = np.clip(np.round(values / chosen.scale) + chosen.zero, 0, 255)
    return float(np.mean(((q - chosen.zero) * chosen.scale - values) ** 2))


def normal(count: int = 100_000) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(count)


def relu_with_outlier() -> np.ndarray:
    return np.append(np.maximum(normal(), 0), 60.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "values", [normal(), relu_with_outlier(), -relu_with_outlier(), normal() + 100, normal() - 100]
)
def test_zero_is_always_inside_and_nothing_outside_the_values(method, values):
    low, high = METHODS[method](histogram(values), LEVELS)
    assert low <= 0 <= high
    assert high > low
    assert low >= min(values.min(), 0) - 1e-5
    assert high <= max(values.max(), 0) + 1e-5


def test_minmax_is_exact():
    values = normal()
    assert METHODS["minmax"](histogram(values), LEVELS) == (
        float(np.float32(values.min())),
        float(np.float32(values.max())),
    )


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_percentile(percentile):
    values = normal()
    low, high = METHODS["percentile"](histogram(values), LEVELS, percentile=percentile)
    bin_width = (values.max() - values.min()) / 2048
    assert high == pytest.approx(np.percentile(values, percentile), abs=2 * bin_width)
    assert low == pytest.approx(np.percentile(values, 100 - percentile), abs=2 * bin_width)


def test_percentile_counts_zeros():
    values = np.concatenate([np.zeros(9_000), np.linspace(0.001, 1, 1_000)])
    _, high = METHODS["percentile"](histogram(values), LEVELS, percentile=95.0)
    assert high == pytest.approx(np.percentile(values, 95), abs=0.01)


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_an_outlier_is_clipped(method):
    low, high = METHODS[method](histogram(relu_with_outlier()), LEVELS)
    assert low == 0
    assert 2 < high < 15


def test_mse_is_no_worse_than_the_others():
    for values in (normal(), relu_with_outlier(), np.random.default_rng(1).laplace(size=100_000)):
        made = histogram(values)
        errors = {
            method: squared_error(values, *choose(made, LEVELS))
            for method, choose in METHODS.items()
        }
        assert errors["mse"] <= 1.05 * min(errors.values()), errors


def test_uniform_values_are_not_clipped():
    values = np.random.default_rng(0).uniform(-1, 2, 200_000)
    for method in METHODS:
        low, high = METHODS[method](histogram(values), LEVELS)
        assert low == pytest.approx(-1, abs=0.06), method
        assert high == pytest.approx(2, abs=0.06), method


def test_histograms_count_everything_once():
    values = relu_with_outlier()
    made = Histogram.empty(0.0, 60.0)
    for part in np.array_split(values.astype(np.float32), 7):
        made.add(part)
    assert made.zeros == np.count_nonzero(values == 0)
    assert made.counts.sum() + made.zeros == values.size
    assert made.counts[-1] == 1
    merged = made.merge(histogram(-values))
    assert (merged.low, merged.high) == (-60.0, 60.0)
    assert merged.counts.sum() + merged.zeros == 2 * values.size
