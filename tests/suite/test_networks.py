"""Whole small networks, dense and 90 % sparse, on every instruction set, one and two threads."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import onnx
import pytest

import sparsert
from bench.models.architectures import MODELS
from bench.models.network import Network
from tests.suite.harness import (
    ISAS_OF_FLOATS,
    NETWORK,
    NUMBA,
    assert_close,
    build,
    make_session,
    random_weights,
)

SIDES = {"resnet50": 64, "mobilenet_v1": 64, "mobilenet_v2": 64, "small_cnn": 28}


def architecture(name: str, sparsity: float, with_bn: bool = False) -> onnx.ModelProto:
    """A network of the benchmarks on small images."""
    layers, shape = MODELS[name]
    net = Network((2, shape[0], SIDES[name], SIDES[name]), sparsity, with_bn, 0)
    return net.finish(layers(net), name)


class Layers:
    """Weights of a network written by hand, by name."""

    def __init__(self, sparsity: float) -> None:
        self.sparsity = sparsity
        self.nodes: list[str] = []
        self.constants: dict[str, np.ndarray] = {}

    def weights(self, *shape: int, dense: bool = False) -> str:
        """Adds a tensor; returns its name."""
        name = f"w{len(self.constants)}"
        sparsity = 0.0 if dense else self.sparsity
        # Signals keep their size through Relu and zeros.
        scale = float(np.sqrt(2.0 / ((1.0 - sparsity) * np.prod(shape[1:]))))
        self.constants[name] = random_weights(
            *shape, sparsity=sparsity, seed=len(self.constants), scale=scale
        )
        return name

    def value(self, name: str, array: np.ndarray) -> str:
        """Adds a constant."""
        self.constants[name] = array
        return name

    def add(self, text: str) -> str:
        """Adds a node written without its output, such as 'Relu(x)'; returns the output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(f"{name} = {text}")
        return name

    def finish(self, output: str, inputs: dict[str, list[int | str]]) -> onnx.ModelProto:
        """The model, with its output named y."""
        self.nodes.append(f"y = Identity({output})")
        return build(self.nodes, inputs, self.constants)


def unet(sparsity: float) -> onnx.ModelProto:
    """A U-Net: two levels down, one up by ConvTranspose, one up by Resize; skips by Concat."""
    n = Layers(sparsity)

    def block(x: str, c_in: int, c_out: int) -> str:
        for c in (c_in, c_out):
            w = n.weights(c_out, c, 3, 3)
            x = n.add(f"Relu({n.add(f'Conv<pads=[1,1,1,1]>({x}, {w})')})")
        return x

    down1 = block("x", 3, 8)
    down2 = block(n.add(f"MaxPool<kernel_shape=[2,2], strides=[2,2]>({down1})"), 8, 16)
    middle = block(n.add(f"MaxPool<kernel_shape=[2,2], strides=[2,2]>({down2})"), 16, 32)
    up = n.add(f"ConvTranspose<strides=[2,2]>({middle}, {n.weights(32, 16, 2, 2)})")
    up = block(n.add(f"Concat<axis=1>({up}, {down2})"), 32, 16)
    scales = n.value("scales", np.array([1, 1, 2, 2], np.float32))
    up = n.add(f'Resize<mode="linear">({up}, , {scales})')
    up = block(n.add(f"Concat<axis=1>({down1}, {up})"), 24, 8)
    logits = n.add(f"Conv({up}, {n.weights(3, 8, 1, 1)})")
    return n.finish(n.add(f"Softmax<axis=1>({logits})"), {"x": ["n", 3, "h", "w"]})


def audio(sparsity: float) -> onnx.ModelProto:
    """A 1-D network on raw audio: long strided kernels, dilations, depthwise layers, GELU."""
    n = Layers(sparsity)
    x = n.add(f"Conv<strides=[8], pads=[4,4]>(x, {n.weights(16, 1, 16)})")
    x = n.add(f"Gelu({x})")
    for dilation in (1, 2, 4):
        w = n.weights(16, 16, 3)
        y = n.add(f"Conv<pads=[{dilation},{dilation}], dilations=[{dilation}]>({x}, {w})")
        y = n.add(f"Tanh({y})")
        gate = n.add(f"Sigmoid({n.add(f'Conv<pads=[2,2], group=16>({x}, {n.weights(16, 1, 5)})')})")
        y = n.add(f"Conv({n.add(f'Mul({y}, {gate})')}, {n.weights(16, 16, 1)})")
        x = n.add(f"Add({x}, {y})")
    x = n.add(f"AveragePool<kernel_shape=[4], strides=[4]>({x})")
    x = n.add(f"Conv<strides=[2]>({n.add(f'LeakyRelu<alpha=0.1>({x})')}, {n.weights(24, 16, 4)})")
    x = n.add(f"Flatten({n.add(f'GlobalMaxPool({x})')})")
    x = n.add(f"LogSoftmax({n.add(f'Gemm<transB=1>({x}, {n.weights(11, 24)})')})")
    return n.finish(x, {"x": ["n", 1, "t"]})


