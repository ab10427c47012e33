"""bench.layers: every node of a network in one class, and the arithmetic of the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import layers
from bench.models.network import LayerShape


def test_each_layer_with_weights_has_its_shape() -> None:
    found, isa = layers.run("small_cnn", 0.9, batch=2, runs=2)
    assert isa
    kinds = [layer.kind for layer in found if layer.flops]
    assert kinds == ["stem", "3x3", "linear", "linear"]
    conv = next(layer for layer in found if layer.kind == "3x3")
    assert conv.output == (2, 64, 11, 11)
    assert conv.flops == 2 * 2 * 121 * round(64 * 32 * 9 * (1 - conv.zeros))
    assert conv.zeros == pytest.approx(0.9, abs=0.001)
    assert all(layer.seconds > 0 for layer in found)


def test_kinds() -> None:
    def shape(kernel: int, stride: int = 1, groups: int = 1, side: int = 8) -> LayerShape:
        return LayerShape("l", 1, 4, side, side, 4, kernel, stride, kernel // 2, groups, 0.0)

    assert layers.kind_of(shape(3), True) == "stem"
    assert layers.kind_of(shape(3, 2), False) == "3x3 strided"
    assert layers.kind_of(shape(1), False) == "1x1"
    assert layers.kind_of(shape(3, groups=4), False) == "depthwise"
    assert layers.kind_of(shape(1, side=1), True) == "linear"


def test_classes_add_up() -> None:
    def layer(kind: str, seconds: float, flops: float) -> layers.Layer:
        return layers.Layer(kind, kind, (1, 1), "k", 0.5, seconds, flops, 8e3)

    table = layers.class_table(
        [layer("a", 2e-6, 1e5), layer("b", 1e-6, 0.0), layer("a", 1e-6, 1e5)], 100.0, "t"
    )
    first, second, last = table.rows
    assert first[:2] == ("a", 2)
    assert first[3] == pytest.approx(75.0)
    assert first[5] == pytest.approx(100 * 2e5 / 3e-6 / 1e11)
    assert second[4] is None
    assert last[7] == pytest.approx(4 - 2e5 / 1e11 * 1e6)


def test_publish_replaces_the_section(tmp_path: Path) -> None:
    document = tmp_path / "d.md"
    document.write_text("a\n<!-- m:begin -->\nold\n<!-- m:end -->\nb\n", encoding="utf-8")
    layers.publish(document, "m", "new")
    assert document.read_text(encoding="utf-8") == "a\n<!-- m:begin -->\nnew\n<!-- m:end -->\nb\n"
    with pytest.raises(ValueError, match="lacks"):
        layers.publish(document, "other", "new")
