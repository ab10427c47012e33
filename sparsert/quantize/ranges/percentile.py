"""The range that holds a share of all values: outliers are clipped."""

from __future__ import annotations

import numpy as np

from sparsert.quantize.ranges.histogram import Histogram


def choose(histogram: Histogram, levels: int, percentile: float = 99.99) -> tuple[float, float]:
    """Returns the ends that leave (100 - percentile) % of the values out, at each end."""
    edges = histogram.edges
    counts = histogram.counts.copy()
    counts[np.clip(np.searchsorted(edges, 0, "right") - 1, 0, counts.size - 1)] += histogram.zeros
    shares = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    outside = 1 - percentile / 100
    low = np.interp(outside, shares, edges)
    high = np.interp(1 - outside, shares, edges)
    return min(float(low), 0.0), max(float(high), 0.0)
