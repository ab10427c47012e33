"""RNN, GRU and LSTM: directions, layouts, states and weights that are given or not."""

from __future__ import annotations

import pytest

from sparsert.importers import import_model
from sparsert.passes import canonicalise
from tests.suite.harness import (
    ENGINES,
    FUNCTION,
    Case,
    Engine,
    check,
    op_text,
    random_weights,
    unique,
)

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
WIDTH, HIDDEN, STEPS = 6, 5, 4


def case(name: str, op: str, given: str = "", outputs: str = "y, h", **attributes: object) -> Case:
    """`given`: which of bias, state h, state c and peepholes p there are, by their letters."""
    direction = str(attributes.get("direction", "forward"))
    count = 2 if direction == "bidirectional" else 1
    rows = GATES[op] * HIDDEN
    constants = {
        "w": random_weights(count, rows, WIDTH, sparsity=0.5, scale=0.5),
        "r": random_weights(count, rows, HIDDEN, sparsity=0.5, scale=0.5, seed=1),
        "b": random_weights(count, 2 * rows, scale=0.5, seed=2),
        "p": random_weights(count, 3 * HIDDEN, scale=0.5, seed=3),
    }
    constants = {k: v for k, v in constants.items() if k in "wr" or k in given}
    inputs: dict[str, object] = {"x": [STEPS, "n", WIDTH]}
    inputs |= {k: [count, "n", HIDDEN] for k in "hc" if k in given}
    names = [k if k in given else "" for k in ("b", "", "h", "c", "p")]
    renamed = {"h": "h0", "c": "c0"}
    inputs = {renamed.get(k, k): v for k, v in inputs.items()}
    while names and not names[-1]:
        names.pop()
    text = ", ".join(["x", "w", "r", *(renamed.get(k, k) for k in names)])
    return Case(
        f"{op}_{name}",
        [f"{outputs} = {op_text(op, text, hidden_size=HIDDEN, **attributes)}"],
        inputs,
        constants,
        outputs=[output for output in outputs.split(", ") if output],
        sizes=[{"n": 1}, {"n": 3}],
        tolerance=FUNCTION,
    )


def cases() -> list[Case]:
    """Each way once, for each operator."""
    found = []
    for op in GATES:
        both = "bh" + ("c" if op == "LSTM" else "")
        outputs = "y, h, c" if op == "LSTM" else "y, h"
        found.append(case("plain", op))
        found.append(case("all", op, both, outputs))
        found.append(case("reverse", op, "b", direction="reverse"))
        found.append(case("bidirectional", op, both, outputs, direction="bidirectional"))
        found.append(case("sequence_alone", op, "h", "y"))
        found.append(case("state_alone", op, "b", ", h"))
    for given in ("", "b", "h", "bh"):
        found.append(case(f"reset_after_{given}", "GRU", given, linear_before_reset=1))
    found.append(case("peepholes", "LSTM", "bhcp", "y, h, c"))
    found.append(case("peepholes_without_state", "LSTM", "p" + "b", "y, , c"))
    return found


CASES = unique(cases())


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_recurrent(case: Case, engine: Engine) -> None:
    check(case, engine)


def test_weights_stay_sparse() -> None:
    """The products with the inputs and with the state are Linear nodes."""
    one = case("sparse", "LSTM", "bhc")
    ops = [node.op_type for node in canonicalise(import_model(one.proto)).graph]
    assert ops.count("Linear") == 1 + STEPS
    assert "MatMul" not in ops


def test_what_is_not_written_out_stays() -> None:
    clipped = case("clipped", "LSTM", clip=1.0)
    assert "LSTM" in [n.op_type for n in canonicalise(import_model(clipped.proto)).graph]
    unknown = case("unknown", "GRU")
    unknown.inputs = {"x": ["t", "n", WIDTH]}
    assert "GRU" in [n.op_type for n in canonicalise(import_model(unknown.proto)).graph]
