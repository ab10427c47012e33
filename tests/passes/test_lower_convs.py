"""lower_convs: convolutions of every shape become sparsert.Conv and sparsert.ConvTranspose."""

from __future__ import annotations

import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights

CONVS = [
    ((1, 4, 9, 9), (6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((2, 4, 9, 8), (6, 4, 3, 2), {"strides": [2, 1], "pads": [1, 0, 2, 1]}),
    ((1, 4, 11, 11), (6, 4, 3, 3), {"dilations": [2, 2]}),
    ((1, 4, 9, 9), (6, 2, 3, 3), {"group": 2}),
    ((1, 4, 9, 9), (4, 1, 3, 3), {"group": 4, "strides": [2, 2]}),
    ((1, 4, 9, 9), (8, 1, 3, 3), {"group": 4}),
    ((1, 4, 10, 9), (6, 4, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 4, 10, 9), (6, 4, 2, 2), {"auto_pad": "SAME_LOWER"}),
    ((1, 4, 10, 9), (6, 4, 3, 3), {"auto_pad": "VALID"}),
    ((2, 4, 20), (6, 4, 5), {"pads": [2, 2], "strides": [2]}),
]


@pytest.mark.parametrize(("x", "w", "attributes"), CONVS)
def test_conv(x, w, attributes):
    proto = build(
        [node("Conv", ["x", "w", "b"], ["y"], **attributes)],
        {"x": x},
        ["y"],
        {"w": weights(*w), "b": weights(w[0], seed=1)},
    )
    model = apply(proto, "fold_pads", "lower_convs", "tidy_graph")
    assert ops(model) == ["sparsert.Conv"]
    assert_same(proto, model)


@pytest.mark.parametrize(
    ("size", "attributes", "kernel", "pads"),
    [
        # Only the middle tap of a dilation as large as the plane meets it.
        ((6, 6), {"pads": [6] * 4, "dilations": [6, 6]}, (1, 1), [0] * 4),
        ((6, 7), {"pads": [6] * 4, "dilations": [6, 6]}, (1, 3), [0, 6, 0, 6]),
        ((6, 6), {"pads": [7, 5, 5, 7], "dilations": [6, 6]}, (2, 2), [1, 5, 5, 1]),
        # A stride that skips what a tap would meet.
        ((4, 9), {"pads": [3, 1, 3, 1], "dilations": [3, 1], "strides": [3, 2]}, None, None),
        ((1, 1), {"pads": [1] * 4}, (1, 1), [0] * 4),
    ],
)
def test_taps_in_padding_are_left_out(size, attributes, kernel, pads):
    proto = build(
        [node("Conv", ["x", "w"], ["y"], **attributes)],
        {"x": (2, 4, *size)},
        ["y"],
        {"w": weights(6, 4, 3, 3)},
    )
    model = apply(proto, "lower_convs", "tidy_graph")
    conv = next(iter(model.graph))
    if kernel is not None:
        assert tuple(conv.inputs[1].shape)[2:] == kernel
        assert list(conv.attributes["pads"].value) == pads
    assert_same(proto, model)


TRANSPOSED = [
    ((1, 4, 5, 5), (4, 6, 2, 2), {"strides": [2, 2]}),
    ((2, 4, 5, 6), (4, 6, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    (
        (1, 4, 5, 5),
        (4, 6, 3, 3),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    ((1, 4, 5, 5), (4, 3, 3, 3), {"group": 2, "dilations": [2, 2]}),
    ((1, 4, 5, 5), (4, 6, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 4, 5, 5), (4, 6, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 4, 5, 5), (4, 6, 3, 3), {"strides": [3, 3], "output_shape": [14, 15]}),
    ((1, 4, 7), (4, 6, 4), {"strides": [2], "pads": [1, 1]}),
]


@pytest.mark.parametrize(("x", "w", "attributes"), TRANSPOSED)
def test_conv_transpose(x, w, attributes):
    proto = build(
        [node("ConvTranspose", ["x", "w"], ["y"], **attributes)],
        {"x": x},
        ["y"],
        {"w": weights(*w)},
    )
    model = apply(proto, "lower_convs", "tidy_graph")
    assert ops(model) == ["sparsert.ConvTranspose"]
    assert_same(proto, model)


def test_dynamic_weights_stay():
    proto = build([node("Conv", ["x", "w"], ["y"])], {"x": (1, 2, 5, 5), "w": (3, 2, 3, 3)}, ["y"])
    model = apply(proto, "lower_convs")
    assert ops(model) == ["Conv"]
    assert_same(proto, model)
