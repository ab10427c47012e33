"""lower_col2ims: overlapping windows are added up by a transposed convolution."""

from __future__ import annotations

import numpy as np
import pytest

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, build, node

# (image, block, attributes)
CASES = [
    ([5, 5], [1, 5], {}),
    ([5, 5], [2, 2], {}),
    ([6, 7], [3, 2], {"strides": [2, 3]}),
    ([5, 6], [2, 3], {"pads": [1, 0, 2, 1]}),
    ([9, 8], [2, 3], {"dilations": [3, 2], "pads": [1, 1, 1, 1]}),
    ([7, 7], [2, 2], {"strides": [2, 2]}),
]


@pytest.mark.parametrize(("image", "block", "attributes"), CASES)
@pytest.mark.parametrize("batch", [1, 3, "n"])
def test_col2im(image, block, attributes, batch):
    strides = attributes.get("strides", [1, 1])
    pads = attributes.get("pads", [0] * 4)
    dilations = attributes.get("dilations", [1, 1])
    windows = 1
    for i in range(2):
        span = image[i] + pads[i] + pads[2 + i] - (block[i] - 1) * dilations[i] - 1
        windows *= span // strides[i] + 1
    proto = build(
        [node("Col2Im", ["x", "i", "b"], ["y"], **attributes)],
        {"x": (batch, 3 * block[0] * block[1], windows)},
        ["y"],
        {"i": np.array(image), "b": np.array(block)},
    )
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model, {"n": 2})


def test_three_axes_are_left_alone():
    proto = build(
        [node("Col2Im", ["x", "i", "b"], ["y"])],
        {"x": (1, 8, 8)},
        ["y"],
        {"i": np.array([3, 3, 3]), "b": np.array([2, 2, 2])},
    )
    assert len(native_report(apply(proto))) == 1
