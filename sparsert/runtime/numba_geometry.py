"""Where the inputs of windows are, and where their outputs go, as Numba's kernels take it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from sparsert.kernels.lanes import LANES

# Shapes of its input that a step keeps what it laid out for.
MAX_SHAPES = 16


def _tiles(columns: int, widest: int) -> list[tuple[int, int]]:
    """Cuts columns into tiles of about the same number of vectors: (first column, vectors)."""
    count = -(-columns // LANES)
    parts = -(-count // widest)
    ends = [count * i // parts for i in range(parts + 1)]
    return [(a * LANES, b - a) for a, b in itertools.pairwise(ends)]


@dataclasses.dataclass
class Geometry:
    """Where the inputs of a window are, and where its outputs go, for one shape of the input."""

    out: tuple[int, ...]  # spatial
    is_direct: bool  # the planes of the input are used as they are
    window: np.ndarray  # for split_planes()
    phases: np.ndarray
    image: int  # elements of one plane with its phases
    taps: np.ndarray  # where each tap begins in it
    columns: int  # from the first output to the last, those between lines included
    lines: np.ndarray  # first column of each line of outputs
    line: int  # outputs of a line

    @staticmethod
    def of(
        size: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        begins: Sequence[int],
        out: Sequence[int],
    ) -> Geometry:
        """Lays out windows over planes of up to three dimensions."""
        ones = [1] * (3 - len(size))
        pad = [0] * (3 - len(size))
        size, kernel, out3 = [*ones, *size], [*ones, *kernel], [*ones, *out]
        strides, dilations, begins = [*ones, *strides], [*ones, *dilations], [*pad, *begins]
        places = [[k * d for k in range(n)] for n, d in zip(kernel, dilations, strict=True)]
        quotient = [o + at[-1] // s for o, at, s in zip(out3, places, strides, strict=True)]
        is_direct = all(s == 1 for s in strides) and not any(begins) and quotient == list(size)
        used = [sorted({p % s for p in at}) for at, s in zip(places, strides, strict=True)]
        phases = [(d, h, w) for d in used[0] for h in used[1] for w in used[2]]
        number = {phase: i for i, phase in enumerate(phases)}
        _, high, wide = quotient
        plane = math.prod(quotient)
        taps = []
        for d in places[0]:
            for h in places[1]:
                for w in places[2]:
                    at = number[d % strides[0], h % strides[1], w % strides[2]] * plane
                    at += (d // strides[0]) * high * wide + (h // strides[1]) * wide
                    taps.append(at + w // strides[2])
        lines = [(d * high + h) * wide for d in range(out3[0]) for h in range(out3[1])]
        line = out3[2]
        if line == wide and out3[1] == high:
            lines, line = [0], math.prod(out3)
        elif line == wide:
            lines, line = [d * high * wide for d in range(out3[0])], out3[1] * wide
        return Geometry(
            tuple(out),
            is_direct,
            np.array([size, strides, begins, quotient], np.int64),
            np.array(phases, np.int64),
            plane * len(phases),
            np.array(taps, np.int32),
            lines[-1] + line if line else 0,
            np.array(lines, np.int64),
            line,
        )

    def segments(self, begin: int, end: int) -> list[tuple[int, int, int]]:
        """Returns what of the columns from begin to end are outputs: (column, place, count)."""
        found = []
        first = int(np.searchsorted(self.lines, begin - self.line, side="right"))
        for i in range(first, len(self.lines)):
            start = int(self.lines[i])
            if start >= end:
                break
            low, high = max(start, begin), min(start + self.line, end)
            if low < high:
                found.append((low - begin, i * self.line + low - start, high - low))
        return found

    def tables(self, widest: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tiles and segments that the kernels of rows take."""
        tiles: list[tuple[int, ...]] = []
        segments: list[tuple[int, ...]] = []
        for start, vectors_ in _tiles(self.columns, widest):
            mine = self.segments(start, start + vectors_ * LANES)
            tiles.append((start, vectors_, len(segments), len(segments) + len(mine)))
            segments += mine
        return np.array(tiles, np.int32).reshape(-1, 4), np.array(segments, np.int32).reshape(-1, 3)
