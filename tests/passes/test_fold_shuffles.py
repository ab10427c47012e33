"""fold_shuffles: a channel shuffle becomes one Gather, or goes into the weights around it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights

PASSES = ("lower_convs", "fold_shuffles", "tidy_graph")
CONSTANTS = {
    "apart": np.array([0, 2, 3, 5, 4]),
    "together": np.array([0, 6, 5, 4]),
    "w": weights(6, 6, 1, 1),
    "v": weights(4, 6, 3, 3, seed=1),
    "b": weights(6, seed=2),
    "d": weights(6, 1, 3, 3, seed=3),
    "g": weights(6, 3, 1, 1, seed=4),
}


def shuffle(x: str, y: str) -> list:
    """The three nodes that a shuffle of two groups is exported as."""
    return [
        node("Reshape", [x, "apart"], [f"{y}_apart"]),
        node("Transpose", [f"{y}_apart"], [f"{y}_swapped"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", [f"{y}_swapped", "together"], [y]),
    ]


def check(nodes: list, wanted: list[str], outputs: tuple[str, ...] = ("y",), batch: object = 2):
    """One case: the operators that the passes leave, and the same answers."""
    used = {name for made in nodes for name in made.input}
    constants = {name: value for name, value in CONSTANTS.items() if name in used}
    proto = build(nodes, {"x": (batch, 6, 5, 4)}, outputs, constants)
    model = apply(proto, *PASSES)
    assert ops(model) == wanted
    assert_same(proto, model)
    return model


@pytest.mark.parametrize("batch", [1, 3, "N"])
def test_alone_it_is_one_gather(batch):
    model = check(shuffle("x", "y"), ["Gather"], batch=batch)
    gather = next(iter(model.graph))
    assert gather.attributes["axis"].value == 1
    assert gather.inputs[1].const_value.numpy().tolist() == [0, 3, 1, 4, 2, 5]


def test_users_take_it():
    nodes = [
        *shuffle("x", "s"),
        node("Conv", ["s", "w", "b"], ["y"]),
        node("Conv", ["s", "v"], ["z"], pads=[1, 1, 1, 1]),
    ]
    check(nodes, ["sparsert.Conv", "sparsert.Conv"], ("y", "z"))


def test_producer_takes_it_through_depthwise_and_activation():
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "d", "b"], ["e"], group=6, pads=[1, 1, 1, 1]),
        *shuffle("e", "s"),
        node("Sigmoid", ["s"], ["y"]),
    ]
    check(nodes, ["sparsert.Conv", "Relu", "sparsert.Conv", "Sigmoid"])


def test_shared_weights_are_copied():
    nodes = [
        *shuffle("x", "s"),
        node("Conv", ["s", "w"], ["y"]),
        node("Conv", ["x", "w"], ["z"]),
    ]
    check(nodes, ["sparsert.Conv", "sparsert.Conv"], ("y", "z"))


STAYS = {
    "grouped user": [*shuffle("x", "s"), node("Conv", ["s", "g"], ["y"], group=2)],
    "grouped producer": [node("Conv", ["x", "g"], ["a"], group=2), *shuffle("a", "y")],
    "producer with another user": [
        node("Conv", ["x", "w"], ["a"]),
        *shuffle("a", "s"),
        node("Add", ["a", "s"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", STAYS)
def test_it_stays_a_gather(name):
    nodes = STAYS[name]
    wanted = {
        "grouped user": ["Gather", "sparsert.Conv"],
        "grouped producer": ["sparsert.Conv", "Gather"],
        "producer with another user": ["sparsert.Conv", "Gather", "Add"],
    }
    check(nodes, wanted[name])


def test_graph_output_keeps_its_order():
    nodes = [*shuffle("x", "y"), node("Conv", ["y", "w"], ["z"])]
    check(nodes, ["Gather", "sparsert.Conv"], ("y", "z"))


def test_other_transposes_are_left():
    nodes = [
        node("Reshape", ["x", "apart"], ["a"]),
        node("Transpose", ["a"], ["t"], perm=[0, 1, 2, 4, 3]),
        node("Reshape", ["t", "together"], ["y"]),
    ]
    check(nodes, ["Reshape", "Transpose", "Reshape"])
