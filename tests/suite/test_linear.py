"""Gemm and MatMul with constant weights: all transposes, ranks, batches, sparsities."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suite.harness import (
    ENGINES_WITH_NUMBA,
    FUNCTION,
    Case,
    check,
    random_weights,
    unique,
)


def gemm_cases() -> list[Case]:
    """Every transA, transB, alpha, beta and shape of C."""
    cases = []
    biases = {
        "none": None,
        "row": (9,),
        "column": (4, 1),
        "one": (1,),
        "scalar": (),
        "full": (4, 9),
    }
    for trans_a in (0, 1):
        for trans_b in (0, 1):
            for label, shape in biases.items():
                w = random_weights(*((9, 13) if trans_b else (13, 9)), sparsity=0.6)
                constants = {"w": w}
                if shape is not None:
                    constants["c"] = random_weights(*shape, scale=1.0)
                attributes = f"transA={trans_a}, transB={trans_b}, alpha=0.5, beta=2.0"
                cases.append(
                    Case(
                        f"gemm_a{trans_a}_b{trans_b}_{label}",
                        [f"y = Gemm<{attributes}>({'x, w' if shape is None else 'x, w, c'})"],
                        {"x": (13, 4) if trans_a else (4, 13)},
                        constants,
                    )
                )
    w = random_weights(9, 13, sparsity=0.6)
    row = random_weights(9, scale=1.0)
    for alpha, beta in ((0.0, 1.0), (1.0, 0.0), (-1.5, 0.5)):
        cases.append(
            Case(
                f"gemm_alpha{alpha}_beta{beta}",
                [f"y = Gemm<transB=1, alpha={alpha}, beta={beta}>(x, w, c)"],
                {"x": (4, 13)},
                {"w": w, "c": row},
            )
        )
    cases.append(
        Case(
            "gemm_run_time_c",
            ["y = Gemm<transB=1>(x, w, c)"],
            {"x": (4, 13), "c": (4, 9)},
            {"w": w},
        )
    )
    cases.append(
        Case(
            "gemm_run_time_row",
            ["y = Gemm<transB=1>(x, w, c)"],
            {"x": (4, 13), "c": (9,)},
            {"w": w},
        )
    )
    return cases


def shape_cases() -> list[Case]:
    """Rows, columns, batches and sparsities: matrix-vector and matrix-matrix."""
    cases = []
    for sparsity in (0.0, 0.5, 0.9, 1.0):
        for k, n in ((1, 1), (1, 17), (17, 1), (3, 5), (33, 49), (64, 130), (197, 31), (1100, 24)):
            w = random_weights(n, k, sparsity=sparsity)
            cases.append(
                Case(
                    f"linear_{k}to{n}_zeros{int(100 * sparsity)}",
                    ["y = Gemm<transB=1>(x, w, b)"],
                    {"x": ["n", k]},
                    {"w": w, "b": random_weights(n, scale=1.0)},
                    sizes=[{"n": n} for n in (1, 2, 3, 7, 17, 33)],
                )
            )
    w = random_weights(40, 50, sparsity=0.5)
    w[[0, 3, 4, 39]] = 0
    w[:, [0, 49]] = 0
    one = np.zeros_like(w)
    one[39, 49] = 3
    long_row = np.zeros_like(w)
    long_row[7] = 1
    for label, weights in {"empty_rows": w, "one_weight": one, "one_row": long_row}.items():
        cases.append(
            Case(
                f"linear_{label}",
                ["y = Gemm<transB=1>(x, w)"],
                {"x": ["n", 50]},
                {"w": weights},
                sizes=[{"n": 1}, {"n": 20}],
            )
        )
    # More than L2 holds of a dense matrix, and half of it zeros.
    cases.append(
        Case(
            "linear_1101to301_zeros50",
            ["h = Gemm<transB=1>(x, w, b)", "y = Relu(h)"],
            {"x": ["n", 1101]},
            {
                "w": random_weights(301, 1101, sparsity=0.5),
                "b": random_weights(301, scale=1.0),
            },
            sizes=[{"n": 1}, {"n": 2}],
        )
    )
    # Columns past the reach of 16-bit ids.
    wide = np.zeros((5, 70001), np.float32)
    rng = np.random.default_rng(5)
    wide[rng.integers(0, 5, 300), rng.integers(0, 70001, 300)] = 1.0
    wide[2, [0, 65535, 65536, 70000]] = [1, 2, 3, 4]
    cases.append(
        Case(
            "linear_70001_columns",
            ["y = Gemm<transB=1>(x, w)"],
            {"x": ["n", 70001]},
            {"w": wide},
            sizes=[{"n": 1}, {"n": 8}],
        )
    )
    return cases


def matmul_cases() -> list[Case]:
    """A constant on either side; activations of rank 1 to 4."""
    cases = []
    w = random_weights(13, 9, sparsity=0.6)
    for shape in ((13,), (1, 13), (4, 13), (2, 3, 13), (2, 3, 5, 13), (1, 1, 13)):
        label = "x".join(map(str, shape))
        cases.append(Case(f"matmul_right_{label}", ["y = MatMul(x, w)"], {"x": shape}, {"w": w}))
        cases.append(
            Case(
                f"matmul_right_bias_relu_{label}",
                ["m = MatMul(x, w)", "a = Add(m, b)", "y = Relu(a)"],
                {"x": shape},
                {"w": w, "b": random_weights(9, scale=1.0)},
            )
        )
    for shape in ((9,), (9, 1), (9, 7), (2, 9, 7), (2, 3, 9, 5)):
        label = "x".join(map(str, shape))
        cases.append(
            Case(
                f"matmul_left_{label}",
                ["y = MatMul(w, x)"],
                {"x": shape},
                {"w": w},
            )
        )
    vector = random_weights(13, scale=1.0)
    cases.append(
        Case(
            "matmul_right_vector",
            ["y = MatMul(x, w)"],
            {"x": (4, 13)},
            {"w": vector},
        )
    )
    for name, text in (("right", "y = MatMul(x, w)"), ("left", "y = MatMul(w, x)")):
        cases.append(Case(f"matmul_{name}_vectors", [text], {"x": (13,)}, {"w": vector}))
    cases.append(
        Case(
            "matmul_vectors_of_batches",
            ["a = MatMul(x, w)", "b = MatMul(w, z)", "c = Add(a, b)", "y = Relu(c)"],
            {"x": ["n", 3, 5, 13], "z": ["n", 3, 13, 5]},
            {"w": vector},
            sizes=[{"n": 1}, {"n": 4}],
        )
    )
    cases.append(
        Case(
            "matmul_left_vector",
            ["y = MatMul(w, x)"],
            {"x": (13, 4)},
            {"w": vector},
        )
    )
    cases.append(
        Case(
            "matmul_dynamic",
            ["y = MatMul(x, w)"],
            {"x": ["n", "t", 13]},
            {"w": w},
            sizes=[{"n": 1, "t": 1}, {"n": 2, "t": 9}, {"n": 7, "t": 3}],
        )
    )
    cases.append(
        Case(
            "matmul_transposed_input",
            ["t = Transpose<perm=[0,2,1]>(x)", "y = MatMul(t, w)"],
            {"x": (2, 13, 5)},
            {"w": w},
        )
    )
    return cases


def fusion_cases() -> list[Case]:
    """Residuals and activations, from a vector and from a matrix of vectors."""
    cases = []
    w = random_weights(24, 24, sparsity=0.7)
    b = random_weights(24, scale=1.0)
    sizes = [{"n": 1}, {"n": 19}]
    for op in (
        "Relu",
        "Sigmoid",
        "Tanh",
        "LeakyRelu<alpha=0.1>",
        "Elu",
        "HardSwish",
        "Gelu",
        "Softplus",
        "Selu",
        "Mish",
    ):
        cases.append(
            Case(
                f"linear_{op.split('<')[0]}",
                ["g = Gemm<transB=1>(x, w, b)", f"y = {op}(g)"],
                {"x": ["n", 24]},
                {"w": w, "b": b},
                sizes=sizes,
                tolerance=FUNCTION,
            )
        )
    cases.append(
        Case(
            "linear_residual",
            ["g = Gemm<transB=1>(x, w, b)", "y = Add(g, x)"],
            {"x": ["n", 24]},
            {"w": w, "b": b},
            sizes=sizes,
        )
    )
    cases.append(
        Case(
            "linear_residual_relu",
            ["g = Gemm<transB=1>(x, w, b)", "s = Add(r, g)", "y = Relu(s)"],
            {"x": ["n", 24], "r": ["n", 24]},
            {"w": w, "b": b},
            sizes=sizes,
        )
    )
    cases.append(
        Case(
            "linear_chain",
            [
                "g = Gemm<transB=1>(x, w, b)",
                "h = Relu(g)",
                "i = Gemm<transB=1>(h, w, b)",
                "y = Add(i, h)",
            ],
            {"x": ["n", 24]},
            {"w": w, "b": b},
            sizes=sizes,
        )
    )
    cases.append(
        Case(
            "linear_after_conv",
            ["c = Conv<pads=[1,1,1,1]>(x, k)", "f = Flatten(c)", "y = Gemm<transB=1>(f, w)"],
            {"x": ["n", 3, 5, 7]},
            {
                "k": random_weights(4, 3, 3, 3, sparsity=0.5),
                "w": random_weights(11, 140, sparsity=0.8),
            },
            sizes=sizes,
        )
    )
    cases.append(
        Case(
            "linear_into_conv",
            ["g = Gemm<transB=1>(x, w)", "f = Reshape(g, s)", "y = Conv<pads=[1,1,1,1]>(f, k)"],
            {"x": ["n", 7]},
            {
                "w": random_weights(3 * 4 * 5, 7, sparsity=0.5),
                "s": np.array([-1, 3, 4, 5]),
                "k": random_weights(4, 3, 3, 3, sparsity=0.5),
            },
            sizes=sizes,
        )
    )
    return cases


CASES = unique(gemm_cases() + shape_cases() + matmul_cases() + fusion_cases())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_linear(case: Case) -> None:
    check(case, ENGINES_WITH_NUMBA)
