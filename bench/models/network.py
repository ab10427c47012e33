"""Network: writes an ONNX graph layer by layer, the way torch exports a network in eval mode."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 13  # the newest that every engine of the race reads
IR_VERSION = 8
BN_EPSILON = 1e-5

Array = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """Sizes of one layer with weights; a linear layer is a 1x1 convolution of a 1x1 image."""

    name: str
    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: int
    stride: int
    pad: int
    groups: int
    sparsity: float

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return (self.height + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return (self.width + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiply-adds of the dense layer."""
        per_output = self.in_channels // self.groups * self.kernel * self.kernel
        outputs = self.batch * self.out_channels * self.out_height * self.out_width
        return outputs * per_output


def prune_by_magnitude(weights: Array, sparsity: float) -> Array:
    """Zeroes the share `sparsity` of `weights` (any shape) with the smallest magnitudes.

    What is left is scaled so that the sum of squares stays the same, as batch normalisation and
    training would see to: activations keep their size at any sparsity.
    """
    zeros = round(sparsity * weights.size)
    if zeros == 0:
        return weights
    magnitude = np.abs(weights).reshape(-1)
    threshold = np.partition(magnitude, zeros - 1)[zeros - 1]
    kept = np.where(magnitude <= threshold, np.float32(0), weights.reshape(-1))
    energy = float(np.dot(kept, kept))
    if energy > 0:
        kept *= np.float32(math.sqrt(float(np.dot(magnitude, magnitude)) / energy))
    return kept.reshape(weights.shape)


