"""The operators on packed bytes against sums and roundings written out element by element."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from sparsert.errors import BackendError
from sparsert.runtime.numpy_backend import NumpyBackend
from sparsert.runtime.packed_functions import pack, unpack
from tests.modelfile.sample_models import constant, make_model

F32, U32 = ir.DataType.FLOAT, ir.DataType.UINT32
f32 = np.float32


def run(op: str, feeds: list[np.ndarray], constants: list[Any] = (), **attributes: Any) -> Any:
    """Runs one node; constants follow the feeds, None for absent ones."""
    values = [
        ir.Value(
            name=f"x{i}",
            shape=ir.Shape(feed.shape),
            type=ir.TensorType(ir.DataType.from_numpy(feed.dtype)),
        )
        for i, feed in enumerate(feeds)
    ]
    inputs = [
        values[0],
        *(None if a is None else constant(f"c{i}", a) for i, a in enumerate(constants)),
        *values[1:],
    ]
    out = ir.Value(name="y", type=ir.TensorType(F32 if attributes.get("to", 12) == 1 else U32))
    node = ir.node(op, inputs, attributes, domain="sparsert", outputs=[out], name="n")
    model = make_model(values, [out], [node])
    return NumpyBackend(model).run({f"x{i}": feed for i, feed in enumerate(feeds)})["y"]


def random_bytes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def level(y: Any, zero: int, low: int = 0, high: int = 255) -> int:
    """clamp(round(y) + zero, low, high), halves to even."""
    return min(max(round(float(y)) + zero, low), high)


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 8])
@pytest.mark.parametrize("rest", [(), (1,), (5,), (2, 3)])
def test_pack(channels: int, rest: tuple[int, ...]) -> None:
    levels = random_bytes(2, channels, *rest)
    packed = pack(levels, 7)
    assert packed.dtype == np.uint32
    assert packed.shape == (2, -(-channels // 4), *rest)
    for place in np.ndindex(*packed.shape):
        n, group, *cell = place
        for lane in range(4):
            c = 4 * group + lane
            want = levels[(n, c, *cell)] if c < channels else 7
            assert (int(packed[place]) >> 8 * lane) & 255 == want
    np.testing.assert_array_equal(unpack(packed, channels), levels)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (1, 3, 4), (2, 6, 3, 2), (0, 5, 2)])
@pytest.mark.parametrize("quant", [(0, 0, 255), (128, 128, 255), (100, 90, 200), (255, 0, 255)])
def test_conversions(shape: tuple[int, ...], quant: tuple[int, int, int]) -> None:
    scale = f32(0.3)
    units = np.random.default_rng(1).integers(-600, 600, shape).astype(f32)
    x = units * f32(0.5) * scale  # many halves
    packed = run("QuantizePacked", [x], alpha=float(scale), quant=list(quant))
    found = unpack(packed, shape[1])
    for place in np.ndindex(*shape):
        assert found[place] == level(x[place] / scale, *quant)
    assert (unpack(packed)[:, shape[1] :] == quant[0]).all()
    back = run(
        "DequantizePacked", [packed], alpha=float(scale), quant=[quant[0]], channels=shape[1]
    )
    assert back.dtype == f32
    for place in np.ndindex(*shape):
        assert back[place] == f32(int(found[place]) - quant[0]) * scale


def test_values_beyond_all_units() -> None:
    x = np.array([[1e30, -1e30, np.inf, -np.inf]], f32)
    packed = run("QuantizePacked", [x], alpha=1e-30, quant=[9, 2, 250])
    assert unpack(packed).tolist() == [[250, 2, 250, 2]]


def test_wrong_number_of_channels() -> None:
    packed = pack(random_bytes(1, 4, 2), 0)
    with pytest.raises(BackendError, match="5 channels"):
        run("DequantizePacked", [packed], alpha=1.0, quant=[0], channels=5)


# batch, C, M, group, size, kernel, window
CONVS = [
    (2, 4, 8, 1, (5,), (3,), {"pads": [1, 1]}),
    (1, 3, 5, 1, (6, 5), (3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    (1, 8, 12, 2, (4, 4), (3, 3), {"dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    (2, 7, 1, 1, (3, 3), (1, 1), {}),
    (1, 6, 4, 1, (4, 3), (3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    (1, 5, 5, 5, (4, 4), (3, 3), {"pads": [1, 1, 1, 1]}),
    (0, 4, 4, 1, (3,), (1,), {}),
]


def sums(levels: np.ndarray, w: np.ndarray, group: int, zero: int, window: dict) -> np.ndarray:
    """The exact sums of a convolution, tap by tap."""
    count = w.ndim - 2
    size, kernel = levels.shape[2:], w.shape[2:]
    strides = window.get("strides", [1] * count)
    dilations = window.get("dilations", [1] * count)
    pads = list(window.get("pads", [0] * 2 * count))
    if "auto_pad" in window:
        for i in range(count):
            out = -(-size[i] // strides[i])
            total = max(0, (out - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size[i])
            pads[i], pads[i + count] = total // 2, total - total // 2
    out = [
        (size[i] + pads[i] + pads[i + count] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i in range(count)
    ]
    rows, width = w.shape[:2]
    y = np.zeros((levels.shape[0], rows, *out), np.int64)
    for n, m, *cell in np.ndindex(*y.shape):
        first = m // (rows // group) * width
        for c, *tap in np.ndindex(width, *kernel):
            at = [cell[i] * strides[i] + tap[i] * dilations[i] - pads[i] for i in range(count)]
            if all(0 <= at[i] < size[i] for i in range(count)):
                byte = int(levels[(n, first + c, *at)])
                y[(n, m, *cell)] += int(w[(m, c, *tap)]) * (byte - zero)
    return y


CASES = [
    (case, residual)
    for case in CONVS
    for residual in (False, True)
    if not residual or case[1] != case[3]  # QDepthwise takes no residual
]


@pytest.mark.parametrize(("case", "residual"), CASES, ids=str)
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("to", [1, 12])
def test_convolution(case: Any, residual: bool, start: bool, to: int) -> None:
    batch, c, m, group, size, kernel, window = case
    depthwise = group == c
    rng = np.random.default_rng(2)
    levels, zero = random_bytes(batch, c, *size), 119
    w = rng.integers(-128, 128, (m, c // group, *kernel)).astype(np.int8)
    total = sums(levels, w, group, zero, window)
    scale = rng.uniform(1e-4, 2e-3, m).astype(f32)
    dtype = f32 if to == 1 else np.int32
    begin = rng.integers(-9000, 9000, m).astype(dtype) if start else None
    attributes = {**window, "group": group, "to": to}
    feeds = [pack(levels, zero)]
    r = rng.standard_normal(total.shape).astype(f32) if to == 1 else random_bytes(*total.shape)
    if residual:
        feeds.append(r if to == 1 else pack(r, 3))
    op = "QDepthwise" if depthwise else "QConv"
    inputs = [np.ascontiguousarray(np.moveaxis(w, 1, -1)), scale, begin]
    if to == 1:
        act = {"act": "clip", "act_alpha": -3.0, "act_beta": 2.5}
        y = run(op, feeds, inputs, quant=[zero], **attributes, **act)
    else:
        quant = [zero, 50, 40, 220, *([3, 77, 60, 200] if residual else [])]
        more = {"alpha": 0.7, "beta": 0.4} if residual else {}
        packed = run(op, feeds, inputs, quant=quant, **attributes, **more)
        y = unpack(packed, m)
        assert (unpack(packed)[:, m:] == (77 if residual else 50)).all()
    assert y.shape == total.shape
    for place in np.ndindex(*y.shape):
        row = place[1]
        if to == 1:
            value = f32(total[place]) * scale[row]
            value = value + begin[row] if begin is not None else value
            value = value + r[place] if residual else value
            assert y[place] == min(max(value, f32(-3)), f32(2.5))
            continue
        shifted = total[place] + (0 if begin is None else int(begin[row]))
        want = level(f32(shifted) * scale[row], 50, 40, 220)
        if residual:
            own = f32(want - 50) * f32(0.7) + f32(int(r[place]) - 3) * f32(0.4)
            want = level(own, 77, 60, 200)
        assert y[place] == want


def test_sum() -> None:
    a, b = random_bytes(2, 5, 3, 4), random_bytes(2, 5, 3, 4, seed=1)
    quant = [10, 200, 128, 100, 140]
    packed = run("QAdd", [pack(a, 10), pack(b, 200)], alpha=0.11, beta=0.25, quant=quant)
    found = unpack(packed, 5)
    for place in np.ndindex(*a.shape):
        left, right = f32(int(a[place]) - 10) * f32(0.11), f32(int(b[place]) - 200) * f32(0.25)
        assert found[place] == level(left + right, *quant[2:])


def test_sum_of_different_shapes() -> None:
    a, b = pack(random_bytes(2, 4, 3), 0), pack(random_bytes(2, 4, 1), 0)
    with pytest.raises(BackendError, match="shapes"):
        run("QAdd", [a, b], alpha=1.0, beta=1.0, quant=[0, 0, 0, 0, 255])


POOLS = [
    ((5, 6), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    ((5, 5), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ((7,), {"kernel_shape": [3], "dilations": [2]}),
    ((4, 5), {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER"}),
]


def windows(size: tuple[int, ...], window: dict) -> list[list[list[int]]]:
    """The cells that each window covers along each axis; None for padding that ONNX counts."""
    axes = []
    count = len(size)
    for i, kernel in enumerate(window["kernel_shape"]):
        stride = window.get("strides", [1] * count)[i]
        dilation = window.get("dilations", [1] * count)[i]
        begin, end = (window.get("pads", [0] * 2 * count)[j] for j in (i, i + count))
        if "auto_pad" in window:
            total = kernel - 1
            begin, end = total - total // 2, total // 2
        reach = (kernel - 1) * dilation + 1
        span = size[i] + begin + end - reach
        out = (-(-span // stride) if window.get("ceil_mode") else span // stride) + 1
        if window.get("ceil_mode") and (out - 1) * stride >= size[i] + begin:
            out -= 1
        cells = []
        for o in range(out):
            at = [o * stride - begin + t * dilation for t in range(kernel)]
            cells.append([a for a in at if a < size[i] + end])
        axes.append(cells)
    return axes


@pytest.mark.parametrize("case", POOLS, ids=str)
@pytest.mark.parametrize("kind", ["max", "mean", "mean with padding"])
def test_pools(case: Any, kind: str) -> None:
    size, window = case
    levels, zero = random_bytes(2, 6, *size), 30
    feeds = [pack(levels, zero)]
    if kind == "max":
        found = unpack(run("QMaxPool", feeds, **window), 6)
    else:
        quant = [zero, 70, 60, 250]
        include = int(kind != "mean")
        more = {"alpha": 1.3, "quant": quant, "count_include_pad": include}
        found = unpack(run("QAveragePool", feeds, **window, **more), 6)
    axes = windows(size, window)
    assert found.shape == (2, 6, *map(len, axes))
    for place in np.ndindex(*found.shape):
        n, c, *cell = place
        cells = list(itertools.product(*(axis[o] for axis, o in zip(axes, cell, strict=True))))
        real = [at for at in cells if all(0 <= a < s for a, s in zip(at, size, strict=True))]
        values = [int(levels[(n, c, *at)]) for at in real]
        if kind == "max":
            assert found[place] == max(values)
            continue
        mean = f32(sum(values) - zero * len(values)) / f32(len(real if kind == "mean" else cells))
        assert found[place] == level(mean * f32(1.3), 70, 60, 250)


@pytest.mark.parametrize("size", [(1,), (7,), (3, 5)])
def test_global_mean(size: tuple[int, ...]) -> None:
    levels = random_bytes(2, 3, *size)
    packed = run("QAveragePool", [pack(levels, 5)], alpha=0.8, quant=[5, 100, 0, 255])
    found = unpack(packed, 3)
    assert found.shape == (2, 3, *[1] * len(size))
    for n, c in np.ndindex(2, 3):
        cells = levels[n, c].astype(int) - 5
        mean = f32(cells.sum()) / f32(cells.size)
        assert found[n, c].item() == level(mean * f32(0.8), 100)


def test_lookup() -> None:
    levels, table = random_bytes(2, 5, 3), random_bytes(256, seed=3)
    found = unpack(run("QLookup", [pack(levels, 0)], [table]), 5)
    np.testing.assert_array_equal(found, table[levels])
