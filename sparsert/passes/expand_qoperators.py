"""Writes operators on quantised tensors as DequantizeLinear, an f32 operator and QuantizeLinear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sparsert.passes.graph_tools import (
    add_initializer,
    attribute,
    constant,
    constant_array,
    has_single_use,
    input_at,
    is_op,
    make_node,
    nodes_of,
    only_use,
    take_over,
)
from sparsert.passes.quantisation import BYTES, is_normal, known_array

_MICROSOFT = "com.microsoft"
_F32, _U8 = ir.DataType.FLOAT, ir.DataType.UINT8
_INTEGERS = BYTES | {ir.DataType.UINT16, ir.DataType.INT16, ir.DataType.INT32}
_HALF_BYTES = {ir.DataType.UINT4, ir.DataType.INT4}  # of constants
_CONV_ATTRIBUTES = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_POOL_ATTRIBUTES = (*_CONV_ATTRIBUTES, "ceil_mode", "count_include_pad")
# Operators that take tensors of bytes as they are; the result of each holds bytes of its inputs.
_ON_BYTES = (
    *("MaxPool", "Concat", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice"),
    *("Gather", "Expand", "Tile", "Identity", "Resize", "DepthToSpace", "SpaceToDepth"),
)


def run(model: ir.Model) -> None:
    """Expands QLinearConv, QLinearMatMul and their like of com.microsoft, in place.

    Also ConvInteger whose sums go on as floats: with the Add of a bias before the Cast and the Mul
    of scales behind it, it becomes a Conv of dequantised operands.

    So do MatMulInteger and ConvInteger of what DynamicQuantizeLinear makes and constant weights,
    with the Cast and the Mul of both scales behind them, DynamicQuantizeMatMul and
    MatMulIntegerToFloat. What is added to the sums of a ConvInteger before the Cast, one number
    per channel that the run computes, is added behind the Conv.

    Other scales and zero points have to be constants, and weights of convolutions too; other nodes
    stay.
    Pools and moves of bytes between such operators get a DequantizeLinear before and a
    QuantizeLinear behind them, of scale 1.
    """
    expander = _Expander(model.graph)
    for node in nodes_of(model.graph):
        expander.expand(node)


class _Expander:
    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._bytes: set[ir.Value] = set()  # what a QuantizeLinear has computed
        self._node: ir.Node = ir.node("Identity", [])
        self._count = 0

    def expand(self, node: ir.Node) -> None:
        """Expands one node, if it is such an operator."""
        self._node, self._count = node, 0
        expand: Callable[[ir.Node], bool] | None
        if node.domain == "":
            expand = {
                "QLinearConv": self._conv,
                "QLinearMatMul": self._matmul,
                "ConvInteger": self._integer_conv,
                "MatMulInteger": self._dynamic_product,
            }.get(node.op_type)
        elif node.domain == _MICROSOFT:
            expand = {
                "QuantizeLinear": self._same,
                "DequantizeLinear": self._same,
                "QGemm": self._gemm,
                "QLinearAdd": self._binary,
                "QLinearMul": self._binary,
                "QLinearConcat": self._concat,
                "QLinearGlobalAveragePool": self._pool,
                "QLinearAveragePool": self._pool,
                "QLinearSigmoid": self._unary,
                "QLinearLeakyRelu": self._unary,
                "QLinearSoftmax": self._unary,
                "DynamicQuantizeMatMul": self._dynamic_matmul,
                "MatMulIntegerToFloat": self._matmul_to_float,
            }.get(node.op_type)
        else:
            return
        if expand is not None and expand(node):
            self._graph.remove(node, safe=True)
        elif is_op(node, "QuantizeLinear"):
            self._bytes.add(node.outputs[0])
        elif is_op(node, *_ON_BYTES) and node.inputs and node.inputs[0] in self._bytes:
            self._on_bytes(node)

    def _add(
        self, op: str, inputs: Sequence[ir.Value | None], dtype: ir.DataType, **attributes: Any
    ) -> ir.Value:
        name = f"{self._node.name or self._node.op_type}_{self._count}"
        self._count += 1
        made = make_node(op, inputs, attributes, name=name)
        made.outputs[0].type = ir.TensorType(dtype)
        self._graph.insert_before(self._node, made)
        return made.outputs[0]

    def _constant(self, what: str, array: np.ndarray) -> ir.Value:
        return add_initializer(self._graph, f"{self._node.name}_{what}", array)

    def _floats(
        self, x: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None, axis: int = 0
    ) -> ir.Value:
        return self._add("DequantizeLinear", [x, scale, zero], _F32, axis=axis)

    def _finish(
        self,
        y: ir.Value,
        scale: ir.Value | None,
        zero: ir.Value | None,
        default: Any = None,
        axis: int | None = None,
    ) -> bool:
        """Lets quantised y take the place of the node's result."""
        dtype = zero.dtype if zero is not None else default
        given = None if zero is not None or dtype is None else int(dtype)
        q = self._add(
            "QuantizeLinear",
            [y, scale, zero],
            dtype or ir.DataType.UINT8,
            output_dtype=given,
            axis=axis,
        )
        take_over(self._node.outputs[0], q)
        self._bytes.add(q)
        return True

    def _same(self, node: ir.Node) -> bool:
        zero, axis = input_at(node, 2), attribute(node, "axis", 1)
        q = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
        dtype = (None if q is None else q.dtype) or (None if zero is None else zero.dtype)
        known = _INTEGERS | (_HALF_BYTES if constant(q) is not None else set())
        if not _are_constant(node, 1, 2) or dtype not in known:
            return False
        x, scale = node.inputs[:2]
        assert x is not None
        if node.op_type == "QuantizeLinear":
            return self._finish(x, scale, zero, dtype, axis)
        take_over(node.outputs[0], self._floats(x, scale, zero, axis))
        return True

    def _conv(self, node: ir.Node) -> bool:
        if not _are_constant(node, 1, 2, 3, 4, 5, 6, 7, 8) or not _is_scalar(node.inputs[1]):
            return False
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
        operands = [self._floats(x, x_scale, x_zero), self._floats(w, w_scale, w_zero)]
        bias = input_at(node, 8)
        if bias is not None:
            operands.append(self._floats(bias, self._product(x_scale, w_scale), None))
        kept = {name: attribute(node, name) for name in _CONV_ATTRIBUTES}
        return self._finish(self._add("Conv", operands, _F32, **kept), y_scale, y_zero)

    def _dynamic_product(self, node: ir.Node) -> bool:
        """Expands a product of dynamically quantised floats and constant bytes."""
        x, w, x_zero, w_zero = (input_at(node, index) for index in range(4))
        source = None if x is None else x.producer()
        weight = constant(w)
        if source is None or weight is None or not is_op(source, "DynamicQuantizeLinear"):
            return False
        is_conv, rank = node.op_type == "ConvInteger", len(weight.shape)
        if x_zero is not source.outputs[2] or (rank != 2 and not is_conv):
            return False
        rows = int(weight.shape.numpy()[0 if is_conv else -1])
        total, levels = _levels_behind(node.outputs[0], rows, rank) if is_conv else (None, None)
        total = node.outputs[0] if total is None else total
        cast = only_use(total).node if has_single_use(total) else None
        if cast is None or not is_op(cast, "Cast") or attribute(cast, "to") != int(_F32):
            return False
        product = only_use(cast.outputs[0]).node if has_single_use(cast.outputs[0]) else None
        if product is None or not is_op(product, "Mul"):
            return False
        factor = product.inputs[1 - only_use(cast.outputs[0]).idx]
        step = _factor_beside(factor, source.outputs[1])
        zeros = np.zeros((), np.int8) if w_zero is None else constant_array(w_zero, rows)
        axis = 1 if is_conv else -1
        if step is None or zeros is None or zeros.size not in (1, rows):
            return False
        if step.dtype != np.float32 or not _is_row(step, rows, rank, axis):
            return False
        shape = () if zeros.size == step.size == 1 else (rows,)
        scale = self._constant("weight_scale", _spread(step, shape))
        zero = None if w_zero is None else self._constant("weight_zero", _spread(zeros, shape))
        operands = [
            self._floats(x, source.outputs[1], x_zero),
            self._floats(w, scale, zero, 0 if is_conv else 1),
        ]
        y, kept = product.outputs[0], {}
        if is_conv:
            y, bias = _constant_behind(y, "Add", rows, rank)
            kept = {name: attribute(node, name) for name in _CONV_ATTRIBUTES}
            if bias is not None:
                operands.append(self._constant("bias", _spread(bias, (rows,))))
        result = self._add("Conv" if is_conv else "MatMul", operands, _F32, **kept)
        made = result.producer()
        assert made is not None
        made.name = node.name
        if levels is not None:
            # In the order of the graph: what makes the levels may come behind the node.
            self._node = product
            shift = self._add(
                "Mul", [self._add("Cast", [levels], _F32, to=int(_F32)), factor], _F32
            )
            result = self._add("Add", [result, shift], _F32)
        result.shape = y.shape
        take_over(y, result)
        for old in dict.fromkeys((y.producer(), product, cast, total.producer())):
            if old is not None and old is not node:
                self._graph.remove(old, safe=True)
        return True

    def _dynamic_matmul(self, node: ir.Node) -> bool:
        a, b, b_scale, b_zero, bias = (input_at(node, index) for index in range(5))
        if not _are_constant(node, 1, 2, 3) or not _is_matrix(b):
            return False
        name = f"{node.name or node.op_type}_quantise"
        made = ir.node("DynamicQuantizeLinear", [a], num_outputs=3, name=name)
        for value, dtype in zip(made.outputs, (_U8, _F32, _U8), strict=True):
            value.type = ir.TensorType(dtype)
            value.shape = ir.Shape([])
        made.outputs[0].shape = None if a is None else a.shape
        self._graph.insert_before(node, made)
        q, scale, zero = made.outputs
        operands = [self._floats(q, scale, zero), self._floats(b, b_scale, b_zero, 1)]
        return self._sum_of(operands, bias)

    def _matmul_to_float(self, node: ir.Node) -> bool:
        a, b, a_scale, b_scale, a_zero, b_zero, bias = (input_at(node, i) for i in range(7))
        if not _are_constant(node, 1, 3, 5) or not _is_matrix(b):
            return False
        source = None if a is None else a.producer()
        is_dynamic = source is not None and is_op(source, "DynamicQuantizeLinear")
        if not is_dynamic and not (_are_constant(node, 2, 4) and _is_scalar(a_scale)):
            return False
        operands = [self._floats(a, a_scale, a_zero), self._floats(b, b_scale, b_zero, 1)]
        return self._sum_of(operands, bias)

    def _sum_of(self, operands: Sequence[ir.Value], bias: ir.Value | None) -> bool:
        """Lets the product of two matrices, plus a bias, take the place of the node's result."""
        y = self._add("MatMul", operands, _F32)
        if bias is not None:
            y.shape = self._node.outputs[0].shape
            y = self._add("Add", [y, bias], _F32)
        take_over(self._node.outputs[0], y)
        return True

    def _integer_conv(self, node: ir.Node) -> bool:
        if self._dynamic_product(node):
            return True
        x, w, x_zero, w_zero = (input_at(node, index) for index in range(4))
        weight = constant(w)
        if weight is None or not _are_constant(node, 2, 3):
            return False
        if x_zero is not None and not _is_scalar(x_zero):
            return False
        rows, rank = int(weight.shape.numpy()[0]), len(weight.shape)
        total, bias = _constant_behind(node.outputs[0], "Add", rows, rank)
        cast = only_use(total).node if has_single_use(total) else None
        if cast is None or not is_op(cast, "Cast") or attribute(cast, "to") != int(_F32):
            return False
        y, factor = _constant_behind(cast.outputs[0], "Mul", rows, rank)
        x_scale = self._scale_of(x, x_zero)
        step = np.ones((), np.float32) if factor is None else factor.astype(np.float32)
        zeros = np.zeros((), np.int8) if w_zero is None else constant_array(w_zero, rows)
        if zeros is None or zeros.size not in (1, rows):
            return False
        shape = () if zeros.size == step.size == 1 else (rows,)
        step = step / np.asarray(constant_array(x_scale, 1))
        scale = self._constant("weight_scale", _spread(step, shape))
        zero = None if w_zero is None else self._constant("weight_zero", _spread(zeros, shape))
        operands = [self._floats(x, x_scale, x_zero), self._floats(w, scale, zero)]
        if bias is not None:
            sums = self._constant("bias", _spread(bias.astype(np.int32), (rows,)))
            operands.append(self._floats(sums, self._product(x_scale, scale), None))
        kept = {name: attribute(node, name) for name in _CONV_ATTRIBUTES}
        result = self._add("Conv", operands, _F32, **kept)
        result.shape = y.shape
        take_over(y, result)
        for old in dict.fromkeys((y.producer(), cast, total.producer())):
            if old is not None and old is not node:
                self._graph.remove(old, safe=True)
        return True

    def _scale_of(self, x: ir.Value | None, zero: ir.Value | None) -> ir.Value:
        """Returns the scale of bytes that a QuantizeLinear made, else 1."""
        node = None if x is None else x.producer()
        if is_op(node, "QuantizeLinear") and node is not None:
            scale = input_at(node, 1)
            levels = [_zero_level(value) for value in (zero, input_at(node, 2))]
            array = constant_array(scale, 1)
            if levels[0] == levels[1] and array is not None and scale is not None:
                if array.dtype == np.float32 and array.size == 1 and is_normal(array):
                    return scale
        return self._constant("scale", np.array(1, np.float32))

    def _product(self, a: ir.Value | None, b: ir.Value | None, factor: float = 1) -> ir.Value:
        """Returns the scale of sums of products."""
        scales = [constant_array(value, 1 << 24) for value in (a, b)]
        assert scales[0] is not None
        assert scales[1] is not None
        exact = factor * scales[0].astype(np.float64).reshape(()) * scales[1].astype(np.float64)
        return self._constant("scale_of_sums", np.asarray(exact, np.float32))

    def _matmul(self, node: ir.Node) -> bool:
        if not _are_constant(node, 1, 2, 4, 5, 6, 7) or not _is_scalar(node.inputs[1]):
            return False
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs[:8]
        if not _is_scalar(b_scale) and constant(b) is None:
            return False
        operands = [self._floats(a, a_scale, a_zero), self._floats(b, b_scale, b_zero, -1)]
        return self._finish(self._add("MatMul", operands, _F32), y_scale, y_zero)

    def _gemm(self, node: ir.Node) -> bool:
        if not _are_constant(node, 1, 2, 3, 4, 5, 6, 7, 8) or not _is_scalar(node.inputs[1]):
            return False
        a, a_scale, a_zero, b, b_scale, b_zero = node.inputs[:6]
        turned, alpha = attribute(node, "transB", 0), attribute(node, "alpha", 1.0)
        axis = 0 if turned else 1
        operands = [self._floats(a, a_scale, a_zero), self._floats(b, b_scale, b_zero, axis)]
        bias = input_at(node, 6)
        if bias is not None:
            scale = self._product(a_scale, b_scale, alpha)
            size = constant_array(scale, 1 << 24)
            rows = constant_array(bias, 1 << 24)
            if rows is None or (size is not None and size.size > 1 and rows.shape != size.shape):
                return False
            operands.append(self._floats(bias, scale, None))
        flags = {"transA": attribute(node, "transA", 0), "transB": turned, "alpha": alpha}
        y = self._add("Gemm", operands, _F32, **flags)
        y_scale = input_at(node, 7)
        if y_scale is not None:
            return self._finish(y, y_scale, input_at(node, 8), _dtype_of(a))
        take_over(node.outputs[0], y)
        return True

    def _binary(self, node: ir.Node) -> bool:
        if not _are_constant(node, 1, 2, 4, 5, 6, 7):
            return False
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale = node.inputs[:7]
        operands = [self._floats(a, a_scale, a_zero), self._floats(b, b_scale, b_zero)]
        y = self._add(node.op_type.removeprefix("QLinear"), operands, _F32)
        return self._finish(y, y_scale, input_at(node, 7), _dtype_of(a))

    def _concat(self, node: ir.Node) -> bool:
        places = [i for i in range(len(node.inputs)) if i < 2 or i % 3 != 2]
        if not _are_constant(node, *places) or (len(node.inputs) - 2) % 3:
            return False
        values = node.inputs[2:]
        parts = [
            self._floats(x, scale, zero)
            for x, scale, zero in zip(values[::3], values[1::3], values[2::3], strict=True)
        ]
        y = self._add("Concat", parts, _F32, axis=attribute(node, "axis"))
        return self._finish(y, node.inputs[0], node.inputs[1])

    def _pool(self, node: ir.Node) -> bool:
        if not _are_constant(node, 1, 2, 3, 4) or attribute(node, "channels_last", 0):
            return False
        x, x_scale, x_zero, y_scale = node.inputs[:4]
        kept = {name: attribute(node, name) for name in _POOL_ATTRIBUTES}
        op = node.op_type.removeprefix("QLinear")
        kept = kept if op == "AveragePool" else {}
        y = self._add(op, [self._floats(x, x_scale, x_zero)], _F32, **kept)
        return self._finish(y, y_scale, input_at(node, 4), _dtype_of(x))

    def _unary(self, node: ir.Node) -> bool:
        if not _are_constant(node, 1, 2, 3, 4):
            return False
        x, x_scale, x_zero, y_scale = node.inputs[:4]
        op = node.op_type.removeprefix("QLinear")
        kept = {name: attribute(node, name) for name in ("alpha", "axis")}
        if op == "Softmax" and attribute(node, "opset", 13) < 13:
            return False
        y = self._add(op, [self._floats(x, x_scale, x_zero)], _F32, **kept)
        return self._finish(y, y_scale, input_at(node, 4), _dtype_of(x))

    def _on_bytes(self, node: ir.Node) -> None:
        """Puts a DequantizeLinear before and a QuantizeLinear behind an operator, of scale 1."""
        count = len(node.inputs) if node.op_type == "Concat" else 1
        dtype = _dtype_of(node.inputs[0])
        if dtype not in BYTES or any(_dtype_of(x) != dtype for x in node.inputs[:count]):
            return
        if node.op_type == "Resize" and attribute(node, "mode", "nearest") != "nearest":
            return
        if any(value.uses() for value in node.outputs[1:]):
            return
        scale = self._constant("scale", np.array(1, np.float32))
        zero = self._constant("zero", np.array(0, dtype.numpy()))
        for index, x in enumerate(node.inputs[:count]):
            node.replace_input_with(index, self._floats(x, scale, zero))
        y = node.outputs[0]
        made = make_node("QuantizeLinear", [y, scale, zero], name=f"{node.name}_quantised")
        q = made.outputs[0]
        q.type, q.shape = ir.TensorType(dtype), y.shape
        y.replace_all_uses_with(q, replace_graph_outputs=True)
        made.replace_input_with(0, y)
        y.type = ir.TensorType(_F32)
        q.name, y.name = y.name, f"{y.name}_floats"
        self._graph.insert_after(node, made)
        self._bytes.add(q)


