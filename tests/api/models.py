"""Small models that the tests of the API share."""

from __future__ import annotations

import functools

import numpy as np
import onnx

import sparsert
from tests.suite.harness import build, make_session, random_weights


@functools.cache
def small_cnn() -> onnx.ModelProto:
    """Conv, depthwise, residual, pool and a linear layer; symbolic batch, height and width."""
    return build(
        [
            "a = Conv<pads=[1,1,1,1]>(x, w1, b1)",
            "b = Relu(a)",
            "c = Conv<pads=[1,1,1,1], group=8>(b, w2)",
            "d = Conv(c, w3)",
            "e = Add(d, b)",
            "f = Relu(e)",
            "g = GlobalAveragePool(f)",
            "h = Flatten(g)",
            "y = Gemm<transB=1>(h, w4, b4)",
        ],
        {"x": ["n", 3, "h", "w"]},
        {
            "w1": random_weights(8, 3, 3, 3, sparsity=0.5),
            "b1": random_weights(8, scale=1.0),
            "w2": random_weights(8, 1, 3, 3),
            "w3": random_weights(8, 8, 1, 1, sparsity=0.8),
            "w4": random_weights(10, 8, sparsity=0.5),
            "b4": random_weights(10, scale=1.0),
        },
    )


@functools.cache
def two_in_two_out() -> onnx.ModelProto:
    """p, q -> s = p + q (output 1), r = relu(p) (output 0)."""
    return build(
        ["r = Relu(p)", "s = Add(p, q)"], {"p": ["n", 4], "q": ["n", 4]}, outputs=("r", "s")
    )


@functools.cache
def with_fallback() -> onnx.ModelProto:
    """A convolution, then Shrink, which is not native, then another convolution."""
    return build(
        [
            "a = Conv<pads=[1,1,1,1]>(x, w1)",
            "b = Shrink<lambd=-1.0>(a)",
            "c = Relu(b)",
            "y = Conv(c, w2)",
        ],
        {"x": ["n", 3, 8, 8]},
        {
            "w1": random_weights(6, 3, 3, 3, sparsity=0.5),
            "w2": random_weights(4, 6, 1, 1, sparsity=0.5),
        },
    )


@functools.cache
def reference(build_model: object) -> object:
    """Onnxruntime's session of a model of this file."""
    return make_session(build_model())  # type: ignore[operator]


def expected(build_model: object, *arrays: np.ndarray) -> list[np.ndarray]:
    """Onnxruntime's outputs for arrays in the order of the inputs."""
    session = reference(build_model)
    names = [value.name for value in session.get_inputs()]  # type: ignore[attr-defined]
    return session.run(None, dict(zip(names, arrays, strict=True)))  # type: ignore[attr-defined]


def image(*shape: int, seed: int = 0) -> np.ndarray:
    """A random f32 array."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


@functools.cache
def small_cnn_file() -> bytes:
    """The .sprt bytes of small_cnn."""
    return bytes(sparsert.load(small_cnn(), strict=True)._native_file())
