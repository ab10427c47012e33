"""Ops that find, pick and scatter elements, along one axis or by indices; any dtype."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.suite.harness import EXACT, ROUNDED, SUM, Case, Engine, check, i64, op_text, unique

NUMBERS = {
    "f32": TensorProto.FLOAT,
    "i64": TensorProto.INT64,
    "i32": TensorProto.INT32,
}


def arg_cases() -> list[Case]:
    """ArgMax and ArgMin along every axis, over padded planes, with ties."""
    cases = []
    for op in ("ArgMax", "ArgMin"):
        for axis in (0, 1, 2, -1):
            for keepdims in (0, 1):
                cases.append(
                    Case(
                        f"{op}_{axis}_{keepdims}",
                        ["h = Relu(x)", f"y = {op_text(op, 'h', axis=axis, keepdims=keepdims)}"],
                        {"x": (2, 3, 5, 7)},
                        tolerance=EXACT,
                    )
                )
        for name, dtype in NUMBERS.items():
            for last in (0, 1):
                cases.append(
                    Case(
                        f"{op}_{name}_ties_{last}",
                        [f"y = {op}<axis=1, select_last_index={last}>(x)"],
                        {"x": (dtype, [2, 6, 3])},
                        feeds={"x": tied(dtype)},
                        tolerance=EXACT,
                    )
                )
    cases.append(Case("ArgMax_one", ["y = ArgMax<axis=0>(x)"], {"x": (1,)}, tolerance=EXACT))
    return cases


def tied(dtype: int) -> np.ndarray:
    values = np.random.default_rng(1).integers(0, 3, (2, 6, 3))
    return values.astype({1: np.float32, 6: np.int32, 7: np.int64}[dtype])


def topk_cases() -> list[Case]:
    """The largest and the smallest, along every axis, of every k; both outputs or one."""
    cases = []
    for axis in (0, 1, -1):
        for k in (1, 2):
            for largest in (0, 1):
                cases.append(
                    Case(
                        f"topk_{axis}_{k}_{largest}",
                        ["h = Neg(x)", f"v, i = TopK<axis={axis}, largest={largest}>(h, k)"],
                        {"x": (2, 5, 4, 3)},
                        {"k": i64(k)},
                        outputs=("v", "i"),
                        tolerance=EXACT,
                    )
                )
    cases.append(
        Case(
            "topk_all_of_i32",
            ["v, i = TopK(x, k)"],
            {"x": (TensorProto.INT32, [3, 17])},
            {"k": i64(17)},
            outputs=("v", "i"),
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "topk_values_only",
            ["v, i = TopK(x, k)", "y = Relu(v)"],
            {"x": ["n", 19]},
            {"k": i64(4)},
            sizes=[{"n": 1}, {"n": 7}],
            tolerance=EXACT,
        )
    )
    return cases


def gather_cases() -> list[Case]:
    """Indices that only the run knows, and the gathers and scatters by elements and tuples."""
    rng = np.random.default_rng(7)
    table = rng.standard_normal((11, 5)).astype(np.float32)
    cases = []
    for axis in (0, 1, -1):
        size = (4, 5, 6)[axis]
        for kind in (TensorProto.INT64, TensorProto.INT32):
            dtype = np.int64 if kind == TensorProto.INT64 else np.int32
            cases.append(
                Case(
                    f"gather_at_run_time_{axis}_{kind}",
                    ["h = Relu(x)", f"y = Gather<axis={axis}>(h, i)"],
                    {"x": (4, 5, 6), "i": (kind, [2, 3])},
                    feeds={
                        "x": rng.standard_normal((4, 5, 6)).astype(np.float32),
                        "i": rng.integers(-size, size, (2, 3)).astype(dtype),
                    },
                    tolerance=EXACT,
                )
            )
    cases.append(
        Case(
            "embedding",
            ["e = Gather(t, i)", "y = Relu(e)"],
            {"i": (TensorProto.INT64, ["n", 6])},
            {"t": table},
            feeds={"i": rng.integers(-11, 11, (3, 6))},
            tolerance=EXACT,
        )
    )
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    for axis in (0, 1, 2):
        indices = rng.integers(-x.shape[axis], x.shape[axis], (2, 3, 4))
        cases.append(
            Case(
                f"gather_elements_{axis}",
                ["h = Neg(x)", f"y = GatherElements<axis={axis}>(h, i)"],
                {"x": (3, 4, 5), "i": (TensorProto.INT64, [2, 3, 4])},
                feeds={"x": x, "i": indices},
                tolerance=EXACT,
            )
        )
    tuples = ((0, (2, 2)), (0, (3, 1)), (0, (2, 1, 3)), (1, (3, 2)), (1, (3, 2, 1)))
    for batch_dims, shape in tuples:
        limits = x.shape[batch_dims : batch_dims + shape[-1]]
        indices = np.stack([rng.integers(-n, n, shape[:-1]) for n in limits], axis=-1)
        cases.append(
            Case(
                f"gather_nd_{batch_dims}_{'x'.join(map(str, shape))}",
                ["h = Neg(x)", f"y = GatherND<batch_dims={batch_dims}>(h, i)"],
                {"x": (3, 4, 5), "i": (TensorProto.INT64, list(shape))},
                feeds={"x": x, "i": indices},
                tolerance=EXACT,
            )
        )
    return cases


def scatter_cases() -> list[Case]:
    """Updates that replace, and that are combined, with repeated places."""
    rng = np.random.default_rng(9)
    cases = []
    for name, dtype in (("f32", np.float32), ("i64", np.int64), ("u8", np.uint8)):
        kind = {"f32": TensorProto.FLOAT, "i64": TensorProto.INT64, "u8": TensorProto.UINT8}[name]
        x = (rng.random((4, 5, 3)) * 50).astype(dtype)
        for reduction in ("none", "add", "mul", "max", "min"):
            if name == "u8" and reduction != "none":
                continue
            # Places of "none" differ: otherwise the order counts.
            for axis in (0, 1, -1):
                indices = np.stack(
                    [
                        rng.permutation(x.shape[axis])[:2]
                        if reduction == "none"
                        else rng.integers(-x.shape[axis], x.shape[axis], 2)
                        for _ in range(4)
                    ]
                ).reshape(2, 2, 2)
                indices = np.moveaxis(indices, -1, axis)
                updates = (rng.random(indices.shape) * 50).astype(dtype)
                cases.append(
                    Case(
                        f"scatter_elements_{name}_{reduction}_{axis}",
                        [f'y = ScatterElements<axis={axis}, reduction="{reduction}">(x, i, u)'],
                        {
                            "x": (kind, [4, 5, 3]),
                            "i": (TensorProto.INT64, list(indices.shape)),
                            "u": (kind, list(updates.shape)),
                        },
                        feeds={"x": x, "i": indices, "u": updates},
                        tolerance=ROUNDED,
                    )
                )
            places = np.array([[0, 1], [3, -1], [2, 2]])
            if reduction != "none":
                places[2] = places[0]
            updates = (rng.random((3, 3)) * 50).astype(dtype)
            cases.append(
                Case(
                    f"scatter_nd_{name}_{reduction}",
                    [f'y = ScatterND<reduction="{reduction}">(x, i, u)'],
                    {
                        "x": (kind, [4, 5, 3]),
                        "i": (TensorProto.INT64, [3, 2]),
                        "u": (kind, [3, 3]),
                    },
                    feeds={"x": x, "i": places, "u": updates},
                    tolerance=ROUNDED,
                )
            )
    return cases


def line_cases() -> list[Case]:
    """CumSum, Trilu, Tile, OneHot."""
    cases = []
    for axis in (0, 1, -1):
        for exclusive in (0, 1):
            for reverse in (0, 1):
                cases.append(
                    Case(
                        f"cumsum_{axis}_{exclusive}_{reverse}",
                        [
                            "h = Relu(x)",
                            f"y = CumSum<exclusive={exclusive}, reverse={reverse}>(h, a)",
                        ],
                        {"x": (2, 3, 5, 7)},
                        {"a": np.array(axis, np.int64)},
                        tolerance=SUM,
                    )
                )
    cases.append(
        Case(
            "cumsum_i32",
            ["y = CumSum(x, a)"],
            {"x": (TensorProto.INT32, ["n", 3])},
            {"a": np.array(0, np.int64)},
            sizes=[{"n": 1}, {"n": 13}],
            tolerance=EXACT,
        )
    )
    for upper in (0, 1):
        for k in (None, -7, -1, 0, 2, 9):
            constants = {} if k is None else {"k": np.array(k, np.int64)}
            cases.append(
                Case(
                    f"trilu_{upper}_{k}",
                    ["h = Neg(x)", f"y = Trilu<upper={upper}>({'h, k' if constants else 'h'})"],
                    {"x": (2, 3, 4, 6)},
                    constants,
                    tolerance=EXACT,
                )
            )
    cases.append(
        Case("trilu_i64", ["y = Trilu(x)"], {"x": (TensorProto.INT64, [5, 3])}, tolerance=EXACT)
    )
    for number, repeats in enumerate(((1, 1, 1), (2, 1, 3), (1, 4, 1), (3, 2, 2))):
        cases.append(
            Case(
                f"tile_{number}",
                ["h = Relu(x)", "m = Tile(h, r)", "y = Neg(m)"],
                {"x": ["n", 3, 5]},
                {"r": i64(*repeats)},
                sizes=[{"n": 1}, {"n": 2}],
                tolerance=EXACT,
            )
        )
    for axis in (0, 1, -1):
        cases.append(
            Case(
                f"one_hot_{axis}",
                [f"y = OneHot<axis={axis}>(x, d, v)"],
                {"x": (TensorProto.INT64, [2, 3])},
                {"d": np.array(5, np.int64), "v": np.array([-1, 2], np.float32)},
                feeds={"x": np.array([[0, 4, -1], [2, 7, -6]])},
                tolerance=EXACT,
            )
        )
    return cases


CASES = unique(arg_cases() + topk_cases() + gather_cases() + scatter_cases() + line_cases())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, engine: Engine) -> None:
    check(case, engine)


def test_indices_outside(engine: Engine) -> None:
    """A run cannot fail: what an index misses is NaN, or 0 where there is none."""
    if not engine.is_native:
        pytest.skip("the interpreter raises an error")
    for kind, missing in ((TensorProto.FLOAT, np.nan), (TensorProto.INT32, 0)):
        x = np.array([3, 4, 5]).astype(np.float32 if kind == TensorProto.FLOAT else np.int32)
        for op in ("Gather", "GatherElements"):
            case = Case(
                f"outside_{op}",
                [f"y = {op}(x, i)"],
                {"x": (kind, [3]), "i": (TensorProto.INT64, [4])},
            )
            found = case.load(engine)(x=x, i=i64(2, 3, -4, -3))
            np.testing.assert_array_equal(found, np.array([5, missing, missing, 3]))
