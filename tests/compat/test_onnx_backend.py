"""onnx's node tests through sparsert.compat.onnx_backend, and the interface itself."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.backend.base import Backend, BackendRep

from sparsert.compat import onnx_backend
from sparsert.errors import UnsupportedOpError
from tests.compat import coverage
from tests.compat.exclusions import FAILING, OUT_OF_SCOPE

# Of the tests in scope; raise it with what docs/coverage.md reports.
LEAST_NATIVE = 0.955

CASES = [
    case
    for case in coverage.node_cases()
    if coverage.reason_in((*OUT_OF_SCOPE, *FAILING), case.name) is None
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_node(case, native_tests):
    state, _ = coverage.run_case(case)
    native_tests[case.name] = state == "native"


@pytest.fixture(scope="module")
def native_tests():
    """Whether each test ran natively; checked when all have run."""
    native: dict[str, bool] = {}
    yield native
    if len(native) == len(CASES):
        share = sum(native.values()) / len(native)
        assert share >= LEAST_NATIVE, f"{share:.1%} of onnx's node tests run natively"


def test_every_pattern_fits_a_test():
    names = [case.name for case in coverage.node_cases()]
    for pattern in (*OUT_OF_SCOPE, *FAILING):
        assert any(coverage.reason_in([pattern], name) for name in names), pattern[0]


def test_page_counts():
    results = [
        coverage.Result("a", "Relu", "native"),
        coverage.Result("b", "If", "fallback", "If: it has a subgraph"),
        coverage.Result("c", "If", "failed", "why"),
        coverage.Result("d", "Adam", "left out", "training"),
    ]
    page = coverage.to_markdown(results, "today")
    assert "| in scope | 3 | |" in page
    assert "| pass | 2 | 66.7% |" in page
    assert "| If | by fallback | 0 | 1 | 1 | If: it has a subgraph |" in page
    assert "| training | 1 |" in page


def model_of(op: str = "Relu") -> onnx.ModelProto:
    node = helper.make_node(op, ["x"], ["y"], name="only")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in "xy"]
    return helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))


X = np.array([[-1, 2, -3], [4, -5, 6]], np.float32)


def test_prepare_and_run():
    assert issubclass(onnx_backend.SparsertBackend, Backend)
    prepared = onnx_backend.prepare(model_of(), strict=True)
    assert isinstance(prepared, BackendRep)
    for feeds in ([X], X, {"x": X}):
        outputs = prepared.run(feeds)
        np.testing.assert_array_equal(outputs[0], np.maximum(X, 0))
        np.testing.assert_array_equal(outputs["y"], outputs.y)
    with pytest.raises(TypeError, match="2 arrays for 1 inputs"):
        prepared.run([X, X])
    with pytest.raises(TypeError, match="unknown options"):
        prepared.run([X], fast=True)


def test_run_model():
    np.testing.assert_array_equal(onnx_backend.run_model(model_of(), [X])[0], np.maximum(X, 0))


def test_strict():
    model = model_of("Det")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    assert not onnx_backend.is_compatible(model, strict=True)
    with pytest.raises(UnsupportedOpError, match="Det"):
        onnx_backend.prepare(model, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert onnx_backend.is_compatible(model)


def test_run_node():
    clip = helper.make_node("Clip", ["x", "", "high"], ["y"])
    outputs = onnx_backend.run_node(clip, [X, np.float32(3)])
    np.testing.assert_array_equal(outputs[0], np.minimum(X, 3))
    outputs = onnx_backend.run_node(clip, {"x": X, "high": np.float32(1)}, opset_version=13)
    np.testing.assert_array_equal(outputs[0], np.minimum(X, 1))
    relu = helper.make_node("Relu", ["x"], ["y"])
    outputs = onnx_backend.run_node(relu, X, outputs_info=[(X.dtype, X.shape)])
    np.testing.assert_array_equal(outputs[0], np.maximum(X, 0))
    with pytest.raises(TypeError, match="2 arrays for the inputs x"):
        onnx_backend.run_node(relu, [X, X])


def test_devices():
    assert onnx_backend.supports_device("CPU")
    assert not onnx_backend.supports_device("CUDA:0")
    assert not onnx_backend.is_compatible(model_of(), "CUDA")
    with pytest.raises(ValueError, match="CUDA"):
        onnx_backend.prepare(model_of(), "CUDA")
