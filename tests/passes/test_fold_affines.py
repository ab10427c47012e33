"""fold_affines: scales and shifts after a layer move into it; zeros stay zeros."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights
from tests.passes.test_lower_batch_norms import statistics

PASSES = (
    "lower_convs",
    "lower_linears",
    "lower_batch_norms",
    "fold_affines",
    "tidy_graph",
)
BN = ["g", "b", "m", "v"]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm"])
@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm(op, group, with_bias):
    if op == "Gemm":
        shape, w, attributes = (3, 4), (4, 6), {}
    elif op == "Conv":
        shape, w, attributes = (2, 4, 7, 7), (6, 4 // group, 3, 3), {"group": group}
    else:
        shape, w, attributes = (2, 4, 7, 7), (4, 6 // group, 3, 3), {"group": group}
    constants = {"w": weights(*w), **statistics(6)}
    inputs = ["x", "w"]
    if with_bias:
        constants["c"] = weights(6, seed=2)
        inputs.append("c")
    proto = build(
        [
            node(op, inputs, ["a"], **attributes),
            node("BatchNormalization", ["a", *BN], ["y"]),
        ],
        {"x": shape},
        ["y"],
        constants,
    )
    model = apply(proto, *PASSES)
    assert len(ops(model)) == 1
    folded = next(iter(model.graph)).inputs[1].const_value.numpy()
    original = constants["w"].T if op == "Gemm" else constants["w"]
    np.testing.assert_array_equal(folded.view(np.uint32) == 0, original.view(np.uint32) == 0)
    assert_same(proto, model)


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("swap", [False, True])
def test_constants(op, shape, swap):
    operands = ["k", "a"] if swap else ["a", "k"]
    proto = build(
        [node("Conv", ["x", "w"], ["a"]), node(op, operands, ["y"])],
        {"x": (2, 4, 5, 5)},
        ["y"],
        {"w": weights(6, 4, 3, 3), "k": weights(*shape, seed=5, sparsity=0)},
    )
    model = apply(proto, *PASSES)
    assert len(ops(model)) == (2 if op == "Div" and swap else 1)
    assert_same(proto, model, tolerance=1e-4 if op == "Div" else 1e-5)


@pytest.mark.parametrize("shape", [(5,), (1, 6, 1, 5), (3, 6, 1, 1)])
def test_other_broadcasts_stay(shape):
    proto = build(
        [node("Conv", ["x", "w"], ["a"]), node("Mul", ["a", "k"], ["y"])],
        {"x": (1, 4, 7, 7)},
        ["y"],
        {"w": weights(6, 4, 3, 3), "k": weights(*shape)},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv", "Mul"]
    assert_same(proto, model)


def test_large_shared_weight_stays_shared():
    constants = {"w": weights(64, 64, 3, 3), **statistics(64)}
    proto = build(
        [
            node("Conv", ["x", "w"], ["a"]),
            node("BatchNormalization", ["a", *BN], ["p"]),
            node("Conv", ["z", "w"], ["q"]),
        ],
        {"x": (1, 64, 5, 5), "z": (1, 64, 4, 4)},
        ["p", "q"],
        constants,
    )
    model = apply(proto, *PASSES)
    convs = [n for n in model.graph if n.op_type == "Conv"]
    assert convs[0].inputs[1] is convs[1].inputs[1]
    assert_same(proto, model)


def test_output_that_is_also_used_stays():
    proto = build(
        [node("Conv", ["x", "w"], ["a"]), node("Mul", ["a", "k"], ["y"])],
        {"x": (1, 4, 7, 7)},
        ["a", "y"],
        {"w": weights(6, 4, 3, 3), "k": np.array(2, dtype=np.float32)},
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv", "Mul"]
    assert_same(proto, model)


def branches(*nodes, axis=1, outputs=("y",), **shared):
    """Two convolutions and a transposed one, side by side, and the nodes behind them."""
    constants = {
        "w1": weights(3, 4, 3, 3),
        "w2": weights(2, 2, 1, 1, seed=1),
        "w3": weights(4, 1, 3, 3, seed=2),
        "c2": weights(2, seed=3),
        **statistics(7),
        **shared,
    }
    layers = [
        node("Conv", ["x", "w1"], ["a1"], pads=[1, 1, 1, 1]),
        node("Conv", ["x", "w2", "c2"], ["a2"], group=2),
        node("ConvTranspose", ["x", "w3"], ["a3"], pads=[1, 1, 1, 1], group=2),
        node("Concat", ["a1", "a2", "a3"], ["a"], axis=axis),
    ]
    return build([*layers, *nodes], {"x": (2, 4, 5, 7)}, outputs, constants)


@pytest.mark.parametrize("axis", [1, -3])
def test_behind_a_concat_of_layers(axis):
    k = weights(7, 1, 1, seed=5, sparsity=0)
    proto = branches(
        node("BatchNormalization", ["a", *BN], ["d"]),
        node("Mul", ["d", "half"], ["e"]),
        node("Sub", ["k", "e"], ["y"]),
        axis=axis,
        half=np.float32(0.5),
        k=k,
    )
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv", "sparsert.Conv", "sparsert.ConvTranspose", "Concat"]
    assert_same(proto, model)


def test_behind_a_concat_that_is_also_used():
    norm = node("BatchNormalization", ["a", *BN], ["y"])
    for proto in (branches(norm, outputs=("y", "a")), branches(norm, outputs=("y", "a2"))):
        model = apply(proto, *PASSES)
        assert "sparsert.BatchNormalization" in ops(model)
        assert_same(proto, model)


def test_behind_a_concat_with_other_inputs():
    """None of the layers is scaled if one of the inputs is no layer."""
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Concat", ["a", "x"], ["c"], axis=1),
        node("BatchNormalization", ["c", *BN], ["y"]),
    ]
    constants = {"w": weights(3, 4, 1, 1), **statistics(7)}
    proto = build(nodes, {"x": (1, 4, 5, 5)}, ["y"], constants)
    model = apply(proto, *PASSES)
    assert ops(model) == ["sparsert.Conv", "Concat", "sparsert.BatchNormalization"]
    assert_same(proto, model)


@pytest.mark.parametrize("channels", [4, 128])
def test_behind_a_concat_of_layers_with_one_weight(channels):
    """A small weight that both share is copied; a large one leaves both as they are."""
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Conv", ["z", "w"], ["d"]),
        node("Concat", ["a", "d"], ["c"], axis=1),
        node("BatchNormalization", ["c", *BN], ["y"]),
    ]
    constants = {"w": weights(channels, channels, 3, 3), **statistics(2 * channels)}
    shape = (1, channels, 4, 5)
    proto = build(nodes, {"x": shape, "z": shape}, ["y"], constants)
    model = apply(proto, *PASSES)
    assert len(ops(model)) == (3 if channels == 4 else 4)
    assert_same(proto, model)
