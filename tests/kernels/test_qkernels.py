"""The int8 kernels of Numba: on odd shapes, bit for bit what the interpreter computes."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from sparsert.kernels import qlanes
from sparsert.kernels.lanes import LANES, store
from tests.kernels.one_node import compare, random_bytes

BYTES = {"to": 12}


def weights(rng: np.random.Generator, *shape: int, zeros: float = 0.0) -> np.ndarray:
    w = rng.integers(-128, 128, shape, np.int8)
    w[rng.random(shape) < zeros] = 0
    return w


def same(
    op: str, feeds: list[np.ndarray | None], constants: dict[int, Any], **attributes: Any
) -> str:
    """Compares the bits of one node in Numba and in NumPy, and returns the kernel's name."""
    got, want, kernel = compare(op, feeds, constants, **attributes)
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    return kernel


# Input, weights [rows, kernel, channels of a group]; attributes.
CONVOLUTIONS = {
    "one of all": ((1, 1, 1), (1, 1, 1), {}),
    "1-D": ((2, 5, 37), (7, 3, 5), {"dilations": [2], "strides": [2], "pads": [1, 4]}),
    "wide planes": ((1, 9, 13, 23), (18, 1, 1, 9), {}),
    "padding": ((2, 6, 7, 9), (5, 3, 3, 6), {"pads": [1, 1, 1, 1]}),
    "strides": ((1, 3, 15, 13), (17, 5, 3, 3), {"strides": [2, 3], "pads": [2, 1, 0, 1]}),
    "same": ((1, 4, 8, 7), (4, 3, 2, 4), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "groups": ((1, 10, 6, 5), (6, 3, 2, 5), {"group": 2}),
    "depthwise": ((2, 7, 9, 8), (7, 3, 3, 1), {"group": 7, "pads": [1, 1, 1, 1]}),
    "3-D": ((1, 5, 4, 5, 6), (6, 2, 3, 2, 5), {"strides": [1, 2, 1], "pads": [1, 0, 1, 0, 1, 0]}),
}


@pytest.mark.parametrize("zeros", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, zeros: float) -> None:
    rng = np.random.default_rng(len(name))
    shape, weight, attributes = CONVOLUTIONS[name]
    x, w = random_bytes(rng, *shape), weights(rng, *weight, zeros=zeros)
    scale = rng.uniform(1e-4, 3e-3, weight[0]).astype(np.float32)
    start = rng.integers(-5000, 5000, weight[0], np.int32)
    constants = {1: w, 2: scale, 3: start}
    attributes = {"group": 1, **attributes}
    op = "QDepthwise" if name == "depthwise" else "QConv"
    kernel = same(op, [x], constants, quant=[131, 120, 3, 250], **attributes, **BYTES)
    assert "csr" in kernel or zeros < 1
    floats = rng.standard_normal(weight[0]).astype(np.float32)
    act = {"act": "clip", "act_alpha": -0.5, "act_beta": 6.0}
    same(op, [x], {**constants, 3: floats}, quant=[131], to=1, **act, **attributes)


@pytest.mark.parametrize("op", ["bytes", "floats", "dynamic"])
def test_residuals(op: str) -> None:
    rng = np.random.default_rng(1)
    x, w = random_bytes(rng, 2, 6, 5, 7), weights(rng, 9, 1, 1, 6)
    scale = rng.uniform(1e-4, 3e-3, 9).astype(np.float32)
    floats = rng.standard_normal((2, 9, 5, 7)).astype(np.float32)
    if op == "bytes":
        quant = [3, 128, 0, 255, 9, 100, 2, 240]
        sums = {"alpha": 0.7, "beta": 1.3}
        other = random_bytes(rng, 2, 9, 5, 7)
        same("QConv", [x, other], {1: w, 2: scale, 3: None}, quant=quant, **sums, **BYTES)
    elif op == "floats":
        same("QConv", [x, floats], {1: w, 2: scale, 3: None}, quant=[3], to=1, act="relu")
    else:
        params = np.array([0.037, 119], np.float32)
        bias = rng.standard_normal(9).astype(np.float32)
        same("QConvDynamic", [x, params, floats], {1: w, 2: scale, 4: bias}, act="relu")


@pytest.mark.parametrize(("zeros", "kernel"), [(0.0, "qvector_dense"), (0.99, "qvector_csr")])
@pytest.mark.parametrize("inputs", [1, 67, 515])
def test_one_column(inputs: int, zeros: float, kernel: str) -> None:
    rng = np.random.default_rng(inputs)
    w = weights(rng, 41, 1, inputs, zeros=zeros)
    w[3] = 0
    scale = rng.uniform(1e-4, 1e-3, 41).astype(np.float32)
    for batch in (1, 3):
        x = random_bytes(rng, batch, inputs, 1)
        constants = {1: w, 2: scale, 3: None}
        found = same("QConv", [x], constants, quant=[7, 128, 0, 255], **BYTES)
        assert found.startswith(kernel) or inputs == 1


def test_passes_over_planes() -> None:
    rng = np.random.default_rng(2)
    floats = rng.standard_normal((2, 5, 3, 7)).astype(np.float32)
    floats.flat[:4] = [0.05, -0.05, 1e30, -1e30]  # halves, and far beyond the bounds
    same("QuantizePacked", [floats], {}, alpha=0.1, quant=[128, 1, 254])
    a, b = random_bytes(rng, 2, 7, 3, 11), random_bytes(rng, 2, 7, 3, 11)
    same("DequantizePacked", [a], {}, alpha=0.1, quant=[13], channels=7, to=1)
    same("QAdd", [a, b], {}, alpha=0.4, beta=1.1, quant=[3, 250, 128, 0, 255])
    table = rng.permutation(256).astype(np.uint8)
    same("QLookup", [a], {1: table})
    window = {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 1, 0, 1]}
    same("QMaxPool", [a], {}, ceil_mode=1, **window)
    for zero in (0, 1, 127, 128, 255):  # what the padding holds
        same("QAveragePool", [a], {}, alpha=1.7, quant=[zero, 100, 0, 250], **window)
    quant = {"alpha": 1.7, "quant": [9, 100, 0, 250]}
    for include in (0, 1):
        same("QAveragePool", [a], {}, count_include_pad=include, **quant, **window)
    same("QAveragePool", [a], {}, **quant)
    scales = np.array([0.05, 0.11, 9.0], np.float32)
    bias = rng.standard_normal(7).astype(np.float32)
    for other in (b, rng.standard_normal((2, 7, 3, 11)).astype(np.float32)):
        end = {"channels": 7, "act": "relu"}
        same("QElementwise", [a, other], {1: scales, 2: bias}, quant=[9, 200], to=1, **end)
        end["quant"] = [9, 200, 30, 0, 255]
        same("QElementwise", [a, other], {1: scales, 2: None}, **end, **BYTES)


@pytest.mark.parametrize("kind", ["vnni", "madd", "plain"])
def test_every_dot_product(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest products do not saturate, whatever instructions add them."""
    allowed = {"vnni": ("vnni",), "madd": ("vnni", "madd")}.get(kind, (qlanes.DOT,))
    if qlanes.DOT not in allowed:
        pytest.skip(f"this machine has {qlanes.DOT}")
    monkeypatch.setattr(qlanes, "DOT", kind)

    @numba.njit
    def product(x: Any, w: Any, y: Any) -> None:
        tile = qlanes.no_sums(1)
        for k in range(w.size):
            tile = qlanes.add_dot(tile, w[k], x, k * LANES)
        store(qlanes.floats(tile), y, 0)

    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (6, LANES, 4), np.uint8)
    w = rng.integers(-128, 128, (6, 4), np.int8)
    x[:3], w[0], w[1], w[2] = 255, -128, 127, (127, 127, -128, -128)
    y = np.zeros(LANES, np.int32)
    product(x.view(np.uint32).reshape(-1), w.view(np.int32).reshape(-1), y)
    np.testing.assert_array_equal(y, np.einsum("klc,kc->l", x.astype(np.int64), w))
