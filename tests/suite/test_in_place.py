"""Outputs that take the memory of an input: only where nobody reads that input any more."""

from __future__ import annotations

import numpy as np
import pytest

import sparsert
from tests.suite.harness import NETWORK, Case, check, random_weights, unique

SIDE = 19
WEIGHTS = {
    "first": random_weights(16, 3, 3, 3),
    "a": random_weights(16, 16, 1, 1, sparsity=0.8),
    "b": random_weights(16, 16, 3, 3, sparsity=0.8),
    "depthwise": random_weights(16, 1, 3, 3),
    "column": random_weights(16, 1, 1),
    "rest": np.array([2, 16, SIDE * SIDE]),
    "back": np.array([2, 16, SIDE, SIDE]),
}
STEM = "s = Conv<pads=[1,1,1,1]>(x, first)"
# The Add is fused into the convolution before it: its other operand is the residual.
GRAPHS = {
    "residual": ["p = Conv(s, a)", "q = Relu(p)", "r = Conv(q, a)", "y = Add(r, s)"],
    "residual that is the input": ["p = Conv(s, a)", "y = Add(p, s)"],
    "residual used again": ["p = Conv(s, a)", "q = Relu(p)", "r = Conv(q, a)", "t = Add(r, s)"]
    + ["y = Mul(t, s)"],
    "residual of a 3x3": ["p = Relu(s)", "r = Conv<pads=[1,1,1,1]>(p, b)", "t = Add(r, s)"]
    + ["u = Relu(t)", "y = Conv(u, a)"],
    "residual of a depthwise layer": ["p = Relu(s)"]
    + ["r = Conv<pads=[1,1,1,1], group=16>(p, depthwise)", "t = Add(r, s)", "y = Conv(t, a)"],
    "chain of blocks": ["p = Conv(s, a)", "q = Conv(p, a)", "t = Add(q, s)"]
    + ["u = Conv(t, a)", "v = Conv(u, a)", "w = Add(v, t)", "y = Relu(w)"],
    "residual seen under another shape": ["p = Conv(s, a)", "q = Relu(p)", "r = Conv(q, a)"]
    + ["v = Reshape(s, rest)", "t = Add(r, s)", "m = Reshape(t, rest)", "y = Mul(m, v)"],
    "unary": ["p = Sigmoid(s)", "q = Tanh(p)", "y = Add(q, q)"],
    "unary used again": ["p = Sigmoid(s)", "q = Tanh(p)", "y = Add(p, q)"],
    "product with itself": ["p = Sigmoid(s)", "q = Mul(p, p)", "y = Sub(q, column)"],
    "second operand": ["p = Sigmoid(s)", "q = Sub(column, p)", "y = Tanh(q)"],
    "operand broadcast from the same memory": ["g = GlobalAveragePool(s)", "p = Mul(s, g)"]
    + ["y = Sub(p, g)"],
    "view as an operand": ["p = Sigmoid(s)", "f = Reshape(p, rest)", "g = Reshape(f, back)"]
    + ["q = Mul(g, p)", "y = Add(q, g)"],
    "graph output": ["p = Conv(s, a)", "q = Conv(p, a)", "z = Add(q, s)", "y = Relu(z)"],
}
CASES = unique(
    [
        Case(
            name,
            [STEM, *nodes],
            {"x": [2, 3, SIDE, SIDE]},
            {k: v for k, v in WEIGHTS.items() if any(k in text for text in [STEM, *nodes])},
            outputs=("y", "z") if any(text.startswith("z ") for text in nodes) else ("y",),
            tolerance=NETWORK,
        )
        for name, nodes in GRAPHS.items()
    ]
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_in_the_memory_of_inputs(case):
    check(case)


def arena_bytes(nodes: list[str]) -> int:
    case = Case("arena", [STEM, *nodes], {"x": [1, 3, 64, 64]}, WEIGHTS)
    model = sparsert.load(case.proto, threads=1)
    return int(model._backend.memory()["arena_bytes"])


def test_a_residual_is_overwritten():
    """Three tensors of a block live at once: with a fourth for the sum, the arena would grow."""
    block = ["p = Conv(s, a)", "q = Conv(p, a)", "t = Add(q, s)", "y = GlobalAveragePool(t)"]
    chain = ["p = Conv(s, a)", "q = Conv(p, a)", "y = GlobalAveragePool(q)"]
    plane = 16 * 64 * 64 * 4
    assert arena_bytes(block) < arena_bytes(chain) + plane / 2
