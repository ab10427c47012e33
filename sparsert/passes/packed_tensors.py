"""Tensors of bytes and their packed forms, made where something asks for them.

A packed form is u32: four successive channels per element. Any axis but the first may be the one of
the channels; the packed tensor has it in second place. For the planes of a convolution that is
axis 1, for features of tokens the last one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sparsert.passes.graph_tools import (
    SPARSERT,
    add_initializer,
    dim_at,
    is_op,
    make_node,
    rank_of,
)
from sparsert.passes.quantisation import Quantisation

_LANES = 4
U32 = ir.DataType.UINT32
F32 = ir.DataType.FLOAT
Dims = Sequence[Any] | ir.Shape


class Editor:
    """Adds nodes to a graph, each in front of the node that is being lowered."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self.anchor: ir.Node | None = None
        self._columns: dict[ir.Value, ir.Value] = {}
        self._rows: dict[ir.Value, ir.Value] = {}

    def constant(self, what: str, array: NDArray[Any]) -> ir.Value:
        """Adds an initializer."""
        return add_initializer(self._graph, f"{self._name()}_{what}", array)

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        dtype: ir.DataType,
        shape: Dims | None,
        domain: str = SPARSERT,
        **attributes: Any,
    ) -> ir.Value:
        """Adds a node of one output."""
        assert self.anchor is not None
        made = make_node(op_type, inputs, attributes, domain, f"{self._name()}_{op_type}")
        made.outputs[0].type = ir.TensorType(dtype)
        made.outputs[0].shape = None if shape is None else ir.Shape(list(shape))
        self._graph.insert_before(self.anchor, made)
        return made.outputs[0]

    def move(self, x: ir.Value, order: Sequence[int]) -> ir.Value:
        """Transposes a value, unless that changes nothing."""
        if list(order) == list(range(len(order))):
            return x
        assert x.dtype is not None
        shape = None if x.shape is None else [x.shape[i] for i in order]
        return self.add("Transpose", [x], x.dtype, shape, "", perm=list(order))

    def as_columns(self, x: ir.Value) -> ir.Value:
        """Gives rows [N, P] a dimension of one column, as convolutions want."""
        if x not in self._columns:
            assert x.shape is not None
            assert x.dtype is not None
            axes = self.constant("axes", np.array([2]))
            self._columns[x] = self.add("Unsqueeze", [x, axes], x.dtype, [*x.shape, 1], "")
        return self._columns[x]

    def as_rows(self, x: ir.Value) -> ir.Value:
        """Takes dimensions of size 1 from behind [N, P]."""
        if x not in self._rows:
            assert x.shape is not None
            assert x.dtype is not None
            axes = self.constant("axes", np.arange(2, len(x.shape)))
            rows = self.add("Squeeze", [x, axes], x.dtype, list(x.shape)[:2], "")
            self._rows[x] = rows
            if len(x.shape) == 3:
                self._columns[rows] = x
        return self._rows[x]

    def _name(self) -> str:
        assert self.anchor is not None
        return self.anchor.name or self.anchor.op_type


def order_of(rank: int, axis: int) -> list[int]:
    """Returns the permutation that brings `axis` to the second place."""
    return [0, axis, *(i for i in range(1, rank) if i != axis)]


def order_back(rank: int, axis: int) -> list[int]:
    """Returns the inverse of order_of."""
    return [int(i) for i in np.argsort(order_of(rank, axis))]


