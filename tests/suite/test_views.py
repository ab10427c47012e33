"""Tensors that share memory: parts of a Concat, channels of a Split or Slice, channel shuffles."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suite.harness import ENGINES, Case, check, i64, random_weights, unique

X = (3, 6, 7, 5)  # several images, planes that are no whole number of vectors

CONSTANTS = {
    "w1": random_weights(6, 6, 1, 1, sparsity=0.5),
    "w3": random_weights(6, 6, 3, 3, sparsity=0.7, seed=1),
    "w3g": random_weights(6, 3, 3, 3, sparsity=0.5, seed=2),
    "wd": random_weights(6, 1, 3, 3, seed=3),
    "wd5": random_weights(6, 1, 5, 1, seed=4),
    "wt": random_weights(6, 6, 3, 3, sparsity=0.5, seed=5),
    "bias": random_weights(6, scale=0.5),
    "wm": random_weights(5, 5, sparsity=0.5, seed=6),
    "var": np.abs(random_weights(6, seed=7)) + np.float32(0.5),
    "slopes": random_weights(6, 1, 1, seed=8),
    "field": random_weights(6, 1, 5, seed=9),
    "size": i64(3, 6, 7, 5),
    "edges": i64(0, 0, 1, 1, 0, 0, 1, 1),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "order": i64(5, 0, 3, 1, 4, 2),
    "one": i64(1),
    "two": i64(2),
    "wide": i64(1 << 40),
    "zero": i64(0),
    "sizes": i64(2, 6, 1),
    "rows": i64(3, 7, 6, 5),
    "fixed": random_weights(3, 2, 7, 5, seed=10),
    "apart": i64(3, 2, 3, 7, 5),
    "joined": i64(3, 6, 7, 5),
    "half": random_weights(3, 1, 3, 3, seed=11),
}

# Ops on the tensor %, [3, 6, 7, 5]; "*" marks those that change height and width.
OPS = {
    "pointwise": "Conv(%, w1, bias)",
    "conv": "Conv<pads=[1,1,1,1]>(%, w3, bias)",
    "conv_strided": "*Conv<strides=[2,2]>(%, w3)",
    "conv_grouped": "Conv<group=2, pads=[1,1,1,1]>(%, w3g)",
    "depthwise": "Conv<group=6, pads=[1,1,1,1]>(%, wd)",
    "depthwise_taps": "Conv<group=6, pads=[2,0,2,0]>(%, wd5)",
    "conv_transpose": "ConvTranspose<pads=[1,1,1,1]>(%, wt)",
    "max_pool": "MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(%)",
    "average_pool": "*AveragePool<kernel_shape=[2,2], strides=[2,2]>(%)",
    "global_pool": "*GlobalAveragePool(%)",
    "global_max": "*GlobalMaxPool(%)",
    "nearest": '*Resize<mode="nearest">(%, , scales)',
    "linear": '*Resize<mode="linear">(%, , scales)',
    "unary": "Sigmoid(%)",
    "binary": "Add(%, field)",
    "prelu": "PRelu(%, slopes)",
    "norm": "BatchNormalization(%, bias, bias, bias, var)",
    "softmax": "Softmax<axis=1>(%)",
    "softmax_rows": "Softmax<axis=3>(%)",
    "reduce": "*ReduceMean(%, one)",
    "reduce_rows": "*ReduceMax(%, two)",
    "matmul": "MatMul(%, wm)",
    "gather": "Gather<axis=1>(%, order)",
    "pad": '*Pad<mode="edge">(%, edges)',
    "transpose": "*Transpose<perm=[0,1,3,2]>(%)",
    "transpose_images": "*Transpose<perm=[1,0,2,3]>(%)",
    "every_second_row": "*Slice(%, one, wide, two, two)",
    "flatten": "*Flatten(%)",
}


def used(nodes: list[str]) -> dict[str, np.ndarray]:
    """The constants that the nodes read."""
    words = " ".join(nodes).replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {name: value for name, value in CONSTANTS.items() if name in words}


def case(name: str, nodes: list[str], inputs: dict[str, tuple[int, ...]], **more: object) -> Case:
    """A case whose constants are those of CONSTANTS that it reads."""
    return Case(name, nodes, inputs, used(nodes), **more)  # type: ignore[arg-type]


def consumer_cases() -> list[Case]:
    """Every op reads channels 2 to 7 of nine."""
    cases = []
    for name, op in OPS.items():
        nodes = [
            "h = Neg(x)",
            "before, part, after = Split<axis=1>(h, sizes)",
            f"z = {op.lstrip('*').replace('%', 'part')}",
            "y = Relu(z)",
            "rest = Concat<axis=1>(after, before)",
        ]
        cases.append(case(f"read_{name}", nodes, {"x": (3, 9, 7, 5)}, outputs=("y", "rest")))
    return cases


def producer_cases() -> list[Case]:
    """Every op writes the middle of a Concat, twice."""
    cases = []
    for name, op in OPS.items():
        nodes = ["h = Neg(x)", f"z = {op.lstrip('*').replace('%', 'h')}", "a = Abs(z)"]
        nodes += [f"q = {op.lstrip('*').replace('%', 'x')}"]
        nodes += ["c = Concat<axis=1>(a, z, q)", "y = Relu(c)"]
        cases.append(case(f"write_{name}", nodes, {"x": X}))
    return cases


def shape_cases() -> list[Case]:
    """Networks of parts and views."""
    dense = [
        "a = Relu(x)",
        "b = Conv(a, w1)",
        "ab = Concat<axis=1>(a, b)",
        "ab_low, ab_high = Split<axis=1, num_outputs=2>(ab)",
        "c = Conv<pads=[1,1,1,1]>(ab_high, w3)",
        "abc = Concat<axis=1>(a, b, c)",
        "y = MaxPool<kernel_shape=[2,2]>(abc)",
    ]
    nested = [
        "a = Relu(x)",
        "b = Conv(a, w1)",
        "ab = Concat<axis=1>(a, b)",
        "c = Conv<group=6>(b, wd)",
        "pc = Pad(c, edges)",
        "abc = Concat<axis=1>(pc, ab)",
        "y = AveragePool<kernel_shape=[2,2]>(abc)",
    ]
    several = [
        "a = Relu(x)",
        "b = Conv(a, w1)",
        "first = Concat<axis=1>(a, b)",
        "second = Concat<axis=1>(b, a, b)",
        "y = GlobalAveragePool(first)",
        "z = GlobalMaxPool(second)",
    ]
    copied = [
        "a = Relu(x)",
        "r = Reshape(a, rows)",
        "s = Reshape(r, size)",
        "o = Neg(a)",
        "c = Concat<axis=1>(x, s, fixed, a, o, a)",
        "y = Sigmoid(c)",
    ]
    outputs = [
        "a = Relu(x)",
        "p, q = Split<axis=1, num_outputs=2>(a)",
        "c = Concat<axis=1>(q, p)",
        "s = Slice(c, one, two, one)",
        "t = Slice(x, one, two, zero)",
    ]
    overlapping = [
        "h = Neg(x)",
        "p = Slice(h, zero, two, zero)",
        "q = Slice(h, one, wide, zero)",
        "s = Sub(q, p)",
        "y = MaxPool<kernel_shape=[2,2]>(s)",
    ]
    rejoined = [
        "a = Relu(x)",
        "p, q = Split<axis=1, num_outputs=2>(a)",
        "c = Concat<axis=1>(p, q)",
        "y = Conv(c, w1)",
    ]
    return [
        case("dense_block", dense, {"x": X}),
        case("nested", nested, {"x": X}),
        case("several", several, {"x": X}, outputs=("y", "z")),
        case("copied", copied, {"x": X}, outputs=("y", "o")),
        case("view_outputs", outputs, {"x": X}, outputs=("p", "q", "c", "s", "t")),
        case("overlapping", overlapping, {"x": X}),
        case("rejoined", rejoined, {"x": X}),
    ]


def shuffle_nodes(x: str, y: str) -> list[str]:
    """A channel shuffle of two groups, as it is exported."""
    return [
        f"{y}_apart = Reshape({x}, apart)",
        f"{y}_swapped = Transpose<perm=[0,2,1,3,4]>({y}_apart)",
        f"{y} = Reshape({y}_swapped, joined)",
    ]


def shuffle_cases() -> list[Case]:
    """Blocks of ShuffleNetV2 and single shuffles."""
    block = [
        "a0, b0 = Split<axis=1, num_outputs=2>(x)",
        "a = Relu(a0)",
        "b = Conv<group=3, pads=[1,1,1,1]>(b0, half)",
        "ab = Concat<axis=1>(a, b)",
        *shuffle_nodes("ab", "s"),
        "c0, d0 = Split<axis=1, num_outputs=2>(s)",
        "d = Conv<group=3, pads=[1,1,1,1]>(d0, half)",
        "cd = Concat<axis=1>(c0, d)",
        *shuffle_nodes("cd", "t"),
        "y = Conv<group=6, pads=[1,1,1,1]>(t, wd)",
    ]
    twice = [
        "a, b0 = Split<axis=1, num_outputs=2>(x)",
        "b = Relu(b0)",
        "ab = Concat<axis=1>(b, b)",
        *shuffle_nodes("ab", "s"),
        "y = Concat<axis=1>(s, ab)",
    ]
    joined = [
        "a0, b0 = Split<axis=1, num_outputs=2>(x)",
        "a = Relu(a0)",
        "b = Neg(b0)",
        "ab = Concat<axis=1>(a, b)",
        *shuffle_nodes("ab", "s"),
        "more = Concat<axis=1>(b, s, a)",
        "y = MaxPool<kernel_shape=[2,2]>(more)",
    ]
    alone = [*shuffle_nodes("x", "s"), "y = Conv<group=2, pads=[1,1,1,1]>(s, w3g)"]
    folded = ["a = Conv(x, w1, bias)", *shuffle_nodes("a", "s"), "y = Sigmoid(s)"]
    return [
        case("shuffle_block", block, {"x": X}),
        case("shuffle_twice", twice, {"x": X}),
        case("shuffle_joined", joined, {"x": X}),
        case("shuffle_alone", alone, {"x": X}),
        case("shuffle_folded", folded, {"x": X}),
    ]


CASES = unique(consumer_cases() + producer_cases() + shape_cases() + shuffle_cases())
BY_NAME = {made.name: made for made in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_views(case: Case) -> None:
    check(case)


# How explain() says that the Concat, Split, Slice and Gather nodes of a case are computed.
COMPUTED = {
    "dense_block": "view view view",
    "nested": "view view",
    "several": "copy copy",
    "copied": "copy",
    "view_outputs": "copy copy copy copy",
    "rejoined": "view view",
    "shuffle_block": "view view view view copy view",
    "shuffle_twice": "view copy copy copy",
    "shuffle_joined": "view copy view view",
    "shuffle_alone": "copy",
    "shuffle_folded": "",
}


@pytest.mark.parametrize("name", COMPUTED)
def test_explain_says_what_is_shared(name: str) -> None:
    model = BY_NAME[name].load(ENGINES[-1])
    rows = model.explain().to_dict()["rows"]
    movers = [row for row in rows if row["op"] in ("Concat", "Split", "Slice", "Gather")]
    assert " ".join(row["compute_format"] for row in movers) == COMPUTED[name]
    for row in movers:
        assert ("no copy" in row["reason"] or "a view" in row["reason"]) == (
            row["compute_format"] == "view"
        )
        assert (row["kernel"] == "") == (row["compute_format"] == "view")
