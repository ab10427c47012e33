"""MatMul and Gemm of two activations: ranks, broadcasting, transposes, factors, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suite.harness import SUM, Case, check, random_weights, unique


def shape_cases() -> list[Case]:
    """Every combination of ranks, and batches that broadcast."""
    shapes = {
        "vector_vector": ((7,), (7,)),
        "vector_matrix": ((7,), (7, 5)),
        "matrix_vector": ((6, 7), (7,)),
        "vector_batch": ((7,), (3, 7, 5)),
        "batch_vector": ((3, 6, 7), (7,)),
        "matrix_batch": ((6, 7), (3, 7, 5)),
        "batch_matrix": ((3, 6, 7), (7, 5)),
        "batches": ((2, 3, 6, 7), (2, 3, 7, 5)),
        "broadcast": ((2, 1, 6, 7), (3, 7, 5)),
        "both_broadcast": ((2, 1, 4, 6, 7), (3, 1, 7, 5)),
        "one": ((1, 1), (1, 1)),
        "batch_of_rows": ((9, 1, 7), (7, 5)),
        "batches_matrix": ((2, 3, 1, 7), (1, 7, 18)),
        "inner_broadcast": ((2, 3, 4, 7), (2, 1, 7, 5)),
        "rows_column": ((9, 1, 7), (7, 1)),
        "row": ((1, 130), (130, 77)),
        "column": ((77, 130), (130, 1)),
        "outer": ((33, 1), (1, 65)),
    }
    return [
        Case(f"shapes_{name}", ["y = MatMul(a, b)"], {"a": a, "b": b})
        for name, (a, b) in shapes.items()
    ]


def size_cases() -> list[Case]:
    """Tails of tiles, panels and depths."""
    sizes = [(1, 1, 1), (3, 5, 17), (5, 64, 64), (7, 31, 65), (13, 513, 47), (61, 100, 129)]
    sizes += [(2, 1030, 3), (130, 16, 16), (48, 64, 200)]
    return [
        Case(
            "sizes",
            ["y = MatMul(a, b)"],
            {"a": ["p", "m", "k"], "b": ["p", "k", "n"]},
            sizes=[{"p": 1 + i % 3, "m": m, "k": k, "n": n} for i, (m, k, n) in enumerate(sizes)],
        )
    ]


def folded_cases() -> list[Case]:
    """Transposes and factors on either side, which become attributes."""
    constants = {"c": np.float32(0.125), "d": np.array([-3.0], np.float32)}
    cases = []
    for trans_a in (False, True):
        for trans_b in (False, True):
            a = ["m", "k"] if not trans_a else ["k", "m"]
            b = ["k", "n"] if not trans_b else ["n", "k"]
            nodes = []
            left, right = "a", "b"
            if trans_a:
                nodes.append("at = Transpose<perm=[0,1,3,2]>(a)")
                left = "at"
            if trans_b:
                nodes.append("bs = Mul(b, c)")
                nodes.append("bt = Transpose<perm=[0,1,3,2]>(bs)")
                right = "bt"
            nodes += [f"s = MatMul({left}, {right})", "t = Div(s, d)", "y = Softmax(t)"]
            cases.append(
                Case(
                    f"folded_{int(trans_a)}{int(trans_b)}",
                    nodes,
                    {"a": [2, "h", *a], "b": [2, "h", *b]},
                    constants,
                    sizes=[
                        {"h": 1, "m": 3, "k": 7, "n": 5},
                        {"h": 3, "m": 17, "k": 33, "n": 70},
                    ],
                )
            )
    return cases


def gemm_cases() -> list[Case]:
    """Gemm whose weights are known only at run time."""
    cases = []
    for trans_a in (0, 1):
        for trans_b in (0, 1):
            shape_a, shape_b = (13, 4) if trans_a else (4, 13), (9, 13) if trans_b else (13, 9)
            for label, shape in {"none": None, "row": (9,), "full": (4, 9)}.items():
                text = f"transA={trans_a}, transB={trans_b}, alpha=0.5, beta=2.0"
                inputs: dict[str, object] = {"a": shape_a, "b": shape_b}
                if shape is not None:
                    inputs["c"] = shape
                cases.append(
                    Case(
                        f"gemm_{trans_a}{trans_b}_{label}",
                        [f"y = Gemm<{text}>({', '.join(inputs)})"],
                        inputs,
                    )
                )
    return cases


def neighbour_cases() -> list[Case]:
    """Operands and results that are feature-major, planes, constants or used twice."""
    w = random_weights(24, 40, sparsity=0.5)
    return [
        Case(
            "of_linears",
            [
                "q = MatMul(x, w)",
                "kt = Transpose<perm=[0,2,1]>(q)",
                "s = MatMul(q, kt)",
                "p = Softmax(s)",
                "o = MatMul(p, q)",
                "y = MatMul(o, v)",
            ],
            {"x": ["n", "s", 24]},
            {"w": w, "v": random_weights(40, 24, seed=1)},
            sizes=[{"n": 1, "s": 20}, {"n": 1, "s": 3}, {"n": 2, "s": 70}, {"n": 5, "s": 2}],
        ),
        Case(
            "of_planes",
            ["c = Conv<pads=[1,1,1,1]>(x, k)", "y = MatMul(c, c)"],
            {"x": (2, 3, 9, 9)},
            {"k": random_weights(5, 3, 3, 3)},
        ),
        Case(
            "constant_batch",
            ["y = MatMul(x, w)"],
            {"x": ["n", 3, 4, 7]},
            {"w": random_weights(3, 7, 5)},
            sizes=[{"n": 1}, {"n": 2}],
        ),
        Case(
            "squared",
            ["t = Transpose<perm=[1,0]>(x)", "y = MatMul(x, t)"],
            {"x": ["m", 19]},
            sizes=[{"m": 1}, {"m": 18}],
        ),
    ]


CASES = unique([*shape_cases(), *size_cases(), *folded_cases(), *gemm_cases(), *neighbour_cases()])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matmul(case: Case) -> None:
    assert case.tolerance is SUM
    check(case)
