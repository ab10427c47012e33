"""Ops that find, pick and scatter elements, along one axis or by indices; any dtype."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from sparsert.errors import BackendError
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
    rng = np.random.default_rng(3)
    long = {
        "ties": rng.integers(0, 9, (5, 397)),
        "rising": np.tile(np.arange(397), (5, 1)),
        "falling": np.tile(-np.arange(397), (5, 1)),
        "ends": np.where(np.arange(397) % 396 == 0, 1, 0)[None].repeat(5, 0),
    }
    for label, values in long.items():
        for op in ("ArgMax", "ArgMin"):
            for name, dtype in NUMBERS.items():
                for last in (0, 1):
                    x = values.astype({1: np.float32, 6: np.int32, 7: np.int64}[dtype])
                    cases.append(
                        Case(
                            f"{op}_{name}_long_{label}_{last}",
                            [f"y = {op}<axis=1, select_last_index={last}>(x)"],
                            {"x": (dtype, [5, 397])},
                            feeds={"x": x},
                            tolerance=EXACT,
                        )
                    )
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
def test_case(case: Case) -> None:
    check(case)


BAD_INDEX = {
    "Gather": ("y = Gather<axis=0>(x, i)", {}, (4, 3)),
    "GatherElements": ("y = GatherElements<axis=0>(x, i)", {}, (4, 3)),
    "GatherND": ("y = GatherND(x, i)", {}, (4, 1)),
    "ScatterElements": ("y = ScatterElements<axis=0>(x, i, u)", {"u": (4, 3)}, (4, 3)),
    "ScatterND": ('y = ScatterND<reduction="add">(x, i, u)', {"u": (4, 3)}, (4, 1)),
}


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
@pytest.mark.parametrize("op", BAD_INDEX)
def test_indices_outside(op: str, kind: int, engine: Engine) -> None:
    """The error names the node, the index and its bounds; the next run works."""
    text, more, shape = BAD_INDEX[op]
    if op.endswith("ND") and kind == TensorProto.INT32:
        pytest.skip("onnx has int64 indices alone")
    case = Case(f"outside_{op}", [text], {"x": (5, 3), **more, "i": (kind, list(shape))})
    model = case.load(engine)
    rng = np.random.default_rng(2)
    dtype = np.int64 if kind == TensorProto.INT64 else np.int32
    feeds = {"x": rng.standard_normal((5, 3)).astype(np.float32)}
    feeds |= {name: rng.standard_normal(dims).astype(np.float32) for name, dims in more.items()}
    good = np.arange(np.prod(shape)).reshape(shape).astype(dtype) % 5
    wanted = model.run(None, {**feeds, "i": good})[0]
    for bad in (5, -6, 2**31 - 1):
        indices = good.copy()
        indices[3, 0] = bad
        with pytest.raises(BackendError) as caught:
            model.run(None, {**feeds, "i": indices})
        if engine.is_native:
            for part in (f"node '{op}_0' ({op})", f"index {bad} of 'i'", "[-5, 5)"):
                assert part in str(caught.value)
    np.testing.assert_array_equal(model.run(None, {**feeds, "i": good})[0], wanted)


def test_a_token_that_the_embedding_lacks(engine: Engine) -> None:
    """In a model, through each way to run it."""
    case = Case(
        "bad_token",
        ["e = Gather(t, i)", "h = MatMul(e, w)", "y = Relu(h)"],
        {"i": (TensorProto.INT64, ["n", 7])},
        {"t": np.ones((11, 5), np.float32), "w": np.ones((5, 4), np.float32)},
    )
    model = case.load(engine)
    tokens = np.zeros((3, 7), np.int64)
    assert model(tokens).shape == (3, 7, 4)
    tokens[2, 6] = 11
    for run in (
        lambda: model(tokens),
        lambda: model.run(None, {"i": tokens}),
        lambda: model.run(["y"], {"i": tokens}),
        lambda: model.profile({"i": tokens}, runs=1),
    ):
        with pytest.raises(BackendError, match="index 11" if engine.is_native else "11"):
            run()
