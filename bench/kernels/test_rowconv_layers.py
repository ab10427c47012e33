"""Every row of the rowconv table: first layers of small networks, one thread."""

from __future__ import annotations

import itertools

import pytest

from bench.kernels.conftest import TimeLayer
from bench.kernels.rows import Row, describe, kernel_rows
from bench.models.network import LayerShape


def first_layer(channels: int, size: int, out: int, kernel: int, pad: int) -> LayerShape:
    """A convolution of stride 1 over square planes."""
    return LayerShape("first", 1, channels, size, size, out, kernel, 1, pad, 1, 0.0)


# With more output channels, rowconv runs together with a pool alone.
SHAPES = [
    *(first_layer(1, 28, 6, 5, 2), first_layer(1, 28, 8, 3, 1), first_layer(3, 32, 6, 3, 1)),
    *(first_layer(1, 48, 8, 7, 3), first_layer(1, 64, 8, 3, 1)),
]
CASES = list(itertools.product(SHAPES, kernel_rows("rowconv")))


@pytest.mark.parametrize(
    ("layer", "row"), CASES, ids=[f"{describe(la)}-{r.isa}" for la, r in CASES]
)
def test_layer(layer: LayerShape, row: Row, time_layer: TimeLayer) -> None:
    time_layer(layer, 0.0, row, force=False)
