"""Binary ops and Mod, shifts and bits on integers of every type, with their edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.suite.harness import EXACT, FUNCTION, Case, Engine, check, unique

TYPES = {
    "u8": TensorProto.UINT8,
    "i8": TensorProto.INT8,
    "u16": TensorProto.UINT16,
    "i16": TensorProto.INT16,
    "u32": TensorProto.UINT32,
    "i32": TensorProto.INT32,
    "u64": TensorProto.UINT64,
    "i64": TensorProto.INT64,
}


def numbers(kind: int, shape: tuple[int, ...], low: int, high: int, seed: int) -> np.ndarray:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    low = low if np.issubdtype(dtype, np.signedinteger) else max(low, 0)
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def case_of(name: str, text: str, kind: int, low: int, high: int, least: int, most: int) -> Case:
    """A in [low, high), b in [least, most)."""
    b = numbers(kind, (3, 1), least, most, 2)
    return Case(
        name,
        [text],
        {"a": (kind, [2, 3, 17]), "b": (kind, [3, 1])},
        feeds={"a": numbers(kind, (2, 3, 17), low, high, 1), "b": b},
        tolerance=EXACT,
    )


def cases() -> list[Case]:
    found = []
    for name, kind in TYPES.items():
        # onnxruntime lacks Min and Max of 16 bits.
        extremes = () if name in ("u16", "i16") else ("Min", "Max")
        for op in ("Add", "Sub", "Mul", *extremes):
            found.append(case_of(f"{op}_{name}", f"y = {op}(a, b)", kind, -100, 100, -100, 100))
        found.append(case_of(f"Div_{name}", "y = Div(a, b)", kind, -100, 100, 1, 9))
        found.append(case_of(f"Mod_{name}", "y = Mod(a, b)", kind, -100, 100, 1, 9))
        for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
            found.append(case_of(f"{op}_{name}", f"y = {op}(a, b)", kind, -100, 100, -100, 100))
    for name, kind in (("i8", TensorProto.INT8), ("i64", TensorProto.INT64)):
        found.append(case_of(f"Mod_{name}_minus", "y = Mod(a, b)", kind, -100, 100, -9, -1))
        found.append(case_of(f"Fmod_{name}", "y = Mod<fmod=1>(a, b)", kind, -100, 100, -9, -1))
    for name, kind in (("i32", TensorProto.INT32), ("i64", TensorProto.INT64)):
        found.append(case_of(f"Div_{name}_minus", "y = Div(a, b)", kind, -100, 100, -9, -1))
        found.append(case_of(f"Pow_{name}", "y = Pow(a, b)", kind, -9, 9, 0, 5))
    for name in ("u8", "u16", "u32", "u64"):
        for direction in ("LEFT", "RIGHT"):
            text = f'y = BitShift<direction="{direction}">(a, b)'
            found.append(case_of(f"Shift_{direction}_{name}", text, TYPES[name], 0, 100, 0, 7))
    found.append(
        Case(
            "Fmod_f32",
            ["y = Mod<fmod=1>(a, b)"],
            {"a": (4, 33), "b": (33,)},
            low=-9,
            high=9,
            tolerance=FUNCTION,
        )
    )
    found.append(
        Case(
            "Fmod_f32_middle",
            ["c = Relu(a)", "d = Mod<fmod=1>(c, b)", "y = Neg(d)"],
            {"a": (2, 3, 5, 7), "b": (3, 1, 1)},
            low=1,
            high=9,
            tolerance=FUNCTION,
        )
    )
    found.append(
        Case(
            "between_other_ops",
            ["c = Cast<to=7>(a)", "d = Add(c, b)", "e = Mul(d, d)", "y = Cast<to=1>(e)"],
            {"a": ["n", 5], "b": (TensorProto.INT64, [5])},
            sizes=[{"n": 1}, {"n": 6}],
            low=-50,
            high=50,
            tolerance=EXACT,
        )
    )
    return unique(found)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_case(case: Case) -> None:
    check(case)


def test_divisions_by_zero_and_of_the_least(engine: Engine) -> None:
    """Nothing traps; the results are those of the kernel's header."""
    if not engine.is_native:
        pytest.skip("NumPy warns, and has results of its own")
    kind = TensorProto.INT32
    least = np.iinfo(np.int32).min
    a = np.array([7, least, least, -7], np.int32)
    b = np.array([0, -1, 0, 2], np.int32)
    for text, want in (
        ("y = Div(a, b)", [0, least, 0, -3]),
        ("y = Mod(a, b)", [0, 0, 0, 1]),
        ("y = Mod<fmod=1>(a, b)", [0, 0, 0, -1]),
    ):
        case = Case("edge", [text], {"a": (kind, [4]), "b": (kind, [4])})
        np.testing.assert_array_equal(case.load(engine)(a, b), np.array(want, np.int32))
