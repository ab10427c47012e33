"""Convolutions, products and sums of bytes: what they need, and the nodes that they become."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sparsert.passes.graph_tools import (
    attribute,
    constant_scalar,
    dim_at,
    has_single_use,
    input_at,
    is_op,
    only_use,
    rank_of,
)
from sparsert.passes.packed_tensors import (
    F32,
    U32,
    ByteFunction,
    ByteTensor,
    DynamicBytes,
    Editor,
    order_back,
    packed_shape,
)
from sparsert.passes.quantisation import (
    Quantisation,
    QuantisedWeight,
    is_normal,
    read_floats,
    read_quantisation,
    weight_or_reason,
)

_LANES = 4
_INT32_MAX = (1 << 31) - 1
# A bias is rounded to the scale of the sums where that moves the result by no more units than this.
_BIAS_UNITS = 1 / 16
# Weights of rows of zeros: their sums are so many per unit of the result.
_STEPS_OF_ZEROS = 64
# Convolutions of groups become ones of a single group up to this many weights, zeros included.
_UNGROUPED_ELEMS = 1 << 22


@dataclasses.dataclass(frozen=True)
class Quantiser:
    """The QuantizeLinear behind a layer, and the clipping between them."""

    node: ir.Node
    quant: Quantisation
    low: float
    high: float

    def limits(self) -> list[int]:
        """Returns the bytes between which a result stays."""
        bounds = np.array([self.low, self.high], np.float32)
        return [int(level) for level in self.quant.levels(bounds)]


def find_quantiser(y: ir.Value) -> Quantiser | None:
    """Returns the QuantizeLinear that y goes into alone, or through Relu and Clip."""
    low, high = -math.inf, math.inf
    while has_single_use(y):
        use = only_use(y)
        node = use.node
        if use.idx != 0:
            return None
        if is_op(node, "QuantizeLinear"):
            quant = read_quantisation(node)
            return None if quant is None else Quantiser(node, quant, low, high)
        if is_op(node, "Relu"):
            at_least, at_most = 0.0, math.inf
        elif is_op(node, "Clip"):
            bounds = [
                default if value is None else constant_scalar(value)
                for value, default in (
                    (input_at(node, 1), -math.inf),
                    (input_at(node, 2), math.inf),
                )
            ]
            if bounds[0] is None or bounds[1] is None or not bounds[0] <= bounds[1]:
                return None
            at_least, at_most = bounds[0], bounds[1]
        else:
            return None
        low, high = (min(max(bound, at_least), at_most) for bound in (low, high))
        y = node.outputs[0]
    return None


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution, or a linear layer as a convolution of 1 x 1, of bytes.

    Attributes:
        op: QConv or QDepthwise.
        x: the bytes, and the quantisation that says what they stand for.
        axis: of x's channels, and of the result's.
        weight: i8 [M, C / group, *kernel].
        bias: f64 [M], or None.
        window: attributes of the convolution.
        result: the value that the nodes of the graph compute.
        behind: dimensions of size 1 behind the layer's result, of rows [N, M].
        name: of the node with the weights; the lowered one takes it.
        rest: a layer whose result is to be added, of weights beyond i8.
        dynamic: the bytes whose scale and zero point count instead of those of quant.
    """

    op: str
    x: ByteTensor
    quant: Quantisation
    axis: int
    weight: QuantisedWeight
    bias: NDArray[np.float64] | None
    window: dict[str, Any]
    result: ir.Value
    behind: int = 0
    name: str = ""
    rest: Layer | None = None
    dynamic: DynamicBytes | None = None

    def as_bytes(self, editor: Editor, quantiser: Quantiser) -> ByteTensor | None:
        """Adds the layer with bytes as its result; None where scales or bias forbid it."""
        out = quantiser.quant
        step = self.quant.scale * self.weight.scale
        is_zero = ~self.weight.levels.reshape(len(step), -1).any(axis=1)
        step = np.where(is_zero, out.scale / _STEPS_OF_ZEROS, step)
        scale = step / out.scale
        if not is_normal(scale) or not is_normal(out.scale) or self.rest is not None:
            return None
        rounded = np.zeros(len(scale))
        if self.bias is not None:
            exact = self.bias / step
            farthest = 1024 * _STEPS_OF_ZEROS  # beyond all bytes
            exact = np.where(is_zero, np.clip(exact, -farthest, farthest), exact)
            rounded = np.rint(exact)
            if not (np.abs(rounded - exact) * scale <= _BIAS_UNITS).all():
                return None
            if not (np.abs(rounded) <= _INT32_MAX).all():
                return None
        if not self.fits(rounded, scale):
            return None
        has_start = self.bias is not None
        start = editor.constant("start", rounded.astype(np.int32)) if has_start else None
        quant = [self.quant.zero, out.zero, *quantiser.limits()]
        like = quantiser.node.outputs[0]
        return self._add_bytes(editor, like, [scale.astype(np.float32), start], quant)

    def _add_bytes(
        self, editor: Editor, like: ir.Value, constants: list[Any], quant: list[int], **more: Any
    ) -> ByteTensor | None:
        like = like if like.shape is not None else self.result
        scale, start = constants[:2]
        x = self._operand(editor)
        if x is None or not dim_at(like, self.axis):
            return None
        inputs = [x, self._weight(editor), editor.constant("scale", scale), start]
        residual = more.pop("residual", None)
        if residual is not None:
            inputs.append(editor.as_columns(residual) if self.behind else residual)
        shape = packed_shape(like, self.axis) + [1] * self.behind
        attributes = {**self.window, "to": int(U32), "quant": quant, **more}
        y = self._named(editor.add(self.op, inputs, U32, shape, **attributes))
        y = editor.as_rows(y) if self.behind else y
        tensor = ByteTensor.of(like, self.axis, y)
        if residual is None:
            tensor.producer = BytesLayer(self, constants, quant)
        return tensor

    def as_floats(self, editor: Editor) -> ir.Value | None:
        """Adds the layer with f32 as its result; None where scales forbid it."""
        scale = self.quant.scale * self.weight.scale
        if not is_normal(scale) or self.result.shape is None:
            return None
        if self.dynamic is None and not self.fits(scale=scale):
            return None
        x = self._operand(editor)
        rest = None if self.rest is None else self.rest.as_floats(editor)
        if x is None or (rest is None) != (self.rest is None):
            return None
        start = None
        if self.bias is not None:
            start = editor.constant("start", self.bias.astype(np.float32))
        back = order_back(len(self.result.shape), self.axis)
        shape = [self.result.shape[i] for i in np.argsort(back)] + [1] * self.behind
        inputs = [x, self._weight(editor), editor.constant("scale", scale.astype(np.float32))]
        if self.dynamic is None:
            attributes = {**self.window, "to": int(F32), "quant": [self.quant.zero]}
            y = editor.add(self.op, [*inputs, start], F32, shape, **attributes)
        else:
            more = [*inputs, self.dynamic.params, start]
            y = editor.add("QConvDynamic", more, F32, shape, **self.window)
        y = self._named(y)
        y = editor.as_rows(y) if self.behind else editor.move(y, back)
        return y if rest is None else editor.add("Add", [y, rest], F32, self.result.shape, "")

    def fits(self, start: Any = 0, scale: Any = 0.0) -> bool:
        """Says whether no sum leaves int32, by itself or times the scale of its row."""
        farthest = max(self.quant.zero, 255 - self.quant.zero)
        sizes = self.weight.row_sizes
        own = bool((sizes * farthest + np.abs(start) <= _INT32_MAX).all())
        largest = sizes * 255.0 + np.abs(start)  # as the plan counts
        own = own and bool((largest * np.float32(scale) < _INT32_MAX).all())
        return own and (self.rest is None or self.rest.fits())

    def _named(self, y: ir.Value) -> ir.Value:
        node = y.producer()
        if node is not None and self.name:
            node.name = self.name
        return y

    def _operand(self, editor: Editor) -> ir.Value | None:
        packed = self.x.form(editor, self.axis)
        return editor.as_columns(packed) if packed is not None and self.x.rank == 2 else packed

    def _weight(self, editor: Editor) -> ir.Value:
        channels_last = np.ascontiguousarray(np.moveaxis(self.weight.levels, 1, -1))
        return editor.constant("weight", channels_last)


