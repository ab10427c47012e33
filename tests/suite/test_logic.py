"""Where, comparisons and logic on floats, integers and bools, at run time and at plan time."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.suite.harness import EXACT, Case, check, i64, unique

COMPARISONS = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
SHAPES = {
    "same": (["n", 5, 7], ["n", 5, 7]),
    "row": (["n", 5, 7], [7]),
    "column": (["n", 5, 1], [1, 5, 7]),
    "scalar": ([1], ["n", 3]),
    "planes": (["n", 2, 3, 5], [2, 1, 5]),
}
SIZES = [{"n": 1}, {"n": 3}]


def comparison_cases() -> list[Case]:
    """Each comparison of each type, with operands that broadcast."""
    types = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32)
    cases = []
    for op in COMPARISONS:
        for dtype in types:
            for label, (a, b) in SHAPES.items():
                nodes = [f"y = {op}(a, b)"]
                if dtype == TensorProto.FLOAT:
                    nodes = ["r = Round(a)", "s = Round(b)", f"y = {op}(r, s)"]
                cases.append(
                    Case(
                        f"{op}_{TensorProto.DataType.Name(dtype)}_{label}",
                        nodes,
                        {"a": (dtype, a), "b": (dtype, b)},
                        tolerance=EXACT,
                        sizes=SIZES,
                    )
                )
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], np.float32)
    for op in COMPARISONS:
        feeds = {"a": np.repeat(special, 6), "b": np.tile(special, 6)}
        cases.append(
            Case(f"{op}_special", [f"y = {op}(a, b)"], {"a": [36], "b": [36]}, feeds=feeds)
        )
    return cases


def logic_cases() -> list[Case]:
    """And, Or, Xor, Not and Equal of bools."""
    cases = []
    for op in ("And", "Or", "Xor", "Equal"):
        for label, (a, b) in SHAPES.items():
            cases.append(
                Case(
                    f"{op}_bool_{label}",
                    [f"y = {op}(a, b)"],
                    {"a": (TensorProto.BOOL, a), "b": (TensorProto.BOOL, b)},
                    tolerance=EXACT,
                    sizes=SIZES,
                )
            )
    cases.append(Case("not", ["y = Not(a)"], {"a": (TensorProto.BOOL, ["n", 9])}, sizes=SIZES))
    return cases


def where_cases() -> list[Case]:
    """Each size of element; broadcasting of each operand; masks as exporters make them."""
    cases = []
    for dtype in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8):
        for label, (a, b) in SHAPES.items():
            for c in (a, b):
                cases.append(
                    Case(
                        f"where_{dtype}_{label}_{len(cases) % 2}",
                        ["y = Where(c, a, b)"],
                        {"c": (TensorProto.BOOL, c), "a": (dtype, a), "b": (dtype, b)},
                        tolerance=EXACT,
                        sizes=SIZES,
                    )
                )
    cases.append(
        Case(
            "mask",
            [
                "u = Unsqueeze(m, axes)",
                "k = Cast<to=9>(u)",
                "n = Not(k)",
                "z = Where(n, low, zero)",
                "t = Relu(x)",
                "y = Add(t, z)",
            ],
            {"m": (TensorProto.INT64, ["n", "s"]), "x": ["n", 3, "s", "s"]},
            {"axes": i64(1, 2), "low": np.float32(-1e9), "zero": np.float32(0)},
            tolerance=EXACT,
            sizes=[{"n": 2, "s": 5}, {"n": 1, "s": 33}],
        )
    )
    cases.append(
        Case(
            "shape_arithmetic",  # as torch exports expand(-1, 4, -1)
            [
                "s = Shape(x)",
                "r = Shape(s)",
                "ones = ConstantOfShape<value={one}>(r)".replace("{one}", "int64[1] {1}"),
                "minus = Mul(ones, negative)",
                "e = Equal(wanted, minus)",
                "w = Where(e, ones, wanted)",
                "y = Expand(x, w)",
            ],
            {"x": ["n", 1, 3]},
            {"negative": np.int64(-1), "wanted": i64(-1, 4, -1)},
            tolerance=EXACT,
            sizes=[{"n": 1}, {"n": 5}],
        )
    )
    return cases


CASES = unique([*comparison_cases(), *logic_cases(), *where_cases()])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_logic(case: Case) -> None:
    check(case)
