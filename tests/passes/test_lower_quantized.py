"""lower_quantized: QuantizeLinear and DequantizeLinear become arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, node


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("axis", [None, 1, -1])
def test_there_and_back(dtype, axis):
    count = {None: (), 1: 4, -1: 3}[axis]
    scale = np.random.default_rng(0).uniform(0.01, 0.1, count).astype(np.float32)
    zero = np.full(count, 3, dtype)
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    proto = build(nodes, {"x": ("N", 4, 3)}, ["y"], {"s": scale, "z": zero}, opset=21)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


def test_without_zero_point():
    nodes = [node("QuantizeLinear", ["x", "s"], ["q"]), node("Cast", ["q"], ["y"], to=1)]
    proto = build(nodes, {"x": (2, 5)}, ["y"], {"s": np.array(0.01, np.float32)}, opset=21)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


def test_scale_of_the_run():
    proto = build(
        [node("DequantizeLinear", ["q", "s"], ["y"])],
        {"q": (2, 5), "s": ()},
        ["y"],
        opset=21,
    )
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


def test_weights_in_integers_become_constants():
    rng = np.random.default_rng(1)
    proto = build(
        [
            node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0),
            node("Conv", ["x", "d"], ["y"]),
        ],
        {"x": ("N", 3, 6, 6)},
        ["y"],
        {
            "w": rng.integers(-20, 20, (4, 3, 3, 3)).astype(np.int8),
            "s": rng.uniform(0.01, 0.1, 4).astype(np.float32),
            "z": np.zeros(4, np.int8),
        },
        opset=21,
    )
    model = apply(proto)
    assert [n.op_type for n in model.graph] == ["Conv"]
    assert_same(proto, model)
