"""Tensors between 1 x 1 convolutions, which lie in tiles of columns."""

from __future__ import annotations

import platform
import random

import numpy as np
import pytest

import sparsert
from tests.suite.harness import ENGINES, NETWORK, Case, check, random_weights

KNOWS_TILES = platform.machine() in ("x86_64", "AMD64")
HEIGHT, WIDTH = 17, 19
WEIGHTS = {
    "first": random_weights(24, 3, 3, 3, sparsity=0.5),
    "wide": random_weights(40, 24, 1, 1, sparsity=0.8),
    "narrow": random_weights(24, 40, 1, 1, sparsity=0.9),
    "square": random_weights(40, 40, 1, 1, sparsity=0.7),
    "three": random_weights(24, 24, 3, 3, sparsity=0.8),
    "grouped": random_weights(24, 10, 1, 1, sparsity=0.5),
    "line": random_weights(24, 3, 3, sparsity=0.5),
    "thin": random_weights(40, 24, 1, sparsity=0.8),
    "bias": random_weights(40),
}
FIRST = "n = Conv<pads=[1,1,1,1]>(x, first)"
THREE = "Conv<pads=[1,1,1,1]>"
EVEN = "Conv<strides=[2,2]>"
# A bottleneck that ends the stage before, and those of a stage, whose first one subsamples.
STAGE = [FIRST, "a = Conv(n, wide, bias)", "b = Relu(a)", "c = Conv(b, narrow)", "d = Relu(c)",
         f"e = {THREE}(d, three)", "f = Relu(e)", "g = Conv(f, wide, bias)", "h = Add(g, b)",
         "i = Relu(h)"]  # fmt: skip
# Name -> nodes, how many tensors lie in tiles: n is one of them where 1 x 1 layers alone read it.
GRAPHS = {
    "chain": ([FIRST, "a = Conv(n, wide, bias)", "b = Relu(a)", "y = Conv(b, narrow)"], 2),
    "residual": ([*STAGE, "y = Conv(i, narrow)"], 4),
    "residual that is read again": ([*STAGE, "j = Conv(i, square)", "k = Add(j, i)",
                                     "y = Conv(k, narrow)"], 5),
    "strided": ([FIRST, "a = Conv(n, wide)", f"y = {EVEN}(a, narrow)"], 2),
    "strided in one dimension": (
        [FIRST, "a = Conv(n, wide)", "y = Conv<strides=[1,3]>(a, narrow)"], 2),
    "strided of planes": ([FIRST, f"a = {THREE}(n, three)", "b = Sigmoid(a)", "c = Add(b, n)",
                           f"y = {EVEN}(c, wide)"], 0),
    "strided with a residual": ([FIRST, "a = Conv(n, wide)", f"b = {EVEN}(a, square)",
                                 f"c = {EVEN}(a, square, bias)", "d = Add(b, c)", "e = Relu(d)",
                                 "y = Conv(e, narrow)"], 2),
    "strided by groups": ([FIRST, "a = Conv(n, wide)",
                           "y = Conv<strides=[2,2], group=4>(a, grouped)"], 1),
    "read by a 3x3 layer": (
        [FIRST, "a = Conv(n, wide)", "b = Conv(a, narrow)", f"y = {THREE}(b, three)"], 2),
    "read by another op": ([FIRST, "a = Conv(n, wide)", "b = Conv(a, square)",
                            "c = GlobalMaxPool(a)", "y = Add(b, c)"], 1),
    "overwrites planes": ([FIRST, f"a = {THREE}(n, three)", "b = Conv(a, wide)", "p = Abs(n)",
                           "c = Conv(p, wide)", "d = Add(b, c)", "y = Conv(d, narrow)"], 3),
}  # fmt: skip


def make(name: str, nodes: list[str], batch: int = 1, height: int = HEIGHT) -> Case:
    text = " ".join(nodes)
    constants = {key: w for key, w in WEIGHTS.items() if f"{key}" in text.replace("=", " ")}
    return Case(name, nodes, {"x": [batch, 3, height, WIDTH]}, constants, tolerance=NETWORK)


def tiled(case: Case) -> int:
    rows = sparsert.load(case.proto, threads=1, tune=False).explain().to_dict()["rows"]
    return sum("writes tiles" in row["reason"] for row in rows)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", GRAPHS)
def test_tensors_in_tiles(name: str, batch: int) -> None:
    check(make(name, GRAPHS[name][0], batch), ENGINES)