def _constant_behind(
    y: ir.Value, op: str, rows: int, rank: int
) -> tuple[ir.Value, NDArray[Any] | None]:
    """Returns the result of the Add or Mul of y and one constant per channel, and that constant.

    Or y and None, if y does not go into one alone. `rank` is that of y.
    """
    node = only_use(y).node if has_single_use(y) else None
    if node is None or not is_op(node, op):
        return y, None
    array = known_array(node.inputs[1 - only_use(y).idx], 1 << 24)
    if array is None or not _is_row(array, rows, rank, 1):
        return y, None
    return node.outputs[0], array


def _levels_behind(y: ir.Value, rows: int, rank: int) -> tuple[ir.Value | None, ir.Value | None]:
    """Returns the sum of y and what a run computes for each channel, and that; or two None.

    So is a bias that is divided by the scale of the sums and rounded in the graph.
    """
    node = only_use(y).node if has_single_use(y) else None
    if node is None or not is_op(node, "Add"):
        return None, None
    levels = node.inputs[1 - only_use(y).idx]
    shaper = None if levels is None else levels.producer()
    target = constant_array(input_at(shaper, 1)) if is_op(shaper, "Reshape") and shaper else None
    if target is None or target.size != rank or target[1] not in (rows, -1):
        return None, None
    others = np.delete(target, 1)
    return (node.outputs[0], levels) if np.all(others == 1) else (None, None)