class Network:
    """An ONNX graph under construction; values are named, shapes are known.

    Args:
        shape: of the input, batch first.
        sparsity: share of zeros in every pruned layer.
        with_bn: write BatchNormalization nodes instead of folding them into the convolutions.
        seed: of the weights.
    """

    def __init__(self, shape: tuple[int, ...], sparsity: float, with_bn: bool, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.sparsity = sparsity
        self.with_bn = with_bn
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.layers: list[LayerShape] = []
        self.shapes: dict[str, tuple[int, ...]] = {"input": shape}
        self.input_shape = shape

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Adds an initializer."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        """Adds a node with one output of the given shape; returns the output's name."""
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        self.shapes[output] = shape
        return output

    def conv(
        self,
        x: str,
        name: str,
        channels: int,
        kernel: int,
        stride: int = 1,
        pad: int | None = None,
        groups: int = 1,
        dense: bool = False,
        gain: float = 2.0,
        bn: bool = True,
    ) -> str:
        """Adds a convolution, with batch normalisation when `bn`.

        Args:
            x: input, [N, C, H, W].
            name: prefix of the weights' names.
            channels: of the output.
            kernel: height and width.
            stride: of both dimensions.
            pad: on every side; half the kernel when None.
            groups: input channels when depthwise.
            dense: leave every weight in place.
            gain: mean square of the output for inputs of mean square 1 (2 before a Relu).
            bn: whether batch normalisation follows.
        """
        batch, in_channels, height, width = self.shapes[x]
        pad = kernel // 2 if pad is None else pad
        fan_in = in_channels // groups * kernel * kernel
        shape = (channels, in_channels // groups, kernel, kernel)
        sparsity = 0.0 if dense else self.sparsity
        weights = self._weights(shape, fan_in, sparsity, gain)
        layer = LayerShape(
            name, batch, in_channels, height, width, channels, kernel, stride, pad, groups, sparsity
        )
        self.layers.append(layer)
        out_shape = (batch, channels, layer.out_height, layer.out_width)
        attributes = {
            "kernel_shape": [kernel, kernel],
            "strides": [stride, stride],
            "pads": [pad] * 4,
            "dilations": [1, 1],
            "group": groups,
        }
        if not bn:
            inputs = [x, self.constant(f"{name}.weight", weights)]
            inputs.append(self.constant(f"{name}.bias", self._normal(channels, 0.05)))
            return self.node("Conv", inputs, out_shape, **attributes)
        gamma = self.rng.uniform(0.8, 1.2, channels).astype(np.float32)
        beta = self._normal(channels, 0.1)
        mean = self._normal(channels, 0.1)
        var = self.rng.uniform(0.8, 1.2, channels).astype(np.float32)
        if self.with_bn:
            inputs = [x, self.constant(f"{name}.weight", weights)]
            y = self.node("Conv", inputs, out_shape, **attributes)
            statistics = zip(
                ("weight", "bias", "running_mean", "running_var"),
                (gamma, beta, mean, var),
                strict=True,
            )
            inputs = [y] + [self.constant(f"{name}.bn.{key}", v) for key, v in statistics]
            return self.node("BatchNormalization", inputs, out_shape, epsilon=BN_EPSILON)
        scale = gamma / np.sqrt(var + np.float32(BN_EPSILON))
        inputs = [
            x,
            self.constant(f"{name}.weight", weights * scale[:, None, None, None]),
            self.constant(f"{name}.bias", beta - mean * scale),
        ]
        return self.node("Conv", inputs, out_shape, **attributes)

    def linear(self, x: str, name: str, features: int, gain: float = 2.0) -> str:
        """Adds a fully connected layer on x: [N, K]."""
        batch, in_features = self.shapes[x]
        weights = self._weights((features, in_features), in_features, self.sparsity, gain)
        self.layers.append(
            LayerShape(name, batch, in_features, 1, 1, features, 1, 1, 0, 1, self.sparsity)
        )
        inputs = [x, self.constant(f"{name}.weight", weights)]
        inputs.append(self.constant(f"{name}.bias", self._normal(features, 0.05)))
        return self.node("Gemm", inputs, (batch, features), alpha=1.0, beta=1.0, transB=1)

    def relu(self, x: str) -> str:
        """Adds max(x, 0)."""
        return self.node("Relu", [x], self.shapes[x])

    def relu6(self, x: str) -> str:
        """Adds min(max(x, 0), 6)."""
        if "relu6.max" not in {t.name for t in self.initializers}:
            self.constant("relu6.min", np.array(0, np.float32))
            self.constant("relu6.max", np.array(6, np.float32))
        return self.node("Clip", [x, "relu6.min", "relu6.max"], self.shapes[x])

    def add(self, a: str, b: str) -> str:
        """Adds a + b, of equal shapes."""
        return self.node("Add", [a, b], self.shapes[a])

    def max_pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        """Adds a maximum pool."""
        batch, channels, height, width = self.shapes[x]
        shape = (
            batch,
            channels,
            (height + 2 * pad - kernel) // stride + 1,
            (width + 2 * pad - kernel) // stride + 1,
        )
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        return self.node("MaxPool", [x], shape, **attributes)

    def global_average_pool(self, x: str) -> str:
        """Adds the mean over height and width."""
        return self.node("GlobalAveragePool", [x], (*self.shapes[x][:2], 1, 1))

    def flatten(self, x: str) -> str:
        """Adds a reshape to [N, rest]."""
        batch, *rest = self.shapes[x]
        return self.node("Flatten", [x], (batch, math.prod(rest)), axis=1)

    def finish(self, y: str, name: str) -> onnx.ModelProto:
        """Makes `y` the output and returns the checked model."""
        self.nodes[-1].output[0] = "output"
        assert self.nodes[-1].name == y, "the output must be the last node"
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            name,
            [info("input", TensorProto.FLOAT, self.input_shape)],
            [info("output", TensorProto.FLOAT, self.shapes[y])],
            self.initializers,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(model)
        return model

    def _normal(self, size: int, scale: float) -> Array:
        return (self.rng.standard_normal(size, dtype=np.float32) * np.float32(scale)).astype(
            np.float32
        )

    def _weights(self, shape: tuple[int, ...], fan_in: int, sparsity: float, gain: float) -> Array:
        weights = self.rng.standard_normal(shape, dtype=np.float32)
        weights *= np.float32(math.sqrt(gain / fan_in))
        return prune_by_magnitude(weights, sparsity)
