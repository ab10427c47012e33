"""Conv: every window, group, channel count, sparsity and fusion, on every engine."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suite.harness import (
    ENGINES_WITH_NUMBA,
    FUNCTION,
    Case,
    check,
    op_text,
    random_weights,
    unique,
)


def conv(
    name: str,
    shape: tuple[int, ...],
    channels: int,
    kernel: tuple[int, ...],
    *,
    group: int = 1,
    sparsity: float = 0.7,
    bias: bool = True,
    weights: np.ndarray | None = None,
    **attributes: object,
) -> Case:
    """One convolution; `attributes` are those of ONNX."""
    w = random_weights(channels, shape[1] // group, *kernel, sparsity=sparsity)
    if weights is not None:
        w = weights
    constants = {"w": w}
    if bias:
        constants["b"] = random_weights(channels, scale=1.0)
    inputs = "x, w, b" if bias else "x, w"
    node = op_text("Conv", inputs, group=group, **attributes)
    return Case(f"conv_{name}", [f"y = {node}"], {"x": shape}, constants)


def window_cases() -> list[Case]:
    """Kernels, strides, paddings and dilations in one and two dimensions."""
    cases = []
    windows = [
        ((1, 1), {}),
        ((1, 1), {"strides": [2, 2]}),
        ((1, 1), {"pads": [1, 1, 1, 1]}),
        ((1, 1), {"pads": [0, 1, 2, 0], "strides": [2, 3]}),
        ((3, 3), {}),
        ((3, 3), {"pads": [1, 1, 1, 1]}),
        ((3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((3, 3), {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
        ((3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        ((3, 3), {"pads": [4, 3, 2, 1], "dilations": [3, 2], "strides": [1, 2]}),
        ((5, 5), {"pads": [2, 2, 2, 2], "strides": [3, 3]}),
        ((7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
        ((1, 7), {"pads": [0, 3, 0, 3]}),
        ((7, 1), {"pads": [3, 0, 3, 0]}),
        ((2, 2), {"strides": [2, 2]}),
        ((2, 4), {"pads": [1, 0, 0, 3], "strides": [2, 1]}),
        ((4, 4), {"pads": [7, 7, 7, 7]}),
        ((3, 3), {"strides": [1, 4], "pads": [1, 1, 1, 1]}),
        ((3, 3), {"auto_pad": "SAME_UPPER"}),
        ((3, 3), {"auto_pad": "SAME_LOWER"}),
        ((2, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((2, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        ((4, 2), {"auto_pad": "SAME_LOWER", "strides": [3, 1]}),
        ((3, 3), {"auto_pad": "VALID", "strides": [2, 2]}),
    ]
    for number, (kernel, attributes) in enumerate(windows):
        kh, kw = kernel
        cases.append(conv(f"window{number}_{kh}x{kw}", (2, 5, 11, 13), 7, kernel, **attributes))
    lines = [
        (1, {}),
        (1, {"strides": [2]}),
        (3, {"pads": [1, 1]}),
        (3, {"pads": [2, 0]}),
        (5, {"pads": [4, 4], "dilations": [2], "strides": [2]}),
        (10, {"strides": [5]}),
        (3, {"pads": [0, 7], "dilations": [7]}),
        (9, {"auto_pad": "SAME_UPPER", "strides": [4]}),
        (4, {"auto_pad": "SAME_LOWER"}),
    ]
    for number, (size, attributes) in enumerate(lines):
        cases.append(conv(f"1d_{number}_{size}", (2, 6, 49), 9, (size,), **attributes))
    return cases


def extent_cases() -> list[Case]:
    """Planes of every vector tail, with and without a window."""
    cases = []
    for width in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49, 63, 65, 97, 129, 197):
        cases.append(conv(f"1x1_width{width}", (1, 12, 1, width), 10, (1, 1)))
        cases.append(conv(f"3x3_width{width}", (1, 6, 3, width), 6, (3, 3), pads=[1, 1, 1, 1]))
    for side in (4, 7, 14, 28):
        cases.append(conv(f"1x1_side{side}", (1, 16, side, side), 24, (1, 1), sparsity=0.8))
        cases.append(
            conv(
                f"3x3s2_side{side}",
                (1, 8, side, side),
                12,
                (3, 3),
                strides=[2, 2],
                pads=[1, 1, 1, 1],
                sparsity=0.8,
            )
        )
    cases.append(conv("kernel_of_the_whole_plane", (2, 5, 7, 7), 9, (7, 7)))
    cases.append(conv("window_in_the_padding_only", (1, 3, 2, 2), 4, (2, 2), pads=[3, 3, 3, 3]))
    for batch in (1, 2, 3, 7):
        cases.append(conv(f"batch{batch}", (batch, 9, 5, 5), 8, (3, 3), pads=[1, 1, 1, 1]))
        cases.append(conv(f"1x1_batch{batch}", (batch, 9, 6, 6), 8, (1, 1)))
        cases.append(conv(f"plane_of_one_batch{batch}", (batch, 33, 1, 1), 21, (1, 1)))
        cases.append(
            conv(f"groups_plane_of_one_batch{batch}", (batch, 32, 1, 1), 24, (1, 1), group=4)
        )
    return cases


def weight_cases() -> list[Case]:
    """Channel counts and sparsities; empty rows and columns; one weight; none at all."""
    cases = []
    for sparsity in (0.0, 0.5, 0.9, 1.0):
        for c_in, c_out in ((1, 1), (1, 4), (3, 5), (4, 8), (5, 17), (8, 3), (17, 64), (64, 130)):
            label = f"{c_in}to{c_out}_zeros{int(100 * sparsity)}"
            cases.append(conv(f"1x1_{label}", (2, c_in, 5, 7), c_out, (1, 1), sparsity=sparsity))
            cases.append(
                conv(
                    f"3x3_{label}",
                    (1, c_in, 6, 5),
                    c_out,
                    (3, 3),
                    sparsity=sparsity,
                    pads=[1, 1, 1, 1],
                    bias=c_out % 2 == 0,
                )
            )
        # Deeper than one block of K, directly and by taps.
        cases.append(
            conv(
                f"1x1_deep_zeros{int(100 * sparsity)}",
                (1, 1100, 3, 7),
                19,
                (1, 1),
                sparsity=sparsity,
            )
        )
        cases.append(
            conv(
                f"3x3_deep_zeros{int(100 * sparsity)}",
                (1, 130, 4, 9),
                21,
                (3, 3),
                sparsity=sparsity,
                pads=[1, 1, 1, 1],
            )
        )
    dense = random_weights(18, 12, 3, 3, sparsity=0.3)
    rows = dense.copy()
    rows[[0, 4, 5, 6, 7, 17]] = 0
    columns = dense.copy()
    columns[:, [0, 5, 11]] = 0
    taps = dense.copy()
    taps[:, :, 0] = 0
    taps[:, :, :, 2] = 0
    one = np.zeros_like(dense)
    one[17, 11, 2, 1] = -1.5
    first = np.zeros_like(dense)
    first[0, 0, 0, 0] = 2.0
    blocks = dense.copy()
    blocks[np.random.default_rng(3).random((18 // 2, 12, 3, 3)).repeat(2, 0) < 0.8] = 0
    tiny = dense * np.float32(1e-30)
    shapes = {
        "zero_rows": rows,
        "zero_columns": columns,
        "zero_taps": taps,
        "one_weight": one,
        "first_weight": first,
        "row_pairs": blocks,
        "tiny_weights": tiny,
    }
    for label, weights in shapes.items():
        cases.append(conv(label, (2, 12, 6, 6), 18, (3, 3), weights=weights, pads=[1, 1, 1, 1]))
        cases.append(
            conv(
                f"1x1_{label}",
                (2, 12, 6, 6),
                18,
                (1, 1),
                weights=np.ascontiguousarray(weights[:, :, 1:2, 1:2]),
            )
        )
    return cases


def group_cases() -> list[Case]:
    """Groups, depthwise and channel multipliers."""
    cases = []
    for group, c_in, c_out in ((2, 8, 6), (3, 9, 15), (4, 16, 4), (8, 64, 64)):
        for sparsity in (0.0, 0.9, 1.0):
            label = f"{group}_{c_in}to{c_out}_zeros{int(100 * sparsity)}"
            cases.append(
                conv(
                    f"group{label}",
                    (2, c_in, 7, 6),
                    c_out,
                    (3, 3),
                    group=group,
                    sparsity=sparsity,
                    pads=[1, 1, 1, 1],
                )
            )
            cases.append(
                conv(
                    f"group1x1_{label}",
                    (2, c_in, 7, 6),
                    c_out,
                    (1, 1),
                    group=group,
                    sparsity=sparsity,
                )
            )
    depthwise = [
        ((3, 3), {"pads": [1, 1, 1, 1]}),
        ((3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((5, 5), {"pads": [2, 2, 2, 2], "dilations": [1, 1]}),
        ((3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        ((1, 1), {}),
        ((7, 7), {"auto_pad": "SAME_UPPER", "strides": [3, 3]}),
    ]
    for number, (kernel, attributes) in enumerate(depthwise):
        for multiplier in (1, 2, 3):
            cases.append(
                conv(
                    f"depthwise{number}_times{multiplier}",
                    (2, 5, 13, 17),
                    5 * multiplier,
                    kernel,
                    group=5,
                    sparsity=0.0,
                    **attributes,
                )
            )
    cases.append(conv("depthwise_zeros", (1, 8, 9, 9), 8, (3, 3), group=8, sparsity=0.9))
    cases.append(conv("depthwise_all_zeros", (1, 8, 9, 9), 8, (3, 3), group=8, sparsity=1.0))
    cases.append(conv("depthwise_no_bias", (1, 8, 9, 9), 8, (3, 3), group=8, bias=False))
    cases.append(conv("depthwise_1d", (2, 7, 61), 7, (9,), group=7, pads=[4, 4], strides=[2]))
    cases.append(conv("depthwise_plane_of_one", (3, 7, 1, 1), 7, (1, 1), group=7))
    return cases


ACTIVATIONS = {
    "relu": ["z = Relu(c)"],
    "relu6": ["z = Clip(c, zero, six)"],
    "clip_max_only": ["z = Clip(c, , six)"],
    "leaky_relu": ["z = LeakyRelu<alpha=0.2>(c)"],
    "elu": ["z = Elu<alpha=0.7>(c)"],
    "selu": ["z = Selu(c)"],
    "celu": ["z = Celu<alpha=1.5>(c)"],
    "hard_sigmoid": ["z = HardSigmoid<alpha=0.25, beta=0.4>(c)"],
    "hard_swish": ["z = HardSwish(c)"],
    "sigmoid": ["z = Sigmoid(c)"],
    "tanh": ["z = Tanh(c)"],
    "silu": ["s = Sigmoid(c)", "z = Mul(c, s)"],
    "gelu": ['z = Gelu<approximate="none">(c)'],
    "gelu_tanh": ['z = Gelu<approximate="tanh">(c)'],
    "softplus": ["z = Softplus(c)"],
    "mish": ["z = Mish(c)"],
    "abs": ["z = Abs(c)"],
}


def fusion_cases() -> list[Case]:
    """Batch norm, residual and activation around a convolution."""
    cases = []
    bounds = {"zero": np.float32(0), "six": np.float32(1.5)}
    for label, nodes in ACTIVATIONS.items():
        for sort, kernel, group in (("1x1", 1, 1), ("3x3", 3, 1), ("depthwise", 3, 6)):
            w = random_weights(6, 6 // group, kernel, kernel, sparsity=0.6 if group == 1 else 0)
            pad = kernel // 2
            conv_text = f"c = Conv<group={group}, pads=[{pad},{pad},{pad},{pad}]>(x, w, b)"
            used = {k: v for k, v in bounds.items() if any(k in n for n in nodes)}
            cases.append(
                Case(
                    f"fused_{sort}_{label}",
                    [conv_text, *nodes, "y = Identity(z)"],
                    {"x": (2, 6, 7, 5)},
                    {"w": w, "b": random_weights(6, scale=1.0), **used},
                    tolerance=FUNCTION,
                )
            )
    for sort, kernel, group, side in (
        ("1x1", 1, 1, 6),
        ("3x3", 3, 1, 6),
        ("depthwise", 3, 6, 6),
        ("plane_of_one", 1, 1, 1),
    ):
        w = random_weights(6, 6 // group, kernel, kernel, sparsity=0.6 if group == 1 else 0)
        pad = kernel // 2
        text = f"c = Conv<group={group}, pads=[{pad},{pad},{pad},{pad}]>(x, w, b)"
        constants = {"w": w, "b": random_weights(6, scale=1.0)}
        inputs = {"x": (2, 6, side, side), "r": (2, 6, side, side)}
        cases += [
            Case(f"residual_{sort}", [text, "y = Add(c, r)"], inputs, constants),
            Case(
                f"residual_relu_{sort}", [text, "s = Add(r, c)", "y = Relu(s)"], inputs, constants
            ),
            Case(
                f"residual_of_itself_{sort}",
                ["p = Abs(x)", text.replace("(x,", "(p,"), "s = Add(c, p)", "y = Sigmoid(s)"],
                {"x": inputs["x"]},
                constants,
                tolerance=FUNCTION,
            ),
            Case(
                f"batch_norm_{sort}",
                [text, "n = BatchNormalization(c, g, h, m, v)", "s = Add(n, r)", "y = Relu(s)"],
                inputs,
                {
                    **constants,
                    "g": random_weights(6, scale=1.0, seed=1),
                    "h": random_weights(6, scale=1.0, seed=2),
                    "m": random_weights(6, scale=1.0, seed=3),
                    "v": np.abs(random_weights(6, scale=1.0, seed=4)) + np.float32(0.5),
                },
            ),
            Case(
                f"broadcast_residual_{sort}",
                [text, "s = Add(c, r)", "y = Relu(s)"],
                {"x": inputs["x"], "r": (1, 6, 1, 1)},
                constants,
            ),
            Case(
                f"output_used_twice_{sort}",
                [text, "a = Relu(c)", "y = Add(a, c)"],
                {"x": inputs["x"]},
                constants,
            ),
            Case(
                f"also_an_output_{sort}",
                [text, "y = Relu(c)"],
                {"x": inputs["x"]},
                constants,
                outputs=("c", "y"),
            ),
        ]
    return cases


def dynamic_cases() -> list[Case]:
    """Symbolic batch, height and width; several shapes through one model."""
    w3 = random_weights(6, 4, 3, 3, sparsity=0.6)
    w1 = random_weights(6, 4, 1, 1, sparsity=0.6)
    sizes = [{"n": n, "h": h, "w": w} for n, h, w in ((1, 5, 7), (3, 8, 8), (7, 1, 1), (2, 17, 3))]
    cases = []
    for label, w in (("3x3", w3), ("1x1", w1)):
        pad = w.shape[2] // 2
        for pads in (f"pads=[{pad},{pad},{pad},{pad}]", 'auto_pad="SAME_UPPER", strides=[2,2]'):
            cases.append(
                Case(
                    f"dynamic_{label}_{'same' if 'SAME' in pads else 'pads'}",
                    [f"c = Conv<{pads}>(x, w)", "y = Relu(c)"],
                    {"x": ["n", 4, "h", "w"]},
                    {"w": w},
                    sizes=sizes,
                )
            )
    return cases


CASES = unique(
    window_cases()
    + extent_cases()
    + weight_cases()
    + group_cases()
    + fusion_cases()
    + dynamic_cases()
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv(case: Case) -> None:
    check(case, ENGINES_WITH_NUMBA)
