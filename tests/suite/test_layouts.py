"""Feature-major tensors: matrix products, norms and transposes between convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suite.harness import (
    ENGINES,
    NETWORK,
    Case,
    check,
    i64,
    random_weights,
    unique,
)

F, G, SIDE = 9, 20, 9  # features; 81 columns are no whole number of vectors

CONSTANTS = {
    "first": random_weights(F, 3, 3, 3),
    "dw": random_weights(F, 1, 3, 3, seed=1),
    "up": random_weights(F, G, sparsity=0.8),
    "down": random_weights(G, F, sparsity=0.8, seed=2),
    "turn": random_weights(SIDE * SIDE, 5, sparsity=0.5, seed=3),
    "bias": random_weights(G, scale=0.5),
    "gamma": random_weights(F, scale=1.0, seed=4),
    "place": random_weights(1, SIDE, SIDE, F, scale=1.0, seed=5),
    "row": random_weights(SIDE, 1, scale=1.0, seed=6),
    "slopes": random_weights(F, scale=0.5, seed=7),
    "eps": np.float32(1e-3),
    "last": i64(-1),
    "inner": i64(2),
    "tokens": i64(0, F, SIDE * SIDE),
    "flat": i64(0, -1),
    "line": i64(0, SIDE * SIDE, G),
    "grid": i64(0, SIDE, SIDE, F),
    "strip": i64(0, F, 3, -1),
    "first_axis": i64(1),
    "heads": i64(0, SIDE, SIDE, 3, 3),
    "indices": i64(3, 0, 2),
    "begin": i64(2),
    "end": i64(7),
    "axis": i64(3),
    "sizes": i64(F + 1, 1, F),
    "ten": random_weights(F + 1, F, sparsity=0.8, seed=9),
    "five": random_weights(5, F, sparsity=0.5, seed=10),
}

STEM = ["s = Conv<pads=[1,1,1,1]>(x, first)", "h = Transpose<perm=[0,2,3,1]>(s)"]
NORM = [
    "mean = ReduceMean(h, last)",
    "d = Sub(h, mean)",
    "sq = Mul(d, d)",
    "v = ReduceMean(sq, last)",
    "sd = Sqrt(v)",
    "q = Add(sd, eps)",
    "n = Div(d, q)",
    "g = Mul(n, gamma)",
]
BACK = ["t = Transpose<perm=[0,3,1,2]>(%)", "z = Add(t, s)", "y = Conv<group=9>(z, dw)"]


def back(value: str) -> list[str]:
    """From a feature-major tensor to the convolution's planes and its residual."""
    return [text.replace("%", value) for text in BACK]


