"""infer_shapes: dimensions that onnx leaves unknown get expressions that can be compared."""

from __future__ import annotations

from tests.passes.pass_checks import apply, build, node, weights


def shapes(model):
    return {
        n.outputs[0].name: [d if isinstance(d, int) else d.value for d in n.outputs[0].shape]
        for n in model.graph
    }


def test_equal_paths_have_equal_dimensions():
    proto = build(
        [
            node("Conv", ["x", "w3"], ["a"], strides=[2, 2], pads=[1] * 4),
            node("Conv", ["x", "w1"], ["b"], strides=[2, 2]),
            node("MaxPool", ["x"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
            node("MaxPool", ["x"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        {"x": ("N", 4, "H", 9)},
        ["a", "b", "c", "d"],
        {"w3": weights(4, 4, 3, 3), "w1": weights(4, 4, 1, 1)},
    )
    found = shapes(apply(proto))
    assert found["a"] == found["b"] == found["c"]
    assert found["a"][0] == "N"
    assert found["a"][3] == 5
    assert found["a"][2] != found["d"][2]


def test_up_and_down():
    proto = build(
        [
            node("ConvTranspose", ["x", "w"], ["a"], strides=[2, 2]),
            node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Add", ["b", "x"], ["c"]),
        ],
        {"x": ("N", 4, "H", "W")},
        ["c"],
        {"w": weights(4, 4, 2, 2)},
    )
    found = shapes(apply(proto))
    assert found["b"] == ["N", 4, "H", "W"]
    assert found["c"] == found["b"]
