"""lower_linears: Gemm and MatMul with a constant matrix become sparsert.Linear, weights [N, K]."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c_shape", [None, (5,), (1, 5), (1,), (), (3, 5), (3, 1)])
def test_gemm(trans_a, trans_b, c_shape):
    constants = {"w": weights(*((5, 4) if trans_b else (4, 5)))}
    inputs = ["x", "w"]
    if c_shape is not None:
        constants["c"] = weights(*c_shape, seed=1, sparsity=0)
        inputs.append("c")
    gemm = node("Gemm", inputs, ["y"], transA=trans_a, transB=trans_b, alpha=0.5, beta=2.0)
    proto = build([gemm], {"x": (4, 3) if trans_a else (3, 4)}, ["y"], constants)
    model = apply(proto, "lower_linears", "tidy_graph")
    assert "sparsert.Linear" in ops(model)
    assert "Gemm" not in ops(model)
    linear = next(n for n in model.graph if n.op_type == "Linear")
    stored = linear.inputs[1].const_value.numpy()
    assert stored.shape == (5, 4)
    want = constants["w"] if trans_b else constants["w"].T
    np.testing.assert_array_equal(stored == 0, want == 0)
    assert_same(proto, model)


def test_gemm_with_computed_addend():
    proto = build(
        [node("Gemm", ["x", "w", "c"], ["y"], beta=0.5)],
        {"x": (3, 4), "c": (3, 5)},
        ["y"],
        {"w": weights(4, 5)},
    )
    model = apply(proto, "lower_linears", "fuse_residuals", "tidy_graph")
    assert_same(proto, model)
    assert ops(model) == ["Mul", "sparsert.Linear"]


@pytest.mark.parametrize("x", [(3, 4), (2, 3, 4), (4,), ("N", 3, 4)])
def test_matmul_right(x):
    proto = build([node("MatMul", ["x", "w"], ["y"])], {"x": x}, ["y"], {"w": weights(4, 5)})
    model = apply(proto, "lower_linears", "tidy_graph")
    assert ops(model) == ["sparsert.Linear"]
    assert_same(proto, model)


@pytest.mark.parametrize(
    ("inputs", "w", "x", "expected"),
    [
        ("xw", (4,), (3, 4), ["sparsert.Linear", "Squeeze"]),
        ("xw", (4,), ("N", 3, 4), ["sparsert.Linear", "Squeeze"]),
        ("xw", (4,), (4,), ["sparsert.Linear", "Squeeze"]),
        ("wx", (4,), (4,), ["sparsert.Linear", "Squeeze"]),
        ("wx", (4,), (4, 3), ["Transpose", "sparsert.Linear", "Squeeze"]),
        ("wx", (4,), ("N", 4, 3), ["Transpose", "sparsert.Linear", "Squeeze"]),
        ("wx", (5, 4), (4,), ["sparsert.Linear"]),
    ],
)
def test_matmul_with_vectors(inputs, w, x, expected):
    proto = build([node("MatMul", [*inputs], ["y"])], {"x": x}, ["y"], {"w": weights(*w)})
    model = apply(proto, "lower_linears", "tidy_graph")
    assert ops(model) == expected
    assert_same(proto, model)


@pytest.mark.parametrize("x", [(4, 3), (2, 4, 3)])
def test_matmul_left(x):
    proto = build([node("MatMul", ["w", "x"], ["y"])], {"x": x}, ["y"], {"w": weights(5, 4)})
    model = apply(proto, "lower_linears", "tidy_graph")
    assert ops(model) == ["Transpose", "sparsert.Linear", "Transpose"]
    assert_same(proto, model)


def test_shared_weight_stays_shared():
    proto = build(
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("MatMul", ["z", "w"], ["b"]),
            node("Add", ["a", "b"], ["y"]),
        ],
        {"x": (3, 4), "z": (3, 4)},
        ["y"],
        {"w": weights(4, 5)},
    )
    model = apply(proto, "lower_linears", "tidy_graph")
    linears = [n for n in model.graph if n.op_type == "Linear"]
    assert len(linears) == 2
    assert linears[0].inputs[1] is linears[1].inputs[1]
    assert len(model.graph.initializers) == 1
    assert_same(proto, model)


def test_two_inputs_stay():
    proto = build([node("MatMul", ["x", "z"], ["y"])], {"x": (3, 4), "z": (4, 5)}, ["y"])
    assert ops(apply(proto, "lower_linears")) == ["MatMul"]