@dataclasses.dataclass(frozen=True)
class BytesLayer:
    """A layer that has become a node with bytes as its result, and could take a residual."""

    layer: Layer
    constants: list[Any]  # scale and start
    quant: list[int]

    @property
    def node(self) -> ir.Node:
        """The node of the graph whose result it is."""
        node = self.layer.result.producer()
        assert node is not None
        return node

    def with_residual(
        self,
        editor: Editor,
        own: Quantisation,
        residual: ByteFunction,
        quantiser: Quantiser,
    ) -> ByteTensor | None:
        """Adds the layer once more, with the sum of its result and the residual as its result."""
        layer, out, r = self.layer, quantiser.quant, residual.quant
        assert r is not None
        scales = np.array([own.scale / out.scale, r.scale / out.scale])
        if (
            layer.op != "QConv"
            or layer.behind > 1
            or own.zero != self.quant[1]
            or not is_normal(scales)
        ):
            return None
        packed = residual.tensor.form(editor, layer.axis)
        if packed is None:
            return None
        quant = [*self.quant, r.zero, out.zero, *quantiser.limits()]
        alpha, beta = (float(scale) for scale in scales.astype(np.float32))
        like = quantiser.node.outputs[0]
        more = {"residual": packed, "alpha": alpha, "beta": beta}
        return layer._add_bytes(editor, like, self.constants, quant, **more)


