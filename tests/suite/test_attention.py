"""Attention as exporters spell it out: scales, masks, layouts, sizes; fused or not, it is right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto

import sparsert
from tests.suite.harness import ENGINES, FUNCTION, Case, check, i64, random_weights, unique

HEADS, SIZE = 3, 8
WIDTH = HEADS * SIZE
CONSTANTS = {
    "split": i64(0, -1, HEADS, SIZE),
    "join": i64(0, -1, WIDTH),
    "scale": np.float32(1 / math.sqrt(SIZE)),
    "root": np.float32(math.sqrt(SIZE)),
    "half": np.float32(SIZE**-0.25),
    "wq": random_weights(WIDTH, WIDTH, sparsity=0.5, scale=0.6),
    "wk": random_weights(WIDTH, WIDTH, sparsity=0.5, scale=0.6, seed=1),
    "wv": random_weights(WIDTH, WIDTH, sparsity=0.5, seed=2),
    "wo": random_weights(WIDTH, WIDTH, sparsity=0.5, seed=3),
    "first_two": i64(0, 1),
    "rest": i64(-1),
    "zero": np.float32(0),
    "low": np.float32(-1e9),
    "inf": np.float32(-np.inf),
}
SELF = ["q = MatMul(x, wq)", "k = MatMul(x, wk)", "v = MatMul(x, wv)"]
CROSS = ["q = MatMul(x, wq)", "k = MatMul(z, wk)", "v = MatMul(z, wv)"]
SPLIT = ["rq = Reshape(q, split)", "rk = Reshape(k, split)", "rv = Reshape(v, split)"]
HEADS_FIRST = ["hq = Transpose<perm=[0,2,1,3]>(rq)", "hv = Transpose<perm=[0,2,1,3]>(rv)"]
KEYS = {
    "one": ["hk = Transpose<perm=[0,2,3,1]>(rk)"],
    "two": ["tk = Transpose<perm=[0,2,1,3]>(rk)", "hk = Transpose<perm=[0,1,3,2]>(tk)"],
}
SCALES = {
    "mul": ["s = MatMul(hq, hk)", "t = Mul(s, scale)"],
    "div": ["s = MatMul(hq, hk)", "t = Div(s, root)"],
    "query": ["sq = Mul(hq, scale)", "t = MatMul(sq, hk)"],
    "both": ["sq = Mul(hq, half)", "sk = Mul(hk, half)", "t = MatMul(sq, sk)"],
    "none": ["t = MatMul(hq, hk)"],
}
# Name -> nodes that turn t into u, and the mask's input.
MASKS: dict[str, tuple[list[str], dict[str, object]]] = {
    "none": (["u = Identity(t)"], {}),
    "keys": (["u = Add(t, m)"], {"m": ["n", 1, 1, "t"]}),
    "keys_first": (["u = Add(m, t)"], {"m": [1, 1, 1, "t"]}),
    "all": (["u = Add(t, m)"], {"m": ["n", HEADS, "s", "t"]}),
    "shared": (["u = Add(t, m)"], {"m": ["s", "t"]}),
    "heads": (["u = Add(t, m)"], {"m": [1, HEADS, "s", 1]}),
    "bool": (
        ["c = Where(m, zero, low)", "u = Add(t, c)"],
        {"m": (TensorProto.BOOL, ["n", 1, "s", "t"])},
    ),
    "two": (
        ["a = Add(t, b)", "u = Add(m, a)"],
        {"m": ["n", 1, 1, "t"], "b": [1, HEADS, "s", "t"]},
    ),
    "bool_inf": (
        ["c = Where(m, zero, inf)", "u = Add(c, t)"],
        {"m": (TensorProto.BOOL, ["n", 1, "s", "t"])},
    ),
}
END = ["p = Softmax<axis=-1>(u)", "o = MatMul(p, hv)"]
# torch's own attention makes zeros of a softmax of nothing.
SAFE_END = [
    "p = Softmax<axis=-1>(u)",
    "nan = IsNaN(p)",
    "r = Where(nan, zero, p)",
    "o = MatMul(r, hv)",
]
JOIN = ["to = Transpose<perm=[0,2,1,3]>(o)", "jo = Reshape(to, join)", "y = MatMul(jo, wo)"]
SIZES = [(1, 1, 1), (1, 20, 20), (1, 5, 33), (2, 70, 65), (3, 4, 7), (1, 130, 300), (2, 64, 16)]


def case(name: str, nodes: list[str], inputs: dict[str, object], cross: bool = True) -> Case:
    """An attention over x and z, or over x alone."""
    sizes = [{"n": n, "s": s, "t": t if cross else s} for n, s, t in SIZES]
    named = {"x": ["n", "s", WIDTH], **({"z": ["n", "t", WIDTH]} if cross else {})}
    if not cross:
        inputs = {
            key: (v[0], ["s" if d == "t" else d for d in v[1]])
            if isinstance(v, tuple)
            else ["s" if d == "t" else d for d in v]  # type: ignore[attr-defined]
            for key, v in inputs.items()
        }
    return Case(name, nodes, {**named, **inputs}, CONSTANTS, sizes=sizes, tolerance=FUNCTION)


def cases() -> list[Case]:
    """Every scale and mask once, over itself and over another sequence."""
    found = []
    for i, (scale, scaled) in enumerate(SCALES.items()):
        keys = KEYS["two" if i % 2 else "one"]
        nodes = [*SELF, *SPLIT, *HEADS_FIRST, *keys, *scaled, "u = Identity(t)", *END, *JOIN]
        found.append(case(f"scale_{scale}", nodes, {}, cross=False))
    for mask, (masked, inputs) in MASKS.items():
        for cross in (False, True):
            nodes = [*(CROSS if cross else SELF), *SPLIT, *HEADS_FIRST, *KEYS["one"]]
            nodes += [*SCALES["mul"], *masked, *END, *JOIN]
            found.append(case(f"mask_{mask}_{'cross' if cross else 'self'}", nodes, inputs, cross))
    split = [*CROSS, *SPLIT, *HEADS_FIRST, *KEYS["one"]]
    for mask in ("none", "bool_inf", "keys", "two"):
        masked, inputs = MASKS[mask]
        nodes = [*split, *SCALES["both"], *masked, *SAFE_END, *JOIN]
        found.append(case(f"safe_{mask}", nodes, inputs))
    # The width of the result follows from the number of elements, as its shape does.
    join = ["to = Transpose<perm=[0,2,1,3]>(o)", "sh = Shape(to)", "d = Gather(sh, first_two)"]
    join += ["w = Concat<axis=0>(d, rest)", "jo = Reshape(to, w)", "y = MatMul(jo, wo)"]
    found.append(
        case(
            "joined_by_shape",
            [*split, *SCALES["mul"], *MASKS["all"][0], *END, *join],
            MASKS["all"][1],
        )
    )
    return found


CASES = unique(cases())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention(case: Case) -> None:
    check(case)


def windows(images: int, mask_shape: tuple[int, ...]) -> Case:
    """Attention in four windows per image, each with a mask of its own on top of a bias."""
    rows = (4 * images, HEADS, 5, SIZE)
    nodes = ["t = MatMul(q, k)", "b = Add(t, bias)", "g = Reshape(b, apart)", "m = Add(mask, g)"]
    nodes += ["u = Reshape(m, together)", "p = Softmax<axis=-1>(u)", "y = MatMul(p, v)"]
    constants = {
        "bias": random_weights(1, HEADS, 5, 5),
        "mask": random_weights(*mask_shape, seed=1),
        "apart": i64(-1, 4, HEADS, 5, 5),
        "together": i64(4 * images, HEADS, 5, 5),
    }
    inputs = {"q": rows, "k": (4 * images, HEADS, SIZE, 5), "v": rows}
    return Case(f"windows_{images}", nodes, inputs, constants, tolerance=FUNCTION)


@pytest.mark.parametrize("mask_shape", [(4, 1, 5, 5), (1, 4, HEADS, 5, 5), (5, 5)], ids=str)
@pytest.mark.parametrize("images", [1, 2])
def test_masks_of_windows(images: int, mask_shape: tuple[int, ...]) -> None:
    made = windows(images, mask_shape)
    check(made)
    rows = made.load(ENGINES[-1]).explain().to_dict()["rows"]
    assert [row["op"] for row in rows if row["op"] in ("Attention", "Softmax")] == ["Attention"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_one_node(case: Case) -> None:
    model = sparsert.load(case.proto, tune=False, strict=True)
    model.run(None, case.runs[0][0])
    ops = [row["op"] for row in model.explain().to_dict()["rows"]]
    assert ops.count("Attention") == 1
    assert not {"Softmax", "MatMul", "Transpose", "Reshape"} & set(ops)


FOUR_DIMENSIONS = {
    "safe": [
        "s = MatMul(q, k)",
        "a = Add(s, m)",
        "p = Softmax(a)",
        "nan = IsNaN(p)",
        "r = Where(nan, zero, p)",
        "y = MatMul(r, v)",
    ],
    "columns": ["s = MatMul(q, k)", "p = Softmax(s)", "y = MatMul(p, v)"],
    "rows": [
        "t = Transpose<perm=[0,1,3,2]>(k)",
        "r = Relu(t)",
        "u = Transpose<perm=[0,1,3,2]>(r)",
        "s = MatMul(q, u)",
        "c = Mul(s, scale)",
        "a = Add(c, m)",
        "p = Softmax(a)",
        "y = MatMul(p, v)",
    ],
}


@pytest.mark.parametrize("name", FOUR_DIMENSIONS)
def test_four_dimensions(name: str) -> None:
    inputs = {"q": [2, 3, "s", 5], "k": [2, 3, 5, "t"], "v": [2, 3, "t", 7]}
    if name != "columns":
        inputs["m"] = ["s", "t"]
    sizes = [{"s": 1, "t": 1}, {"s": 65, "t": 40}, {"s": 9, "t": 129}]
    one = Case(
        f"four_dimensions_{name}",
        FOUR_DIMENSIONS[name],
        inputs,
        {n: CONSTANTS[n] for n in ("scale", "zero")},
        sizes=sizes,
        tolerance=FUNCTION,
    )
    check(one)


NOT_FUSED = {
    "used_scores": ([*SCALES["mul"], "u = Identity(t)", *END, *JOIN, "w = Relu(t)"], ("y", "w")),
    "other_axis": (
        [*SCALES["mul"], "p = Softmax<axis=2>(t)", "o = MatMul(p, hv)", *JOIN],
        ("y",),
    ),
    "three_masks": (
        [*SCALES["mul"], "a = Add(t, m)", "b = Add(a, m)", "u = Add(b, m)", *END, *JOIN],
        ("y",),
    ),
    "other_number": (
        [*SCALES["mul"], "p = Softmax(t)", "nan = IsNaN(p)", "r = Where(nan, scale, p)"]
        + ["o = MatMul(r, hv)", *JOIN],
        ("y",),
    ),
    "used_softmax": (
        [*SCALES["mul"], "u = Identity(t)", *SAFE_END, *JOIN, "w = Relu(p)"],
        ("y", "w"),
    ),
}


@pytest.mark.parametrize("name", NOT_FUSED)
def test_is_not_fused_where_it_would_be_wrong(name: str) -> None:
    nodes, outputs = NOT_FUSED[name]
    inputs: dict[str, object] = {"x": ["n", "s", WIDTH]}
    if name == "three_masks":
        inputs["m"] = ["s", "s"]
    one = Case(
        f"not_fused_{name}",
        [*SELF, *SPLIT, *HEADS_FIRST, *KEYS["one"], *nodes],
        inputs,
        CONSTANTS,
        outputs=outputs,
        sizes=[{"n": 2, "s": 9}],
        tolerance=FUNCTION,
    )
    check(one, ENGINES[-1:])
    model = sparsert.load(one.proto, tune=False, strict=True)
    model.run(None, one.runs[0][0])
    assert "Attention" not in [row["op"] for row in model.explain().to_dict()["rows"]]