def _is_row(array: NDArray[Any], rows: int, rank: int, axis: int) -> bool:
    """Says whether an array is one number, or one for each index along an axis of `rank` axes."""
    if array.ndim > rank or array.size not in (1, rows):
        return False
    return array.size == 1 or ([1] * (rank - array.ndim) + [*array.shape])[axis] == rows


def _factor_beside(product: ir.Value | None, scale: ir.Value) -> NDArray[Any] | None:
    """Returns the constant that a Mul multiplies `scale` with; None if it is no such Mul."""
    node = None if product is None else product.producer()
    if node is None or not is_op(node, "Mul") or scale not in node.inputs:
        return None
    return constant_array(node.inputs[1 if node.inputs[0] is scale else 0], 1 << 24)


def _spread(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Returns a copy of one number, or of one per channel, in this shape."""
    flat = array.reshape(-1) if shape else array.reshape(())
    return np.broadcast_to(flat, shape).copy()


def _zero_level(value: ir.Value | None) -> int | None:
    """Returns a zero point, 0 if it is left out; None if it is not one constant."""
    if value is None:
        return 0
    array = constant_array(value, 1)
    return None if array is None or array.size != 1 else int(array.reshape(()))


def _dtype_of(value: ir.Value | None) -> Any:
    return None if value is None else value.dtype


def _are_constant(node: ir.Node, *indices: int) -> bool:
    """Says whether those of a node's inputs that are there are constants."""
    values = [input_at(node, index) for index in indices]
    return all(value is None or constant(value) is not None for value in values)


def _is_matrix(value: ir.Value | None) -> bool:
    tensor = constant(value)
    return tensor is not None and len(tensor.shape) == 2


def _is_scalar(value: ir.Value | None) -> bool:
    tensor = constant(value)
    return tensor is not None and tensor.size == 1
