"""Layers over planes that L2 does not hold, which take turns band by band."""

from __future__ import annotations

import pytest

import sparsert
from tests.suite.harness import ENGINES, NETWORK, Case, check, random_weights

# Planes of 4 MB are large for any L2, a few of their rows are small.
ONE_THREAD = [engine for engine in ENGINES if dict(engine.options).get("threads") == 1]
HEIGHT, WIDTH = 409, 61
WEIGHTS = {
    "narrow": random_weights(40, 2, 1, 1, sparsity=0.5),
    "point": random_weights(40, 40, 1, 1, sparsity=0.9),
    "bias": random_weights(40),
    "three": random_weights(40, 1, 3, 3),
    "five": random_weights(40, 1, 5, 5),
    "seven": random_weights(40, 1, 7, 4),
    "double": random_weights(80, 1, 3, 3),
    "wide": random_weights(24, 80, 1, 1, sparsity=0.7),
}
FIRST = "n = Conv(x, narrow)"
THREE = "Conv<group=40, pads=[1,1,1,1]>"
HALVES = "Conv<group=40, pads=[1,1,1,1], strides=[2,2]>"
FIVE = "Conv<group=40, pads=[2,2,2,2]>"
SEVEN = "Conv<group=40, pads=[3,1,3,2]>"
SPREAD = "Conv<group=40, pads=[3,3,3,3], dilations=[3,3]>"
SKIPS = "Conv<group=40, pads=[3,2,3,1], strides=[2,2]>"
# Name -> nodes, how many layers take turns.
GRAPHS = {
    "strides": ([FIRST, f"a = {THREE}(n, three, bias)", "b = Relu(a)", "c = Conv(b, point, bias)",
                 f"d = {HALVES}(c, three)", "e = Relu(d)", "y = Conv(e, point)"], 3),
    "five": ([FIRST, "a = Conv(n, point)", f"b = {FIVE}(a, five)", "y = Abs(b)"], 2),
    "any window": ([FIRST, "a = Conv(n, point)", f"b = {SEVEN}(a, seven)", "y = Abs(b)"], 2),
    "dilation": ([FIRST, "a = Conv(n, point)", f"b = {SPREAD}(a, three)", "y = Abs(b)"], 2),
    "any, strided": ([FIRST, "a = Conv(n, point)", f"b = {SKIPS}(a, seven)", "y = Abs(b)"], 2),
    "no padding": ([FIRST, "a = Conv<group=40>(n, three)", "y = Conv(a, point)"], 2),
    "multiplier": ([FIRST, f"a = {THREE}(n, double)", "y = Conv(a, wide)"], 2),
    "residual": ([FIRST, f"a = {THREE}(n, three)", "b = Conv(a, point)", "y = Add(n, b)"], 2),
    "read twice": ([FIRST, f"a = {THREE}(n, three)", "b = Conv(a, point)", "y = Add(a, b)"], 0),
}  # fmt: skip


def make(name: str) -> Case:
    """The case of one graph."""
    text = " ".join(GRAPHS[name][0])
    constants = {key: w for key, w in WEIGHTS.items() if key in text}
    inputs = {"x": [1, 2, HEIGHT, WIDTH]}
    return Case(name, GRAPHS[name][0], inputs, constants, tolerance=NETWORK)


@pytest.mark.parametrize("name", GRAPHS)
def test_layers_in_turns(name: str) -> None:
    case = make(name)
    check(case, ONE_THREAD)
    rows = sparsert.load(case.proto, threads=1, tune=False).explain().to_dict()["rows"]
    assert sum("in turns" in row["reason"] for row in rows) == GRAPHS[name][1]


@pytest.mark.parametrize(
    ("why", "batch", "height", "threads"),
    [
        ("several threads", 1, HEIGHT, 2),
        ("a batch", 3, HEIGHT, 1),
        ("small planes", 1, 19, 1),
        ("another layer reads the same", 1, HEIGHT, 1),
    ],
)
def test_why_layers_take_no_turns(why: str, batch: int, height: int, threads: int) -> None:
    nodes = list(GRAPHS["read twice" if "another" in why else "no padding"][0])
    if batch > 1:  # which mixes the images: others are run one by one
        nodes = [*nodes[:-1], nodes[-1].replace("y =", "z ="), "y = Transpose<perm=[1,0,2,3]>(z)"]
    constants = {key: w for key, w in WEIGHTS.items() if key in " ".join(nodes)}
    case = Case("why", nodes, {"x": [batch, 2, height, WIDTH]}, constants, tolerance=NETWORK)
    model = sparsert.load(case.proto, threads=threads, tune=False)
    reasons = [row["reason"] for row in model.explain().to_dict()["rows"]]
    said = [reason for reason in reasons if f"no turns with the layer before: {why}" in reason]
    assert said, reasons
    assert not any("in turns" in reason for reason in reasons)
