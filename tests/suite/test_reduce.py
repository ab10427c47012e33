"""Reductions, Softmax and LogSoftmax, of old and new opsets."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suite.harness import EXACT, FUNCTION, SUM, Case, Engine, check, i64, unique

OPS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")


def reduce_cases() -> list[Case]:
    """Every function over every set of axes, with and without keepdims."""
    cases = []
    axes_of = [(0,), (1,), (2,), (3,), (2, 3), (1, 2), (0, 2), (0, 1, 2, 3), (-1,), (-1, 0)]
    for op in OPS:
        tolerance = EXACT if op in ("Max", "Min") else SUM
        low, high = (0.5, 1.5) if op in ("Prod", "LogSum") else (-2.0, 2.0)
        for number, axes in enumerate(axes_of):
            for keep in (0, 1):
                cases.append(
                    Case(
                        f"reduce_{op}_axes{number}_keep{keep}",
                        ["h = Identity(x)", f"r = Reduce{op}<keepdims={keep}>(h, a)", "y = Neg(r)"],
                        {"x": (2, 3, 5, 7)},
                        {"a": np.array(axes)},
                        low=low,
                        high=high,
                        tolerance=tolerance,
                    )
                )
        cases.append(
            Case(
                f"reduce_{op}_all",
                [f"y = Reduce{op}(x)"],
                {"x": (2, 3, 17)},
                low=low,
                high=high,
                tolerance=tolerance,
            )
        )
        cases.append(
            Case(
                f"reduce_{op}_noop",
                [f"y = Reduce{op}<noop_with_empty_axes=1>(x, a)"],
                {"x": (2, 3, 17)},
                {"a": np.array([], np.int64)},
                low=low,
                high=high,
            )
        )
        cases.append(
            Case(
                f"reduce_{op}_tails",
                [f"y = Reduce{op}<keepdims=0>(x, a)"],
                {"x": ["n", 3, "h"]},
                {"a": np.array([2])},
                low=low,
                high=high,
                tolerance=tolerance,
                sizes=[{"n": 1, "h": 1}, {"n": 2, "h": 15}, {"n": 2, "h": 33}, {"n": 1, "h": 197}],
            )
        )
        cases.append(
            Case(
                f"reduce_{op}_opset11",
                [f"y = Reduce{op}<axes=[1], keepdims=0>(x)"],
                {"x": (2, 3, 17)},
                low=low,
                high=high,
                opset=11,
                tolerance=tolerance,
            )
        )
    cases.append(
        Case(
            "reduce_large",
            ["y = ReduceMean<keepdims=0>(x, a)"],
            {"x": (1, 2, 100, 101)},
            {"a": np.array([2, 3])},
            low=0.0,
            high=1.0,
        )
    )
    cases.append(
        Case(
            "layer_norm_by_hand",
            [
                "m = ReduceMean(x, a)",
                "d = Sub(x, m)",
                "s = Mul(d, d)",
                "v = ReduceMean(s, a)",
                "e = Add(v, k)",
                "q = Sqrt(e)",
                "y = Div(d, q)",
            ],
            {"x": (2, 5, 33)},
            {"a": np.array([-1]), "k": np.float32(1e-5)},
        )
    )
    return cases


def softmax_cases() -> list[Case]:
    """Every axis; opset 11 flattens from its axis on; large inputs."""
    cases = []
    for op in ("Softmax", "LogSoftmax"):
        for shape in ((3, 17), (2, 3, 5, 7), (1, 1000), (4,), (2, 33, 49)):
            for axis in range(-1, len(shape)):
                label = f"{op}_{'x'.join(map(str, shape))}_axis{axis}"
                cases.append(
                    Case(
                        label,
                        ["h = Identity(x)", f"y = {op}<axis={axis}>(h)"],
                        {"x": shape},
                        tolerance=FUNCTION,
                    )
                )
        for axis in (0, 1, 2, -1):
            cases.append(
                Case(
                    f"{op}_opset11_axis{axis}",
                    [f"y = {op}<axis={axis}>(x)"],
                    {"x": (2, 3, 5)},
                    opset=11,
                    tolerance=FUNCTION,
                )
            )
        cases.append(
            Case(
                f"{op}_opset11_default",
                [f"y = {op}(x)"],
                {"x": (2, 3, 5)},
                opset=11,
                tolerance=FUNCTION,
            )
        )
        cases.append(
            Case(
                f"{op}_inner",
                ["h = Relu(x)", f"s = {op}<axis=1>(h)", "y = Neg(s)"],
                {"x": (2, 5, 3, 7)},
                tolerance=FUNCTION,
            )
        )
        large = np.array([[1000.0, 999.0, -1000.0], [-1000.0, -1001.0, -1002.0]], np.float32)
        cases.append(
            Case(
                f"{op}_large",
                [f"y = {op}(x)"],
                {"x": (2, 3)},
                feeds={"x": large},
                tolerance=FUNCTION,
            )
        )
        cases.append(
            Case(
                f"{op}_dynamic",
                [f"y = {op}<axis=1>(x)"],
                {"x": ["n", "c"]},
                tolerance=FUNCTION,
                sizes=[{"n": 1, "c": 1}, {"n": 3, "c": 31}, {"n": 7, "c": 1001}],
            )
        )
    return cases


EMPTY = {
    "ReduceSum": 0,
    "ReduceMean": np.nan,
    "ReduceMax": -np.inf,
    "ReduceMin": np.inf,
    "ReduceProd": 1,
    "ReduceL1": 0,
    "ReduceL2": 0,
    "ReduceSumSquare": 0,
    "ReduceLogSum": -np.inf,
    "ReduceLogSumExp": -np.inf,
}


@pytest.mark.parametrize("op", EMPTY)
def test_of_nothing(op: str, engine: Engine) -> None:
    """Of an axis without elements, and of a tensor without elements but along others."""
    if not engine.is_native:
        pytest.skip("NumPy warns or raises errors")
    case = Case(
        f"empty_{op}",
        [f"y = {op}(x, a)", f"z = {op}<keepdims=0>(x, b)"],
        {"x": (2, 0, 3)},
        {"a": i64(1), "b": i64(0, 2)},
        outputs=("y", "z"),
    )
    y, z = case.load(engine).run(None, {"x": np.zeros((2, 0, 3), np.float32)})
    np.testing.assert_array_equal(y, np.full((2, 1, 3), EMPTY[op], np.float32))
    assert z.shape == (0,)


@pytest.mark.parametrize("case", unique(reduce_cases() + softmax_cases()), ids=str)
def test_reduce(case: Case) -> None:
    check(case)
