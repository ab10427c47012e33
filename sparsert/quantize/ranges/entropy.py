"""The range whose quantised distribution tells least apart from the true one (KL divergence)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsert.quantize.ranges.histogram import Histogram

_SHARES = np.linspace(1.0, 0.125, 113)  # of both ends that are tried


def choose(histogram: Histogram, levels: int) -> tuple[float, float]:
    """Shrinks both ends by the share with the least divergence."""
    best = (np.inf, histogram.low, histogram.high)
    for share in _SHARES:
        low, high = share * histogram.low, share * histogram.high
        best = min(best, (_divergence(histogram, levels, low, high), low, high))
    return float(best[1]), float(best[2])


def _divergence(histogram: Histogram, levels: int, low: float, high: float) -> float:
    """KL(P || Q): P is the histogram clipped to the range, Q what `levels` values leave of it."""
    counts, centres = histogram.counts, histogram.centres
    inside = np.flatnonzero((centres >= low) & (centres <= high))
    if inside.size < levels // 2:
        return np.inf
    first, last = inside[0], inside[-1]
    kept = counts[first : last + 1]
    clipped = kept.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last + 1 :].sum()
    step = (high - low) / (levels - 1)
    level = np.round((centres[first : last + 1] - low) / step).astype(np.int64)
    return _relative_entropy(clipped, _spread_evenly(kept, level, levels))


def _spread_evenly(
    counts: NDArray[np.float64], level: NDArray[np.int64], levels: int
) -> NDArray[np.float64]:
    """Gives each bin that is not empty its part of the count of its level."""
    is_filled = counts > 0
    total = np.bincount(level, weights=counts, minlength=levels)
    bins = np.bincount(level, weights=is_filled, minlength=levels)
    return np.where(is_filled, total[level] / np.maximum(bins[level], 1), 0.0)


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    if p.sum() == 0 or q.sum() == 0:
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    # Clipped values may lie in a bin that is empty in Q: a little everywhere keeps this finite.
    q = (q + 1e-4 / q.size) / (1 + 1e-4)
    filled = p > 0
    return float(np.sum(p[filled] * np.log(p[filled] / q[filled])))
