"""Random graphs on every engine: fusions, views and lifetimes in combinations no one thought of."""

from __future__ import annotations

import pytest

from sparsert.errors import ShapeError
from tests.suite.harness import Case, Engine, check
from tests.suite.random_graphs import random_case

CASES = [random_case(seed) for seed in range(60)]
# The interpreter takes what the planner refuses.
NOT_NATIVE = {"random_53": "Pad is folded into an AveragePool with a smaller kernel"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_random_graph(case: Case, engine: Engine) -> None:
    if case.name in NOT_NATIVE and engine.is_native:
        with pytest.raises(ShapeError):
            check(case, engine)
        pytest.xfail(NOT_NATIVE[case.name])
    check(case, engine)
