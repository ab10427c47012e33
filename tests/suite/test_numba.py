"""The operators of the other modules of this suite in the Numba backend: one case of each."""

from __future__ import annotations

import pytest

from tests.suite import (
    test_attention,
    test_in_place,
    test_index,
    test_logic,
    test_matmul,
    test_movement,
    test_pooled_conv,
    test_sample,
    test_views,
)
from tests.suite.harness import NUMBA, Case, check

MODULES = (
    *(test_attention, test_index, test_logic, test_matmul, test_movement),
    *(test_sample, test_in_place, test_pooled_conv, test_views),
)


def one_of_each() -> list[Case]:
    """The first case that has an operator which none before it has."""
    seen: set[str] = set()
    chosen = []
    for module in MODULES:
        for case in module.CASES:
            ops = {text.split("=")[1].split("<")[0].split("(")[0].strip() for text in case.nodes}
            if not ops <= seen and not case.known_problem:
                seen |= ops
                chosen.append(case)
    return chosen


@pytest.mark.skipif(not NUMBA, reason="numba is not installed")
@pytest.mark.parametrize("case", one_of_each(), ids=str)
def test_operator(case: Case) -> None:
    check(case, NUMBA)
