"""lower_dynamic_convs: weights of the run multiply gathered columns."""

from __future__ import annotations

import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops

WINDOWS = [
    {},
    {"pads": (1, 2, 0, 0, 1, 1)},
    {"strides": (2, 1, 2), "dilations": (1, 2, 1)},
    {"auto_pad": "SAME_UPPER", "strides": (2, 2, 1)},
    {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "VALID"},
]


def along(axes, window):
    """The attributes of a window over the first axes."""
    kept = {}
    for name, values in window.items():
        if name == "pads":
            values = [*values[:axes], *values[3 : 3 + axes]]
        kept[name] = values if isinstance(values, str) or name == "pads" else values[:axes]
    return kept


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("inputs", ["xw", "xwb"])
@pytest.mark.parametrize("window", WINDOWS)
def test_conv(axes, group, inputs, window):
    kept = along(axes, window)
    conv = node("Conv", list(inputs), ["y"], group=group, **kept)
    shapes = {
        "x": ("N", 4, *(6, 7, 5)[:axes]),
        "w": (6, 4 // group, *(3, 2, 2)[:axes]),
        "b": (6,),
    }
    proto = build([conv], {name: shapes[name] for name in inputs}, ["y"])
    model = apply(proto)
    assert "MatMul" in " ".join(ops(model))
    assert_same(proto, model)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize(
    "window",
    [
        *(window for window in WINDOWS if "auto_pad" not in window),
        {"strides": (2, 3, 2), "output_padding": (1, 2, 0), "pads": (1, 0, 0, 0, 1, 1)},
        {"strides": (2, 2, 2), "output_shape": (12, 14, 10)},
    ],
)
def test_conv_transpose(axes, group, window):
    conv = node("ConvTranspose", ["x", "w", "b"], ["y"], group=group, **along(axes, window))
    shapes = {
        "x": ("N", 4, *(6, 7, 5)[:axes]),
        "w": (4, 6 // group, *(3, 2, 2)[:axes]),
        "b": (6,),
    }
    proto = build([conv], shapes, ["y"])
    model = apply(proto)
    assert "MatMul" in " ".join(ops(model))
    assert_same(proto, model)


def test_weights_that_are_computed():
    nodes = [node("Mul", ["w", "s"], ["v"]), node("Conv", ["x", "v"], ["y"], pads=[1] * 4)]
    proto = build(nodes, {"x": (2, 3, 5, 5), "w": (4, 3, 3, 3), "s": (4, 1, 1, 1)}, ["y"])
    model = apply(proto)
    assert "Conv" not in ops(model)
    assert_same(proto, model)
