"""Activations and other unary functions, PRelu, BatchNormalization, binary ops, Cast."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.suite.harness import (
    ENGINES_WITH_NUMBA,
    EXACT,
    FUNCTION,
    ROUNDED,
    Case,
    check,
    random_weights,
    unique,
)

# Operator text -> (tolerance, lowest, highest feed).
UNARY = {
    "Relu": (EXACT, -3, 3),
    "LeakyRelu": (ROUNDED, -3, 3),
    "LeakyRelu<alpha=0.3>": (ROUNDED, -3, 3),
    "Elu": (FUNCTION, -8, 3),
    "Elu<alpha=2.0>": (FUNCTION, -8, 3),
    "Selu": (FUNCTION, -8, 3),
    "Selu<alpha=1.1, gamma=0.9>": (FUNCTION, -8, 3),
    "Celu": (FUNCTION, -8, 3),
    "Celu<alpha=2.5>": (FUNCTION, -8, 3),
    "HardSigmoid": (ROUNDED, -5, 5),
    "HardSigmoid<alpha=0.5, beta=0.1>": (ROUNDED, -5, 5),
    "HardSwish": (ROUNDED, -5, 5),
    "Sigmoid": (FUNCTION, -20, 20),
    "Tanh": (FUNCTION, -10, 10),
    "Gelu": (FUNCTION, -6, 6),
    'Gelu<approximate="tanh">': (FUNCTION, -6, 6),
    "Exp": (FUNCTION, -20, 5),
    "Log": (FUNCTION, 0.001, 30),
    "Sqrt": (ROUNDED, 0, 30),
    "Abs": (EXACT, -3, 3),
    "Neg": (EXACT, -3, 3),
    "Reciprocal": (ROUNDED, 0.1, 3),
    "Floor": (EXACT, -9, 9),
    "Ceil": (EXACT, -9, 9),
    "Round": (EXACT, -9, 9),
    "Erf": (FUNCTION, -4, 4),
    "Sin": (FUNCTION, -30, 30),
    "Cos": (FUNCTION, -30, 30),
    "Softplus": (FUNCTION, -30, 30),
    "Softsign": (ROUNDED, -5, 5),
    "Mish": (FUNCTION, -20, 20),
    "Sign": (EXACT, -3, 3),
    "Tan": (FUNCTION, -1.5, 1.5),
    "Asin": (FUNCTION, -1, 1),
    "Acos": (FUNCTION, -1, 1),
    "Atan": (FUNCTION, -30, 30),
    "Sinh": (FUNCTION, -9, 9),
    "Cosh": (FUNCTION, -9, 9),
    "Asinh": (FUNCTION, -30, 30),
    "Acosh": (FUNCTION, 1, 30),
    "Atanh": (FUNCTION, -0.9, 0.9),
    "ThresholdedRelu": (EXACT, -3, 3),
    "ThresholdedRelu<alpha=0.2>": (EXACT, -3, 3),
}


def unary_cases() -> list[Case]:
    """Each function over plain and padded tensors of every rank; special values."""
    cases = []
    for number, (op, (tolerance, low, high)) in enumerate(UNARY.items()):
        label = f"{op.split('<')[0]}{number}"
        cases.append(
            Case(
                f"unary_{label}",
                [f"y = {op}(x)"],
                {"x": ["n", 3, "h"]},
                low=low,
                high=high,
                tolerance=tolerance,
                sizes=[{"n": 1, "h": 1}, {"n": 2, "h": 33}, {"n": 3, "h": 197}],
            )
        )
        # Between two others: the tensor in the middle has padded planes.
        cases.append(
            Case(
                f"unary_middle_{label}",
                ["a = Identity(x)", f"b = {op}(a)", "y = Concat<axis=1>(b, x)"],
                {"x": (2, 3, 5, 7)},
                low=low,
                high=high,
                tolerance=tolerance,
            )
        )
    for rank in range(9):
        cases.append(
            Case(f"unary_rank{rank}", ["y = Sigmoid(x)"], {"x": [2] * rank}, tolerance=FUNCTION)
        )
    special = np.array(
        [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            1.5,
            2.5,
            -0.5,
            -1.5,
            88.0,
            -88.0,
            104.0,
            -104.0,
            1e-30,
            -1e-30,
            1e30,
            -1e30,
            np.inf,
            -np.inf,
            3.0,
            -3.0,
            7.5,
            20.5,
        ],
        np.float32,
    )
    for op in (
        "Relu",
        "Sigmoid",
        "Tanh",
        "Round",
        "Elu",
        "Erf",
        "Abs",
        "Neg",
        "Floor",
        "Ceil",
        "Sign",
        "HardSigmoid",
        "LeakyRelu",
        "Exp",
        "Softsign",
    ):
        values = special[np.isfinite(special)] if op == "Softsign" else special
        cases.append(
            Case(
                f"special_{op}",
                [f"y = {op}(x)"],
                {"x": (len(values),)},
                feeds={"x": values},
                tolerance=FUNCTION,
            )
        )
    nan = np.array([np.nan, 1.0, -2.0] * 7, np.float32)
    for op in ("Relu", "Abs", "Neg", "Floor", "Sigmoid", "Tanh", "Exp", "LeakyRelu"):
        cases.append(
            Case(f"nan_{op}", [f"y = {op}(x)"], {"x": (21,)}, feeds={"x": nan}, tolerance=FUNCTION)
        )
    bounds = {"low": np.float32(-0.5), "high": np.float32(0.75)}
    for label, text, names in (
        ("both", "Clip(x, low, high)", ("low", "high")),
        ("low", "Clip(x, low)", ("low",)),
        ("high", "Clip(x, , high)", ("high",)),
        ("none", "Clip(x)", ()),
    ):
        cases.append(
            Case(
                f"clip_{label}",
                [f"y = {text}"],
                {"x": (3, 35)},
                {k: bounds[k] for k in names},
                tolerance=EXACT,
            )
        )
    cases.append(
        Case("silu", ["s = Sigmoid(x)", "y = Mul(x, s)"], {"x": (2, 3, 35)}, tolerance=FUNCTION)
    )
    cases.append(Case("dropout", ["y = Dropout(x)"], {"x": (2, 3, 35)}, tolerance=EXACT))
    return cases


def prelu_cases() -> list[Case]:
    """Slopes of every broadcast."""
    cases = []
    for shape, slope in (
        ((2, 5, 7, 7), (5, 1, 1)),
        ((2, 5, 7, 7), (1,)),
        ((2, 5, 7, 7), (5, 7, 7)),
        ((2, 5, 7, 7), (1, 5, 1, 1)),
        ((2, 5, 7, 7), (7,)),
        ((4, 33), (33,)),
        ((4, 33), (1, 33)),
        ((3, 6, 17), (6, 1)),
        ((2, 5, 7, 7), (1, 1, 7)),
    ):
        label = "x".join(map(str, shape)) + "_by_" + "x".join(map(str, slope))
        cases.append(
            Case(
                f"prelu_{label}",
                ["y = PRelu(x, s)"],
                {"x": shape},
                {"s": random_weights(*slope, scale=1.0)},
                tolerance=ROUNDED,
            )
        )
    return cases


def batch_norm_cases() -> list[Case]:
    """Batch normalisation that follows no convolution, of ranks 2 to 5."""
    cases = []
    for shape in ((4, 5), (2, 5, 17), (2, 5, 6, 7), (1, 5, 2, 3, 4)):
        constants = {n: random_weights(5, scale=1.0, seed=i) for i, n in enumerate("gbm")}
        constants["v"] = np.abs(random_weights(5, scale=1.0, seed=9)) + np.float32(0.3)
        label = f"rank{len(shape)}"
        text = "BatchNormalization<epsilon=0.001>(x, g, b, m, v)"
        cases.append(
            Case(f"batch_norm_{label}", [f"y = {text}"], {"x": shape}, constants, tolerance=ROUNDED)
        )
        cases.append(
            Case(
                f"batch_norm_relu_{label}",
                [f"n = {text}", "y = Relu(n)"],
                {"x": shape},
                constants,
                tolerance=ROUNDED,
            )
        )
    return cases


def binary_cases() -> list[Case]:
    """Every broadcast of numpy, with constants on either side."""
    cases = []
    shapes = [
        ((2, 3, 5, 7), (2, 3, 5, 7)),
        ((2, 3, 5, 7), (1, 3, 1, 1)),
        ((2, 3, 5, 7), (7,)),
        ((2, 3, 5, 7), (5, 1)),
        ((2, 3, 5, 7), ()),
        ((2, 1, 5, 1), (1, 3, 1, 7)),
        ((1,), (2, 3, 33)),
        ((3, 1), (1, 4)),
        ((2, 3, 1), (3, 17)),
        ((2, 3, 4), (2, 1, 4)),
        ((1, 1, 1, 1), (2, 3, 4, 5)),
        ((17,), (17,)),
        ((2, 2, 2, 2, 2, 2), (2, 1, 2, 1, 2)),
        ((2, 64, 33), (1, 64, 1)),
    ]
    for a, b in shapes:
        label = "x".join(map(str, a)) + "_" + "x".join(map(str, b))
        for op in ("Add", "Sub", "Mul", "Div"):
            cases.append(
                Case(
                    f"{op}_{label}",
                    [f"y = {op}(a, b)"],
                    {"a": a, "b": b},
                    low=0.5,
                    high=2.0,
                    tolerance=ROUNDED,
                )
            )
        cases.append(
            Case(
                f"sub_constants_{label}",
                ["s = Sub(c, a)", "y = Div(s, d)"],
                {"a": a},
                {
                    "c": random_weights(*b, scale=1.0),
                    "d": np.abs(random_weights(*b, scale=1.0, seed=1)) + np.float32(0.5),
                },
                tolerance=ROUNDED,
            )
        )
    pair = {"a": (2, 3, 35), "b": (2, 3, 35)}
    for op, tolerance in (
        ("Min", EXACT),
        ("Max", EXACT),
        ("Pow", FUNCTION),
        ("Mean", ROUNDED),
        ("Sum", ROUNDED),
    ):
        cases.append(
            Case(f"binary_{op}", [f"y = {op}(a, b)"], pair, low=0.2, high=3.0, tolerance=tolerance)
        )
    for op in ("Min", "Max", "Mean", "Sum"):
        inputs = {"a": (2, 3, 1), "b": (3, 17), "c": (1,)}
        cases.append(Case(f"variadic_{op}", [f"y = {op}(a, b, c)"], inputs, tolerance=ROUNDED))
        cases.append(
            Case(
                f"variadic_one_{op}",
                [f"y = {op}(a)"],
                {"a": (2, 5)},
                tolerance=EXACT,
            )
        )
        cases.append(
            Case(
                f"variadic_one_inner_{op}",
                [f"b = {op}(a)", "y = Relu(b)"],
                {"a": (2, 5)},
                tolerance=EXACT,
            )
        )
    for exponent in (2.0, 0.5, -1.0, 3.0, 0.0, 1.0):
        cases.append(
            Case(
                f"pow_{exponent}",
                ["y = Pow(a, e)"],
                {"a": (3, 21)},
                {"e": np.float32(exponent)},
                low=0.1,
                high=3.0,
                tolerance=FUNCTION,
            )
        )
    cases.append(
        Case(
            "pow_of_negatives",
            ["y = Pow(a, e)"],
            {"a": (3, 21)},
            {"e": np.float32(2.0)},
            tolerance=FUNCTION,
        )
    )
    cases.append(
        Case(
            "pow_cube_of_negatives",
            ["y = Pow(a, e)"],
            {"a": (3, 21)},
            {"e": np.float32(3.0)},
            tolerance=FUNCTION,
        )
    )
    cases.append(Case("add_itself", ["y = Add(a, a)"], {"a": (2, 3, 5)}, tolerance=ROUNDED))
    cases.append(Case("add_relu", ["s = Add(a, b)", "y = Relu(s)"], pair, tolerance=ROUNDED))
    cases.append(Case("mul_sigmoid", ["s = Mul(a, b)", "y = Sigmoid(s)"], pair, tolerance=FUNCTION))
    nan = np.array([1.0, np.nan, -1.0, np.inf, -np.inf, 0.0], np.float32)
    for op in ("Min", "Max", "Add"):
        cases.append(
            Case(
                f"nan_{op}",
                [f"y = {op}(a, b)"],
                {"a": (6,), "b": (6,)},
                feeds={"a": nan, "b": nan[::-1].copy()},
                tolerance=EXACT,
            )
        )
    cases.append(
        Case(
            "dynamic_broadcast",
            ["y = Add(a, b)"],
            {"a": ["n", 3, "h"], "b": ["n", 1, "h"]},
            tolerance=ROUNDED,
            sizes=[{"n": 1, "h": 1}, {"n": 7, "h": 33}],
        )
    )
    return cases


def cast_cases() -> list[Case]:
    """Casts between the types of a file."""
    kinds = {
        "f32": TensorProto.FLOAT,
        "f16": TensorProto.FLOAT16,
        "f64": TensorProto.DOUBLE,
        "i8": TensorProto.INT8,
        "u8": TensorProto.UINT8,
        "i32": TensorProto.INT32,
        "i64": TensorProto.INT64,
        "bool": TensorProto.BOOL,
        "u16": TensorProto.UINT16,
    }
    cases = []
    for a, source in kinds.items():
        for b, target in kinds.items():
            cases.append(
                Case(
                    f"cast_{a}_to_{b}",
                    [f"y = Cast<to={target}>(x)"],
                    {"x": (source, (2, 3, 11))},
                    low=0.0,
                    high=90.0,
                    # f64 is computed with in f32.
                    tolerance=ROUNDED if (a, b) == ("f64", "f64") else EXACT,
                )
            )
    cases.append(
        Case(
            "cast_image",
            ["f = Cast<to=1>(x)", "s = Mul(f, k)", "y = Conv(s, w)"],
            {"x": (TensorProto.UINT8, (2, 3, 6, 6))},
            {"k": np.float32(1 / 255), "w": random_weights(4, 3, 3, 3, sparsity=0.5)},
        )
    )
    return cases


CASES = unique(unary_cases() + prelu_cases() + batch_norm_cases() + binary_cases() + cast_cases())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_elementwise(case: Case) -> None:
    check(case, ENGINES_WITH_NUMBA)
