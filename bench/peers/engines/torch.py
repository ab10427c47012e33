"""PyTorch, eager: an interpreter of the benchmark models' ONNX graphs over torch's functions."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper

from bench.peers.engines import Array, Feeds

Values = dict[str, torch.Tensor]


def _conv(node: onnx.NodeProto, a: dict, v: Values) -> Callable[[], torch.Tensor]:
    top, left, bottom, right = a["pads"]
    if (top, left) != (bottom, right):
        raise ValueError(f"{node.name}: uneven pads")
    bias = v[node.input[2]] if len(node.input) > 2 else None
    weight, x = v[node.input[1]], node.input[0]
    stride, dilation, group = a["strides"], a["dilations"], a["group"]
    return lambda: F.conv2d(v[x], weight, bias, stride, (top, left), dilation, group)


def _batch_norm(node: onnx.NodeProto, a: dict, v: Values) -> Callable[[], torch.Tensor]:
    scale, bias, mean, var = (v[name] for name in node.input[1:])
    return lambda: F.batch_norm(v[node.input[0]], mean, var, scale, bias, eps=a["epsilon"])


def _clip(node: onnx.NodeProto, a: dict, v: Values) -> Callable[[], torch.Tensor]:
    low, high = (float(v[name]) for name in node.input[1:])
    return lambda: F.hardtanh(v[node.input[0]], low, high)


def _max_pool(node: onnx.NodeProto, a: dict, v: Values) -> Callable[[], torch.Tensor]:
    kernel, stride, pad = a["kernel_shape"], a["strides"], a["pads"][:2]
    return lambda: F.max_pool2d(v[node.input[0]], kernel, stride, pad)


def _gemm(node: onnx.NodeProto, a: dict, v: Values) -> Callable[[], torch.Tensor]:
    x, weight, bias = node.input[0], v[node.input[1]], v[node.input[2]]
    return lambda: F.linear(v[x], weight, bias)


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    return lambda node, a, v: lambda: function(v[node.input[0]])


STEPS: dict[str, Callable[[onnx.NodeProto, dict, Values], Callable[[], torch.Tensor]]] = {
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "MaxPool": _max_pool,
    "Gemm": _gemm,
    "Relu": _unary(torch.relu),
    "GlobalAveragePool": _unary(lambda x: x.mean((2, 3), keepdim=True)),
    "Flatten": _unary(lambda x: x.flatten(1)),
    "Add": lambda node, a, v: lambda: v[node.input[0]] + v[node.input[1]],
}


class Engine:
    """The graph as a list of closures, run in order without gradients."""

    version = torch.__version__.split("+")[0]

    def __init__(self, path: str, threads: int) -> None:
        torch.set_num_threads(threads)
        graph = onnx.load(path).graph
        self.values: Values = {
            t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer
        }
        self.steps = []
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type not in STEPS:
                raise ValueError(f"{node.name}: the torch engine has no {node.op_type}")
            step = STEPS[node.op_type](node, attributes, self.values)
            self.steps.append((node.output[0], step))
        self.outputs = [output.name for output in graph.output]

    def run(self, feeds: Feeds) -> list[Array]:
        """Computes the outputs."""
        with torch.inference_mode():
            for name, array in feeds.items():
                self.values[name] = torch.from_numpy(array)
            for name, step in self.steps:
                self.values[name] = step()
            return [self.values[name].numpy() for name in self.outputs]
