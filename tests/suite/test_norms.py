"""LayerNormalization and RMSNormalization: axes, layouts, precision, and spelt-out forms."""

from __future__ import annotations

import numpy as np
import pytest

import sparsert
from tests.suite.harness import (
    ENGINES_WITH_NUMBA,
    FUNCTION,
    OPSET,
    Case,
    Engine,
    assert_close,
    check,
    i64,
    op_text,
    random_weights,
    unique,
)

SIZES = [{"n": 1}, {"n": 3}, {"n": 70}]


def vectors(*shape: int) -> dict[str, np.ndarray]:
    """Scale and bias."""
    return {
        "g": random_weights(*shape, scale=1.0) + np.float32(1),
        "b": random_weights(*shape, scale=1.0, seed=1),
    }


def axis_cases() -> list[Case]:
    """Normalised axes from the last one to all, of padded planes too."""
    cases = []
    for shape in ((37,), (5, 37), (5, 4, 37), (3, 5, 4, 37), (3, 5, 4, 1)):
        rank = len(shape)
        for axis in range(1 if rank > 1 else 0, rank):
            for inputs in ("t, g", "t, g, b"):
                cases.append(
                    Case(
                        f"layer_norm_{rank}_{shape[-1]}_axis{axis}_{len(inputs)}",
                        ["t = Relu(x)", f"y = {op_text('LayerNormalization', inputs, axis=axis)}"],
                        {"x": ["n", *shape[1:]]},
                        {k: v for k, v in vectors(*shape[axis:]).items() if k in inputs},
                        tolerance=FUNCTION,
                        sizes=SIZES if rank > 1 else [{"n": 37}],
                    )
                )
    for width in (1, 2, 15, 16, 17, 768, 1100):
        cases.append(
            Case(
                f"width_{width}",
                ["y = LayerNormalization<epsilon=0.001>(x, g, b)"],
                {"x": (3, width)},
                vectors(width),
                tolerance=FUNCTION,
            )
        )
        cases.append(
            Case(
                f"rms_{width}",
                ["y = RMSNormalization<epsilon=0.001>(x, g)"],
                {"x": (3, width)},
                {"g": vectors(width)["g"]},
                opset=23,
                tolerance=FUNCTION,
            )
        )
    return cases


def statistics_cases() -> list[Case]:
    """The mean and the inverse deviation as outputs too."""
    return [
        Case(
            f"statistics_{axis}_{len(outputs)}_{outputs[-1]}",
            [
                f"{', '.join(names)} = LayerNormalization<axis={axis}, epsilon=0.01>(x, g)",
            ],
            {"x": ["n", 5, 37]},
            {"g": random_weights(5, 37, scale=1.0) if axis == 1 else vectors(37)["g"]},
            outputs=outputs,
            sizes=SIZES,
            tolerance=FUNCTION,
        )
        for axis in (1, -1)
        for names in (["y", "m", "d"], ["y", "m"], ["y", "", "d"])
        for outputs in [[name for name in names if name]]
    ]


def layout_cases() -> list[Case]:
    """Inputs and results that are feature-major or not."""
    constants = {
        **vectors(24),
        "w": random_weights(24, 40, sparsity=0.5),
        "v": random_weights(40, 24, sparsity=0.5, seed=1),
        "index": np.int64(0),
    }
    sizes = [{"n": 1, "s": 20}, {"n": 1, "s": 3}, {"n": 2, "s": 70}, {"n": 5, "s": 2}]
    block = ["h = LayerNormalization(x, g, b)", "u = MatMul(h, w)", "m = MatMul(u, v)"]
    return [
        Case(
            "block",
            [*block, "r = Add(m, h)", "y = LayerNormalization(r, g, b)"],
            {"x": ["n", "s", 24]},
            constants,
            sizes=sizes,
            tolerance=FUNCTION,
        ),
        Case(
            "first_token",
            [
                *block,
                "r = Add(m, x)",
                "z = LayerNormalization(r, g, b)",
                "t = Gather<axis=1>(z, index)",
                "y = Add(t, b)",
            ],
            {"x": ["n", "s", 24]},
            constants,
            sizes=sizes,
            tolerance=FUNCTION,
        ),
    ]


