"""Every row of the dwconv table: the depthwise layers of real networks, one thread."""

from __future__ import annotations

import itertools

import pytest

from bench.kernels.conftest import TimeLayer
from bench.kernels.rows import Row, describe, kernel_rows
from bench.models.network import LayerShape
from bench.shapes import layer_shapes


def picked_shapes() -> list[LayerShape]:
    """One layer of each window, stride and plane: 3x3 of MobileNetV1, 5x5 of EfficientNet-B0."""
    kinds: dict[tuple[int, ...], LayerShape] = {}
    for layer in layer_shapes("mobilenet_v1") + layer_shapes("efficientnet_b0"):
        if layer.groups > 1:
            kinds.setdefault((layer.kernel, layer.stride, layer.out_height), layer)
    return list(kinds.values())


CASES = list(itertools.product(picked_shapes(), kernel_rows("dwconv")))


@pytest.mark.parametrize(
    ("layer", "row"), CASES, ids=[f"{describe(la)}-{r.isa}" for la, r in CASES]
)
def test_layer(layer: LayerShape, row: Row, time_layer: TimeLayer) -> None:
    time_layer(layer, 0.0, row)
