"""The rows of csrc/kernels/*/kernels.inc, and one-layer models that run them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.models.network import LayerShape, prune_by_magnitude

KERNELS = Path(__file__).resolve().parents[2] / "csrc" / "kernels"

# Formats of tables that have no such column and are not dense.
NAMED_AFTER_OP = {"winograd": "winograd"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A kernel: its format ("dense" where the table does not tell) and instruction set."""

    format: str
    isa: str


def kernel_rows(op: str) -> list[Row]:
    """Reads the table of an operation; its first line names the columns."""
    lines = (KERNELS / op / "kernels.inc").read_text(encoding="utf-8").splitlines()
    head = re.fullmatch(r"// (SRT_\w+)\((.*)\)", lines[0])
    if head is None:
        raise ValueError(f"kernels/{op}/kernels.inc: the first line does not name the columns")
    names = [name.strip() for name in head[2].split(",")]
    rows = []
    for line in lines[1:]:
        found = re.fullmatch(rf"{head[1]}\((.*)\)", line)
        if found is not None:
            cells = [cell.strip() for cell in found[1].split(",")]
            fields = dict(zip(names, cells, strict=True))
            rows.append(Row(fields.get("format", NAMED_AFTER_OP.get(op, "dense")), fields["isa"]))
    return rows


def describe(layer: LayerShape) -> str:
    """A short id: channels in and out, kernel, stride, output plane."""
    if is_linear(layer):
        return f"{layer.in_channels}x{layer.out_channels}-n{layer.batch}"
    return (
        f"{layer.in_channels}x{layer.out_channels}-k{layer.kernel}s{layer.stride}"
        f"-{layer.out_height}x{layer.out_width}"
    )


def is_linear(layer: LayerShape) -> bool:
    """Whether the layer is a matrix product rather than a convolution."""
    return layer.height == layer.width == layer.kernel == 1


def one_layer(
    layer: LayerShape, sparsity: float, block: tuple[int, int] = (1, 1)
) -> onnx.ModelProto:
    """Returns a model of the layer, bias and relu alone, from "x" to "y"."""
    rng = np.random.default_rng(7)
    shape: tuple[int, ...] = (layer.out_channels, layer.in_channels // layer.groups)
    x, y = [layer.batch, layer.in_channels], [layer.batch, layer.out_channels]
    if is_linear(layer):
        node = helper.make_node("Gemm", ["x", "w", "b"], ["c"], transB=1)
    else:
        shape += (layer.kernel, layer.kernel)
        x += [layer.height, layer.width]
        y += [layer.out_height, layer.out_width]
        node = helper.make_node(
            *("Conv", ["x", "w", "b"], ["c"]),
            strides=[layer.stride] * 2,
            pads=[layer.pad] * 4,
            group=layer.groups,
        )
    weights = rng.standard_normal(shape, dtype=np.float32) / np.sqrt(np.prod(shape[1:]))
    weights = prune_by_magnitude(weights.astype(np.float32), sparsity, block)
    bias = rng.standard_normal(layer.out_channels, dtype=np.float32)
    graph = helper.make_graph(
        [node, helper.make_node("Relu", ["c"], ["y"])],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
