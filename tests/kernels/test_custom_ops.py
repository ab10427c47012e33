"""custom_op: a user's operators run on every backend, by name, and wrong ones are refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import sparsert
from sparsert.errors import BackendError, UnsupportedOpError
from sparsert.kernels import Dim, Spec, custom_op
from tests.suite.harness import SUM, assert_close, build, make_session, random_weights

DOMAIN = "com.example.tests"
BACKENDS = ("native", "numpy")


@custom_op(DOMAIN, "Threshold", name="threshold_f32")
@numba.njit
def threshold(x: np.ndarray, *, level: np.float32 = np.float32(0)) -> np.ndarray:  # noqa: B008
    y = np.empty_like(x)
    for i in range(x.size):
        y.flat[i] = x.flat[i] if x.flat[i] > level else 0
    return y


@custom_op(
    DOMAIN,
    "Repeat",
    infer=lambda x, times: (
        Spec((x.shape[0], x.shape[1] * int(times.value[0]), *x.shape[2:]), "f4")
        if times.value is not None
        else Spec((x.shape[0], Dim(), *x.shape[2:]), x.dtype)
    ),
)
def repeat(x: np.ndarray, times: np.ndarray) -> np.ndarray:
    return np.concatenate([x] * int(times[0]), axis=1)


def customise(model: onnx.ModelProto, *ops: str) -> onnx.ModelProto:
    """Moves nodes of these operators, written as Custom<op>, to the domain of the tests."""
    for node in model.graph.node:
        if node.op_type in ops:
            node.domain = DOMAIN
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def network() -> onnx.ModelProto:
    """A convolution, Threshold, Repeat by a constant, and another convolution."""
    return customise(
        build(
            [
                "a = Conv<pads=[1,1,1,1]>(x, w1)",
                "b = Threshold<level=0.5>(a)",
                "c = Repeat(b, times)",
                "y = Conv(c, w2)",
            ],
            {"x": ["n", 3, 6, 5]},
            {
                "w1": random_weights(4, 3, 3, 3, sparsity=0.5),
                "times": np.array([2]),
                "w2": random_weights(5, 8, 1, 1, sparsity=0.5),
            },
        ),
        *("Threshold", "Repeat"),
    )


def one_node(op: str, attributes: dict[str, Any] | None = None, inputs: int = 1) -> Any:
    """A model of one node of the tests' domain between two Relus."""
    names = ["a"] * inputs
    node = helper.make_node(op, names, ["b"], name="mine", domain=DOMAIN, **(attributes or {}))
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["a"]), node, helper.make_node("Relu", ["b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.fixture
def _no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("_no_warnings")
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_runs_by_name_without_a_warning_and_strictly(backend: str) -> None:
    model = sparsert.load(network(), backend=backend, strict=True)
    assert model.outputs[0].shape == ("n", 5, 6, 5)
    plain = build(
        [
            "a = Conv<pads=[1,1,1,1]>(x, w1)",
            "m = Greater(a, level)",
            "b = Where(m, a, zero)",
            "c = Concat<axis=1>(b, b)",
            "y = Conv(c, w2)",
        ],
        {"x": ["n", 3, 6, 5]},
        {
            "w1": random_weights(4, 3, 3, 3, sparsity=0.5),
            "level": np.float32(0.5),
            "zero": np.float32(0),
            "w2": random_weights(5, 8, 1, 1, sparsity=0.5),
        },
    )
    session = make_session(plain)
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, 3, 6, 5)).astype(np.float32)
        assert_close(model(x), session.run(None, {"x": x})[0], SUM)
    rows = model.explain().to_dict()["rows"]
    kernels = {row.get("name", row.get("layer")): row["kernel"] for row in rows}
    assert kernels["Threshold_1"] == "threshold_f32 (numba)"
    assert kernels["Repeat_2"] == "repeat (python)"
    if backend == "native":
        times = {row["name"]: row for row in model.profile(x, runs=1).to_dict()["rows"]}
        assert times["Threshold_1"]["kernel"] == "threshold_f32 (numba)"
        assert times["Threshold_1"]["time_ns"] > 0


