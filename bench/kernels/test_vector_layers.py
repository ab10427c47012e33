"""Every row of the spmv table: the linear layers of real networks at batch 1, one thread.

Each case forces one format (SPARSERT_FORMAT) at the zeros that it is for: none, single weights, or
blocks of output channels. `make bench` runs it.
"""

from __future__ import annotations

import itertools

import pytest

from bench.kernels.conftest import TimeLayer
from bench.kernels.rows import Row, describe, kernel_rows
from bench.models.network import LayerShape


def linear(name: str, in_features: int, out_features: int) -> LayerShape:
    """A linear layer at batch 1."""
    return LayerShape(name, 1, in_features, 1, 1, out_features, 1, 1, 0, 1, 0.0)


SHAPES = [
    linear("ResNet-50 fc", 2048, 1000),
    linear("MobileNetV1 classifier", 1024, 1000),
    linear("VGG-16 classifier.3", 4096, 4096),
    linear("small CNN dense1", 1600, 64),
]
SPARSITIES = {"dense": [0.0], "bits": [0.5, 0.7], "sell": [0.8, 0.9, 0.95]}
BLOCKS = {"bsr4": (4, 1), "bsr8": (8, 1), "bsr16": (16, 1)}
CASES = [
    (layer, sparsity, row)
    for layer, row in itertools.product(SHAPES, kernel_rows("spmv"))
    for sparsity in SPARSITIES.get(row.format, [0.8, 0.9])
]


@pytest.mark.parametrize(
    ("layer", "sparsity", "row"),
    CASES,
    ids=[f"{describe(la)}-{s:.0%}-{r.format}-{r.isa}" for la, s, r in CASES],
)
def test_layer(layer: LayerShape, sparsity: float, row: Row, time_layer: TimeLayer) -> None:
    time_layer(layer, sparsity, row, block=BLOCKS.get(row.format, (1, 1)))
