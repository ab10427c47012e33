"""lower_scatters: a ScatterND that assigns to a box becomes slices around the updates."""

from __future__ import annotations

import numpy as np
import pytest

import sparsert
from tests.passes.pass_checks import apply, assert_same, build, node, ops


def scatter(indices, data, updates, **attributes):
    """A model that scatters `updates` into `data` at constant indices."""
    return build(
        [node("ScatterND", ["x", "i", "u"], ["y"], **attributes)],
        {"x": data, "u": updates},
        ["y"],
        {"i": np.asarray(indices, np.int64)},
    )


def grid(*ranges):
    """The indices of a box: the grid of its ranges, and an index per axis."""
    return np.stack(np.meshgrid(*map(np.arange, *zip(*ranges, strict=True)), indexing="ij"), -1)


@pytest.mark.parametrize(
    ("data", "ranges"),
    [
        ((2, 3, 5, 7), [(0, 2), (0, 3), (1, 5), (1, 7)]),
        ((2, 3, 5, 7), [(0, 2), (0, 3), (0, 5), (0, 7)]),
        ((2, 3, 5, 7), [(1, 2), (1, 2), (2, 4), (3, 7)]),
        ((1, 1, 3), [(0, 1), (0, 1), (1, 2)]),
        ((2, 3, 5, 7), [(0, 2), (1, 3)]),
        ((4, 3), [(0, 1)]),
        ((6,), [(2, 5)]),
    ],
)
def test_a_box(data, ranges):
    indices = grid(*ranges)
    proto = scatter(indices, data, (*indices.shape[:-1], *data[len(ranges) :]))
    model = apply(proto, "lower_scatters", "infer_shapes", "drop_noops", "tidy_graph")
    assert "ScatterND" not in ops(model)
    assert_same(proto, model)


def test_the_whole_is_the_updates():
    nodes = [node("Exp", ["u"], ["v"]), node("ScatterND", ["x", "i", "v"], ["s"])]
    proto = build(
        [*nodes, node("Relu", ["s"], ["y"])],
        {"x": (2, 3, 4), "u": (2, 3, 4)},
        ["y"],
        {"i": grid((0, 2), (0, 3), (0, 4))},
    )
    model = apply(proto, "lower_scatters", "drop_noops", "tidy_graph")
    assert ops(model) == ["Exp", "Relu"]
    assert_same(proto, model)


def test_axes_of_one_element_need_no_range():
    """x[:, 2, 1:] = u with the index of the middle axis anywhere in the grid."""
    indices = np.array([[[i, 2, j] for j in range(1, 5)] for i in range(3)])
    proto = scatter(indices[:, None], (3, 4, 5), (3, 1, 4))
    model = apply(proto, "lower_scatters", "tidy_graph")
    assert "ScatterND" not in ops(model)
    assert_same(proto, model)


@pytest.mark.parametrize(
    "indices",
    [
        [[0], [0]],  # twice the same place
        [[1], [0]],
        [[0], [2]],
        [[-1], [0]],
        [[-3], [-2]],
        [[0, 0], [1, 1]],  # a diagonal
        [[[0, 0], [1, 0]], [[0, 1], [1, 1]]],  # the first axis runs fastest
        [[[0, 0], [0, 1]], [[0, 0], [0, 1]]],
        [[[0, 0], [0, 1]], [[1, 1], [1, 0]]],
        [[[0, 0], [0, 1]], [[1, 0], [1, 2]]],
    ],
)
def test_others_are_left_alone(indices):
    shape = np.shape(indices)
    proto = scatter(indices, (3, 3, 2), (*shape[:-1], *(3, 3, 2)[shape[-1] :]))
    model = apply(proto, "lower_scatters")
    assert ops(model) == ["ScatterND"]
    assert_same(proto, model)


@pytest.mark.parametrize("data", [(2, 3), ("n", 3)])
def test_sums_symbols_and_indices_of_the_run_are_left_alone(data):
    reduced = scatter(grid((0, 2)), data, (2, 3), reduction="add")
    assert ops(apply(reduced, "lower_scatters")) == ["ScatterND"]
    if data[0] == "n":
        assert ops(apply(scatter(grid((0, 2)), data, (2, 3)), "lower_scatters")) == ["ScatterND"]
    outside = scatter(grid((1, 3)), (2, 3), (2, 3))
    assert ops(apply(outside, "lower_scatters")) == ["ScatterND"]


@pytest.mark.parametrize("axis", [-1, 4])
def test_expanded_ranges(axis):
    """What PyTorch exports; the grid is larger than the constants that are folded."""
    shape = np.array([2, 3, 150, 70])
    ranges = [np.arange(2).reshape(2, 1, 1, 1), np.arange(3).reshape(3, 1, 1)]
    ranges += [np.arange(2, 152).reshape(150, 1), np.arange(1, 71)]
    nodes = []
    for i in range(4):
        nodes.append(node("Expand", [f"r{i}", "s"], [f"e{i}"]))
        nodes.append(node("Unsqueeze", [f"e{i}", "last"], [f"c{i}"]))
    nodes.append(node("Concat", [f"c{i}" for i in range(4)], ["i"], axis=axis))
    proto = build(
        [*nodes, node("ScatterND", ["x", "i", "u"], ["y"])],
        {"x": (2, 3, 152, 72), "u": (2, 3, 150, 70)},
        ["y"],
        {"s": shape, "last": np.array([-1]), **{f"r{i}": r for i, r in enumerate(ranges)}},
    )
    model = apply(proto, "lower_scatters", "tidy_graph")
    assert sorted(set(ops(model))) == ["Concat", "Reshape", "Slice"]
    assert_same(proto, model)


@pytest.mark.parametrize("first", [0, 1])
def test_assignment_of_pytorch(first):
    torch = pytest.importorskip("torch")

    class Biased(torch.nn.Module):
        def forward(self, x, u):
            x = x * 2
            x[:, :, first:, first:] = u
            return x

    x, u = torch.randn(2, 3, 6, 9), torch.randn(2, 3, 6 - first, 9 - first)
    model = sparsert.load(Biased(), example_inputs=(x, u), threads=1)
    assert not any(record["op"] in ("ScatterND", "Expand") for record in model.explain().records)
    np.testing.assert_allclose(model(x.numpy(), u.numpy()), Biased()(x, u).numpy(), rtol=1e-6)
