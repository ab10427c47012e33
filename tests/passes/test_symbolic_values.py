"""infer_shapes follows shapes through the arithmetic that exporters do with them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.pass_checks import apply, build, node

CONSTANTS = {
    "zero": np.array(0),
    "one": np.array(1),
    "i0": np.array([0]),
    "i1": np.array([1]),
    "far": np.array([2**62]),
    "heads": np.array([4]),
    "rest": np.array([-1]),
    "two": np.array([2]),
    "twelve": np.array([12]),
    "table": np.zeros((1, 512), np.float32),
}
DIMS = [
    node("Shape", ["x"], ["shape"]),
    node("Gather", ["shape", "one"], ["tokens"], axis=0),
    node("Unsqueeze", ["tokens", "i0"], ["n"]),
]
CASES = {
    "reshape": (
        [
            *DIMS,
            node("Concat", ["i1", "n", "heads", "rest"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["y"]),
        ],
        [1, "s", 4, 6],
    ),
    "flattened": (
        [node("Concat", ["rest", "heads"], ["t"], axis=0), node("Reshape", ["x", "t"], ["y"])],
        ["6*(s)", 4],
    ),
    "slice": ([*DIMS, node("Slice", ["table", "i0", "n", "i1"], ["y"])], [1, "s"]),
    "whole_slice": ([node("Slice", ["x", "i0", "far", "i1"], ["y"])], [1, "s", 24]),
    "expand": (
        [
            *DIMS,
            node("Concat", ["heads", "n", "i1"], ["target"], axis=0),
            node("Expand", ["x", "target"], ["y"]),
        ],
        [4, "s", 24],
    ),
    "product": (
        [
            *DIMS,
            node("Mul", ["n", "two"], ["m"]),
            node("Concat", ["m", "twelve"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        ["2*(s)", 12],
    ),
    "transpose": ([node("Transpose", ["x"], ["y"], perm=[2, 0, 1])], [24, 1, "s"]),
}


@pytest.mark.parametrize("name", CASES)
def test_shape(name):
    nodes, expected = CASES[name]
    used = {i for one in nodes for i in one.input}
    constants = {key: value for key, value in CONSTANTS.items() if key in used}
    model = apply(build(nodes, {"x": (1, "s", 24)}, ["y"], constants), "infer_shapes")
    (output,) = model.graph.outputs
    assert [d if isinstance(d, int) else d.value for d in output.shape] == expected
