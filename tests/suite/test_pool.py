"""Pools: windows, ceil_mode, count_include_pad, dilations, asymmetric paddings, global ones."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from tests.suite.harness import ENGINES_WITH_NUMBA, EXACT, SUM, Case, check, unique


def all_cases() -> list[Case]:
    """MaxPool and AveragePool over one list of windows; the global pools."""
    cases = []
    windows = [
        "kernel_shape=[2,2], strides=[2,2]",
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]",
        "kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1]",
        "kernel_shape=[3,3], strides=[2,2], ceil_mode=1",
        "kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1]",
        "kernel_shape=[3,2], strides=[2,3], pads=[2,0,1,1]",
        "kernel_shape=[2,2], strides=[3,3], ceil_mode=1, pads=[0,1,1,0]",
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1",
        "kernel_shape=[3,3], dilations=[2,2]",
        "kernel_shape=[2,3], dilations=[3,1], strides=[2,2], pads=[1,1,1,1]",
        "kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2], ceil_mode=1, strides=[3,2]",
        "kernel_shape=[1,1], strides=[2,2]",
        "kernel_shape=[11,13]",
        'kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER"',
        'kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_LOWER"',
        'kernel_shape=[3,3], strides=[2,2], auto_pad="VALID"',
        "kernel_shape=[1,5], pads=[0,2,0,2]",
        "kernel_shape=[5,1], pads=[2,0,2,0]",
        "kernel_shape=[5,5], strides=[4,4], pads=[2,2,2,2]",
    ]
    for number, window in enumerate(windows):
        x = {"x": (2, 3, 11, 13)}
        # onnxruntime reads average pools with dilations since opset 19.
        cases.append(Case(f"max_{number}", [f"y = MaxPool<{window}>(x)"], x, tolerance=EXACT))
        for include in (0, 1):
            text = f"y = AveragePool<{window}, count_include_pad={include}>(x)"
            cases.append(Case(f"average_{number}_include{include}", [text], x))
    lines = [
        "kernel_shape=[3], strides=[2]",
        "kernel_shape=[4], strides=[4], pads=[2,1], ceil_mode=1",
        "kernel_shape=[4], strides=[4]",
        "kernel_shape=[2], dilations=[5]",
        "kernel_shape=[49]",
    ]
    for number, window in enumerate(lines):
        for op in ("MaxPool", "AveragePool"):
            cases.append(
                Case(
                    f"1d_{op}_{number}",
                    [f"y = {op}<{window}>(x)"],
                    {"x": (2, 5, 49)},
                    tolerance=EXACT if op == "MaxPool" else SUM,
                )
            )
    narrow = {
        "width": "kernel_shape=[3,3], pads=[1,1,1,1]",
        "half_width": "kernel_shape=[2,2], strides=[2,2], ceil_mode=1",
        "quarter_width": "kernel_shape=[2,4], strides=[2,4], ceil_mode=1",
        "padded_half_width": "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]",
        "left_half_width": "kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0], ceil_mode=1",
        "right_half_width": "kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1]",
    }
    for width in (1, 2, 13, 15, 16, 17, 31, 33, 64, 65, 97):
        for op in ("MaxPool", "AveragePool"):
            for label, window in narrow.items():
                if width == 1 and label.startswith(("left", "right")):
                    continue  # the window is wider than the padded input
                cases.append(
                    Case(
                        f"{op}_{label}{width}",
                        [f"y = {op}<{window}>(x)"],
                        {"x": (1, 2, 3, width)},
                        tolerance=EXACT if op == "MaxPool" else SUM,
                    )
                )
    for op in ("GlobalMaxPool", "GlobalAveragePool"):
        for shape in ((1, 1, 1, 1), (2, 5, 7, 7), (3, 17, 33), (1, 3, 197, 5), (7, 4, 2, 8)):
            label = "x".join(map(str, shape))
            cases.append(
                Case(
                    f"{op}_{label}",
                    [f"y = {op}(x)"],
                    {"x": shape},
                    tolerance=EXACT if op == "GlobalMaxPool" else SUM,
                )
            )
        cases.append(
            Case(
                f"{op}_dynamic",
                [f"y = {op}(x)"],
                {"x": ["n", 5, "h", "w"]},
                tolerance=EXACT if op == "GlobalMaxPool" else SUM,
                sizes=[{"n": 1, "h": 1, "w": 1}, {"n": 3, "h": 9, "w": 4}],
            )
        )
    cases.append(
        Case(
            "max_dynamic",
            ["y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)"],
            {"x": ["n", 5, "h", "w"]},
            tolerance=EXACT,
            sizes=[{"n": 1, "h": 3, "w": 3}, {"n": 7, "h": 9, "w": 4}],
        )
    )
    cases.append(
        Case(
            "max_of_negatives",
            ["y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)"],
            {"x": (1, 2, 4, 4)},
            tolerance=EXACT,
            low=-9.0,
            high=-8.0,
        )
    )
    return cases


def index_cases() -> list[Case]:
    """MaxPool with the places of the maxima; of bytes, too."""
    cases = []
    windows = {
        "plain": "kernel_shape=[2,2], strides=[2,2]",
        "pads": "kernel_shape=[3,3], pads=[1,1,1,1]",
        "dilated": "kernel_shape=[3,2], strides=[2,1], dilations=[2,3], pads=[2,1,2,1]",
        "ceil": "kernel_shape=[3,3], strides=[2,2], ceil_mode=1",
        "columns": "kernel_shape=[2,3], storage_order=1",
    }
    for label, window in windows.items():
        for shape in ((1, 2, 6, 9), (3, 5, 7, 7), ("n", 2, 11, "w")):
            cases.append(
                Case(
                    f"indices_{label}_{shape[0]}",
                    ["h = Neg(x)", f"v, i = MaxPool<{window}>(h)"],
                    {"x": shape},
                    outputs=("v", "i"),
                    tolerance=EXACT,
                    sizes=[{"n": 4, "w": 8}, {"n": 1, "w": 33}] if "n" in shape else [{}],
                )
            )
    cases.append(
        Case(
            "indices_1d_alone",
            ["v, i = MaxPool<kernel_shape=[3], strides=[2]>(x)", "y = Cast<to=1>(i)"],
            {"x": (2, 3, 17)},
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "max_of_u8",
            ["y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)"],
            {"x": (TensorProto.UINT8, [1, 2, 6, 9])},
            tolerance=EXACT,
        )
    )
    return cases


@pytest.mark.parametrize("case", unique(all_cases() + index_cases()), ids=str)
def test_pool(case: Case) -> None:
    check(case, ENGINES_WITH_NUMBA)
