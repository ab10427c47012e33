"""Every row of the spmm table on real layer shapes: convolutions as one-layer models, one thread.

Each case forces one format (SPARSERT_FORMAT) and instruction set. `make bench` runs it.
"""

from __future__ import annotations

import itertools

import pytest

from bench.kernels.conftest import TimeLayer
from bench.kernels.rows import Row, describe, kernel_rows
from bench.models.network import LayerShape
from bench.shapes import layer_shapes

SPARSITIES = [0.0, 0.8, 0.9]


def picked_shapes() -> list[LayerShape]:
    """One layer of each kind of ResNet-50: stem, 1x1 and 3x3 at every plane size, strided."""
    kinds: dict[tuple[int, ...], LayerShape] = {}
    for layer in layer_shapes("resnet50"):
        if layer.height > 1:
            kinds.setdefault((layer.kernel, layer.stride, layer.out_height), layer)
    return list(kinds.values())


CASES = list(itertools.product(picked_shapes(), SPARSITIES, kernel_rows("spmm")))


@pytest.mark.parametrize(
    ("layer", "sparsity", "row"),
    CASES,
    ids=[f"{describe(la)}-{s:.0%}-{r.format}-{r.isa}" for la, s, r in CASES],
)
def test_layer(layer: LayerShape, sparsity: float, row: Row, time_layer: TimeLayer) -> None:
    time_layer(layer, sparsity, row)
