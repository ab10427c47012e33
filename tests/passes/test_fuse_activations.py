"""fuse_activations: an activation becomes attributes of the operator before it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights

PASSES = ("lower_convs", "lower_batch_norms", "fuse_activations", "tidy_graph")
ACTIVATIONS = [
    ("Relu", {}, "relu"),
    ("LeakyRelu", {"alpha": 0.2}, "leaky_relu"),
    ("LeakyRelu", {}, "leaky_relu"),
    ("Elu", {"alpha": 0.7}, "elu"),
    ("Selu", {}, "selu"),
    ("Celu", {"alpha": 2.0}, "celu"),
    ("HardSigmoid", {}, "hard_sigmoid"),
    ("HardSwish", {}, "hard_swish"),
    ("Sigmoid", {}, "sigmoid"),
    ("Tanh", {}, "tanh"),
    ("Swish", {"alpha": 1.5}, "silu"),
    ("Gelu", {}, "gelu"),
    ("Gelu", {"approximate": "tanh"}, "gelu_tanh"),
    ("Exp", {}, "exp"),
    ("Abs", {}, "abs"),
    ("Neg", {}, "neg"),
    ("Floor", {}, "floor"),
    ("Ceil", {}, "ceil"),
    ("Round", {}, "round"),
    ("Erf", {}, "erf"),
    ("Sin", {}, "sin"),
    ("Cos", {}, "cos"),
    ("Softplus", {}, "softplus"),
    ("Softsign", {}, "softsign"),
    ("Mish", {}, "mish"),
    ("Sign", {}, "sign"),
    ("ThresholdedRelu", {"alpha": 0.3}, "thresholded_relu"),
]


@pytest.mark.parametrize(("op", "attributes", "name"), ACTIVATIONS)
def test_after_conv(op, attributes, name):
    proto = build(
        [node("Conv", ["x", "w"], ["a"]), node(op, ["a"], ["y"], **attributes)],
        {"x": (1, 3, 6, 6)},
        ["y"],
        {"w": weights(4, 3, 3, 3)},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv"]
    assert next(iter(model.graph)).attributes["act"].value == name
    # Rounding functions jump where results differ by an ulp; onnxruntime lacks Swish.
    if op not in ("Floor", "Ceil", "Round", "Sign", "Swish"):
        assert_same(proto, model)


@pytest.mark.parametrize("bounds", [["lo", "hi"], ["lo"], ["", "hi"]])
def test_clip(bounds):
    constants = {"lo": np.float32(-0.5), "hi": np.float32(1.5)}
    proto = build(
        [node("Conv", ["x", "w"], ["a"]), node("Clip", ["a", *bounds], ["y"])],
        {"x": (1, 3, 6, 6)},
        ["y"],
        {"w": weights(4, 3, 3, 3), **{k: v for k, v in constants.items() if k in bounds}},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv"]
    assert_same(proto, model)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Min", "Max"])
def test_after_binary(op):
    proto = build(
        [node(op, ["x", "z"], ["a"]), node("Sigmoid", ["a"], ["y"])],
        {"x": (2, 3, 4), "z": (3, 1)},
        ["y"],
    )
    model = apply(proto, *PASSES)
    assert ops(model) == [f"sparsert.{op}"]
    assert_same(proto, model)


def test_after_transposed_conv_and_batch_norm():
    statistics = {k: np.full(4, v, np.float32) for k, v in zip("gtmv", (2, 1, 0.5, 1), strict=True)}
    proto = build(
        [
            node("BatchNormalization", ["x", *"gtmv"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("ConvTranspose", ["b", "w"], ["c"]),
            node("Tanh", ["c"], ["y"]),
        ],
        {"x": (1, 4, 5, 5)},
        ["y"],
        {"w": weights(4, 3, 2, 2), **statistics},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.BatchNormalization", "sparsert.ConvTranspose"]
    assert_same(proto, model)


@pytest.mark.parametrize("used", [False, True])
def test_behind_other_shapes(used):
    proto = build(
        [
            node("Conv", ["x", "w"], ["a"]),
            node("Reshape", ["a", "line"], ["b"]),
            node("Transpose", ["b"], ["c"], perm=[0, 2, 1]),
            node("Gelu", ["c"], ["d"]),
            node("Add", ["d", "c"] if used else ["d", "one"], ["y"]),
        ],
        {"x": (1, 3, 6, 6)},
        ["y"],
        {"w": weights(4, 3, 3, 3), "line": np.array([1, 4, 16]), "one": np.float32(1)},
    )
    model = apply(proto, *PASSES)
    assert ("Gelu" in ops(model)) == used
    assert_same(proto, model)


def test_used_result_stays():
    proto = build(
        [
            node("Conv", ["x", "w"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("Add", ["a", "b"], ["y"]),
        ],
        {"x": (1, 3, 6, 6)},
        ["y"],
        {"w": weights(4, 3, 3, 3)},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv", "Relu", "Add"]
    assert_same(proto, model)


def test_slope_per_channel_stays():
    proto = build(
        [node("Conv", ["x", "w"], ["a"]), node("PRelu", ["a", "s"], ["y"])],
        {"x": (1, 3, 6, 6)},
        ["y"],
        {"w": weights(4, 3, 3, 3), "s": weights(4, 1, 1)},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv", "PRelu"]
    assert_same(proto, model)


def test_behind_a_concat_of_layers():
    """Each layer takes the activation; also one whose result is brought into another shape."""
    nodes = [
        node("Conv", ["x", "v"], ["a"]),
        node("Conv", ["x", "w"], ["b"]),
        node("Reshape", ["b", "s"], ["c"]),
        node("Concat", ["a", "c"], ["d"], axis=1),
    ]
    proto = build(
        [*nodes, node("LeakyRelu", ["d"], ["y"], alpha=0.3)],
        {"x": (1, 3, 5, 7)},
        ["y"],
        {"v": weights(4, 3, 1, 1), "w": weights(2, 3, 1, 1), "s": np.array([1, 2, 5, 7])},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv", "sparsert.Conv", "Reshape", "Concat"]
    assert_same(proto, model)


@pytest.mark.parametrize("parts", [["a", "x"], ["a", "b"], ["a", "a"], ["a", "c"]])
def test_behind_other_concats_it_stays(parts):
    """An input of the graph, a layer with another use or an activation, the same layer twice."""
    nodes = [
        node("Conv", ["x", "v"], ["a"]),
        node("Conv", ["x", "w"], ["b"]),
        node("Relu", ["b"], ["z"]),
        node("Conv", ["x", "u"], ["d"]),
        node("Tanh", ["d"], ["c"]),
        node("Concat", parts, ["e"], axis=1),
    ]
    w = {name: weights(4, 3, 1, 1, seed=i) for i, name in enumerate("uvw")}
    proto = build([*nodes, node("HardSwish", ["e"], ["y"])], {"x": (1, 3, 5, 7)}, ["y", "z"], w)
    model = apply(proto, *PASSES)
    assert "HardSwish" in ops(model)
    assert_same(proto, model)


@pytest.mark.parametrize("op", ["Relu", "Sigmoid"])
def test_behind_a_concat_costly_ones_stay(op):
    nodes = [
        node("Conv", ["x", "v"], ["a"]),
        node("Conv", ["x", "w"], ["b"]),
        node("Concat", ["a", "b"], ["c"], axis=1),
    ]
    w = {name: weights(4, 3, 1, 1, seed=i) for i, name in enumerate("vw")}
    proto = build([*nodes, node(op, ["c"], ["y"])], {"x": (1, 3, 5, 7)}, ["y"], w)
    model = apply(proto, *PASSES)
    assert (op in ops(model)) == (op == "Sigmoid")
    assert_same(proto, model)
