"""drop_noops: operators that change nothing disappear; names of inputs and outputs stay."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.passes.pass_checks import apply, assert_same, build, node, ops

NOOPS = [
    node("Identity", ["a"], ["b"]),
    node("Dropout", ["a"], ["b"]),
    node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
    node("Transpose", ["a"], ["b"], perm=[0, 1]),
    node("Reshape", ["a", "shape"], ["b"]),
    node("Expand", ["a", "shape"], ["b"]),
    node("Pad", ["a", "pads"], ["b"]),
    node("Concat", ["a"], ["b"], axis=0),
    node("Add", ["zero", "a"], ["b"]),
    node("Sub", ["a", "zero"], ["b"]),
    node("Mul", ["a", "one"], ["b"]),
    node("Div", ["a", "one"], ["b"]),
]
CONSTANTS = {
    "shape": np.array([2, 3]),
    "pads": np.zeros(4, np.int64),
    "zero": np.float32(0),
    "one": np.ones((1, 1), np.float32),
}
OTHERS = [
    (node("Add", ["a", "c"], ["y"]), np.float32(1e-12)),
    (node("Mul", ["a", "c"], ["y"]), np.float32(1 + 1e-6)),
    (node("Mul", ["a", "c"], ["y"]), np.ones((1, 1, 1), np.float32)),
    (node("Sub", ["c", "a"], ["y"]), np.float32(0)),
    (node("Div", ["c", "a"], ["y"]), np.float32(1)),
]


@pytest.mark.parametrize("noop", NOOPS, ids=lambda n: n.op_type)
@pytest.mark.parametrize("at_end", [False, True])
def test_dropped(noop, at_end):
    nodes = [node("Exp", ["x"], ["a"]), noop]
    if not at_end:
        nodes.append(node("Relu", ["b"], ["y"]))
    constants = {k: v for k, v in CONSTANTS.items() if k in noop.input}
    proto = build(nodes, {"x": (2, 3)}, ["b" if at_end else "y"], constants)
    model = apply(proto, "drop_noops", "tidy_graph")
    assert ops(model) == (["Exp"] if at_end else ["Exp", "Relu"])
    assert_same(proto, model)


@pytest.mark.parametrize(("other", "constant"), OTHERS)
def test_nearly_neutral_stays(other, constant):
    proto = build([node("Exp", ["x"], ["a"]), other], {"x": (2, 3)}, ["y"], {"c": constant})
    model = apply(proto, "simplify_patterns", "drop_noops", "tidy_graph")
    assert len(ops(model)) == 2
    assert_same(proto, model)


def test_identity_from_input_to_output_stays():
    proto = build([node("Identity", ["x"], ["y"])], {"x": (2, 3)}, ["y"])
    model = apply(proto)
    assert ops(model) == ["Identity"]
    assert_same(proto, model)


def test_one_value_as_two_outputs():
    proto = build(
        [node("Exp", ["x"], ["a"]), node("Identity", ["a"], ["b"])], {"x": (2, 3)}, ["a", "b"]
    )
    model = apply(proto)
    assert_same(proto, model)
