"""The range of the least mean squared error of rounding and clipping together."""

from __future__ import annotations

import numpy as np

from sparsert.quantize.ranges.histogram import Histogram

_SHARES = np.linspace(1.0, 0.1, 91)  # of each end that are tried


def choose(histogram: Histogram, levels: int) -> tuple[float, float]:
    """Moves the upper end, then the lower one, each to where the error is least."""
    low, high = histogram.low, histogram.high
    if histogram.counts.sum() == 0:
        return low, high
    highs, lows = _SHARES * high, _SHARES * low
    high = highs[np.argmin([_error(histogram, levels, low, end) for end in highs])]
    low = lows[np.argmin([_error(histogram, levels, end, high) for end in lows])]
    return float(low), float(high)


def _error(histogram: Histogram, levels: int, low: float, high: float) -> float:
    if high <= low:
        return np.inf
    step = (high - low) / (levels - 1)
    zero = np.round(-low / step)
    centres = histogram.centres
    rounded = (np.clip(np.round(centres / step) + zero, 0, levels - 1) - zero) * step
    return float(np.dot(histogram.counts, (centres - rounded) ** 2))
