"""ConvTranspose: strides, paddings, output paddings and shapes, groups, dilations."""

from __future__ import annotations

import pytest

from tests.suite.harness import Case, check, op_text, random_weights, unique


def transpose(
    name: str,
    shape: tuple[int, ...],
    channels: int,
    kernel: tuple[int, ...],
    *,
    group: int = 1,
    sparsity: float = 0.6,
    bias: bool = True,
    after: str = "",
    **attributes: object,
) -> Case:
    """One transposed convolution; `after` names an activation."""
    w = random_weights(shape[1], channels // group, *kernel, sparsity=sparsity)
    constants = {"w": w}
    if bias:
        constants["b"] = random_weights(channels, scale=1.0)
    out = "t" if after else "y"
    inputs = "x, w, b" if bias else "x, w"
    nodes = [f"{out} = {op_text('ConvTranspose', inputs, group=group, **attributes)}"]
    if after:
        nodes.append(f"y = {after}(t)")
    return Case(f"transpose_{name}", nodes, {"x": shape}, constants)


def all_cases() -> list[Case]:
    """The attribute space, in one and two dimensions."""
    cases = []
    windows = [
        ((1, 1), {}),
        ((1, 1), {"strides": [2, 2]}),
        ((2, 2), {"strides": [2, 2]}),
        ((2, 3), {"strides": [2, 3]}),
        ((1, 4), {"strides": [1, 4]}),
        ((2, 2), {"strides": [2, 2], "output_padding": [1, 1]}),
        ((3, 3), {}),
        ((3, 3), {"pads": [1, 1, 1, 1]}),
        ((3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2], "output_padding": [1, 1]}),
        ((3, 3), {"pads": [0, 1, 2, 0], "strides": [2, 3], "output_padding": [1, 2]}),
        ((4, 4), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((3, 2), {"dilations": [2, 3]}),
        (
            (3, 3),
            {
                "dilations": [2, 2],
                "strides": [2, 2],
                "pads": [2, 2, 2, 2],
                "output_padding": [1, 1],
            },
        ),
        ((5, 3), {"strides": [1, 4], "pads": [2, 0, 2, 1]}),
        ((3, 3), {"strides": [2, 2], "output_shape": [10, 14]}),
        ((3, 3), {"strides": [2, 2], "output_shape": [11, 13]}),
        ((3, 3), {"strides": [2, 2], "output_shape": [10, 14], "auto_pad": "SAME_UPPER"}),
        ((3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ((3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        ((4, 4), {"strides": [3, 3], "auto_pad": "SAME_UPPER"}),
        ((3, 3), {"auto_pad": "VALID", "strides": [2, 2]}),
        ((2, 2), {"strides": [4, 4]}),
    ]
    for number, (kernel, attributes) in enumerate(windows):
        label = f"{number}_{kernel[0]}x{kernel[1]}"
        cases.append(transpose(f"window{label}", (2, 5, 5, 7), 6, kernel, **attributes))
        cases.append(
            transpose(
                f"group_window{label}",
                (2, 4, 5, 7),
                6,
                kernel,
                group=2,
                sparsity=0.0,
                bias=False,
                **attributes,
            )
        )
    lines = [
        (3, {}),
        (4, {"strides": [2], "pads": [1, 1]}),
        (16, {"strides": [8], "pads": [4, 4]}),
        (2, {"strides": [2]}),
        (3, {"strides": [3], "output_padding": [2]}),
        (2, {"dilations": [5]}),
        (3, {"strides": [2], "output_shape": [33]}),
    ]
    for number, (size, attributes) in enumerate(lines):
        cases.append(transpose(f"1d_{number}", (2, 4, 17), 5, (size,), **attributes))
    for sparsity in (0.0, 0.5, 0.9, 1.0):
        for c_in, c_out in ((1, 1), (3, 8), (17, 5), (64, 33)):
            cases.append(
                transpose(
                    f"{c_in}to{c_out}_zeros{int(100 * sparsity)}",
                    (1, c_in, 6, 9),
                    c_out,
                    (2, 2),
                    strides=[2, 2],
                    sparsity=sparsity,
                )
            )
    cases.append(
        transpose(
            "depthwise",
            (2, 6, 5, 5),
            6,
            (4, 4),
            group=6,
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            sparsity=0.0,
        )
    )
    cases.append(transpose("depthwise_multiplier", (2, 3, 5, 5), 6, (3, 3), group=3))
    cases.append(transpose("plane_of_one", (3, 8, 1, 1), 6, (1, 1)))
    cases.append(transpose("from_one_element", (3, 8, 1, 1), 6, (4, 4)))
    cases.append(transpose("deep", (1, 600, 3, 3), 5, (2, 2), strides=[2, 2], sparsity=0.9))
    cases.append(transpose("relu", (1, 4, 5, 5), 6, (3, 3), strides=[2, 2], after="Relu"))
    cases.append(transpose("taps_relu", (3, 4, 5, 5), 6, (2, 2), strides=[2, 2], after="Relu"))
    cases.append(transpose("leaky", (1, 4, 5, 5), 6, (3, 3), after="LeakyRelu<alpha=0.3>"))
    w = random_weights(4, 6, 3, 3, sparsity=0.5)
    cases.append(
        Case(
            "transpose_dynamic",
            ["y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, w)"],
            {"x": ["n", 4, "h", "w"]},
            {"w": w},
            sizes=[{"n": 1, "h": 3, "w": 5}, {"n": 7, "h": 1, "w": 1}, {"n": 2, "h": 8, "w": 9}],
        )
    )
    return cases


@pytest.mark.parametrize("case", unique(all_cases()), ids=str)
def test_conv_transpose(case: Case) -> None:
    check(case)