GRAPHS = {
    "block": [*STEM, *NORM, "u = MatMul(g, up)", "b = Add(u, bias)", "e = Gelu(b)"]
    + ["m = MatMul(e, down)", *back("m")],
    "layer_norm": [*STEM, "g = LayerNormalization(h, gamma)", "u = MatMul(g, up)"]
    + ["y = ReduceMax<keepdims=0>(u, last)"],
    "norm": [*STEM, "g = LayerNormalization(h, gamma)", *back("g")],
    "columns": [*STEM, "u = MatMul(h, up)", "c = Reshape(u, line)", "r = Tanh(c)", "v = Add(r, c)"]
    + ["m = MatMul(v, down)", "g = Reshape(m, grid)", *back("g")],
    "columns_apart": [*STEM, "u = MatMul(h, up)", "c = Reshape(u, line)", "m = MatMul(c, down)"]
    + ["r = ReduceMax(c, first_axis)", "y = Add(c, r)", "z = Relu(m)"],
    "planes": [*STEM, "u = MatMul(h, up)", "m = MatMul(u, down)"]
    + ["t = Transpose<perm=[0,3,1,2]>(m)", "p = Reshape(t, strip)"]
    + ["y = Conv<group=9, pads=[1,1,1,1]>(p, dw)", "z = Reshape(p, tokens)"],
    "residual": [*STEM, "u = MatMul(h, up)", "m = MatMul(u, down)", "r = Add(m, h)", *back("r")],
    "softmax": [*STEM, "u = MatMul(h, up)", "p = Softmax<axis=-1>(u)", "m = MatMul(p, down)"]
    + ["l = LogSoftmax<axis=3>(m)", *back("l")],
    "prelu": [
        *STEM,
        "u = MatMul(h, up)",
        "m = MatMul(u, down)",
        "p = PRelu(m, slopes)",
        *back("p"),
    ],
    "output": [*STEM, "u = MatMul(h, up)", "y = MatMul(u, down)"],
    "inner_output": [*STEM, "y = MatMul(h, up)", "m = MatMul(y, down)", "z = Relu(m)"],
    "reshaped": [*STEM, "u = MatMul(h, up)", "m = MatMul(u, down)", "r = Reshape(m, heads)"]
    + ["y = Transpose<perm=[0,3,1,2,4]>(r)"],
    "flattened": [*STEM, "u = MatMul(h, up)", "e = Relu(u)", "y = Reshape(e, flat)"],
    "position": [
        *STEM,
        "p = Add(h, place)",
        "u = MatMul(p, up)",
        "m = MatMul(u, down)",
        *back("m"),
    ],
    "varies_by_row": [*STEM, "u = MatMul(h, up)", "m = MatMul(u, down)", "p = Mul(m, row)"]
    + back("p"),
    "other_axis": [*STEM, "u = MatMul(h, up)", "c = ReduceMean(u, inner)", "d = Sub(u, c)"]
    + ["m = MatMul(d, down)", *back("m")],
    "softmax_of_rows": [
        *STEM,
        "u = MatMul(h, up)",
        "p = Softmax<axis=2>(u)",
        "y = MatMul(p, down)",
    ],
    "gathered": [*STEM, "u = MatMul(h, up)", "e = Abs(u)", "y = Gather<axis=3>(e, indices)"],
    "sliced": [*STEM, "u = MatMul(h, up)", "p = Slice(u, begin, end, axis)", "y = Neg(p)"],
    "joined": [*STEM, "u = MatMul(h, up)", "m = MatMul(u, down)", "y = Concat<axis=3>(m, h)"],
    "split_channels": [*STEM, "a, b = Split<axis=1, num_outputs=2>(s)"]
    + ["p = Transpose<perm=[0,2,3,1]>(b)", "o = Concat<axis=3>(p, h)", "c = Concat<axis=1>(b, s)"]
    + ["k = Transpose<perm=[0,2,3,1]>(c)", "i = Neg(k)", "y = MatMul(i, long)"],
    "other_transposes": [*STEM, "u = MatMul(h, up)", "p = Transpose<perm=[0,2,1,3]>(u)"]
    + ["m = MatMul(p, down)", "y = Transpose<perm=[1,0,2,3]>(m)"],
    "mixer": ["s = Conv<pads=[1,1,1,1]>(x, first)", "c = Reshape(s, tokens)", "k = MatMul(c, turn)"]
    + ["e = Relu(k)", "h = Transpose<perm=[0,2,1]>(c)", "u = MatMul(h, up)", "r = Tanh(u)"]
    + ["m = MatMul(r, down)", "o = Add(m, h)", "y = Transpose<perm=[0,2,1]>(o)"],
    "gated": [*STEM, "u = MatMul(h, up)", "a, b, c = Split<axis=-1>(u, sizes)", "e = Gelu(a)"]
    + ["p = Transpose<perm=[0,3,1,2]>(c)", "k = Conv<group=9, pads=[1,1,1,1]>(p, dw)"]
    + ["r = Transpose<perm=[0,2,3,1]>(k)", "j = Concat<axis=-1>(b, r)", "v = Mul(e, j)"]
    + ["m = MatMul(v, ten)", *back("m")],
    "joined_again": [*STEM, "u = MatMul(h, up)", "m = MatMul(u, down)", "b = Abs(m)"]
    + ["c = Concat<axis=3>(m, b)", "d = Neg(c)", "k = Concat<axis=-1>(c, d)", "e = Tanh(k)"]
    + ["a, v = Split<axis=3, num_outputs=2>(e)", "r = Concat<axis=3>(a, v)"]
    + ["y = MatMul(r, wide)"],
    "part_of_features": [*STEM, "u = MatMul(h, up)", "p = Slice(u, begin, end, axis)"]
    + ["n = Neg(p)", "m = MatMul(p, five)", "q = MatMul(n, five)", "o = Mul(m, q)", *back("o")],
    "from_the_input": ["h = Transpose<perm=[0,2,3,1]>(w)", "u = MatMul(h, up)", "y = Relu(u)"],
}
OUTPUTS = {"inner_output": ("y", "z"), "split_channels": ("y", "o"), "mixer": ("y", "e")}
OUTPUTS |= {"columns_apart": ("y", "z"), "planes": ("y", "z")}


