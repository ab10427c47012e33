"""segment and FallbackSegment: graphs with foreign operators run in pieces with the same answer."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from sparsert.errors import UnsupportedOpError
from sparsert.passes import native_report
from sparsert.runtime.fallback import FallbackSegment, segment
from sparsert.runtime.numpy_backend import NumpyBackend
from tests.passes.pass_checks import apply, build, feeds_for, node, weights


def run_segments(model, feeds):
    """Runs native segments in NumPy and the others in FallbackSegment."""
    parts = segment(model, native_report(model))
    values = dict(feeds)
    for part in parts:
        runner = NumpyBackend(part.model) if part.is_native else FallbackSegment(part)
        assert native_report(part.model) == [] or not part.is_native
        values.update(runner.run({name: values[name] for name in part.inputs}))
    return parts, [values[v.name] for v in model.graph.outputs]


def check(proto, sizes=None):
    model = apply(proto)
    feeds = feeds_for(proto, sizes)
    parts, found = run_segments(model, feeds)
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    for have, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)
    return parts


def test_all_native_is_one_segment():
    proto = build(
        [node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])],
        {"x": ("N", 3, 5, 5)},
        ["y"],
        {"w": weights(4, 3, 3, 3)},
    )
    parts = check(proto)
    assert [p.is_native for p in parts] == [True]
    assert parts[0].inputs == ["x"]
    assert parts[0].outputs == ["y"]


def test_alternation():
    proto = build(
        [
            node("Conv", ["x", "w"], ["a"]),
            node("Shrink", ["a"], ["b"], lambd=-1.0),
            node("Conv", ["b", "v"], ["c"]),
            node("Conv", ["a", "u"], ["d"]),
            node("Add", ["c", "d"], ["y"]),
        ],
        {"x": ("N", 3, 8, 8)},
        ["y", "a"],
        {
            "w": weights(4, 3, 3, 3),
            "v": weights(4, 4, 1, 1),
            "u": weights(4, 4, 1, 1, seed=1),
        },
    )
    parts = check(proto)
    assert [p.is_native for p in parts] == [True, False, True]
    shape = parts[1].model.graph.inputs[0].shape
    assert shape[0].value == "N"
    assert list(shape)[1:] == [4, 6, 6]


def test_first_and_last_are_foreign():
    proto = build(
        [
            node("Shrink", ["x"], ["a"], lambd=-1.0),
            node("Relu", ["a"], ["b"]),
            node("Shrink", ["b"], ["y"], lambd=-1.0),
        ],
        {"x": (2, 3)},
        ["y"],
    )
    assert [p.is_native for p in check(proto)] == [False, True, False]


def test_shape_arithmetic_is_known_in_every_segment():
    proto = build(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Concat", ["n", "rest"], ["t"], axis=0),
            node("Shrink", ["x"], ["a"], lambd=-1.0),
            node("Reshape", ["a", "t"], ["b"]),
            node("Relu", ["b"], ["y"]),
        ],
        {"x": ("N", 3, "M")},
        ["y", "t"],
        {"zero": np.array([0]), "rest": np.array([-1])},
    )
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    parts = check(proto, {"M": 4})
    assert [p.is_native for p in parts] == [False, True]


def test_subgraph_takes_values_from_outside():
    def branch(name, op):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([node(op, ["a"], [name])], name, [], [value])

    proto = build(
        [
            node("Exp", ["x"], ["a"]),
            node("ReduceSum", ["x"], ["r"], keepdims=0),
            node("Greater", ["r", "zero"], ["c"]),
            node(
                "If", ["c"], ["i"], then_branch=branch("t", "Neg"), else_branch=branch("e", "Abs")
            ),
            node("Relu", ["i"], ["y"]),
        ],
        {"x": (2, 3)},
        ["y"],
        {"zero": np.float32(0)},
    )
    parts = check(proto)
    assert [p.is_native for p in parts] == [True, False, True]


def test_unknown_domain():
    proto = build(
        [node("Magic", ["x"], ["a"], domain="acme"), node("Relu", ["a"], ["y"])], {"x": (2,)}, ["y"]
    )
    proto.opset_import.append(helper.make_opsetid("acme", 1))
    model = apply(proto)
    report = native_report(model)
    assert report[0].op == "acme::Magic"
    assert "domain" in report[0].reason
    with pytest.raises(UnsupportedOpError, match="acme::Magic"):
        run_segments(model, feeds_for(proto))


def test_weights_are_shared_not_copied():
    proto = build(
        [node("Shrink", ["x"], ["a"], lambd=-1.0), node("MatMul", ["a", "w"], ["y"])],
        {"x": (2, 300)},
        ["y"],
        {"w": weights(300, 400)},
    )
    model = apply(proto)
    part = segment(model, native_report(model))[1]
    tensors = {id(v.const_value) for v in model.graph.initializers.values()}
    assert all(id(v.const_value) in tensors for v in part.model.graph.initializers.values())


def test_model_is_left_as_it_was():
    proto = build([node("Shrink", ["x"], ["y"], lambd=-1.0)], {"x": (2, 3)}, ["y"])
    model = apply(proto)
    import onnx_ir as ir

    before = ir.to_proto(model).SerializeToString(deterministic=True)
    segment(model, native_report(model))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert isinstance(proto, onnx.ModelProto)
