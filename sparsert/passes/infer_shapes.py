"""Infers types and shapes, keeping unknown dimensions as symbolic expressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.kernels.custom_ops import CustomCall, Spec, find_custom_op
from sparsert.kernels.custom_ops import Dim as RunDim
from sparsert.passes.fold_constants import evaluator
from sparsert.passes.foreign_types import type_foreign_values
from sparsert.passes.graph_tools import (
    SPARSERT,
    add_initializer,
    attribute,
    constant_array,
    input_at,
)
from sparsert.passes.symbolic_dims import Dim, SymbolTable
from sparsert.passes.symbolic_values import SymbolicValues, dims_of

_UNARY = frozenset(
    "Relu LeakyRelu Elu Selu Celu HardSigmoid HardSwish Sigmoid Tanh Swish Gelu Clip Exp Log Sqrt "
    "Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh "
    "Abs Neg Reciprocal Floor Ceil Round Erf Sin Cos Softplus Softsign Mish Sign ThresholdedRelu "
    "PRelu Softmax LogSoftmax BatchNormalization Identity Cast Dropout InstanceNormalization "
    "GroupNormalization LayerNormalization RMSNormalization LRN Not".split()
)
_BINARY = frozenset(
    "Add Sub Mul Div Pow Min Max Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor".split()
)
# What exporters compute sizes with, also in floats: paddings of TensorFlow's SAME, for one.
_ARITHMETIC = _BINARY | frozenset(
    "Cast Floor Ceil Round Neg Abs Relu Clip Mod Not Where Concat Reshape Transpose Slice Gather "
    "Squeeze Unsqueeze ConstantOfShape Range Expand Identity ReduceProd ReduceSum".split()
)
_MAX_NUMBERS = 64


def run(model: ir.Model) -> None:
    """Fills in the dtype and shape of every value, in place.

    onnx infers what it can; then window operators (convolutions, pools, Pad, Resize by a whole
    factor) and elementwise operators get expressions such as `(h + 1)//2` for the dimensions that
    onnx leaves unknown, so that equal ones can be recognised.
    """
    # Where onnx propagates values, a Slice, Range or ConstantOfShape fills any memory; below it is
    # bounded.
    inference = common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)
    inference(model)
    if _type_quantised_lstms(model.graph):
        inference(model)
    while _type_custom_ops(model.graph):
        inference(model)
    if type_foreign_values(model.graph, model.opset_imports, model.ir_version):
        inference(model)
    _refine(model.graph)


def _type_quantised_lstms(graph: ir.Graph) -> bool:
    """Gives types to what onnxruntime's DynamicQuantizeLSTM computes; says whether any lacked them.

    onnx does not know the operator, and a model cannot be cut into segments at unknown types.
    """
    found = False
    for node in graph:
        x = input_at(node, 0)
        if (node.domain, node.op_type) != ("com.microsoft", "DynamicQuantizeLSTM") or x is None:
            continue
        directions = 2 if attribute(node, "direction", "forward") == "bidirectional" else 1
        for i, output in enumerate(node.outputs):
            if output.type is not None:
                continue
            found = True
            output.type = ir.TensorType(ir.DataType.FLOAT)
            if x.shape is not None and len(x.shape) == 3:
                steps, batch = x.shape[0], x.shape[1]
                state = [directions, batch, attribute(node, "hidden_size")]
                output.shape = ir.Shape(state if i else [steps, *state])
    return found


def _type_custom_ops(graph: ir.Graph) -> bool:
    """Gives types to what registered operators compute; says whether any are new."""
    found = False
    for node in graph:
        op = find_custom_op(node.domain, node.op_type)
        if op is None:
            continue
        inputs = [None if value is None else _spec_of(value) for value in node.inputs]
        if any(v is not None and s is None for v, s in zip(node.inputs, inputs, strict=True)):
            continue
        call: CustomCall = op.bind(ir.to_proto(node))
        for output, spec in zip(node.outputs, call.infer(inputs), strict=True):
            found |= _set_spec(output, spec)
    return found


def _spec_of(value: ir.Value) -> Spec | None:
    """Returns what is known of a value; None if its dtype or rank is not."""
    if value.dtype is None or value.shape is None:
        return None
    shape = [dim if isinstance(dim, int) else RunDim(dim.value) for dim in value.shape]
    return Spec(shape, value.dtype.numpy(), constant_array(value))


def _set_spec(value: ir.Value, spec: Spec) -> bool:
    """Sets the type of an operator's output; sizes that only a run tells stay as the model says."""
    dims: list[Any] = [dim.name if isinstance(dim, RunDim) else dim for dim in spec.shape]
    declared = value.shape if value.shape is not None and len(value.shape) == len(dims) else None
    if declared is not None:
        dims = [old if new is None else new for old, new in zip(declared, dims, strict=True)]
    dtype, shape = ir.DataType.from_numpy(np.dtype(spec.dtype)), ir.Shape(dims)
    if value.dtype == dtype and value.shape == shape:
        return False
    value.type, value.shape = ir.TensorType(dtype), shape
    return True


def _refine(graph: ir.Graph) -> None:
    table = SymbolTable()
    values = SymbolicValues(table)
    # What a symbol that onnx made up turns out to be; values that follow have the same symbol.
    resolved: dict[str, Dim] = {}
    sizes: set[ir.Value] = set()
    for node in graph:
        if node.domain not in ("", SPARSERT) or not node.outputs:
            continue
        for output in node.outputs:
            _substitute(output, resolved)
        values.visit(node)
        folded = _fold(node, values) or _fold_numbers(node, sizes)
        if folded is not None:
            sizes.add(folded)
        known = _infer(node, table, values)
        shape = node.outputs[0].shape
        if known is None:
            continue
        if shape is None:
            node.outputs[0].shape = ir.Shape(known)
        elif len(shape) == len(known):
            merged: list[int | str | ir.SymbolicDim] = []
            for old, new in zip(shape, known, strict=True):
                if isinstance(old, int) or not _unresolved(old) or new is None:
                    merged.append(old)
                    continue
                merged.append(new)
                if old.value is not None:
                    resolved[old.value] = new
            node.outputs[0].shape = ir.Shape(merged)


