"""Tensors whose sizes data decides: fallbacks between native segments, down to no elements."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest

import sparsert
from sparsert.errors import ShapeError
from tests.suite.harness import ISAS, SUM, assert_close, build, i64, make_session, random_weights

F32 = np.float32


def detector() -> onnx.ModelProto:
    """Features, boxes and scores; the boxes that are left; a head for what lies in each."""
    return build(
        [
            "f0 = Conv<pads=[1,1,1,1]>(x, w)",
            "f = Relu(f0)",
            "n = NonMaxSuppression(b, s, most, iou, least)",
            "k = Gather<axis=1>(n, two)",
            "g = Gather<axis=1>(b, k)",
            "r = Squeeze(g, zero)",
            "z = Mul(k, nothing)",
            "a = RoiAlign<output_height=4, output_width=4, sampling_ratio=2>(f, r, z)",
            "c = Conv<pads=[1,1,1,1]>(a, w2)",
            "m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)",
            'u = Resize<mode="linear">(m, , twice)',
            "v = Flatten(m)",
            "h = Gemm<transB=1>(v, w3, b3)",
            "y = Softmax<axis=1>(h)",
        ],
        {"x": (1, 3, 8, 8), "b": (1, 16, 4), "s": (1, 1, 16)},
        {
            "w": random_weights(4, 3, 3, 3, sparsity=0.5),
            "most": i64(7),
            "iou": np.array([0.6], F32),
            "least": np.array([0.5], F32),
            "two": np.array(2),
            "zero": i64(0),
            "nothing": np.array(0),
            "twice": np.array([1, 1, 2, 2], F32),
            "w2": random_weights(6, 4, 3, 3, sparsity=0.6),
            "w3": random_weights(5, 24, sparsity=0.5),
            "b3": random_weights(5, scale=1.0),
        },
        outputs=("y", "r", "n", "u"),
    )


@pytest.mark.parametrize("isa", ISAS)
def test_detector(isa: str) -> None:
    """Many boxes, few, none."""
    proto = detector()
    with pytest.warns(UserWarning, match="NonMaxSuppression.*depends on data"):
        model = sparsert.load(proto, isa=isa, threads=1)
    session = make_session(proto)
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 5, (1, 16, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 3, (1, 16, 2))], axis=2).astype(F32)
    counts = set()
    for scale in (1.0, 0.52, 0.1, 1.0):
        feeds = {
            "x": rng.standard_normal((1, 3, 8, 8)).astype(F32),
            "b": boxes,
            "s": (rng.random((1, 1, 16)) * scale).astype(F32),
        }
        wanted = session.run(None, feeds)
        counts.add(len(wanted[0]))
        for got, want in zip(model.run(None, feeds), wanted, strict=True):
            assert_close(got, want, SUM)
    assert 0 in counts
    assert max(counts) > 2


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (["i = NonZero(x)", "t = Transpose(i)", "y = Cast<to=1>(t)"], {}),
        (
            ["i = NonZero(x)", "t = Transpose(i)", "g = GatherND(x, t)", "y = Exp(g)"],
            {},
        ),
        (
            ["u, j = Unique(x)", "e = Gather(t, j)", "y = MatMul(e, w)"],
            {"t": random_weights(20, 4), "w": random_weights(4, 3)},
        ),
        (
            ["p = Greater(x, h)", "f = Reshape(p, m)", "c = Compress(x, f)", "y = Mul(c, h)"],
            {"h": np.array(0.5, F32), "m": i64(-1)},
        ),
    ],
    ids=["nonzero", "gather", "unique", "compress"],
)
def test_against_onnxruntime(nodes: list[str], constants: dict[str, np.ndarray]) -> None:
    proto = build(nodes, {"x": (4, 5)}, constants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sparsert.load(proto, threads=1)
    session = make_session(proto)
    for x in (np.eye(4, 5), np.ones((4, 5)), np.zeros((4, 5))):
        feeds = {"x": x.astype(F32)}
        assert_close(model.run(None, feeds)[0], session.run(None, feeds)[0], SUM)


def test_an_empty_batch_from_the_caller_is_still_an_error() -> None:
    model = sparsert.load(build(["y = Relu(x)"], {"x": ["n", 3]}), threads=1)
    with pytest.raises(ShapeError, match="a batch of size 0"):
        model(np.zeros((0, 3), F32))
