"""lower_volume_convs: convolutions over three axes become convolutions over two."""

from __future__ import annotations

import pytest

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize(
    "window",
    [
        {},
        {"pads": [1, 0, 1, 2, 1, 0]},
        {"strides": [2, 1, 2], "pads": [1] * 6},
        {"dilations": [2, 1, 1], "strides": [3, 2, 1]},
    ],
)
def test_conv(group, window):
    conv = node("Conv", ["x", "w", "b"], ["y"], group=group, **window)
    constants = {"w": weights(8, 4 // group, 3, 2, 3), "b": weights(8, sparsity=0)}
    proto = build([conv], {"x": ("N", 4, 7, 6, 8)}, ["y"], constants)
    model = apply(proto)
    assert native_report(model) == []
    assert "sparsert.Conv" in ops(model)
    assert_same(proto, model)


def test_pointwise_in_depth():
    conv = node("Conv", ["x", "w"], ["y"], pads=[0, 1, 1, 0, 1, 1])
    proto = build([conv], {"x": (2, 3, 5, 6, 7)}, ["y"], {"w": weights(4, 3, 1, 3, 3)})
    model = apply(proto)
    assert "Concat" not in ops(model)
    assert_same(proto, model)


def test_sizes_of_the_run_stay():
    proto = build([node("Conv", ["x", "w"], ["y"])], {"x": (1, 3, "D", 6, 7)}, ["y"])
    proto.graph.initializer.append(
        build([], {}, [], {"w": weights(4, 3, 2, 3, 3)}).graph.initializer[0]
    )
    assert "3-D" in native_report(apply(proto))[0].reason
