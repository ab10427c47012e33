"""Histogram: the values that a tensor took while calibrating."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 2048


@dataclass
class Histogram:
    """Counts of values between the least and the greatest one; both ends include 0.

    Attributes:
        low: the least value, at most 0.
        high: the greatest value, at least 0.
        counts: f64[BINS] of the values that are not exactly 0.
        zeros: how many were exactly 0; they are represented exactly whatever the range is.
    """

    low: float
    high: float
    counts: NDArray[np.float64]
    zeros: int = 0

    @staticmethod
    def empty(low: float, high: float) -> Histogram:
        """Returns one without values between these ends."""
        return Histogram(low, high, np.zeros(BINS))

    def add(self, values: NDArray[np.float32]) -> None:
        """Counts more values, all between the ends."""
        flat = values.reshape(-1)
        kept = flat[flat != 0]
        self.zeros += flat.size - kept.size
        # f64: the greatest value must land in the last bin, not behind it.
        places = (kept.astype(np.float64) - self.low) * (BINS / (self.high - self.low))
        places = np.minimum(places.astype(np.int64), BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)

    def merge(self, other: Histogram) -> Histogram:
        """Returns the values of both between the outer ends, each bin at its centre."""
        merged = Histogram.empty(min(self.low, other.low), max(self.high, other.high))
        for part in (self, other):
            places = (part.centres - merged.low) * (BINS / (merged.high - merged.low))
            places = np.minimum(places.astype(np.int64), BINS - 1)
            merged.counts += np.bincount(places, weights=part.counts, minlength=BINS)
            merged.zeros += part.zeros
        return merged

    @property
    def edges(self) -> NDArray[np.float64]:
        """The ends of the bins."""
        return np.linspace(self.low, self.high, BINS + 1)

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        edges = self.edges
        return (edges[:-1] + edges[1:]) / 2