# With one format, all layers cut the same columns into the same tiles.
@pytest.mark.parametrize("format_", ["csr", "csr2", "pat4", "bsr4", "dense"])
@pytest.mark.parametrize("name", GRAPHS)
def test_how_many_lie_in_tiles(name: str, format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSERT_FORMAT", format_)
    case = make(name, GRAPHS[name][0])
    check(case, ENGINES)
    if format_ == "csr":
        assert tiled(case) == (GRAPHS[name][1] if KNOWS_TILES else 0)


# Planes that a Reshape leaves without padding, of fewer floats than a piece is picked from.
@pytest.mark.parametrize(("height", "width"), [(1, 2), (2, 2), (3, 5), (5, 7)])
def test_strided_layers_of_planes_without_padding(height: int, width: int) -> None:
    nodes = ["s = Abs(x)", "n = Reshape(s, shape)", f"y = {EVEN}(n, wide)"]
    constants = {"wide": WEIGHTS["wide"], "shape": np.array([1, 24, height, width])}
    case = Case("plain", nodes, {"x": [24, height * width]}, constants, tolerance=NETWORK)
    check(case, ENGINES)


def test_layers_in_tiles_take_no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    if not KNOWS_TILES:
        pytest.skip("tensors lie in planes")
    monkeypatch.setenv("SPARSERT_FORMAT", "csr")
    rows = sparsert.load(make("chain", GRAPHS["chain"][0]).proto, threads=1, tune=False)
    reasons = [row["reason"] for row in rows.explain().to_dict()["rows"]]
    assert any("no turns with the layer before: tensors in tiles" in reason for reason in reasons)


def test_small_planes_stay_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSERT_FORMAT", "csr")
    assert tiled(make("small", GRAPHS["chain"][0], height=5)) == 0


def test_sequences_lie_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = ["n = Conv<pads=[1,1]>(x, line)", "a = Conv(n, thin)", "y = Abs(a)"]
    constants = {key: WEIGHTS[key] for key in ("line", "thin")}
    case = Case("line", nodes, {"x": [2, 3, 333]}, constants, tolerance=NETWORK)
    check(case, ENGINES)
    monkeypatch.setenv("SPARSERT_FORMAT", "csr")
    assert tiled(case) == (1 if KNOWS_TILES else 0)


# Densities and channels decide which tiles a layer takes by itself: those of X and R may differ.
@pytest.mark.parametrize("seed", range(60))
def test_layers_that_would_take_other_tiles(seed: int) -> None:
    choose = random.Random(seed)
    a, b, c, d = (choose.choice([8, 16, 24, 48, 64, 96, 128]) for _ in range(4))
    shapes = {"w1": (b, a), "w2": (c, a), "w3": (c, b), "w4": (d, c)}
    constants = {
        name: random_weights(
            *shape, 1, 1, sparsity=choose.choice([0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
        )
        for name, shape in shapes.items()
    }
    constants["w0"] = random_weights(a, 3, 3, 3, sparsity=0.5)
    nodes = ["n = Conv<pads=[1,1,1,1]>(x, w0)", "a = Conv(n, w1)", "b = Conv(n, w2)",
             "c = Conv(a, w3)", "d = Add(c, b)", "y = Conv(d, w4)"]  # fmt: skip
    inputs = {"x": [1, 3, choose.randint(10, 40), choose.randint(10, 60)]}
    check(Case(f"tiles {seed}", nodes, inputs, constants, tolerance=NETWORK), ENGINES)


# 1 x 1, 3 x 3 and strided layers, sums and activations that read one of the last three tensors.
@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed: int) -> None:
    choose = random.Random(seed)
    channels = [choose.choice([3, 8, 17, 24, 40, 64, 130]) for _ in range(3)]
    constants = {"w0": random_weights(channels[0], 3, 3, 3)}
    nodes = ["t0 = Conv<pads=[1,1,1,1]>(x, w0)"]
    height, width = choose.randint(3, 40), choose.randint(3, 60)
    tensors = [(channels[0], height, width)]
    for t in range(1, choose.randint(4, 12)):
        source = choose.randrange(max(0, t - 3), t)
        from_, rows, columns = tensors[source]
        to = choose.choice(channels)
        kind = choose.choice(["1x1", "1x1", "1x1", "3x3", "strided", "sum", "relu"])
        if kind == "sum":
            same = [i for i, shape in enumerate(tensors) if shape == tensors[source]]
            nodes.append(f"t{t} = Add(t{source}, t{choose.choice(same)})")
            to = from_
        elif kind == "relu":
            nodes.append(f"t{t} = Relu(t{source})")
            to = from_
        else:
            size = 3 if kind == "3x3" else 1
            down, across = choose.choice([(2, 2), (1, 2), (2, 1), (3, 2)])
            attributes = "<pads=[1,1,1,1]>" if kind == "3x3" else ""
            if kind == "strided":
                attributes = f"<strides=[{down},{across}]>"
                rows, columns = -(-rows // down), -(-columns // across)
            sparsity = choose.choice([0, 0.5, 0.8, 0.9, 0.95])
            constants[f"w{t}"] = random_weights(to, from_, size, size, sparsity=sparsity)
            nodes.append(f"t{t} = Conv{attributes}(t{source}, w{t})")
        tensors.append((to, rows, columns))
    nodes.append(f"y = Identity(t{len(tensors) - 1})")
    inputs = {"x": [choose.choice([1, 1, 2, 5]), 3, height, width]}
    check(Case(f"random {seed}", nodes, inputs, constants, tolerance=NETWORK), ENGINES)
