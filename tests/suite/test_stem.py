"""First convolutions in steps of their own, and the 3 x 3 max-pools that these compute too."""

from __future__ import annotations

import numpy as np
import pytest

import sparsert
from tests.suite.harness import ISAS, NETWORK, Case, check, random_weights, unique

WEIGHTS = {
    "seven": random_weights(62, 3, 7, 7),
    "five": random_weights(64, 2, 5, 5),
    "three": random_weights(64, 3, 3, 3),
    "wide": random_weights(32, 1, 8, 8),
    "bias": random_weights(62),
}
CONV = "c = Conv<strides=[2,2], pads=[3,3,3,3]>(x, seven, bias)"
POOL = "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]"
# Name -> nodes, channels of x, whether tile registers run the convolution, and the pool with it.
GRAPHS = {
    "resnet": ([CONV, "r = Relu(c)", f"p = MaxPool<{POOL}>(r)", "y = Abs(p)"], 3, True, True),
    "no activation": ([CONV, f"y = MaxPool<{POOL}>(c)"], 3, True, True),
    "clip": ([CONV, "r = Clip(c, low, high)", f"y = MaxPool<{POOL}>(r)"], 3, True, True),
    "sigmoid": ([CONV, "r = Sigmoid(c)", f"y = MaxPool<{POOL}>(r)"], 3, True, False),
    "no pool": ([CONV, "y = Relu(c)"], 3, True, False),
    "conv is an output": ([CONV, f"z = MaxPool<{POOL}>(c)", "y = Relu(c)"], 3, True, False),
    "pool without padding": ([CONV, "y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(c)"]
    , 3, True, False),
    "window beyond the plane": ([CONV, f"y = MaxPool<{POOL}, ceil_mode=1>(c)"], 3, True, None),
    "stride 1": (["y = Conv<pads=[2,1,2,0]>(x, five)"], 2, True, False),
    "one step": (["c = Conv<strides=[2,2]>(x, three)", f"y = MaxPool<{POOL}>(c)"], 3, True, True),
    "one step, no pool": (["y = Conv<strides=[2,2]>(x, three)"], 3, False, False),
    "uneven": (["y = Conv<strides=[3,1], pads=[0,4,2,0]>(x, wide)"], 1, True, False),
    "dilated": (["y = Conv<dilations=[2,1], pads=[4,2,4,2]>(x, five)"], 2, False, False),
}  # fmt: skip
SIZES = ((64, 64), (61, 35), (33, 95))


def make(name: str, batch: int, size: tuple[int, int]) -> Case:
    """The case of one graph and input size."""
    nodes, channels, _, _ = GRAPHS[name]
    text = " ".join(nodes)
    found = {key: w for key, w in WEIGHTS.items() if key in text}
    if "low" in text:
        found |= {"low": random_weights() * 0 - 0.25, "high": random_weights() * 0 + 0.5}
    outputs = ("y", "z") if any(node.startswith("z ") for node in nodes) else ("y",)
    label = f"{name} {batch}x{size[0]}x{size[1]}"
    return Case(label, nodes, {"x": [batch, channels, *size]}, found, outputs, tolerance=NETWORK)


CASES = unique([make(n, b, s) for n in GRAPHS for b, s in zip((1, 3, 2), SIZES, strict=True)])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_first_convolutions(case: Case) -> None:
    check(case)


@pytest.mark.skipif("amx" not in ISAS, reason="no tile registers")
@pytest.mark.parametrize("name", GRAPHS)
def test_what_tile_registers_run(name: str) -> None:
    _, _, runs, pools = GRAPHS[name]
    model = sparsert.load(make(name, 1, SIZES[0]).proto, threads=1, tune=False)
    rows = model.explain().to_dict()["rows"]
    assert any(str(row["kernel"]).startswith("stem_dense_f32") for row in rows) == runs
    if pools is not None:
        assert [row["step_count"] for row in rows if row["op"] == "MaxPool"] == (
            [0] if pools else [1] * any("MaxPool" in node for node in GRAPHS[name][0])
        )


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_zeros_are_left_to_sparse_kernels(sparsity: float) -> None:
    weights = {"w": random_weights(62, 3, 7, 7, sparsity=sparsity)}
    case = Case("one", ["y = Conv<strides=[2,2]>(x, w)"], {"x": [1, 3, 64, 64]}, weights)
    model = sparsert.load(case.proto, threads=1, tune=False)
    runs = "stem" in str(model.explain())
    assert not runs if sparsity else runs or "amx" not in ISAS  # wstem may


def test_an_infinite_input_reaches_its_windows_alone() -> None:
    case = make("resnet", 1, (64, 64))
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    model = sparsert.load(case.proto, threads=1)
    want = model(x)
    x[0, 1, 20, 41] = np.inf
    got = model(x)
    reached = ~np.isclose(got, want, rtol=1e-4, atol=1e-4)
    rows, columns = np.nonzero(reached.any(axis=(0, 1)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 6, 9, 11)
    assert np.isinf(got).any()
