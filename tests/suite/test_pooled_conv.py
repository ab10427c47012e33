"""Convolutions over a few small planes, and the 2 x 2 max-pools that their step computes too."""

from __future__ import annotations

import pytest

import sparsert
from tests.suite.harness import NETWORK, Case, check, random_weights, unique

WEIGHTS = {
    "three": random_weights(7, 1, 3, 3),
    "five": random_weights(6, 2, 5, 5),
    "wide": random_weights(5, 3, 1, 3),
    "next": random_weights(4, 7, 3, 3),
    "bias": random_weights(7),
}
CONV = "c = Conv(x, three, bias)"
POOL = "kernel_shape=[2,2], strides=[2,2]"
# Name -> nodes, channels of x, whether one step computes both.
GRAPHS = {
    "no activation": ([CONV, f"y = MaxPool<{POOL}>(c)"], 1, True),
    "relu": ([CONV, "r = Relu(c)", f"p = MaxPool<{POOL}>(r)", "y = Conv(p, next)"], 1, True),
    "clip": ([CONV, "r = Clip(c, low, high)", f"y = MaxPool<{POOL}>(r)"], 1, True),
    "sigmoid": ([CONV, "r = Sigmoid(c)", f"p = MaxPool<{POOL}>(r)", "y = Neg(p)"], 1, True),
    "padded": (["c = Conv<pads=[2,2,2,2]>(x, five)", f"y = MaxPool<{POOL}>(c)"], 2, True),
    "uneven padding": (["c = Conv<pads=[0,1,0,0]>(x, wide)", f"y = MaxPool<{POOL}>(c)"], 3, True),
    "flattened": ([CONV, f"p = MaxPool<{POOL}>(c)", "y = Flatten(p)"], 1, True),
    "used later": ([CONV, f"p = MaxPool<{POOL}>(c)", "q = Abs(x)", "s = ReduceSum(q)"]
    + ["y = Add(p, s)"], 1, True),
    "conv is an output": ([CONV, f"z = MaxPool<{POOL}>(c)", "y = Relu(c)"], 1, False),
    "conv read twice": ([CONV, f"p = MaxPool<{POOL}>(c)", "q = GlobalMaxPool(c)"]
    + ["y = Add(p, q)"], 1, False),
    "two pools": ([CONV, f"p = MaxPool<{POOL}>(c)", f"q = AveragePool<{POOL}>(c)"]
    + ["y = Add(p, q)"], 1, False),
    "average": ([CONV, f"y = AveragePool<{POOL}>(c)"], 1, False),
    "three by three": ([CONV, "y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(c)"], 1, False),
    "overlapping": ([CONV, "y = MaxPool<kernel_shape=[2,2]>(c)"], 1, False),
    "padded pool": ([CONV, f"y = MaxPool<{POOL}, pads=[1,1,1,1]>(c)"], 1, False),
    "joined": ([CONV, f"p = MaxPool<{POOL}>(c)", "d = Conv(x, three)"]
    + [f"q = MaxPool<{POOL}>(d)", "y = Concat<axis=1>(p, q)"], 1, None),
    "no pool": (["y = Conv<pads=[1,1,1,1]>(x, three, bias)"], 1, False),
}  # fmt: skip
SIZES = ((28, 28), (13, 17), (9, 40))


def constants(nodes: list[str]) -> dict:
    """The weights that the nodes name."""
    text = " ".join(nodes)
    found = {name: w for name, w in WEIGHTS.items() if name in text}
    if "low" in text:
        found |= {"low": random_weights() * 0 - 0.25, "high": random_weights() * 0 + 0.5}
    return found


def make(name: str, batch: int, size: tuple[int, int]) -> Case:
    """The case of one graph and input size."""
    nodes, channels, _ = GRAPHS[name]
    outputs = ("y", "z") if any(node.startswith("z ") for node in nodes) else ("y",)
    label = f"{name} {batch}x{size[0]}x{size[1]}"
    return Case(label, nodes, {"x": [batch, channels, *size]}, constants(nodes), outputs,
                tolerance=NETWORK)  # fmt: skip


CASES = unique(
    [
        make(name, batch, size)
        for name in GRAPHS
        for batch, size in zip((1, 3, 2), SIZES, strict=True)
    ]
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions_with_pools(case):
    check(case)


@pytest.mark.parametrize("name", GRAPHS)
def test_one_step_where_nobody_else_reads_the_planes(name: str) -> None:
    fused = GRAPHS[name][2]
    model = sparsert.load(make(name, 1, SIZES[0]).proto, threads=1, tune=False)
    rows = model.explain().to_dict()["rows"]
    assert any(str(row["kernel"]).startswith("rowconv_dense_f32") for row in rows)
    if fused is not None:
        pools = [row["step_count"] for row in rows if row["op"] in ("MaxPool", "AveragePool")]
        assert (0 in pools) == fused


def test_sparse_or_large_layers_stay_products() -> None:
    text = ["y = Conv(x, w)"]
    for w, x in (
        (random_weights(8, 1, 3, 3, sparsity=0.9), [1, 1, 28, 28]),
        (random_weights(8, 16, 3, 3), [1, 16, 28, 28]),
        (random_weights(8, 3, 3, 3), [1, 3, 224, 224]),
    ):
        model = sparsert.load(Case("one", text, {"x": x}, {"w": w}).proto, threads=1, tune=False)
        assert "rowconv" not in str(model.explain())
