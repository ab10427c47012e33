"""lower_batch_norms: four constant parameters become one scale and one shift."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops


def statistics(channels: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    draw = lambda low, high: rng.uniform(low, high, channels).astype(np.float32)  # noqa: E731
    return {"g": draw(-1, 1), "b": draw(-1, 1), "m": draw(-1, 1), "v": draw(0.1, 2)}


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 7), (2, 3, 5, 5)])
def test_batch_norm(shape):
    proto = build(
        [node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"], epsilon=1e-3)],
        {"x": shape},
        ["y"],
        statistics(3),
    )
    model = apply(proto, "lower_batch_norms", "tidy_graph")
    assert ops(model) == ["sparsert.BatchNormalization"]
    assert_same(proto, model)


def test_computed_statistics_stay():
    proto = build(
        [node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"])],
        {"x": (2, 3, 4, 4), "m": (3,)},
        ["y"],
        {k: v for k, v in statistics(3).items() if k != "m"},
    )
    assert ops(apply(proto, "lower_batch_norms")) == ["BatchNormalization"]
