"""infer_shapes: dimensions that onnx leaves unknown get expressions that can be compared."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

import sparsert
from tests.passes.pass_checks import F32, apply, assert_same, build, node, ops, weights


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


def padded_conv(x: str, y: str) -> list:
    """A convolution of 3 x 1, stride 2, with TensorFlow's SAME padding of the height.

    As torch's exporter writes it: half of the excess in front, pairs of sizes in reverse order.
    """

    def v(name: str) -> str:
        return f"{y}_{name}"

    return [
        node("Shape", [x], [v("shape")]),
        node("Gather", [v("shape"), "two"], [v("size")]),
        node("Cast", [v("size")], [v("float")], to=F32),
        node("Div", [v("float"), "two_f"], [v("half")]),
        node("Ceil", [v("half")], [v("out")]),
        node("Sub", [v("out"), "one_f"], [v("steps")]),
        node("Mul", [v("steps"), "two_f"], [v("way")]),
        node("Add", [v("way"), "three_f"], [v("reach")]),
        node("Sub", [v("reach"), v("float")], [v("excess")]),
        node("Clip", [v("excess"), "zero_f"], [v("clipped")]),
        node("Cast", [v("clipped")], [v("whole")], to=TensorProto.INT64),
        node("Div", [v("whole"), "two"], [v("front")]),
        node("Sub", [v("whole"), v("front")], [v("back")]),
        node("Unsqueeze", [v("front"), "first"], [v("front1")]),
        node("Unsqueeze", [v("back"), "first"], [v("back1")]),
        node("Concat", ["width", v("front1"), v("back1"), "rest"], [v("pads")], axis=0),
        node("Reshape", [v("pads"), "pairs"], [v("pairs")]),
        node("Slice", [v("pairs"), "last", "far", "first", "last"], [v("reversed")]),
        node("Transpose", [v("reversed")], [v("turned")], perm=[1, 0]),
        node("Reshape", [v("turned"), "last"], [v("onnx")]),
        node("Pad", [x, v("onnx")], [v("padded")]),
        node("Conv", [v("padded"), "w"], [y], strides=[2, 1]),
    ]


def padded_network(height: int | str) -> onnx.ModelProto:
    numbers = {"zero_f": 0, "one_f": 1, "two_f": 2, "three_f": 3}
    constants = {
        **{name: np.array(value, np.float32) for name, value in numbers.items()},
        "w": weights(2, 2, 3, 1),
        "two": np.array(2),
        "first": np.array([0]),
        "last": np.array([-1]),
        "far": np.array([-(2**62)]),
        "width": np.array([0, 0]),
        "rest": np.array([0, 0, 0, 0]),
        "pairs": np.array([-1, 2]),
    }
    values = ["x", "y0", "y1", "y2", "y3", "y4"]
    nodes = [n for x, y in itertools.pairwise(values) for n in padded_conv(x, y)]
    return build(nodes, {"x": (1, 2, height, 3)}, ["y4"], constants)


def test_paddings_that_follow_from_sizes_in_floats():
    proto = padded_network(37)
    model = apply(proto)
    assert "Pad" not in ops(model)  # constants, so that the convolutions pad
    assert shapes(model)["y4"] == [1, 2, 2, 3]
    assert_same(proto, model)


def test_the_same_of_a_height_that_is_known_at_the_run():
    proto = padded_network("H")
    model = sparsert.load(proto, strict=True, tune=False)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for height in (37, 64, 5):
        x = weights(1, 2, height, 3, seed=height)
        np.testing.assert_allclose(model(x), session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-6)