def test_such_a_model_has_no_sprt_form(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOpError, match=r"Threshold_1.*threshold_f32 \(numba\)"):
        sparsert.convert(network(), tmp_path / "m.sprt")
    with pytest.raises(UnsupportedOpError, match="kernels of yours"):
        sparsert.load(network()).save(tmp_path / "m.sprt")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x.astype(np.float64), r"output 0 as float64\[2, 3\]; expected float32\[2, 3\]"),
        (lambda x: x[:, :2], r"output 0 as float32\[2, 2\]; expected float32\[2, 3\]"),
        (lambda x: (), r"returned 0 output\(s\); expected 1"),
        (lambda x: "text", "output 0 as str; expected an array"),
        (lambda x: x @ x, "failed: ValueError"),
    ],
)
def test_wrong_results_are_refused(
    function: Callable[..., Any], expected: str, backend: str
) -> None:
    custom_op(DOMAIN, "Wrong", name="wrong")(function)
    model = sparsert.load(one_node("Wrong"), backend=backend)
    with pytest.raises(BackendError, match=expected) as caught:
        model(np.ones((2, 3), np.float32))
    assert f"node 'mine' ({DOMAIN}::Wrong)" in str(caught.value)
    assert "'wrong'" in str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "inputs", "expected"),
    [
        ({"other": 1.0}, 1, "'other' is not a keyword-only parameter; there are: 'level'"),
        ({}, 2, "it has 2 inputs; expected 1"),
        ({"level": helper.make_graph([], "g", [], [])}, 1, "'level' is a graph"),
    ],
)
def test_nodes_that_do_not_fit_are_refused_when_loaded(
    attributes: dict[str, Any], inputs: int, expected: str
) -> None:
    with pytest.raises(UnsupportedOpError, match=expected) as caught:
        sparsert.load(one_node("Threshold", attributes, inputs))
    assert f"node 'mine' ({DOMAIN}::Threshold)" in str(caught.value)


def test_a_failing_infer_function_is_named() -> None:
    custom_op(DOMAIN, "NoInfer", infer=lambda x: x.nothing)(lambda x: x)
    expected = r"mine.*infer function failed for float32\[n, 3\]"
    with pytest.raises(UnsupportedOpError, match=expected):
        sparsert.load(one_node("NoInfer"))


def test_attributes_come_as_numbers_text_tuples_and_arrays() -> None:
    seen: dict[str, Any] = {}

    @custom_op(DOMAIN, "Attributes")
    def record(x: np.ndarray, **attributes: Any) -> np.ndarray:
        seen.update(attributes)
        return x

    table = helper.make_tensor("t", TensorProto.INT8, [2], [1, -1])
    values = {"i": 3, "f": 0.1, "s": "é", "is": [1, 2], "fs": [0.5], "ss": ["a"], "t": table}
    model = sparsert.load(one_node("Attributes", values))
    model(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(seen.pop("t"), np.array([1, -1], np.int8))
    assert type(seen["f"]) is np.float32
    assert seen == {
        "i": 3,
        "f": np.float32(0.1),
        "s": "é",
        "is": (1, 2),
        "fs": (np.float32(0.5),),
        "ss": ("a",),
    }


def test_a_kernel_is_preferred_to_a_function_of_the_model() -> None:
    model = one_node("Body")
    body = [helper.make_node("Neg", ["x"], ["y"])]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function(DOMAIN, "Body", ["x"], ["y"], body, opsets))
    x = np.ones((1, 3), np.float32)
    assert sparsert.load(model, strict=True)(x).max() == 0
    custom_op(DOMAIN, "Body")(lambda x: x * np.float32(3))
    assert sparsert.load(model, strict=True)(x).max() == 3


def test_shape_arithmetic_between_kernels() -> None:
    model = customise(
        build(
            ["a = Threshold(x)", "s = Shape<start=0, end=1>(a)", "y = Repeat(a, s)"],
            {"x": ["n", 3]},
        ),
        *("Threshold", "Repeat"),
    )
    loaded = sparsert.load(model, strict=True)
    for batch in (1, 2):
        x = np.full((batch, 3), 2, np.float32)
        assert loaded(x).shape == (batch, 3 * batch)


@pytest.mark.parametrize("domain", ["", "ai.onnx", "sparsert"])
def test_operators_of_onnx_are_not_replaced(domain: str) -> None:
    with pytest.raises(ValueError, match="not replaced"):
        custom_op(domain, "Conv")
