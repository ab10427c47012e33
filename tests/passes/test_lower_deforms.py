"""lower_deforms: columns and a convolution; tests/suite/test_sample.py compares the numbers."""

from __future__ import annotations

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, build, node, ops, weights

INPUTS = {"x": ("n", 4, 6, 6), "o": ("n", 18, 4, 4)}


def test_constant_weights_stay_sparse():
    proto = build(
        [node("DeformConv", ["x", "w", "o"], ["d"]), node("Relu", ["d"], ["y"])],
        INPUTS,
        ["y"],
        {"w": weights(5, 4, 3, 3)},
    )
    model = apply(proto)
    assert native_report(model) == []
    assert ops(model) == ["sparsert.DeformColumns", "sparsert.Conv"]
    (_, conv) = model.graph
    assert list(conv.inputs[1].const_value.shape) == [5, 36, 1, 1]


def test_weights_of_the_run():
    inputs = {**INPUTS, "w": (5, 4, 3, 3)}
    model = apply(build([node("DeformConv", ["x", "w", "o"], ["y"])], inputs, ["y"]))
    assert native_report(model) == []
    assert "MatMul" in ops(model)


def test_unknown_weights_are_left_alone():
    inputs = {**INPUTS, "w": ("m", 4, 3, 3)}
    model = apply(build([node("DeformConv", ["x", "w", "o"], ["y"])], inputs, ["y"]))
    assert len(native_report(model)) == 1