def _substitute(value: ir.Value, resolved: dict[str, Dim]) -> None:
    """Replaces symbols in a shape by what they are known to be."""
    if value.shape is None or not resolved:
        return
    names = [None if isinstance(dim, int) else dim.value for dim in value.shape]
    if any(name in resolved for name in names):
        value.shape = ir.Shape(
            [
                resolved.get(name, dim) if name is not None else dim
                for name, dim in zip(names, value.shape, strict=True)
            ]
        )


def _fold(node: ir.Node, values: SymbolicValues) -> ir.Value | None:
    """Makes a constant of the output of shape arithmetic that holds numbers alone."""
    output, elements = node.outputs[0], values.get(node.outputs[0])
    if elements is None or any(not isinstance(element, int) for element in elements):
        return None
    if output.shape is None or output.dtype is None or output.is_graph_output():
        return None
    if len(output.shape) > 1 or (len(output.shape) == 0 and len(elements) != 1):
        return None
    array = np.array(elements, dtype=output.dtype.numpy()).reshape([-1] * len(output.shape))
    return _replace(output, array)


def _fold_numbers(node: ir.Node, sizes: set[ir.Value]) -> ir.Value | None:
    """Evaluates a node on numbers that follow from sizes, of any type and rank.

    Sizes behind a Pad are known only when its paddings are, so this cannot wait for fold_constants.
    """
    output = node.outputs[0]
    if node.domain != "" or node.op_type not in _ARITHMETIC or not sizes.intersection(node.inputs):
        return None
    if output.is_graph_output() or len(node.outputs) > 1:
        return None
    arrays = [None if v is None else constant_array(v, _MAX_NUMBERS) for v in node.inputs]
    if any(v is not None and a is None for v, a in zip(node.inputs, arrays, strict=True)):
        return None
    if not _gives_few(node.op_type, arrays):
        return None
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    evaluate = evaluator(node, graph.opset_imports[""])
    if evaluate is None:
        return None
    try:
        array = np.asarray(evaluate(*arrays))
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError):
        return None  # what is wrong with the node is said where it is lowered
    if array.size > _MAX_NUMBERS or (output.dtype and output.dtype.numpy() != array.dtype):
        return None
    return _replace(output, array)


def _gives_few(op: str, arrays: list[np.ndarray | None]) -> bool:
    """Says whether an operator whose numbers tell the size of its output gives a small one."""
    known = [array.astype(np.float64) for array in arrays if array is not None]
    if op == "Range":
        start, limit, step = (array.item() for array in known)
        return step != 0 and (limit - start) / step <= _MAX_NUMBERS
    if op in ("ConstantOfShape", "Expand"):
        return bool(np.prod(np.maximum(known[-1], 1)) <= _MAX_NUMBERS)
    return True


def _replace(value: ir.Value, array: np.ndarray) -> ir.Value:
    assert value.name is not None
    node = value.producer()
    assert node is not None
    assert isinstance(node.graph, ir.Graph)
    known = add_initializer(node.graph, f"{value.name}_known", array)
    value.replace_all_uses_with(known)
    return known


def _unresolved(dim: int | ir.SymbolicDim) -> bool:
    """Says whether a dimension is unknown or a symbol that onnx made up."""
    return not isinstance(dim, int) and (dim.value is None or dim.value.startswith("unk__"))


def _infer(node: ir.Node, table: SymbolTable, values: SymbolicValues) -> list[Dim] | None:
    x = dims_of(input_at(node, 0))
    if x is None:
        return None
    op = node.op_type
    if op in _UNARY:
        return x
    if op in _BINARY:
        other = dims_of(input_at(node, 1))
        return None if other is None else table.broadcast(x, other)
    if op == "Where":
        shapes = [dims_of(value) for value in node.inputs[1:]]
        for shape in shapes:
            x = None if x is None or shape is None else table.broadcast(x, shape)
        return x
    if op == "Concat":
        return _concat(node, table, x)
    if op == "Reshape":
        return values.reshaped(node)
    if op == "Expand":
        return values.expanded(node)
    if op == "Range":
        return values.counted(node)
    if op == "ConstantOfShape":
        return values.get(input_at(node, 0))
    if op == "Slice":
        return values.sliced(node)
    if op == "Transpose":
        perm = attribute(node, "perm", tuple(reversed(range(len(x)))))
        return [x[axis] for axis in perm] if len(perm) == len(x) else None
    if op == "Gather":
        index, axis = dims_of(input_at(node, 1)), attribute(node, "axis", 0)
        if index is None or not -len(x) <= axis < len(x):
            return None
        return [*x[: axis % len(x)], *index, *x[axis % len(x) + 1 :]]
    if op == "MatMul":
        other = dims_of(input_at(node, 1))
        if other is None or len(x) < 2 or len(other) < 2:
            return None
        return [*table.broadcast(x[:-2], other[:-2]), x[-2], other[-1]]
    if len(x) < 3:
        return None
    if op in ("Conv", "ConvTranspose"):
        weight = dims_of(input_at(node, 1))
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
    shapes = [dims_of(value) for value in node.inputs]
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
