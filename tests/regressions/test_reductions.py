"""Reductions and pools that once differed from onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suite.harness import EXACT, FUNCTION, SUM, Case, check

NO_AXES = {"a": np.array([], np.int64)}


@pytest.mark.parametrize("op", ["L1", "L2", "SumSquare", "LogSum", "LogSumExp", "Mean"])
def test_reduction_over_no_axes_keeps_its_function(op: str) -> None:
    """noop_with_empty_axes drops the sum, not the square, the logarithm or the absolute value."""
    text = f"r = Reduce{op}<noop_with_empty_axes=1>(h, a)"
    low = 0.5 if op == "LogSum" else -2.0
    check(
        Case(
            f"no_axes_{op}",
            ["h = Neg(x)", "g = Neg(h)", text.replace("(h", "(g"), "y = Neg(r)"],
            {"x": (2, 3, 17)},
            NO_AXES,
            low=low,
            high=2.0,
            tolerance=SUM,
        )
    )


def test_global_max_pool_of_a_line() -> None:
    """Onnx's own evaluator, behind backend="numpy", knows rank 4 only."""
    check(Case("global_max_1d", ["y = GlobalMaxPool(x)"], {"x": (3, 5, 33)}, tolerance=EXACT))


def test_log_softmax_of_far_values() -> None:
    """Onnx's own evaluator takes the logarithm of 0."""
    x = np.array([[0.0, -500.0, 1000.0]], np.float32)
    check(
        Case(
            "log_softmax_far",
            ["y = LogSoftmax(x)"],
            {"x": (1, 3)},
            feeds={"x": x},
            tolerance=FUNCTION,
        )
    )
