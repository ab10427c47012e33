"""Shape arithmetic with symbolic dimensions, computed at plan time."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suite.harness import EXACT, SUM, Case, Engine, check, i64, random_weights, unique

SIZES = [{"n": 1, "h": 4, "w": 6}, {"n": 3, "h": 9, "w": 2}, {"n": 7, "h": 1, "w": 1}]


def all_cases() -> list[Case]:
    """What exporters write for view(), flatten(), interpolate() and friends."""
    x = {"x": ["n", 3, "h", "w"]}
    return [
        Case(
            "view_batch",
            [
                "s = Shape(x)",
                "b = Gather<axis=0>(s, i)",
                "u = Unsqueeze(b, z)",
                "t = Concat<axis=0>(u, m)",
                "y = Reshape(x, t)",
            ],
            x,
            {"i": np.array(0), "z": i64(0), "m": i64(-1)},
            sizes=SIZES,
            tolerance=EXACT,
        ),
        Case(
            "view_area",
            [
                "s = Shape(x)",
                "h = Gather(s, two)",
                "w = Gather(s, three)",
                "a = Mul(h, w)",
                "u = Unsqueeze(a, z)",
                "t = Concat<axis=0>(p, u)",
                "y = Reshape(x, t)",
            ],
            x,
            {"two": np.array(2), "three": np.array(3), "z": i64(0), "p": i64(-1, 3)},
            sizes=SIZES,
            tolerance=EXACT,
        ),
        Case(
            "shape_output",
            ["y = Shape(x)", "z = Relu(x)"],
            x,
            outputs=("y", "z"),
            sizes=SIZES,
            tolerance=EXACT,
        ),
        Case("shape_start_end", ["y = Shape<start=1, end=-1>(x)"], x, sizes=SIZES, tolerance=EXACT),
        Case("size_output", ["y = Size(x)"], x, sizes=SIZES, tolerance=EXACT),
        Case(
            "half_size_slice",
            [
                "s = Shape(x)",
                "h = Slice(s, two, three)",
                "a = Add(h, one)",
                "d = Div(a, two)",
                "y = Slice(x, zero, d, two)",
            ],
            x,
            {"one": i64(1), "two": i64(2), "three": i64(3), "zero": i64(0)},
            sizes=SIZES,
            tolerance=EXACT,
        ),
        Case(
            "range_as_data",
            [
                "s = Shape(x)",
                "n = Gather(s, three)",
                "r = Range(zero, n, one)",
                "f = Cast<to=1>(r)",
                "y = Add(x, f)",
            ],
            x,
            {"three": np.array(3), "zero": np.array(0), "one": np.array(1)},
            sizes=SIZES,
        ),
        Case(
            "constant_of_shape",
            ["s = Shape(x)", "c = ConstantOfShape<value=float[1] {1.5}>(s)", "y = Mul(x, c)"],
            x,
            sizes=SIZES,
        ),
        Case(
            "zeros_like",
            ["s = Shape(x)", "c = ConstantOfShape(s)", "y = Concat<axis=1>(x, c)"],
            x,
            sizes=SIZES,
            tolerance=EXACT,
        ),
        Case(
            "shape_divided_to_float",
            ["s = Shape(x)", "n = Gather(s, three)", "f = Cast<to=1>(n)", "y = Div(x, f)"],
            x,
            {"three": np.array(3)},
            sizes=SIZES,
        ),
        Case(
            "prod_of_shape",
            [
                "s = Shape(x)",
                "t = Slice(s, one, four)",
                "p = ReduceProd<keepdims=1>(t)",
                "u = Concat<axis=0>(m, p)",
                "y = Reshape(x, u)",
            ],
            x,
            {"one": i64(1), "four": i64(4), "m": i64(-1)},
            sizes=SIZES,
            tolerance=EXACT,
        ),
        Case(
            "split_half",
            [
                "s = Shape(x)",
                "n = Gather(s, ax)",
                "h = Div(n, two)",
                "r = Sub(n, h)",
                "t = Concat<axis=0>(h, r)",
                "p, q = Split<axis=3>(x, t)",
                "y = Concat<axis=3>(q, p)",
            ],
            x,
            {"ax": i64(3), "two": i64(2)},
            sizes=[{"n": 1, "h": 4, "w": 6}, {"n": 3, "h": 9, "w": 5}],
            tolerance=EXACT,
        ),
        Case(
            "pad_to_even",
            [
                "s = Shape(x)",
                "w = Gather(s, three)",
                "a = Add(w, one)",
                "b = Div(a, two)",
                "c = Mul(b, two)",
                "d = Sub(c, w)",
                "p = Concat<axis=0>(zeros, d)",
                "y = Pad(x, p)",
            ],
            x,
            {"three": i64(3), "one": i64(1), "two": i64(2), "zeros": i64(0, 0, 0, 0, 0, 0, 0)},
            sizes=SIZES,
            tolerance=EXACT,
        ),
        Case(
            "expand_to_shape",
            ["s = Shape(x)", "y = Expand(k, s)"],
            x,
            {"k": random_weights(3, 1, 1, scale=1.0)},
            sizes=SIZES,
            tolerance=EXACT,
        ),
        Case(
            "classifier",
            [
                "c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)",
                "r = Relu(c)",
                "g = GlobalAveragePool(r)",
                "s = Shape(g)",
                "b = Gather(s, zero)",
                "u = Unsqueeze(b, ax)",
                "t = Concat<axis=0>(u, m)",
                "v = Reshape(g, t)",
                "y = Gemm<transB=1>(v, k)",
            ],
            x,
            {
                "w": random_weights(8, 3, 3, 3, sparsity=0.6),
                "zero": np.array(0),
                "ax": i64(0),
                "m": i64(-1),
                "k": random_weights(5, 8, sparsity=0.5),
            },
            sizes=SIZES,
            tolerance=SUM,
        ),
        Case(
            "no_compute_at_all",
            ["y = Add(k, k)", "z = Identity(x)"],
            {"x": (2,)},
            {"k": random_weights(3)},
            outputs=("y", "z"),
        ),
        Case(
            "repeated_symbol",
            ["s = Add(a, b)", "y = Relu(s)"],
            {"a": ["n", "h"], "b": ["n", "h"]},
            sizes=SIZES,
        ),
    ]


@pytest.mark.parametrize("case", unique(all_cases()), ids=str)
def test_shapes(case: Case, engine: Engine) -> None:
    check(case, engine)
