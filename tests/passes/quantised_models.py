"""Small networks in f32, quantised by onnxruntime's static quantiser."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

OPSET = 17


class Net:
    """Builds an f32 model node by node."""

    def __init__(self, shape: list[int | str], seed: int = 0) -> None:
        self.shape = shape
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, array: Any) -> str:
        """Adds an initializer."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape: int) -> str:
        """Adds random f32 weights of about unit gain."""
        gain = 1 / np.sqrt(max(1, np.prod(shape[1:])))
        return self.constant((gain * self._rng.standard_normal(shape)).astype(np.float32))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of one output."""
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def conv(self, x: str, m: int, c: int, k: int = 3, *, bias: bool = True, **more: Any) -> str:
        """Adds a convolution that keeps the size at stride 1."""
        inputs = [x, self.weights(m, c // more.get("group", 1), k, k)]
        if bias:
            inputs.append(self.constant(self._rng.standard_normal(m).astype(np.float32) * 0.1))
        more.setdefault("pads", [k // 2] * 4)
        return self.add("Conv", *inputs, **more)

    def linear(self, x: str, k: int, m: int) -> str:
        """Adds a MatMul and its bias."""
        y = self.add("MatMul", x, self.constant(self._matrix(k, m)))
        return self.add("Add", y, self.constant(self._rng.standard_normal(m).astype(np.float32)))

    def _matrix(self, k: int, m: int) -> np.ndarray:
        return (self._rng.standard_normal((k, m)) / np.sqrt(k)).astype(np.float32)

    def gemm(self, x: str, k: int, m: int) -> str:
        """Adds a Gemm with the weights [M, K]."""
        bias = self.constant(self._rng.standard_normal(m).astype(np.float32))
        return self.add("Gemm", x, self.constant(self._matrix(m, k)), bias, transB=1)

    def model(self, *outputs: str) -> onnx.ModelProto:
        """Returns the checked model."""
        graph = helper.make_graph(
            self._nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opsets, ir_version=8)
        )
        onnx.checker.check_model(model)
        return model


def cnn() -> Net:
    """Convolutions, a residual block, depthwise, pools, a concat and a classifier."""
    net = Net(["N", 3, 16, 16])
    a = net.add("Relu", net.conv("x", 16, 3, strides=[2, 2]))
    b = net.add("Relu", net.conv(a, 16, 16))
    b = net.conv(b, 16, 16)
    a = net.add("Relu", net.add("Add", a, b))
    d = net.add(
        "Clip",
        net.conv(a, 16, 16, group=16),
        net.constant(np.float32(0)),
        net.constant(np.float32(6)),
    )
    p = net.add("MaxPool", d, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    q = net.add("AveragePool", a, kernel_shape=[2, 2], strides=[2, 2])
    c = net.add("Concat", p, q, axis=1)
    c = net.add("Relu", net.conv(c, 24, 32, 1, bias=False))
    g = net.add("GlobalAveragePool", c)
    y = net.gemm(net.add("Flatten", g), 24, 10)
    net.outputs = (y,)  # type: ignore[attr-defined]
    return net


def activations() -> Net:
    """Activations that become tables, and ones with odd channel counts."""
    net = Net(["N", 5, 8, 8], 1)
    a = net.conv("x", 7, 5)
    a = net.add("Mul", a, net.add("Sigmoid", a))
    a = net.add("LeakyRelu", net.conv(a, 6, 7), alpha=0.1)
    a = net.add("HardSwish", net.conv(a, 6, 6))
    a = net.add("Tanh", net.conv(a, 8, 6, 1))
    r = net.add("Resize", a, "", net.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    s = net.conv(r, 8, 8, 3, group=2)
    net.outputs = (net.add("Softmax", s, axis=1),)  # type: ignore[attr-defined]
    return net


def mlp() -> Net:
    """Rows through three products."""
    net = Net(["N", 20], 2)
    a = net.add("Relu", net.gemm("x", 20, 33))
    a = net.add("Relu", net.linear(a, 33, 16))
    net.outputs = (net.gemm(a, 16, 5),)  # type: ignore[attr-defined]
    return net


def transformer() -> Net:
    """One block of attention and a feed-forward layer."""
    net = Net(["N", 6, 16], 3)
    heads, size = 2, 8
    q, k, v = (net.linear("x", 16, 16) for _ in range(3))
    split = net.constant(np.array([0, 6, heads, size]))
    q, k, v = (net.add("Reshape", t, split) for t in (q, k, v))
    q = net.add("Transpose", q, perm=[0, 2, 1, 3])
    k = net.add("Transpose", k, perm=[0, 2, 3, 1])
    v = net.add("Transpose", v, perm=[0, 2, 1, 3])
    s = net.add("Mul", net.add("MatMul", q, k), net.constant(np.float32(size**-0.5)))
    y = net.add("MatMul", net.add("Softmax", s, axis=-1), v)
    y = net.add("Transpose", y, perm=[0, 2, 1, 3])
    y = net.add("Reshape", y, net.constant(np.array([0, 6, 16])))
    y = net.add("Add", net.linear(y, 16, 16), "x")
    gain = net.constant(np.ones(16, np.float32))
    n = net.add("LayerNormalization", y, gain, net.constant(np.zeros(16, np.float32)), axis=-1)
    h = net.linear(n, 16, 32)
    h = net.add("Mul", h, net.add("Sigmoid", h))
    net.outputs = (net.add("Add", net.linear(h, 32, 16), y),)  # type: ignore[attr-defined]
    return net


NETS: dict[str, Callable[[], Net]] = {
    "cnn": cnn,
    "activations": activations,
    "mlp": mlp,
    "transformer": transformer,
}


def feeds_of(shape: list[int | str], count: int, seed: int = 11) -> Iterator[dict[str, np.ndarray]]:
    """Yields random inputs of batch 2."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        sizes = [dim if isinstance(dim, int) else 2 for dim in shape]
        yield {"x": rng.standard_normal(sizes).astype(np.float32)}


class _Calibration(CalibrationDataReader):
    def __init__(self, shape: list[int | str]) -> None:
        self._feeds = feeds_of(shape, 4)

    def get_next(self) -> Any:
        return next(self._feeds, None)


def quantised(
    name: str,
    form: QuantFormat,
    activation: QuantType,
    weight: QuantType = QuantType.QInt8,
    *,
    per_channel: bool = False,
    op_types: list[str] | None = None,
    **extra: Any,
) -> onnx.ModelProto:
    """Returns one of NETS, quantised."""
    net = NETS[name]()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "f32.onnx", Path(folder) / "int8.onnx"
        onnx.save(net.model(*net.outputs), source)  # type: ignore[attr-defined]
        quantize_static(
            source,
            target,
            _Calibration(net.shape),
            quant_format=form,
            activation_type=activation,
            weight_type=weight,
            per_channel=per_channel,
            op_types_to_quantize=op_types,
            extra_options=extra,
        )
        return onnx.load(target)