def make(name: str, batch: int) -> Case:
    """The case of a graph."""
    nodes = GRAPHS[name]
    words = " ".join(nodes).replace("(", " ").replace(")", " ").replace(",", " ").split()
    constants = {k: v for k, v in CONSTANTS.items() if k in words}
    if "long" in words:
        constants["long"] = random_weights(F // 2 + F, 6, seed=8)
    if "wide" in words:
        constants["wide"] = random_weights(4 * F, 6, sparsity=0.8, seed=8)
    inputs = {"w": (batch, F, SIDE, SIDE)} if "(w)" in nodes[0] else {"x": (batch, 3, SIDE, SIDE)}
    return Case(
        f"{name}_{batch}",
        nodes,
        inputs,
        constants,
        outputs=OUTPUTS.get(name, ("y",)),
        tolerance=NETWORK,
    )


# Of a matrix: its rows become columns between products, whatever else reads them.
MATRICES = {
    "perceptron": ["u = Gemm<transA=0, transB=0>(x, up, bias)", "e = Gelu(u)"]
    + ["m = MatMul(e, down)", "o = Add(m, x)", "k = MatMul(o, up)", "r = Relu(k)"]
    + ["q = Mul(r, bias)", "y = MatMul(q, down)"],
    "branches": ["u = MatMul(x, up)", "m = MatMul(u, down)", "p = PRelu(m, slopes)"]
    + ["a = Softmax<axis=-1>(m)", "b = Mul(p, a)", "k = MatMul(b, up)", "l = MatMul(k, down)"]
    + ["c = Concat<axis=1>(k, l)", "n = Neg(l)", "v = ReduceMean(n, last)", "d = Sub(n, v)"]
    + ["y = MatMul(d, up)"],
    "transposed": ["u = MatMul(x, up)", "t = Transpose(u)", "s = Neg(t)", "m = MatMul(u, down)"]
    + ["h = Tanh(m)", "y = MatMul(h, up)"],
}
MATRIX_OUTPUTS = {"branches": ("y", "c", "p"), "transposed": ("s", "y")}


def make_matrix(name: str) -> Case:
    """The case of a graph of matrices, of fewer rows than become columns and of more."""
    words = " ".join(MATRICES[name]).replace("(", " ").replace(")", " ").replace(",", " ").split()
    return Case(
        name,
        MATRICES[name],
        {"x": ["n", F]},
        {k: v for k, v in CONSTANTS.items() if k in words},
        outputs=MATRIX_OUTPUTS.get(name, ("y",)),
        sizes=[{"n": n} for n in (15, 16, 33, 144, 513)],
        tolerance=NETWORK,
    )


CASES = unique([make(name, batch) for name in GRAPHS for batch in (1, 2)])
CASES += [make_matrix(name) for name in MATRICES]
BY_NAME = {made.name: made for made in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layouts(case: Case) -> None:
    check(case)


NO_COPIES = ["block_1", "block_2", "residual_1", "softmax_2", "prelu_1", "norm_2", "columns_1"]
NO_COPIES += ["columns_2"]


@pytest.mark.parametrize("name", NO_COPIES)
def test_a_block_copies_nothing(name: str) -> None:
    rows = BY_NAME[name].load(ENGINES[-1]).explain().to_dict()["rows"]
    for row in rows:
        if row["op"] in ("Transpose", "Reshape"):
            assert row["compute_format"] == "view"
        if row["op"] == "Linear":
            assert row["step_count"] == 1
        assert "copy" not in row["kernel"]


@pytest.mark.parametrize(
    ("name", "op"), [("gated_1", "Split"), ("gated_2", "Split"), ("part_of_features_2", "Slice")]
)
def test_parts_of_features_are_views(name: str, op: str) -> None:
    rows = BY_NAME[name].load(ENGINES[-1]).explain().to_dict()["rows"]
    assert [row["compute_format"] for row in rows if row["op"] == op] == ["view"]
    assert all(row["step_count"] == 1 for row in rows if row["op"] == "Linear")


def test_features_are_written_in_place() -> None:
    rows = BY_NAME["joined_again_2"].load(ENGINES[-1]).explain().to_dict()["rows"]
    assert all(row["step_count"] == 0 for row in rows if row["op"] in ("Concat", "Split"))


def test_planes_keep_their_stride_in_another_shape() -> None:
    rows = BY_NAME["planes_2"].load(ENGINES[-1]).explain().to_dict()["rows"]
    first = next(row for row in rows if row["op"] == "Reshape")
    assert first["compute_format"] == "view"


def test_products_of_matrices_copy_their_ends() -> None:
    model = BY_NAME["perceptron"].load(ENGINES[-1])
    model.run(None, {"x": np.ones((33, F), np.float32)})
    rows = model.explain().to_dict()["rows"]
    # The first one brings x into columns, the second one as its residual, the last one y back.
    assert [row["step_count"] for row in rows if row["op"] == "Linear"] == [2, 2, 1, 2]


@pytest.mark.parametrize("name", ["varies_by_row_1", "other_axis_1", "joined_1"])
def test_other_users_keep_rows(name: str) -> None:
    rows = BY_NAME[name].load(ENGINES[-1]).explain().to_dict()["rows"]
    assert any(row["op"] == "Linear" and row["step_count"] > 1 for row in rows)