def mobile(sparsity: float) -> onnx.ModelProto:
    """MobileNetV3-like: hard-swish, squeeze and excite, inverted residuals."""
    n = Layers(sparsity)
    w = n.weights(16, 3, 3, 3, dense=True)
    x = n.add(f"HardSwish({n.add(f'Conv<strides=[2,2], pads=[1,1,1,1]>(x, {w})')})")
    for kernel in (3, 5):
        pad = kernel // 2
        y = n.add(f"HardSwish({n.add(f'Conv({x}, {n.weights(48, 16, 1, 1)})')})")
        w = n.weights(48, 1, kernel, kernel, dense=True)
        y = n.add(f"Conv<group=48, pads=[{pad},{pad},{pad},{pad}]>({y}, {w})")
        y = n.add(f"HardSwish({y})")
        s = n.add(f"GlobalAveragePool({y})")
        s = n.add(f"Relu({n.add(f'Conv({s}, {n.weights(12, 48, 1, 1)})')})")
        w = n.weights(48, 12, 1, 1)
        s = n.add(f"HardSigmoid<alpha=0.16666667>({n.add(f'Conv({s}, {w})')})")
        y = n.add(f"Mul({y}, {s})")
        x = n.add(f"Add({x}, {n.add(f'Conv({y}, {n.weights(16, 48, 1, 1)})')})")
    x = n.add(f"Flatten({n.add(f'GlobalAveragePool({x})')})")
    x = n.add(f"Gemm<transB=1>({x}, {n.weights(10, 16)})")
    return n.finish(x, {"x": ["n", 3, "h", "w"]})


def densenet(sparsity: float) -> onnx.ModelProto:
    """DenseNet-like: batch norm and Relu before each convolution, every output concatenated."""
    n = Layers(sparsity)
    features = [n.add(f"Conv<pads=[1,1,1,1]>(x, {n.weights(8, 3, 3, 3)})")]
    channels = 8
    for index in range(4):
        x = features[0] if index == 0 else n.add(f"Concat<axis=1>({', '.join(features)})")
        names = []
        for kind in "gbmv":
            array = random_weights(channels, scale=0.3, seed=index)
            names.append(n.value(f"{kind}_norm{index}", np.abs(array) + np.float32(0.5)))
        x = n.add(f"BatchNormalization({x}, {', '.join(names)})")
        w = n.weights(6, channels, 3, 3)
        features.append(n.add(f"Conv<pads=[1,1,1,1]>({n.add(f'Relu({x})')}, {w})"))
        channels += 6
    x = n.add(f"Concat<axis=1>({', '.join(features)})")
    x = n.add(f"AveragePool<kernel_shape=[2,2], strides=[2,2]>({n.add(f'Relu({x})')})")
    a = n.value("axes", np.array([2, 3]))
    x = n.add(f"ReduceMean<keepdims=0>({x}, {a})")
    x = n.add(f"MatMul({x}, {n.weights(channels, 7)})")
    return n.finish(x, {"x": ["n", 3, "h", "w"]})


NETWORKS: dict[str, tuple[Callable[[float], onnx.ModelProto], list[tuple[int, ...]]]] = {
    **{
        name: (functools.partial(architecture, name), [(2, MODELS[name][1][0], side, side)])
        for name, side in SIDES.items()
    },
    "resnet50_with_batch_norm": (
        functools.partial(architecture, "resnet50", with_bn=True),
        [(2, 3, 64, 64)],
    ),
    "unet": (unet, [(1, 3, 32, 24), (2, 3, 20, 44)]),
    "audio": (audio, [(1, 1, 800), (3, 1, 1111)]),
    "mobile": (mobile, [(1, 3, 32, 32), (2, 3, 17, 23)]),
    "densenet": (densenet, [(1, 3, 16, 16), (7, 3, 9, 15)]),
}


@functools.lru_cache(maxsize=1)
def prepared(name: str, sparsity: float) -> tuple[bytes, list[np.ndarray], list[np.ndarray]]:
    """(.sprt bytes, inputs, onnxruntime's outputs)."""
    make, shapes = NETWORKS[name]
    proto = make(sparsity)
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    session = make_session(proto)
    feed = session.get_inputs()[0].name
    wanted = [session.run(None, {feed: x})[0] for x in inputs]
    model = sparsert.load(proto, strict=True, tune=False)
    return bytes(model._native_file()), inputs, wanted


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS_OF_FLOATS)
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, sparsity: float, isa: str, threads: int) -> None:
    file, inputs, wanted = prepared(name, sparsity)
    model = sparsert.load(file, isa=isa, threads=threads)
    for x, want in zip(inputs, wanted, strict=True):
        assert_close(model(x), want, NETWORK, f"{name} {x.shape}")
        spread = float(np.abs(want - want.mean()).max())
        assert spread > 1e-3, "the output of the test network says nothing"
    rows = model.explain().to_dict()["rows"]
    assert all(row["reason"] for row in rows)


@pytest.mark.parametrize("backend", ["numpy", *(engine.name for engine in NUMBA)])
@pytest.mark.parametrize("name", ["unet", "audio", "mobile", "densenet", "small_cnn"])
def test_network_in_python(name: str, backend: str) -> None:
    file, inputs, wanted = prepared(name, 0.9)
    model = sparsert.load(file, backend=backend)
    for x, want in zip(inputs[: 1 if backend == "numpy" else None], wanted, strict=False):
        assert_close(model(x), want, NETWORK, name)


@pytest.mark.parametrize("name", ["unet", "mobile", "small_cnn"])
def test_half_precision_weights(name: str, tmp_path: object) -> None:
    path = f"{tmp_path}/half.sprt"
    file, inputs, wanted = prepared(name, 0.9)
    sparsert.convert(file, path, weights="f16")
    scale = float(np.abs(wanted[0]).max())
    found = sparsert.load(path)(inputs[0])
    assert float(np.abs(found - wanted[0]).max()) < 2e-2 * scale
