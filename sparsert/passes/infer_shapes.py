"""Infers types and shapes, keeping unknown dimensions as symbolic expressions."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes.graph_tools import SPARSERT, attribute, constant_array, input_at
from sparsert.passes.symbolic_dims import Dim, SymbolTable

_UNARY = frozenset(
    "Relu LeakyRelu Elu Selu Celu HardSigmoid HardSwish Sigmoid Tanh Swish Gelu Clip Exp Log Sqrt "
    "Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh "
    "Abs Neg Reciprocal Floor Ceil Round Erf Sin Cos Softplus Softsign Mish Sign ThresholdedRelu "
    "PRelu Softmax LogSoftmax BatchNormalization Identity Cast Dropout InstanceNormalization "
    "GroupNormalization LayerNormalization LRN".split()
)
_BINARY = frozenset("Add Sub Mul Div Pow Min Max".split())


def run(model: ir.Model) -> None:
    """Fills in the dtype and shape of every value, in place.

    onnx infers what it can; then window operators (convolutions, pools, Pad, Resize by a whole
    factor) and elementwise operators get expressions such as `(h + 1)//2` for the dimensions that
    onnx leaves unknown, so that equal ones can be recognised.
    """
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    _refine(model.graph)


def _refine(graph: ir.Graph) -> None:
    table = SymbolTable()
    for node in graph:
        if node.domain not in ("", SPARSERT) or not node.outputs:
            continue
        known = _infer(node, table)
        shape = node.outputs[0].shape
        if known is None:
            continue
        if shape is None:
            node.outputs[0].shape = ir.Shape(known)
        elif len(shape) == len(known):
            merged = [
                new if _unresolved(old) and new is not None else old
                for old, new in zip(shape, known, strict=True)
            ]
            node.outputs[0].shape = ir.Shape(merged)


def _unresolved(dim: int | ir.SymbolicDim) -> bool:
    """Says whether a dimension is unknown or a symbol that onnx made up."""
    return not isinstance(dim, int) and (dim.value is None or dim.value.startswith("unk__"))


def _dims(value: ir.Value | None) -> list[Dim] | None:
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def _infer(node: ir.Node, table: SymbolTable) -> list[Dim] | None:
    x = _dims(input_at(node, 0))
    if x is None:
        return None
    op = node.op_type
    if op in _UNARY:
        return x
    if op in _BINARY:
        other = _dims(input_at(node, 1))
        return None if other is None else table.broadcast(x, other)
    if op == "Concat":
        return _concat(node, table, x)
    if len(x) < 3:
        return None
    if op in ("Conv", "ConvTranspose"):
        weight = _dims(input_at(node, 1))
        if weight is None or any(not isinstance(dim, int) for dim in weight):
            return None
        kernel = [dim for dim in weight[2:] if isinstance(dim, int)]
        group = attribute(node, "group", 1)
        if op == "Conv":
            return [x[0], weight[0], *_window(node, table, x[2:], kernel)]
        channels = weight[1]
        assert isinstance(channels, int)
        return [x[0], channels * group, *_transposed_window(node, table, x[2:], kernel)]
    if op in ("MaxPool", "AveragePool", "LpPool"):
        if attribute(node, "ceil_mode", 0):
            return [x[0], x[1], *([None] * (len(x) - 2))]
        return [x[0], x[1], *_window(node, table, x[2:], list(attribute(node, "kernel_shape")))]
    if op in ("GlobalAveragePool", "GlobalMaxPool"):
        return [x[0], x[1], *([1] * (len(x) - 2))]
    if op == "Pad":
        pads = constant_array(input_at(node, 1))
        if pads is None or input_at(node, 3) is not None or pads.size != 2 * len(x):
            return None
        return [table.add(dim, int(pads[i] + pads[i + len(x)])) for i, dim in enumerate(x)]
    if op == "Resize":
        scales = constant_array(input_at(node, 2))
        if scales is None or scales.size != len(x) or any(s != int(s) or s < 1 for s in scales):
            return None
        return [table.multiply(dim, int(scale)) for dim, scale in zip(x, scales, strict=True)]
    return None


def _concat(node: ir.Node, table: SymbolTable, x: list[Dim]) -> list[Dim] | None:
    axis = attribute(node, "axis", 0)
    axis = axis + len(x) if axis < 0 else axis
    shapes = [_dims(value) for value in node.inputs]
    result: list[Dim] = []
    for i in range(len(x)):
        dims: list[Dim] = []
        for shape in shapes:
            if shape is None or len(shape) != len(x):
                return None
            dims.append(shape[i])
        if i != axis:
            numbers = [dim for dim in dims if isinstance(dim, int)]
            result.append(numbers[0] if numbers else dims[0])
        elif all(isinstance(dim, int) for dim in dims):
            result.append(sum(dim for dim in dims if isinstance(dim, int)))
        else:
            result.append(None)
    return result


def _window(node: ir.Node, table: SymbolTable, dims: list[Dim], kernel: list[int]) -> list[Dim]:
    count = len(dims)
    strides = attribute(node, "strides", (1,) * count)
    dilations = attribute(node, "dilations", (1,) * count)
    pads = attribute(node, "pads", (0,) * (2 * count))
    auto_pad = attribute(node, "auto_pad", "NOTSET")
    result = []
    for i, dim in enumerate(dims):
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            result.append(table.divide(table.add(dim, strides[i] - 1), strides[i]))
            continue
        pad = pads[i] + pads[i + count] if auto_pad == "NOTSET" else 0
        reach = (kernel[i] - 1) * dilations[i] + 1
        result.append(table.add(table.divide(table.add(dim, pad - reach), strides[i]), 1))
    return result


def _transposed_window(
    node: ir.Node, table: SymbolTable, dims: list[Dim], kernel: list[int]
) -> list[Dim]:
    count = len(dims)
    strides = attribute(node, "strides", (1,) * count)
    output_shape = attribute(node, "output_shape")
    if output_shape:
        return list(output_shape[-count:])
    if attribute(node, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return [table.multiply(dim, strides[i]) for i, dim in enumerate(dims)]
    dilations = attribute(node, "dilations", (1,) * count)
    pads = attribute(node, "pads", (0,) * (2 * count))
    extra = attribute(node, "output_padding", (0,) * count)
    result = []
    for i, dim in enumerate(dims):
        reach = (kernel[i] - 1) * dilations[i] + 1
        grown = reach - strides[i] - pads[i] - pads[i + count] + extra[i]
        result.append(table.add(table.multiply(dim, strides[i]), grown))
    return result
