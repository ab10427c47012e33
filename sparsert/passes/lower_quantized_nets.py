"""Turns what lies between DequantizeLinear and QuantizeLinear into operators on packed bytes.

The rule of the numbers. A DequantizeLinear of bytes makes a function of bytes (a table of 256
numbers); elementwise functions of it stay one, and a QuantizeLinear of it is a QLookup. A Conv,
Gemm or MatMul of bytes and constant bytes sums exactly in int32. The result of each lowered layer
differs from ONNX's definition (dequantise, compute in f32, quantise) by at most one unit of its
QuantizeLinear, and only where the definition's value lies close to the middle between two units:
within the rounding errors of f32, and of a bias, which is rounded to the scale of the sums only
where that moves the result by at most 1/16 of a unit. A layer without a QuantizeLinear behind it
differs by the rounding errors of f32. Maxima, moved data and conversions are exact. Layers in a row
pass their differences on, as in any engine.

Attention whose queries, keys, values and shares are rounded runs on bytes too (QAttention): its
products are exact, and every rounding that the model has is done. A share or a result differs from
the definition's by one unit at most, where that lies close to the middle between two. Biases behind
a QuantizeLinear, residuals of f32 or bytes and activations are one pass over the bytes
(QElementwise), which multiplies with the inverse of the result's scale, and has Gelu to 1/64 unit.

Layers whose bytes DynamicQuantizeLinear makes sum exactly too (QConvDynamic), and scale with what
QuantizeDynamic has found; everything else reads such bytes as f32.

What is not recognised stays in f32 between DequantizePacked and QuantizePacked, or goes to the pass
lower_quantized:
- other operators, such as Resize, Pad, Slice, Split, Transpose, Reshape of planes, Softmax, norms,
  other products of two activations, sums with broadcast, Concat behind channels that are no
  multiple of 4, transposed and 3-D convolutions;
- other scales and zero points that are not constant, or no positive normal numbers, or of blocks,
  or of the channels of activations; integers of other than 8 bits;
- sums beyond int32.

Weights that do not fit i8 without their zero points are the sum of two, the second of which is
nearly all zeros, on the same input twice. Convolutions of few groups whose channels are no multiple
of 4 are ones of a single group, with zeros where the groups do not meet.

Convolutions and linear layers that stay in f32 although their weights or inputs are quantised, and
conversions that do, are listed with the reason in the model's metadata: explain() prints them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes.float_layers import left_by_quantize, name_of, note_float_layers
from sparsert.passes.fuse_activations import activation_of
from sparsert.passes.graph_tools import (
    SPARSERT,
    attribute,
    constant,
    dim_at,
    input_at,
    is_op,
    known_dims,
    nodes_of,
    rank_of,
    same_shape,
    take_over,
)
from sparsert.passes.packed_tensors import (
    F32,
    U32,
    ByteFunction,
    ByteTensor,
    DynamicBytes,
    Editor,
    looked_up,
    order_of,
    packed_shape,
    quantised,
)
from sparsert.passes.quantisation import (
    Quantisation,
    is_dequantised,
    known_array,
    quantisation_or_reason,
    read_floats,
    read_quantisation,
    reason_of_product,
    tidy_quantisers,
    why_no_bytes,
)
from sparsert.passes.quantised_attention import Known, find_attention
from sparsert.passes.quantised_layers import (
    Layer,
    average_of,
    conv_layer,
    find_quantiser,
    linear_layer,
    sum_of,
    window_of_pool,
)
from sparsert.passes.quantised_sums import Sum, sum_layer
from sparsert.passes.tables_of_functions import binary_table, unary_table

_BINARY = ("Add", "Sub", "Mul", "Div", "Min", "Max")
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Operators whose result holds nothing but numbers of their first input.
_MOVES = (
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Expand"),
    *("Identity", "Tile", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth"),
)


def run(model: ir.Model) -> None:
    """Lowers the main graph, in place."""
    reasons = left_by_quantize(model)
    if any(is_op(node, "DequantizeLinear", "QuantizeLinear") for node in model.graph):
        model.opset_imports[SPARSERT] = 1
        tidy_quantisers(model.graph)
        reasons.update(_Lowering(model.graph).run())
        common.RemoveUnusedNodesPass()(model)
        model.graph.sort()
    note_float_layers(model, reasons)


class _Lowering:
    """Walks along the graph with what is known of its values, then back to replace them."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._editor = Editor(graph)
        self._functions: dict[ir.Value, ByteFunction] = {}  # of float values
        self._tensors: dict[ir.Value, ByteTensor] = {}  # of values of bytes
        self._exact: dict[ir.Value, Quantisation] = {}  # floats that are numbers of bytes
        self._dynamic: dict[ir.Value, DynamicBytes] = {}  # floats, and bytes of them
        self._position: dict[ir.Node, int] = {}
        self._taken: set[ir.Node] = set()  # nodes that others compute too
        self._in_floats: dict[str, str] = {}  # layer -> why

    def run(self) -> dict[str, str]:
        """Lowers what it can; returns the layers that stay in f32, and why."""
        nodes = nodes_of(self._graph)
        self._position = {node: index for index, node in enumerate(nodes)}
        for node in nodes:
            self._editor.anchor = node
            handler = self._handler(node)
            if handler is not None:
                handler(node)
        for node in reversed(nodes):
            self._editor.anchor = node
            self._replace(node)
        return self._in_floats

    def _handler(self, node: ir.Node) -> Callable[[ir.Node], None] | None:
        if node.domain != "" or node in self._taken:
            return None
        handlers: dict[str, Callable[[ir.Node], None]] = {
            "DequantizeLinear": self._dequantize,
            "QuantizeLinear": self._quantize,
            **dict.fromkeys(_LAYERS, self._layer),
            "MaxPool": self._max_pool,
            "AveragePool": self._average_pool,
            "GlobalAveragePool": self._average_pool,
            "ReduceMean": self._average_pool,
            "Concat": self._concat,
            **dict.fromkeys(_BINARY, self._binary),
            **dict.fromkeys(_MOVES, self._move),
        }
        if activation_of(node) is not None:
            return self._unary
        return handlers.get(node.op_type)

    def _function(self, value: ir.Value | None) -> ByteFunction | None:
        return None if value is None else self._functions.get(value)

    def _meaning(self, value: ir.Value | None) -> ByteFunction | None:
        """Returns the bytes of a value that is just dequantised ones."""
        function = self._function(value)
        return None if function is None or function.quant is None else function

    def _bytes_of(self, value: ir.Value | None) -> ByteFunction | None:
        """Returns the bytes of a value that is dequantised ones, or a function that gives such."""
        function = self._function(value)
        return None if function is None or value is None else function.on_grid(self._editor, value)

    # ---- from the inputs to the outputs ----

    def _dequantize(self, node: ir.Node) -> None:
        q = node.inputs[0]
        if q is None or known_array(q) is not None:
            return
        quant = quantisation_or_reason(node)
        if isinstance(quant, str):
            if not self._find_dynamic(node, q):
                self._keep(node, quant)
            return
        if (rank_of(q) or 0) < 2:
            return
        if q not in self._tensors:
            self._tensors[q] = self._integers(q, quant)
        tensor = self._tensors[q]
        self._functions[node.outputs[0]] = ByteFunction(tensor, quant.table(), quant, quant)
        self._exact[node.outputs[0]] = quant

    def _find_dynamic(self, node: ir.Node, q: ir.Value) -> bool:
        """Notes bytes of a DynamicQuantizeLinear; False where a node dequantises others."""
        tensor = DynamicBytes.read_by(node, self._editor)
        if tensor is None:
            return False
        self._dynamic[node.outputs[0]] = self._dynamic.setdefault(q, tensor)
        return True

    def _integers(self, q: ir.Value, quant: Quantisation) -> ByteTensor:
        """Returns bytes that come from elsewhere, such as an input of the graph."""
        cast = self._editor.add("Cast", [q], F32, q.shape, "", to=int(F32))
        tensor = quantised(self._editor, cast, Quantisation(1.0, quant.offset, quant.dtype), q)
        tensor.is_float = True
        return tensor

    def _quantize(self, node: ir.Node) -> None:
        x, q = node.inputs[0], node.outputs[0]
        if x is None or q in self._tensors or constant(x) is not None:
            return
        quant = quantisation_or_reason(node)
        if isinstance(quant, str):
            self._keep(node, quant)
            return
        like = q if q.shape is not None else x
        function, tensor = self._function(x), None
        if function is not None:
            tensor = looked_up(self._editor, function, quant, like)
        if tensor is None:
            tensor = quantised(self._editor, x, quant, like)
            tensor.is_float = True
            tensor.source, tensor.exact = x, self._exact.get(x)
            if tensor.exact != quant:
                tensor.exact = None
        self._tensors[q] = tensor

    def _unary(self, node: ir.Node) -> None:
        function = self._function(node.inputs[0])
        if function is not None:
            table = unary_table(node, function.table)
            if table is not None and np.array_equal(table, function.table):
                self._functions[node.outputs[0]] = function
            elif table is not None:
                made = ByteFunction(function.tensor, table, None, function.grid)
                self._functions[node.outputs[0]] = made

    def _binary(self, node: ir.Node) -> None:
        if len(node.inputs) != 2:
            return
        a, b = (self._function(value) for value in node.inputs)
        made = self._with_scalar(node, a, b) or self._of_same(node, a, b)
        if made is not None:
            self._functions[node.outputs[0]] = made
        elif node.op_type == "Add":
            self._add(node)

    def _with_scalar(
        self, node: ir.Node, a: ByteFunction | None, b: ByteFunction | None
    ) -> ByteFunction | None:
        """Returns the function of bytes that one and a constant number make."""
        function, other = (b, 0) if a is None else (a, 1)
        if function is None or (a is not None and b is not None):
            return None
        number = read_floats(node.inputs[other], 1)
        if number is None or number.size != 1 or number.ndim > function.tensor.rank:
            return None
        scalar = number.astype(np.float32).reshape(())
        operands = (function.table, scalar) if other == 1 else (scalar, function.table)
        return ByteFunction(function.tensor, binary_table(node.op_type, *operands))

    def _of_same(
        self, node: ir.Node, a: ByteFunction | None, b: ByteFunction | None
    ) -> ByteFunction | None:
        """Returns the function of bytes that two of the same bytes make."""
        if a is None or b is None:
            return None
        if a.tensor is not b.tensor:
            a, b = a.at_root(), b.at_root()
        if a.tensor is not b.tensor:
            return None
        return ByteFunction(a.tensor, binary_table(node.op_type, a.table, b.table))

    def _add(self, node: ir.Node) -> None:
        a, b = (self._bytes_of(value) for value in node.inputs)
        first, second = node.inputs
        assert first is not None
        assert second is not None
        quantiser = find_quantiser(node.outputs[0])
        if a is None or b is None or quantiser is None:
            if a is not None:
                self._sum(sum_layer(node, a, second))
            elif b is not None:
                self._sum(sum_layer(node, b, first))
            return
        if not same_shape(first, second):
            return
        candidates = []
        for value, own, other in ((first, a, b), (second, b, a)):
            layer = own.tensor.producer
            if layer is not None and self._is_alone(value):
                candidates.append((self._position[layer.node], layer, own, other))
        self._editor.anchor = quantiser.node
        tensor = None
        for _, layer, own, other in sorted(candidates, key=lambda c: -c[0]):
            if tensor is None:
                tensor = layer.with_residual(self._editor, own.quant, other, quantiser)
        if tensor is None:
            tensor = sum_of(self._editor, a, b, quantiser)
        if tensor is not None:
            self._tensors[quantiser.node.outputs[0]] = tensor

    def _sum(self, layer: Sum | None) -> None:
        if layer is None:
            return
        self._editor.anchor = layer.nodes[-1]
        residual = self._meaning(layer.residual)
        quantiser = find_quantiser(layer.result)
        if quantiser is not None:
            tensor = layer.as_bytes(self._editor, residual, quantiser)
            if tensor is not None:
                self._tensors[quantiser.node.outputs[0]] = tensor
                self._taken.update(layer.nodes)
            return
        y = layer.as_floats(self._editor, residual)
        if y is not None:
            self._taken.update(layer.nodes)
            take_over(layer.result, y)

    def _is_alone(self, value: ir.Value) -> bool:
        """Says whether dequantised bytes go to one node only, and they to nothing else."""
        node = value.producer()
        q = None if node is None else node.inputs[0]
        return (
            q is not None
            and len(value.uses()) == 1
            and len(q.uses()) == 1
            and not value.is_graph_output()
            and not q.is_graph_output()
        )

    def _layer(self, node: ir.Node) -> None:
        reason = reason_of_product(node, self._lower_layer(node))
        if reason is not None:
            self._keep(node, reason)

    def _attention(self, node: ir.Node) -> bool:
        """Lowers the attention that ends with a product."""
        self._editor.anchor = node
        known = Known(self._editor, self._functions.get, self._tensors.get)
        layer = find_attention(node, known)
        if layer is None:
            return False
        y, quantiser = layer.result, find_quantiser(layer.result)
        quant = layer.quant
        if quant is None and quantiser is not None:
            quant = quantiser.quant
        limits = quantiser.limits() if layer.quant is None and quantiser is not None else [0, 255]
        made = layer.add(self._editor, quant, limits)
        if made is None:
            return False
        if quant is None:
            take_over(y, made)
            return True
        tensor = ByteTensor.of(y, 2, made)
        if layer.is_bytes:
            self._tensors[y] = tensor
        elif layer.quant is not None:
            self._functions[y] = ByteFunction(tensor, quant.table(), quant)
        elif quantiser is not None:
            self._tensors[quantiser.node.outputs[0]] = tensor
        return True

    def _keep(self, node: ir.Node, reason: str) -> None:
        """Notes why a node stays in f32."""
        self._in_floats[name_of(node)] = reason

    def _lower_layer(self, node: ir.Node) -> str | None:
        """Lowers a layer, or returns why it cannot; None also where nothing is quantised."""
        x = self._bytes_of(node.inputs[0])
        tensor = None if node.inputs[0] is None else self._dynamic.get(node.inputs[0])
        if tensor is not None:
            # Its sums are those of bytes less any zero point: as large as with this one.
            quant = Quantisation(1.0, 0, ir.DataType.UINT8)
            x = ByteFunction(tensor, quant.table(), quant)
        if x is None:
            is_quantised = is_dequantised(input_at(node, 1), _MOVES)
            return why_no_bytes(node.inputs[0]) if is_quantised else None
        if node.op_type == "ConvTranspose":
            return "there are no kernels for transposed convolutions of bytes"
        if tensor is None and node.op_type == "MatMul" and self._attention(node):
            return None
        make = conv_layer if node.op_type == "Conv" else linear_layer
        layer = make(self._editor, node, x)
        if isinstance(layer, str):
            return layer
        if tensor is None and self._bytes_layer(layer) is not None:
            return None
        self._editor.anchor = node
        y = layer.as_floats(self._editor)
        if y is None:
            return "scales whose product is no normal number, or takes sums beyond 32 bits"
        take_over(layer.result, y)
        return None

    def _bytes_layer(self, layer: Layer | None) -> ByteTensor | None:
        """Lowers a layer with a QuantizeLinear behind it."""
        quantiser = None if layer is None else find_quantiser(layer.result)
        if layer is None or quantiser is None:
            return None
        self._editor.anchor = quantiser.node
        tensor = layer.as_bytes(self._editor, quantiser)
        if tensor is not None:
            self._tensors[quantiser.node.outputs[0]] = tensor
        return tensor

    def _max_pool(self, node: ir.Node) -> None:
        x, y = self._function(node.inputs[0]), node.outputs[0]
        if x is None or x.tensor.rank not in (3, 4) or any(v.uses() for v in node.outputs[1:]):
            return
        if np.isnan(x.table).any() or (np.diff(x.table) < 0).any() or not dim_at(y, 1):
            return
        window = window_of_pool(node)
        pads, kernel = window["pads"], window["kernel_shape"]
        if any(pad >= kernel[i % len(kernel)] for i, pad in enumerate(pads)):
            return
        anchor, editor = node, self._editor

        def make(axis: int) -> ir.Value | None:
            packed = x.tensor.form(editor, 1) if axis == 1 else None
            if packed is None:
                return None
            saved, editor.anchor = editor.anchor, anchor
            pooled = editor.add("QMaxPool", [packed], U32, packed_shape(y, 1), **window)
            editor.anchor = saved
            return pooled

        tensor = ByteTensor(y, make, 1)
        self._functions[y] = ByteFunction(tensor, x.table, x.quant, x.grid)

    def _average_pool(self, node: ir.Node) -> None:
        x = self._bytes_of(node.inputs[0])
        quantiser = find_quantiser(node.outputs[0])
        if x is None or quantiser is None:
            return
        if node.op_type == "ReduceMean" and not _is_over_planes(node, x.tensor.rank):
            return
        self._editor.anchor = quantiser.node
        tensor = average_of(self._editor, node, x, quantiser)
        if tensor is not None:
            self._tensors[quantiser.node.outputs[0]] = tensor

    def _concat(self, node: ir.Node) -> None:
        y = node.outputs[0]
        quantiser = find_quantiser(y)
        rank = rank_of(y) or 0
        if quantiser is None or rank < 2 or attribute(node, "axis") % rank != 1:
            return
        if quantiser.limits() != [0, 255] or not dim_at(y, 1):
            return
        values = [value for value in node.inputs if value is not None]
        if not all(dim_at(value, 1) for value in values):
            return
        if any((dim_at(value, 1) or 0) % 4 for value in values[:-1]):
            return
        functions = [self._function(value) for value in values]
        if not any(functions):
            return
        self._editor.anchor = quantiser.node
        parts = []
        for value, function in zip(values, functions, strict=True):
            tensor = None
            if function is not None:
                tensor = looked_up(self._editor, function, quantiser.quant, value)
            if tensor is None:
                tensor = quantised(self._editor, value, quantiser.quant, value)
            parts.append(tensor.form(self._editor, 1))
        if any(part is None for part in parts):
            return
        packed = self._editor.add("Concat", parts, U32, packed_shape(y, 1), "", axis=1)
        self._tensors[quantiser.node.outputs[0]] = ByteTensor.of(y, 1, packed)

    def _move(self, node: ir.Node) -> None:
        x, y = node.inputs[0], node.outputs[0]
        if x in self._exact:
            self._exact[y] = self._exact[x]
        function = self._function(x)
        if function is not None and is_op(node, "Transpose"):
            self._transpose(node, function)
        if function is None or not is_op(node, "Reshape", "Flatten", "Squeeze"):
            return
        rank, channels = function.tensor.rank, function.tensor.channels(1)
        sizes = known_dims(x, range(2, rank))
        if rank < 3 or rank_of(y) != 2 or not sizes or not channels:
            return
        if dim_at(y, 1) != channels * math.prod(sizes):
            return
        if math.prod(sizes) == 1:
            tensor = self._rows_of(node, function.tensor)
        elif function.quant is not None and rank <= 4:
            tensor = quantised(self._editor, y, function.quant, y)
            tensor.source, tensor.exact = y, function.quant
            tensor.planes = function.tensor
        else:
            return
        self._functions[y] = ByteFunction(tensor, function.table, function.quant, function.grid)

    def _transpose(self, node: ir.Node, function: ByteFunction) -> None:
        """Lets who wants bytes take those of what is transposed; others read the floats."""
        y, base, editor = node.outputs[0], function.tensor, self._editor
        perm = attribute(node, "perm") or range(base.rank)[::-1]
        if perm[0] != 0 or base.rank not in (3, 4) or function.quant is None:
            return

        def make(axis: int) -> ir.Value | None:
            packed = base.form(editor, perm[axis])
            if packed is None:
                return None
            saved, editor.anchor = editor.anchor, node
            there = order_of(base.rank, perm[axis])
            wanted = [there.index(perm[i]) for i in order_of(base.rank, axis)]
            moved = editor.move(packed, wanted)
            editor.anchor = saved
            return moved

        tensor = ByteTensor(y, make)
        tensor.source, tensor.exact = y, function.quant
        self._functions[y] = ByteFunction(tensor, function.table, function.quant, function.quant)

    def _rows_of(self, node: ir.Node, planes: ByteTensor) -> ByteTensor:
        """Returns [N, C, 1, ...] as the result [N, C] of a node."""
        editor = self._editor

        def make(axis: int) -> ir.Value | None:
            packed = planes.form(editor, 1)
            if packed is None:
                return None
            saved, editor.anchor = editor.anchor, node
            rows = editor.as_rows(packed)
            editor.anchor = saved
            return rows

        return ByteTensor(node.outputs[0], make, 1)

    # ---- from the outputs to the inputs ----

    def _replace(self, node: ir.Node) -> None:
        """Lets the users of a node take bytes instead, and removes it if nothing needs it."""
        if is_op(node, "DequantizeLinear", "MaxPool", "Reshape", "Flatten", "Squeeze"):
            self._replace_floats(node)
        elif is_op(node, "QuantizeLinear"):
            self._replace_bytes(node)
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            self._graph.remove(node, safe=True)

    def _replace_floats(self, node: ir.Node) -> None:
        y = node.outputs[0]
        function = self._meaning(y)
        if function is None or not (y.uses() or y.is_graph_output()):
            return
        assert function.quant is not None
        tensor = function.tensor
        if tensor.is_float and tensor.source is None:
            return  # bytes from elsewhere: lower_quantized knows a shorter way
        source = tensor.source
        if source is y:
            return
        if source is not None and tensor.exact == function.quant:
            if not y.is_graph_output():
                y.replace_all_uses_with(source)
                return
            if source.producer() is not None and not source.is_graph_output():
                take_over(y, source)
                return
        floats = tensor.floats(self._editor, function.quant)
        if floats is not None:
            take_over(y, floats)

    def _replace_bytes(self, node: ir.Node) -> None:
        q = node.outputs[0]
        tensor = self._tensors.get(q)
        if tensor is None or tensor.is_float or not (q.uses() or q.is_graph_output()):
            return
        quant = read_quantisation(node)
        assert quant is not None
        levels = tensor.floats(self._editor, Quantisation(1.0, quant.offset, quant.dtype))
        if levels is not None:
            to = quant.dtype
            take_over(q, self._editor.add("Cast", [levels], to, q.shape, "", to=int(to)))


def _is_over_planes(node: ir.Node, rank: int) -> bool:
    """Says whether a ReduceMean is over all dimensions behind the channels."""
    axes = known_array(input_at(node, 1))
    return axes is not None and sorted(int(a) % rank for a in axes.reshape(-1)) == [*range(2, rank)]
