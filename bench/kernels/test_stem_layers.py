"""Every row of the stem table: first layers of large networks, one thread."""

from __future__ import annotations

import itertools

import pytest

from bench.kernels.conftest import TimeLayer
from bench.kernels.rows import Row, describe, kernel_rows
from bench.models.network import LayerShape


def first_layer(channels: int, size: int, out: int, kernel: int, stride: int) -> LayerShape:
    """A convolution over square planes."""
    return LayerShape("first", 1, channels, size, size, out, kernel, stride, kernel // 2, 1, 0.0)


SHAPES = [
    *(first_layer(3, 224, 64, 7, 2), first_layer(3, 112, 64, 7, 1), first_layer(1, 224, 64, 7, 2)),
    *(first_layer(3, 224, 32, 5, 2), first_layer(3, 320, 32, 6, 2)),
]
CASES = list(itertools.product(SHAPES, kernel_rows("stem")))


@pytest.mark.parametrize(
    ("layer", "row"), CASES, ids=[f"{describe(la)}-{r.isa}" for la, r in CASES]
)
def test_layer(layer: LayerShape, row: Row, time_layer: TimeLayer) -> None:
    time_layer(layer, 0.0, row, force=False)
