"""expand_norms: instance, layer and group normalisation become native operators."""

from __future__ import annotations

import pytest

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, node, weights


def constants(*shape):
    return {
        "s": weights(*shape, sparsity=0),
        "b": weights(*shape, seed=1, sparsity=0),
    }


@pytest.mark.parametrize("shape", [(2, 4, 9), (2, 4, 5, 6), ("N", 4, "H", "W")])
def test_instance_norm(shape):
    norm = node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=1e-3)
    proto = build([norm], {"x": shape}, ["y"], constants(4))
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model, {"H": 5, "W": 3})


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("inputs", [["x", "s"], ["x", "s", "b"]])
def test_layer_norm(axis, inputs):
    shape = (7,) if axis == -1 else (5, 7)
    values = {k: v for k, v in constants(*shape).items() if k in inputs}
    norm = node("LayerNormalization", inputs, ["y"], axis=axis)
    proto = build([norm], {"x": ("N", 5, 7)}, ["y"], values)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize("shape", [(2, 4, 5, 6), ("N", 4, "H", "W")])
def test_group_norm(shape):
    norm = node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    proto = build([norm], {"x": shape}, ["y"], constants(4), opset=21)
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model, {"H": 5, "W": 3})
