"""Every row of the winograd table: the dense 3x3 layers of VGG-16 and ResNet-50, one thread.

The same layers by direct summation are the cases without zeros of test_matrix_layers.
"""

from __future__ import annotations

import itertools

import pytest

from bench.kernels.conftest import TimeLayer
from bench.kernels.rows import Row, describe, kernel_rows
from bench.models.network import LayerShape
from bench.shapes import layer_shapes


def picked_shapes() -> list[LayerShape]:
    """One layer of each plane and number of channels."""
    kinds: dict[tuple[int, ...], LayerShape] = {}
    for layer in layer_shapes("resnet50") + layer_shapes("vgg16"):
        if (layer.kernel, layer.stride, layer.groups) == (3, 1, 1):
            key = (layer.out_height, layer.in_channels, layer.out_channels)
            kinds.setdefault(key, layer)
    return list(kinds.values())


CASES = list(itertools.product(picked_shapes(), kernel_rows("winograd")))


@pytest.mark.parametrize(
    ("layer", "row"), CASES, ids=[f"{describe(la)}-{r.isa}" for la, r in CASES]
)
def test_layer(layer: LayerShape, row: Row, time_layer: TimeLayer) -> None:
    time_layer(layer, 0.0, row)
