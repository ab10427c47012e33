"""Random graphs on every engine: fusions, views and lifetimes in combinations no one thought of."""

from __future__ import annotations

import pytest

from tests.suite.harness import Case, check
from tests.suite.random_channels import channel_case
from tests.suite.random_features import feature_case
from tests.suite.random_graphs import random_case

CASES = [
    *(random_case(seed) for seed in range(60)),
    *(channel_case(seed) for seed in range(60)),
    *(feature_case(seed) for seed in range(60)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_random_graph(case: Case) -> None:
    check(case)
