"""Sums of bytes with biases, residuals and activations in one pass over them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sparsert.passes.fuse_activations import Activation, activation_of
from sparsert.passes.graph_tools import constant, has_single_use, is_f32, is_op, same_shape
from sparsert.passes.packed_tensors import (
    F32,
    U32,
    ByteFunction,
    ByteTensor,
    Editor,
    order_back,
    order_of,
    packed_shape,
)
from sparsert.passes.quantisation import is_normal, read_floats
from sparsert.passes.quantised_layers import Quantiser, find_quantiser, only_use


@dataclasses.dataclass
class Sum:
    """act(x + bias + residual), x of bytes.

    Attributes:
        x: the bytes, with their meaning.
        axis: of the channels.
        bias: f32 [channels], or None.
        residual: another operand of x's shape, or None.
        act: an activation, or None.
        result: the value that the nodes of the graph compute.
        nodes: those nodes.
    """

    x: ByteFunction
    axis: int
    bias: NDArray[np.float32] | None
    residual: ir.Value | None
    act: Activation | None
    result: ir.Value
    nodes: list[ir.Node]

    def as_bytes(
        self, editor: Editor, r: ByteFunction | None, quantiser: Quantiser
    ) -> ByteTensor | None:
        """Adds the node with bytes as its result; `r`: the residual, if it is of bytes."""
        like = quantiser.node.outputs[0]
        like = like if like.shape is not None else self.result
        out = quantiser.quant
        if not is_normal(1 / out.scale):
            return None
        quant = [out.zero, *quantiser.limits()]
        y = self._add(editor, r, out.scale, quant, U32, packed_shape(like, self.axis))
        return None if y is None else ByteTensor.of(like, self.axis, y)

    def as_floats(self, editor: Editor, r: ByteFunction | None) -> ir.Value | None:
        """Adds the node with f32 as its result, in the result's own shape."""
        shape = self.result.shape
        if shape is None:
            return None
        order = order_of(len(shape), self.axis)
        y = self._add(editor, r, 1.0, [], F32, [shape[i] for i in order])
        return None if y is None else editor.move(y, order_back(len(shape), self.axis))

    def _add(
        self,
        editor: Editor,
        r: ByteFunction | None,
        scale: float,
        quant: list[int],
        to: ir.DataType,
        shape: list[Any],
    ) -> ir.Value | None:
        x = self.x.tensor.form(editor, self.axis)
        assert self.x.quant is not None
        r_scale, r_zero, residual = 1.0, 0, self.residual
        if residual is not None:
            packed = None if r is None else r.tensor.form(editor, self.axis)
            if packed is not None:
                assert r is not None and r.quant is not None
                r_scale, r_zero, residual = r.quant.scale, r.quant.zero, packed
            else:
                residual = editor.move(residual, order_of(self.x.tensor.rank, self.axis))
        if x is None:
            return None
        bias = None if self.bias is None else editor.constant("bias", self.bias)
        scales = np.array([self.x.quant.scale, r_scale, 1 / scale], np.float32)
        attributes: dict[str, Any] = {
            "to": int(to),
            "quant": [self.x.quant.zero, r_zero, *quant],
            "channels": self.x.tensor.channels(self.axis),
        }
        if self.act is not None:
            name, alpha, beta = self.act
            attributes |= {"act": name, "act_alpha": float(alpha), "act_beta": float(beta)}
        inputs = [x, editor.constant("scales", scales), bias, residual]
        return editor.add("QElementwise", inputs, to, shape, **attributes)


def sum_layer(add: ir.Node, x: ByteFunction, other: ir.Value) -> Sum | None:
    """Returns the sum of bytes and one constant per channel, or a tensor of the same shape.

    What alone reads it is taken in: the sum with a residual, and an activation.
    """
    tensor, y = x.tensor, add.outputs[0]
    if x.quant is None or tensor.rank < 2 or not is_f32(y):
        return None
    values = read_floats(other)
    if values is not None:
        sizes = [1] * (tensor.rank - values.ndim) + list(values.shape)
        axis = int(np.argmax(sizes))
        is_vector = len(sizes) == tensor.rank and sizes[axis] == values.size
        if not is_vector or values.size < 2 or tensor.channels(axis) != values.size:
            return None
        if not np.isfinite(values).all():
            return None
        layer = Sum(x, axis, values.reshape(-1).astype(np.float32), None, None, y, [add])
    else:
        at = tensor.axis()
        if at is None or constant(other) is not None or not same_shape(other, tensor.like):
            return None
        layer = Sum(x, at, None, other, None, y, [add])
    _take_users(layer)
    return layer


def _take_users(layer: Sum) -> None:
    while layer.act is None and find_quantiser(layer.result) is None:
        if not has_single_use(layer.result):
            return
        use = only_use(layer.result)
        node, index = use.node, use.idx
        activation = activation_of(node) if index == 0 else None
        if is_op(node, "Add") and layer.residual is None:
            other = node.inputs[1 - index]
            if other is None or constant(other) is not None or not is_f32(other):
                return
            if not same_shape(other, layer.x.tensor.like) or other is layer.result:
                return
            layer.residual = other
        elif activation is not None:
            layer.act = activation
        else:
            return
        layer.nodes.append(node)
        layer.result = node.outputs[0]