def conv_layer(editor: Editor, node: ir.Node, x: ByteFunction) -> Layer | str:
    """Returns a Conv of bytes, or why there is none."""
    weight = weight_or_reason(input_at(node, 1), 0)
    if isinstance(weight, str) or x.quant is None:
        return str(weight)
    if weight.levels.ndim not in (3, 4):
        return f"windows of {weight.levels.ndim - 2} dimensions"
    count = weight.levels.ndim - 2
    rows, width = weight.levels.shape[:2]
    group = attribute(node, "group", 1)
    if x.tensor.channels(1) != width * group or x.tensor.rank != count + 2 or rows % group:
        return "an input of an unknown number of channels"
    is_depthwise = group > 1 and width == 1 and rows == group
    if group > 1 and not is_depthwise and (width % _LANES or rows // group % _LANES):
        if weight.levels.size * group > _UNGROUPED_ELEMS:
            return f"groups of {width} and {rows // group} channels"
        weight, group = _ungrouped(weight, group), 1
    window = {
        "strides": attribute(node, "strides", (1,) * count),
        "pads": attribute(node, "pads", (0,) * (2 * count)),
        "dilations": attribute(node, "dilations", (1,) * count),
        "group": group,
        "auto_pad": attribute(node, "auto_pad", "NOTSET"),
    }
    op = "QDepthwise" if is_depthwise else "QConv"
    return _layer(editor, op, x, 1, weight, input_at(node, 2), window, node, node.outputs[0])


def _ungrouped(weight: QuantisedWeight, group: int) -> QuantisedWeight:
    """Returns the weights of all groups as those of one: zeros where the groups do not meet."""
    rows, width = weight.levels.shape[:2]
    levels = np.zeros((rows, width * group, *weight.levels.shape[2:]), weight.levels.dtype)
    for i in range(group):
        own = slice(i * rows // group, (i + 1) * rows // group)
        levels[own, i * width : (i + 1) * width] = weight.levels[own]
    return QuantisedWeight(levels, weight.scale)


def linear_layer(editor: Editor, node: ir.Node, x: ByteFunction) -> Layer | str:
    """Returns a MatMul or Gemm of bytes and constant weights, or why there is none."""
    rank = x.tensor.rank
    if not 2 <= rank <= 4 or x.quant is None:
        return f"an input of {rank} dimensions"
    is_gemm, bias, result = node.op_type == "Gemm", input_at(node, 2), node.outputs[0]
    transposed = is_gemm and bool(attribute(node, "transB", 0))
    factor = 1.0
    if is_gemm:
        if attribute(node, "transA", 0) or rank != 2:
            return "a transposed input"
        factor = attribute(node, "alpha", 1.0)
        if bias is not None and attribute(node, "beta", 1.0) != 1:
            return "a factor of the bias"
    if rank_of(input_at(node, 1)) != 2:
        return "weights that are no matrix"
    weight = weight_or_reason(input_at(node, 1), 0 if transposed else 1)
    if isinstance(weight, str):
        return weight
    if x.tensor.channels(rank - 1) != weight.levels.shape[1]:
        return "an input of an unknown number of features"
    if bias is None:
        bias, result = _bias_behind(result, weight.levels.shape[0])
    rows, columns = weight.levels.shape
    planes = x.tensor.planes
    if planes is not None:
        kernel = [planes.channels(axis) or 0 for axis in range(1, planes.rank)]
        x, axis, behind = ByteFunction(planes, x.table, x.quant), 1, planes.rank - 2
    else:
        kernel = [columns, *[1] * max(1, rank - 2)]
        axis, behind = rank - 1, int(rank == 2)
    weight = QuantisedWeight(weight.levels.reshape(rows, *kernel), factor * weight.scale)
    window = _pointwise(len(kernel) - 1)
    return _layer(editor, "QConv", x, axis, weight, bias, window, node, result, behind)


def _pointwise(count: int) -> dict[str, Any]:
    return {
        "strides": (1,) * count,
        "pads": (0,) * (2 * count),
        "dilations": (1,) * count,
        "group": 1,
    }


def _bias_behind(y: ir.Value, rows: int) -> tuple[ir.Value | None, ir.Value]:
    """Returns the constant that y alone goes into an Add with, and the sum; else None and y."""
    if not has_single_use(y) or not is_op(only_use(y).node, "Add"):
        return None, y
    add, index = only_use(y).node, only_use(y).idx
    other = add.inputs[1 - index]
    values = read_floats(other, rows)
    if values is None or not _is_row(values, rows) or values.ndim > (rank_of(y) or 0):
        return None, y
    return other, add.outputs[0]


def _is_row(values: NDArray[np.float64], size: int) -> bool:
    """Says whether constants are one number, or one for each output of a layer."""
    return values.size == 1 or (values.size == size and values.shape[-1] == size)


def _layer(
    editor: Editor,
    op: str,
    x: ByteFunction,
    axis: int,
    weight: QuantisedWeight,
    bias: ir.Value | None,
    window: dict[str, Any],
    node: ir.Node,
    result: ir.Value,
    behind: int = 0,
) -> Layer | str:
    rows = weight.levels.shape[0]
    values = None
    if bias is not None:
        values = read_floats(bias, rows)
        if values is None or not _is_row(values, rows):
            return "a bias that is no constant for each output"
        if not np.isfinite(values).all():
            return "a bias that is not finite"
        values = np.broadcast_to(values.reshape(-1), (rows,))
    assert x.quant is not None
    tensor, parts, rest = x.tensor, weight.parts(), None
    dynamic = tensor if isinstance(tensor, DynamicBytes) else None
    if len(parts) > 1 and op == "QConv" and window["group"] == 1:
        tensor = tensor.repeated(editor, axis, len(parts))
        room = -parts[0].shape[1] % _LANES
        pads = [(0, 0), (0, room), *[(0, 0)] * (parts[0].ndim - 2)]
        parts = [np.concatenate([np.pad(part, pads) for part in parts], axis=1)]
    of_x = (op, tensor, x.quant, axis)
    for levels in parts[:0:-1]:
        more = QuantisedWeight(levels, weight.scale)
        rest = Layer(*of_x, more, None, window, result, behind, "", rest, dynamic)
    first = QuantisedWeight(parts[0], weight.scale)
    name = node.name or ""
    layer = Layer(*of_x, first, values, window, result, behind, name, rest, dynamic)
    return layer if layer.fits() else "sums that may not fit 32 bits"


def sum_of(
    editor: Editor, a: ByteFunction, b: ByteFunction, quantiser: Quantiser
) -> ByteTensor | None:
    """Adds QAdd for the sum of two tensors of bytes of the same shape."""
    assert a.quant is not None
    assert b.quant is not None
    axis, out = a.tensor.axis(), quantiser.quant
    scales = np.array([a.quant.scale / out.scale, b.quant.scale / out.scale])
    if axis is None or not is_normal(scales):
        return None
    packed = [function.tensor.form(editor, axis) for function in (a, b)]
    if any(value is None for value in packed):
        return None
    like = a.tensor.like
    y = editor.add(
        "QAdd",
        packed,
        U32,
        packed_shape(like, axis),
        alpha=float(np.float32(scales[0])),
        beta=float(np.float32(scales[1])),
        quant=[a.quant.zero, b.quant.zero, out.zero, *quantiser.limits()],
    )
    return ByteTensor.of(like, axis, y)


def average_of(
    editor: Editor, node: ir.Node, x: ByteFunction, quantiser: Quantiser
) -> ByteTensor | None:
    """Adds QAveragePool for an AveragePool, GlobalAveragePool or ReduceMean of planes of bytes."""
    assert x.quant is not None
    out, like = quantiser.quant, node.outputs[0]
    scale = x.quant.scale / out.scale
    if x.tensor.rank not in (3, 4) or not is_normal(scale) or not dim_at(like, 1):
        return None
    packed = x.tensor.form(editor, 1)
    if packed is None:
        return None
    window = {}
    if node.op_type == "AveragePool":
        window = window_of_pool(node)
        window["count_include_pad"] = attribute(node, "count_include_pad", 0)
    behind = x.tensor.rank - (rank_of(like) or 0)  # dimensions that a ReduceMean takes away
    y = editor.add(
        "QAveragePool",
        [packed],
        U32,
        packed_shape(like, 1) + [1] * behind,
        alpha=float(np.float32(scale)),
        quant=[x.quant.zero, out.zero, *quantiser.limits()],
        **window,
    )
    return ByteTensor.of(like, 1, editor.as_rows(y) if behind else y)


def window_of_pool(node: ir.Node) -> dict[str, Any]:
    """Returns the attributes of a pool that say where its windows lie."""
    kernel = attribute(node, "kernel_shape")
    count = len(kernel)
    return {
        "kernel_shape": kernel,
        "strides": attribute(node, "strides", (1,) * count),
        "pads": attribute(node, "pads", (0,) * (2 * count)),
        "dilations": attribute(node, "dilations", (1,) * count),
        "auto_pad": attribute(node, "auto_pad", "NOTSET"),
        "ceil_mode": attribute(node, "ceil_mode", 0),
    }