# Ways in which exporters write d / sqrt(mean(d^2) + e) with d = x - mean(x).
SQUARES = {"pow": "q = Pow(d, two)", "mul": "q = Mul(d, d)"}
ENDINGS = {
    "div": ["s = Sqrt(w)", "n = Div(d, s)"],
    "pow": ["s = Pow(w, half)", "n = Div(d, s)"],
    "reciprocal": ["s = Sqrt(w)", "i = Reciprocal(s)", "n = Mul(d, i)"],
    "inverse": ["s = Sqrt(w)", "i = Div(one, s)", "n = Mul(i, d)"],
}
CONSTANTS = {
    "two": np.float32(2),
    "half": np.float32(0.5),
    "one": np.float32(1),
    "e": np.float32(1e-5),
    "last": i64(-1),
}


def spelt_out_cases() -> list[Case]:
    """Every way, with the mean and without, and one that squares another mean's difference."""
    cases = []
    for square, text in SQUARES.items():
        for ending, nodes in ENDINGS.items():
            for centred in (True, False):
                head = ["a = ReduceMean(x, last)", "d = Sub(x, a)"] if centred else ["d = Relu(x)"]
                middle = [text, "v = ReduceMean(q, last)", "w = Add(v, e)"]
                tail = ["o = Mul(n, g)", "y = Add(o, b)"] if centred else ["y = Mul(g, n)"]
                cases.append(
                    Case(
                        f"spelt_{square}_{ending}_{'layer' if centred else 'rms'}",
                        [*head, *middle, *nodes, *tail],
                        {"x": ["n", 5, 37]},
                        {**CONSTANTS, **vectors(37)},
                        sizes=SIZES,
                        tolerance=FUNCTION,
                    )
                )
    return cases


SPELT_OUT = spelt_out_cases()
CASES = unique([*axis_cases(), *statistics_cases(), *layout_cases(), *SPELT_OUT])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_norm(case: Case) -> None:
    check(case, ENGINES_WITH_NUMBA)


@pytest.mark.parametrize("case", SPELT_OUT, ids=str)
def test_spelt_out_form_is_one_node(case: Case) -> None:
    rows = sparsert.load(case.proto, backend="native", tune=False)(np.zeros((2, 5, 37), "f"))
    assert rows.shape == (2, 5, 37)
    model = sparsert.load(case.proto, tune=False)
    ops = [row["op"] for row in model.explain().to_dict()["rows"]]
    wanted = "LayerNormalization" if case.name.endswith("layer") else "RMSNormalization"
    assert wanted in ops
    assert "Reduce" not in ops
    assert OPSET < 23


@pytest.mark.parametrize("engine", [e for e in ENGINES_WITH_NUMBA if e.name != "numpy"], ids=str)
def test_far_from_zero(engine: Engine) -> None:
    case = Case(
        "far_from_zero",
        ["y = LayerNormalization(x, g, b)"],
        {"x": (4, 300)},
        vectors(300),
        low=1000.0,
        high=1001.0,
    )
    x = case.runs[0][0]["x"].astype(np.float64)
    d = x - x.mean(axis=1, keepdims=True)
    want = d / np.sqrt(np.square(d).mean(axis=1, keepdims=True) + 1e-5)
    want = want * case.constants["g"] + case.constants["b"]
    assert_close(case.load(engine)(x.astype("f")), want.astype("f"), FUNCTION)


def test_wrong_scale_is_refused() -> None:
    case = Case(
        "wrong",
        ["y = LayerNormalization(x, g)"],
        {"x": ["n", "k"]},
        {"g": vectors(37)["g"]},
    )
    model = sparsert.load(case.proto, strict=True)
    with pytest.raises(sparsert.errors.ShapeError, match="must have the shape"):
        model(np.zeros((2, 36), "f"))
