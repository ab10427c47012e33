"""infer_shapes: dimensions that onnx leaves unknown get expressions that can be compared."""

from __future__ import annotations

import numpy as np

from tests.passes.pass_checks import apply, assert_same, build, node, weights


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


def test_a_mask_that_is_expanded_to_a_computed_shape():
    # What torch's exporters write for expand(batch, -1, -1, seq) of a mask of computed positions.
    proto = build(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Gather", ["s", "one"], ["t"]),
            node("Range", ["zero", "n", "one"], ["rows"]),
            node("Range", ["zero", "t", "one"], ["keys"]),
            node("Unsqueeze", ["rows", "after"], ["column"]),
            node("Add", ["column", "keys"], ["places"]),
            node("Unsqueeze", ["n", "front"], ["n1"]),
            node("Unsqueeze", ["t", "front"], ["t1"]),
            node("Concat", ["n1", "minus", "t1"], ["wanted"], axis=0),
            node("Equal", ["wanted", "minus"], ["kept"]),
            node("Where", ["kept", "ones", "wanted"], ["target"]),
            node("Unsqueeze", ["places", "front"], ["wide"]),
            node("Transpose", ["wide"], ["turned"], perm=[1, 0, 2]),
            node("Expand", ["turned", "target"], ["e"]),
            node("ConstantOfShape", ["target"], ["c"]),
            node("Cast", ["e"], ["f"], to=1),
            node("Add", ["f", "c"], ["y"]),
        ],
        {"x": ("N", "T")},
        ["y"],
        {
            "zero": np.array(0),
            "one": np.array(1),
            "front": np.array([0]),
            "after": np.array([1]),
            "minus": np.array([-1]),
            "ones": np.array([1, 1, 1]),
        },
    )
    found = shapes(apply(proto, "infer_shapes"))
    assert found["places"] == ["N", "T"]
    assert found["turned"] == ["N", 1, "T"]
    assert found["e"] == found["c"] == found["y"] == ["N", 1, "T"]
    assert_same(proto, apply(proto), {"N": 3, "T": 5})