class ByteTensor:
    """A tensor of bytes.

    Attributes:
        like: a value of its shape.
        exact: if set, `source` holds exactly the numbers that its bytes stand for under it.
        base, base_table: if set, its bytes are base_table[bytes of base].
        planes: if set, the tensor [N, C, ...] that it is [N, C * ...] of.
        producer: what computed it, for who may do more at once.
    """

    def __init__(
        self,
        like: ir.Value,
        make: Callable[[int], ir.Value | None] | None,
        preferred_axis: int | None = None,
    ) -> None:
        self.like = like
        self._make = make
        self._preferred = preferred_axis
        self._forms: dict[int, ir.Value] = {}
        self._repeated: dict[tuple[int, int], ByteTensor] = {}
        self.is_float = False  # a QuantizeLinear that stays computes it
        self.source: ir.Value | None = None
        self.exact: Quantisation | None = None
        self.base: ByteTensor | None = None
        self.base_table: NDArray[np.uint8] | None = None
        self.planes: ByteTensor | None = None
        self.producer: Any = None

    @staticmethod
    def of(like: ir.Value, axis: int, packed: ir.Value) -> ByteTensor:
        """Returns the tensor that a node on packed bytes has computed."""
        tensor = ByteTensor(like, None, axis)
        tensor._forms[axis] = packed
        return tensor

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return rank_of(self.like) or 0

    def channels(self, axis: int) -> int | None:
        """Returns the size of an axis, if it can be that of the channels."""
        return dim_at(self.like, axis) if 1 <= axis < self.rank else None

    def axis(self) -> int | None:
        """Returns the axis of the channels where nothing else asks for one."""
        if self._forms:
            return next(iter(self._forms))
        last = self.rank - 1
        order = [last, 1] if self.rank == 3 else [1, last]
        if self._preferred is not None:
            order.insert(0, self._preferred)
        return next((axis for axis in order if self.channels(axis)), None)

    def packed_shape(self, axis: int) -> list[Any]:
        """Returns the shape of the packed form."""
        return packed_shape(self.like, axis)

    def form(self, editor: Editor, axis: int) -> ir.Value | None:
        """Returns the packed form with the channels of `axis`; None if it cannot be made."""
        if axis not in self._forms:
            if not self.channels(axis):
                return None
            made = self._make(axis) if self._make is not None else self._converted(editor, axis)
            if made is None:
                return None
            self._forms[axis] = made
        return self._forms[axis]

    def _converted(self, editor: Editor, axis: int) -> ir.Value | None:
        levels = self.floats(editor, Quantisation(1.0, 0, ir.DataType.UINT8))
        if levels is None:
            return None
        moved = editor.move(levels, order_of(self.rank, axis))
        shape = self.packed_shape(axis)
        return editor.add("QuantizePacked", [moved], U32, shape, alpha=1.0, quant=[0, 0, 255])

    def repeated(self, editor: Editor, axis: int, count: int) -> ByteTensor:
        """Returns the tensor `count` times along an axis, each time in whole packed elements."""
        if (axis, count) not in self._repeated:
            shape = [] if self.like.shape is None else list(self.like.shape)
            shape[axis] = count * -(-(self.channels(axis) or 0) // _LANES) * _LANES
            like = ir.Value(name="repeated", shape=ir.Shape(shape))

            def make(asked: int) -> ir.Value | None:
                packed = self.form(editor, axis) if asked == axis else None
                if packed is None:
                    return None
                return editor.add(
                    "Concat", [packed] * count, U32, packed_shape(like, axis), "", axis=1
                )

            self._repeated[axis, count] = ByteTensor(like, make, axis)
        return self._repeated[axis, count]

    def floats(self, editor: Editor, quant: Quantisation) -> ir.Value | None:
        """Returns the numbers that the bytes stand for, in the tensor's own shape."""
        axis = self.axis()
        packed = None if axis is None else self.form(editor, axis)
        if packed is None or axis is None or self.like.shape is None:
            return None
        order = order_of(self.rank, axis)
        y = editor.add(
            "DequantizePacked",
            [packed],
            F32,
            [self.like.shape[i] for i in order],
            alpha=quant.scale,
            quant=[quant.zero],
            channels=self.channels(axis),
        )
        return editor.move(y, order_back(self.rank, axis))


class DynamicBytes(ByteTensor):
    """The bytes of floats whose scale and zero point the run computes.

    Attributes:
        params: f32 [2], the scale and the zero point; set once a packed form is made.
    """

    def __init__(self, editor: Editor, source: ir.Node, x: ir.Value) -> None:
        super().__init__(x, self._quantised)
        self.params: ir.Value | None = None
        self._editor, self._source, self._x = editor, source, x

    @staticmethod
    def read_by(node: ir.Node, editor: Editor) -> DynamicBytes | None:
        """Returns what a DynamicQuantizeLinear makes and a DequantizeLinear reads; else None."""
        q = node.inputs[0]
        made = None if q is None else q.producer()
        if made is None or not is_op(made, "DynamicQuantizeLinear"):
            return None
        x = made.inputs[0]
        if tuple(node.inputs[1:]) != tuple(made.outputs[1:]) or x is None or x.shape is None:
            return None
        return DynamicBytes(editor, made, x)

    def _quantised(self, axis: int) -> ir.Value:
        editor = self._editor
        saved, editor.anchor = editor.anchor, self._source
        moved = editor.move(self._x, order_of(self.rank, axis))
        packed = editor.add("QuantizeDynamic", [moved], U32, self.packed_shape(axis))
        made = packed.producer()
        assert made is not None
        made.resize_outputs(2)
        params = made.outputs[1]
        params.type, params.shape = ir.TensorType(F32), ir.Shape([2])
        if self.params is None:
            self.params = params
            self._give_scale(params)
        editor.anchor = saved
        return packed

    def _give_scale(self, params: ir.Value) -> None:
        """Lets those who compute with the scale take it from `params`."""
        given = self._source.outputs[1]
        users = [use for use in given.uses() if not is_op(use.node, "DequantizeLinear")]
        if users and not given.is_graph_output():
            first = self._editor.constant("scale", np.array(0))
            scale = self._editor.add("Gather", [params, first], F32, [], "")
            for user in users:
                user.node.replace_input_with(user.idx, scale)


def packed_shape(like: ir.Value, axis: int) -> list[Any]:
    """Returns the shape of a value's packed form with the channels of `axis`."""
    channels = dim_at(like, axis)
    assert like.shape is not None
    assert channels is not None
    first, _, *rest = (like.shape[i] for i in order_of(len(like.shape), axis))
    return [first, -(-channels // _LANES), *rest]


@dataclasses.dataclass(frozen=True)
class ByteFunction:
    """A float tensor whose elements are table[byte] of a tensor of bytes.

    quant: set where the table is just the meaning of the bytes.
    grid: the quantisation of the bytes that it was computed from.
    """

    tensor: ByteTensor
    table: NDArray[np.float32]
    quant: Quantisation | None = None
    grid: Quantisation | None = None

    def at_root(self) -> ByteFunction:
        """Returns the same function of the bytes that those of its tensor follow from."""
        function = self
        while function.tensor.base is not None and function.tensor.base_table is not None:
            table = function.table[function.tensor.base_table]
            function = ByteFunction(function.tensor.base, table)
        return function

    def on_grid(self, editor: Editor, like: ir.Value) -> ByteFunction | None:
        """Returns it as the meaning of bytes, if all its numbers are some of its grid's."""
        if self.quant is not None or self.grid is None:
            return self if self.quant is not None else None
        if np.isnan(self.table).any():
            return None
        numbers = self.grid.table()[self.grid.levels(self.table)]
        tensor = looked_up(editor, self, self.grid, like)
        if tensor is None or not np.array_equal(numbers, self.table):
            return None
        return ByteFunction(tensor, self.grid.table(), self.grid, self.grid)


def quantised(editor: Editor, x: ir.Value, quant: Quantisation, like: ir.Value) -> ByteTensor:
    """Returns the bytes of a float tensor, packed by QuantizePacked when asked for."""
    anchor = editor.anchor

    def make(axis: int) -> ir.Value | None:
        saved, editor.anchor = editor.anchor, anchor
        try:
            moved = editor.move(x, order_of(rank_of(like) or 0, axis))
            shape = packed_shape(like, axis)
            limits = [quant.zero, 0, 255]
            return editor.add(
                "QuantizePacked", [moved], U32, shape, alpha=quant.scale, quant=limits
            )
        finally:
            editor.anchor = saved

    return ByteTensor(like, make)


def looked_up(
    editor: Editor, function: ByteFunction, quant: Quantisation, like: ir.Value
) -> ByteTensor | None:
    """Returns the bytes of a function of bytes: those themselves, or by QLookup when asked for.

    None where the function has no number for some byte.
    """
    if np.isnan(function.table).any():
        return None
    base, table = function.tensor, quant.levels(function.table)
    if np.array_equal(table, np.arange(256)):
        return base
    anchor = editor.anchor

    def make(axis: int) -> ir.Value | None:
        saved, editor.anchor = editor.anchor, anchor
        try:
            packed = base.form(editor, axis)
            if packed is None:
                return None
            entries = editor.constant("table", table)
            return editor.add("QLookup", [packed, entries], U32, packed_shape(like, axis))
        finally:
            editor.anchor = saved

    tensor = ByteTensor(like, make, base.axis())
    tensor.base, tensor.base_table = base, table
    return tensor
