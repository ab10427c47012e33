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
    """Sizes of one layer with weights.

    A linear layer is a 1x1 convolution of a 1x1 image; a transposed convolution whose kernel is its
    stride, a 1x1 convolution to kernel^2 times the channels. With `flat` the input is
    [N, C, width]: height is 1, and kernel, stride and pad are those of the width alone.
    """

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
    flat: bool = False

    @property
    def taps(self) -> int:
        """Weights of a channel's window."""
        return self.kernel if self.flat else self.kernel * self.kernel

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        if self.flat:
            return 1
        return (self.height + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return (self.width + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiply-adds of the dense layer."""
        per_output = self.in_channels // self.groups * self.taps
        outputs = self.batch * self.out_channels * self.out_height * self.out_width
        return outputs * per_output


def prune_by_magnitude(weights: Array, sparsity: float, block: tuple[int, int] = (1, 1)) -> Array:
    """Zeroes the share `sparsity` of `weights` with the smallest magnitudes.

    What is left is scaled so that the sum of squares stays the same, as batch normalisation and
    training would see to: activations keep their size at any sparsity.

    Args:
        weights: [outputs, inputs, taps...].
        sparsity: share to drop.
        block: output and input channels that keep or lose the weights of a tap together, by the sum
            of squares; what the last block lacks counts as zero.
    """
    tall, wide = block
    rows, channels = weights.shape[:2]
    down, across = -(-rows // tall), -(-channels // wide)
    padded = np.zeros((down * tall, across * wide, weights[0, 0].size), np.float32)
    padded[:rows, :channels] = weights.reshape(rows, channels, -1)
    blocks = padded.reshape(down, tall, across, wide, -1)
    magnitude = np.sqrt(np.square(blocks).sum(axis=(1, 3)))
    zeros = round(sparsity * magnitude.size)
    if zeros == 0:
        return weights
    threshold = np.partition(magnitude.reshape(-1), zeros - 1)[zeros - 1]
    keep = (magnitude > threshold)[:, None, :, None]
    kept = np.where(keep, blocks, np.float32(0)).reshape(padded.shape)[:rows, :channels]
    energy = float(np.vdot(kept, kept))
    if energy > 0:
        kept = kept * np.float32(math.sqrt(float(np.vdot(weights, weights)) / energy))
    return kept.reshape(weights.shape)


class Network:
    """An ONNX graph under construction; values are named, shapes are known.

    Args:
        shape: of the input, batch first.
        sparsity: share of zeros in every pruned layer.
        with_bn: write BatchNormalization nodes instead of folding them into the convolutions.
        seed: of the weights.
        block: output and input channels that keep or lose a weight together.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        sparsity: float,
        with_bn: bool,
        seed: int,
        block: tuple[int, int] = (1, 1),
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.sparsity = sparsity
        self.block = block
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
            x: input, [N, C, H, W] or [N, C, W].
            name: prefix of the weights' names.
            channels: of the output.
            kernel: of every dimension after the channels.
            stride: of the same dimensions.
            pad: on every side; half the kernel when None.
            groups: input channels when depthwise.
            dense: leave every weight in place.
            gain: mean square of the output for inputs of mean square 1 (2 before a Relu).
            bn: whether batch normalisation follows.
        """
        batch, in_channels, *plane = self.shapes[x]
        rank = len(plane)
        height, width = plane if rank == 2 else (1, plane[0])
        pad = kernel // 2 if pad is None else pad
        sparsity = 0.0 if dense else self.sparsity
        layer = LayerShape(
            *(name, batch, in_channels, height, width, channels, kernel, stride, pad, groups),
            sparsity=sparsity,
            flat=rank == 1,
        )
        self.layers.append(layer)
        fan_in = in_channels // groups * layer.taps
        shape = (channels, in_channels // groups, *[kernel] * rank)
        weights = self._weights(shape, fan_in, sparsity, gain)
        out_shape = (batch, channels, *(layer.out_height, layer.out_width)[-rank:])
        attributes = {
            "kernel_shape": [kernel] * rank,
            "strides": [stride] * rank,
            "pads": [pad] * 2 * rank,
            "dilations": [1] * rank,
            "group": groups,
        }
        if not bn:
            inputs = [x, self.constant(f"{name}.weight", weights)]
            inputs.append(self.constant(f"{name}.bias", self._normal(channels, 0.05)))
            return self.node("Conv", inputs, out_shape, **attributes)
        statistics = self._statistics(channels)
        if self.with_bn:
            inputs = [x, self.constant(f"{name}.weight", weights)]
            y = self.node("Conv", inputs, out_shape, **attributes)
            inputs = [y]
            inputs += [self.constant(f"{name}.bn.{key}", v) for key, v in statistics.items()]
            return self.node("BatchNormalization", inputs, out_shape, epsilon=BN_EPSILON)
        gamma, beta, mean, var = statistics.values()
        scale = gamma / np.sqrt(var + np.float32(BN_EPSILON))
        inputs = [
            x,
            self.constant(f"{name}.weight", weights * scale.reshape(-1, *[1] * (rank + 1))),
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

    def recurrent(self, op: str, x: str, name: str, hidden: int) -> str:
        """Adds an LSTM or a GRU as torch computes it, from [T, N, K] to [T, N, hidden].

        Args:
            op: "LSTM" or "GRU".
            x: the sequence.
            name: prefix of the weights' names.
            hidden: size of the state.
        """
        steps, batch, in_features = self.shapes[x]
        rows = {"LSTM": 4, "GRU": 3}[op] * hidden
        inputs = [x]
        for part, columns in (("input", in_features), ("recurrent", hidden)):
            # More from the input than from the state: a cell that echoes too loud is chaotic.
            gain = 4.0 if part == "input" else 1.0
            weights = self._weights((rows, columns), columns, self.sparsity, gain)
            shape = (steps * batch, columns, 1, 1, rows, 1, 1, 0, 1, self.sparsity)
            self.layers.append(LayerShape(f"{name}.{part}", *shape))
            inputs.append(self.constant(f"{name}.{part}.weight", weights[None]))
        inputs.append(self.constant(f"{name}.bias", self._normal(2 * rows, 0.05)[None]))
        attributes = {"linear_before_reset": 1} if op == "GRU" else {}
        y = self.node(op, inputs, (steps, 1, batch, hidden), hidden_size=hidden, **attributes)
        axes = self.constant(f"{name}.axes", np.array([1], np.int64))
        return self.node("Squeeze", [y, axes], (steps, batch, hidden))

    def transpose(self, x: str, axes: list[int]) -> str:
        """Reorders the dimensions."""
        return self.node("Transpose", [x], tuple(self.shapes[x][a] for a in axes), perm=axes)

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
        return self._pool("MaxPool", x, kernel, stride, pad)

    def average_pool(self, x: str, kernel: int, stride: int) -> str:
        """Adds an average pool without pads."""
        return self._pool("AveragePool", x, kernel, stride, 0)

    def _pool(self, op: str, x: str, kernel: int, stride: int, pad: int) -> str:
        plane = [(size + 2 * pad - kernel) // stride + 1 for size in self.shapes[x][2:]]
        rank = len(plane)
        attributes = {
            "kernel_shape": [kernel] * rank,
            "strides": [stride] * rank,
            "pads": [pad] * 2 * rank,
        }
        return self.node(op, [x], (*self.shapes[x][:2], *plane), **attributes)

    def global_average_pool(self, x: str) -> str:
        """Adds the mean over all dimensions after the channels."""
        batch, channels, *plane = self.shapes[x]
        return self.node("GlobalAveragePool", [x], (batch, channels, *[1] * len(plane)))

    def concat(self, parts: list[str]) -> str:
        """Joins the parts' channels."""
        batch, _, *plane = self.shapes[parts[0]]
        channels = sum(self.shapes[part][1] for part in parts)
        return self.node("Concat", parts, (batch, channels, *plane), axis=1)

    def sigmoid(self, x: str) -> str:
        """Adds 1 / (1 + exp(-x))."""
        return self.node("Sigmoid", [x], self.shapes[x])

    def silu(self, x: str) -> str:
        """Adds x * sigmoid(x), as the two nodes that torch exports."""
        return self.multiply(x, self.sigmoid(x))

    def multiply(self, a: str, b: str) -> str:
        """Adds a * b; b has the shape of a, or one value a channel."""
        return self.node("Mul", [a, b], self.shapes[a])

    def batch_norm(self, x: str, name: str) -> str:
        """Adds a BatchNormalization that no convolution precedes: a node, whatever with_bn says."""
        channels = self.shapes[x][1]
        inputs = [x]
        for key, value in self._statistics(channels).items():
            inputs.append(self.constant(f"{name}.{key}", value))
        return self.node("BatchNormalization", inputs, self.shapes[x], epsilon=BN_EPSILON)

    def upsample(self, x: str, name: str, channels: int, factor: int, gain: float = 1.0) -> str:
        """Adds a transposed convolution whose kernel and stride are `factor`."""
        batch, in_channels, height, width = self.shapes[x]
        shape = (in_channels, channels, factor, factor)
        weights = self._weights(shape, in_channels, self.sparsity, gain)
        self.layers.append(
            LayerShape(
                *(name, batch, in_channels, height, width, channels * factor**2, 1, 1, 0, 1),
                sparsity=self.sparsity,
            )
        )
        inputs = [x, self.constant(f"{name}.weight", weights)]
        inputs.append(self.constant(f"{name}.bias", self._normal(channels, 0.05)))
        out_shape = (batch, channels, factor * height, factor * width)
        attributes = {"kernel_shape": [factor] * 2, "strides": [factor] * 2}
        return self.node("ConvTranspose", inputs, out_shape, **attributes)

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

    def _statistics(self, channels: int) -> dict[str, Array]:
        """Inputs of a BatchNormalization after the first, in order, by the names torch gives."""
        return {
            "weight": self.rng.uniform(0.8, 1.2, channels).astype(np.float32),
            "bias": self._normal(channels, 0.1),
            "running_mean": self._normal(channels, 0.1),
            "running_var": self.rng.uniform(0.8, 1.2, channels).astype(np.float32),
        }

    def _normal(self, size: int, scale: float) -> Array:
        return (self.rng.standard_normal(size, dtype=np.float32) * np.float32(scale)).astype(
            np.float32
        )

    def _weights(self, shape: tuple[int, ...], fan_in: int, sparsity: float, gain: float) -> Array:
        weights = self.rng.standard_normal(shape, dtype=np.float32)
        weights *= np.float32(math.sqrt(gain / fan_in))
        return prune_by_magnitude(weights, sparsity, self.block)
