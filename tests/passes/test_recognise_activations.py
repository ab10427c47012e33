"""recognise_activations: decomposed activations become one operator, in any order of factors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops

PASSES = ("recognise_activations", "tidy_graph")


def scalar(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


C = {
    "half": scalar(0.5),
    "one": scalar(1),
    "two": scalar(2),
    "three": scalar(3),
    "six": scalar(6),
    "sixth": scalar(1 / 6),
    "zero": scalar(0),
    "root2": scalar(math.sqrt(2)),
    "root_half": scalar(math.sqrt(0.5)),
    "root_2_pi": scalar(math.sqrt(2 / math.pi)),
    "cubic": scalar(0.044715),
    "scale": scalar(1.702),
}
CLIP = [node("Add", ["x", "three"], ["s"]), node("Clip", ["s", "zero", "six"], ["c"])]
ERF = [
    node("Div", ["x", "root2"], ["d"]),
    node("Erf", ["d"], ["e"]),
    node("Add", ["e", "one"], ["f"]),
]
TANH = [
    node("Pow", ["x", "three"], ["p"]),
    node("Mul", ["p", "cubic"], ["q"]),
    node("Add", ["x", "q"], ["r"]),
    node("Mul", ["r", "root_2_pi"], ["s"]),
    node("Tanh", ["s"], ["t"]),
    node("Add", ["one", "t"], ["f"]),
]
CASES = {
    "silu": ("Swish", [node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])]),
    "silu swapped": ("Swish", [node("Sigmoid", ["x"], ["s"]), node("Mul", ["s", "x"], ["y"])]),
    "quick gelu": (
        "Swish",
        [
            node("Mul", ["x", "scale"], ["m"]),
            node("Sigmoid", ["m"], ["s"]),
            node("Mul", ["x", "s"], ["y"]),
        ],
    ),
    "hard sigmoid": ("HardSigmoid", [*CLIP, node("Div", ["c", "six"], ["y"])]),
    "hard swish gate first": (
        "HardSwish",
        [*CLIP, node("Div", ["c", "six"], ["g"]), node("Mul", ["x", "g"], ["y"])],
    ),
    "hard swish divided last": (
        "HardSwish",
        [*CLIP, node("Mul", ["x", "c"], ["g"]), node("Mul", ["g", "sixth"], ["y"])],
    ),
    "hard swish of HardSigmoid": (
        "HardSwish",
        [node("HardSigmoid", ["x"], ["h"], alpha=1 / 6, beta=0.5), node("Mul", ["x", "h"], ["y"])],
    ),
    "gelu half first": (
        "Gelu",
        [*ERF, node("Mul", ["x", "half"], ["h"]), node("Mul", ["h", "f"], ["y"])],
    ),
    "gelu half last": (
        "Gelu",
        [*ERF, node("Mul", ["x", "f"], ["h"]), node("Mul", ["half", "h"], ["y"])],
    ),
    "gelu multiplied": (
        "Gelu",
        [
            node("Mul", ["x", "root_half"], ["d"]),
            *ERF[1:],
            node("Mul", ["f", "half"], ["h"]),
            node("Mul", ["x", "h"], ["y"]),
        ],
    ),
    "gelu tanh": (
        "Gelu",
        [*TANH, node("Mul", ["x", "half"], ["h"]), node("Mul", ["h", "f"], ["y"])],
    ),
    "mish": (
        "Mish",
        [
            node("Softplus", ["x"], ["s"]),
            node("Tanh", ["s"], ["t"]),
            node("Mul", ["x", "t"], ["y"]),
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_recognised(case):
    op, nodes = CASES[case]
    used = {name for n in nodes for name in n.input}
    constants = {k: v for k, v in C.items() if k in used}
    proto = build(nodes, {"x": (2, 3, 50)}, ["y"], constants)
    model = apply(proto, *PASSES)
    assert ops(model) == [op]
    assert_same(proto, model)


def test_other_products_stay():
    nodes = [node("Sigmoid", ["z"], ["s"]), node("Mul", ["x", "s"], ["y"])]
    proto = build(nodes, {"x": (2, 3), "z": (2, 3)}, ["y"])
    assert ops(apply(proto, *PASSES)) == ["Sigmoid", "Mul"]
