"""Which operators on packed bytes Numba's kernels run; see numba_ops.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.kernels import planes, qplanes, qrows
from sparsert.kernels.lanes import LANES
from sparsert.runtime.numba_geometry import MAX_SHAPES, Geometry
from sparsert.runtime.numba_ops import (
    PACKED_BYTES,
    Activation,
    Node,
    Step,
    StepWithoutWeights,
    as_floats,
    makes,
)
from sparsert.runtime.numba_qweights import as_matrix, of_one_column, pack_bytes
from sparsert.runtime.numpy_windows import PoolWindows, window_pads
from sparsert.runtime.packed_functions import range_of

if TYPE_CHECKING:
    from sparsert.runtime.numba_room import Room

_Arrays = Sequence[Any]
_KERNELS = {"csr": qrows.qrows_csr, "dense": qrows.qrows_four, "bsr4": qrows.qrows_four}


def _f32(values: Iterable[Any]) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


@makes("QConv", "sparsert")
@makes("QDepthwise", "sparsert")
@makes("QConvDynamic", "sparsert")
def _make_conv(node: Node) -> Step | str:
    is_dynamic = node.op == "QConvDynamic"
    constants = [node.constants[i] if i < len(node.constants) else None for i in range(5)]
    weight, scale = constants[1], constants[2]
    if weight is None or scale is None or weight.dtype != np.int8:
        return "its weights are not i8 constants"
    start = 4 if is_dynamic else 3
    if len(node.inputs) > start and node.inputs[start] is not None and constants[start] is None:
        return "its bias is not constant"
    if not 3 <= weight.ndim <= 5:
        return f"no kernel of Numba for {weight.ndim - 2} spatial dimensions"
    return _Conv(node, weight, scale, constants[start])


class _Conv:
    """A convolution of bytes with i8 weights; bytes or f32 out."""

    def __init__(
        self, node: Node, weight: np.ndarray, scale: np.ndarray, start: np.ndarray | None
    ) -> None:
        count = weight.ndim - 2
        group = node.get("group", 1)
        self._is_dynamic = node.op == "QConvDynamic"
        self._to_bytes = not self._is_dynamic and node.get("to") == PACKED_BYTES
        self._rows, self._channels = weight.shape[0], weight.shape[-1] * group
        self._taps = list(weight.shape[1:-1])
        self._strides = node.get("strides", [1] * count)
        self._dilations = node.get("dilations", [1] * count)
        self._pads, self._auto = node.get("pads"), node.get("auto_pad")
        self._act = Activation.of(node)
        matrix = as_matrix(weight, group)
        self._packed = pack_bytes(matrix, weight)
        self._matrix = matrix if math.prod(self._taps) == 1 else None
        self._of_one: tuple[str, Any] | None = None
        self._scale = scale.astype(np.float32)
        self._start = np.zeros(self._rows, np.int32)
        self._bias = np.zeros(self._rows, np.float32)
        quant = list(node.get("quant", ()))
        self._zero = quant[0] if quant else 0
        if not self._is_dynamic:
            self._start -= np.int32(self._zero) * self._packed.row_sums
        if start is not None and self._to_bytes:
            self._start += start.astype(np.int32)
        elif start is not None:
            self._bias[:] = start
        sums = (node.get("alpha", 0.0), node.get("beta", 0.0))
        levels = [*quant[1:4], 0, 0, 0][:3]
        self._quant = _f32([*levels, *sums, *[*quant[4:], 0, 0, 0, 0][:4]])
        self.constants: Sequence[int] = (1, 2, 4) if self._is_dynamic else (1, 2, 3)
        self.format, self.why = self._packed.format, self._packed.why
        self.kernel = f"qrows_{self.format}_i8_{LANES}"
        self.weights = int(weight.size)
        self.nonzeros = int(np.count_nonzero(weight))
        self.packed_bytes = self._packed.nbytes
        self._shapes: dict[Any, Any] = {}

    def _lay_out(self, shape: tuple[int, ...]) -> Any:
        size, planes_ = shape[2:], -(-self._channels // 4)
        if len(size) != len(self._taps) or shape[1] != planes_:
            raise ValueError(
                f"the input has shape {list(shape)}; expected {planes_} packed planes for "
                f"{self._channels} channels and {len(self._taps)} more dimensions"
            )
        reach = [(k - 1) * d + 1 for k, d in zip(self._taps, self._dilations, strict=True)]
        begins, ends = window_pads(size, reach, self._strides, self._pads, self._auto)
        axes = zip(size, begins, ends, reach, self._strides, strict=True)
        out = [(n + b + e - r) // s + 1 for n, b, e, r, s in axes]
        if min(out) < 0:
            raise ValueError(f"the window {reach} does not fit into the padded input {list(size)}")
        groups = -(-self._rows // 4) if self._to_bytes else self._rows
        y_shape = (shape[0], groups, *out)
        outputs = math.prod(out)
        if outputs == 0:
            return None, None, None, (), None, None, y_shape, 0
        g = Geometry.of(size, self._taps, self._strides, self._dilations, begins, out)
        if self._matrix is not None and outputs == 1 and g.is_direct:
            if self._of_one is None:
                self._of_one = of_one_column(self._matrix)
            name, weights = self._of_one
            kernel = qrows.qvector_csr if name == "csr" else qrows.qvector_dense
            self.format, self.kernel = name, f"qvector_{name}_i8_{LANES}"
            tiles = np.array([[0, 1, 0, 1]], np.int32)
            segments = np.array([[0, 0, 1]], np.int32)
            bands = -(-self._rows // 4)
            sizes = (planes_, groups, 1, 1, bands, self._rows)
            return g, kernel, weights, sizes, tiles, segments, y_shape, shape[0] * bands
        if planes_ * g.image >= 2**31:
            raise ValueError(f"the input {list(shape)} is too large for a kernel of Numba")
        shift = (np.arange(planes_, dtype=np.int64)[:, None] * g.image + g.taps).reshape(-1)
        packed = self._packed
        widest = qrows.WIDEST if packed.format == "csr" else qrows.WIDEST_OF_FOUR
        tiles, segments = g.tables(widest)
        bands = -(-self._rows // qrows.HEIGHT)
        sizes = (g.image * planes_, groups * outputs, outputs, len(tiles), bands, self._rows)
        weights = (packed.values, shift.astype(np.int32)[packed.places], packed.row_ptr)
        tasks = shape[0] * len(tiles) * bands
        return g, _KERNELS[packed.format], weights, sizes, tiles, segments, y_shape, tasks

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        x, *rest = inputs
        start, scale, zero = self._start, self._scale, self._zero
        if self._is_dynamic:
            step, *rest = rest
            zero = int(step[1])
            start = np.int32(-zero) * self._packed.row_sums
            scale = step[0] * scale
        residual = rest[0] if rest else None
        found = self._shapes.get(x.shape)
        if found is None:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            found = self._shapes[x.shape] = self._lay_out(x.shape)
        g, kernel, weights, sizes, tiles, segments, y_shape, tasks = found
        y = room.empty(y_shape, np.uint32 if self._to_bytes else np.float32)
        if tasks == 0:
            return (y,)
        if residual is not None and residual.shape != y.shape:
            raise ValueError(f"the residual has shape {residual.shape}; expected {y.shape}")
        flat = _spread(x, g, zero, room)
        other = as_floats(room.plain(residual)) if residual is not None else as_floats(y)
        out = (start, scale, self._bias, other, as_floats(y))
        sizes = (*sizes, int(residual is not None), int(self._to_bytes))
        end = (self._act.arguments, self._quant)
        room.launch(kernel, (flat, weights, sizes, tiles, segments, out, end), tasks)
        return (self._act.finish(y),)


def _spread(x: np.ndarray, g: Geometry, zero: int, room: Room) -> np.ndarray:
    """Returns packed planes as the windows of a geometry read them."""
    if g.is_direct:
        return room.flat(x)
    count = x.shape[0] * x.shape[1]
    flat = room.empty((count * g.image,), np.uint32)
    # Four equal bytes are a float that arithmetic leaves alone: a normal one, 0 or a quiet NaN.
    fill = np.full(4, zero, np.uint8).view(np.float32)[0]
    spread = (as_floats(room.plain(x)), as_floats(flat), g.window, g.phases, fill)
    room.launch(planes.split_planes, spread, count)
    return flat


def _planes_of(x: np.ndarray) -> tuple[int, int]:
    """Tasks and columns of a packed array."""
    return x.shape[0] * x.shape[1], math.prod(x.shape[2:])


@makes("QuantizePacked", "sparsert")
@makes("QuantizeDynamic", "sparsert")
class _Quantize(StepWithoutWeights):
    """f32 [N, C, ...] to bytes; of QuantizeDynamic by the range that x has."""

    def __init__(self, node: Node) -> None:
        self._is_dynamic = node.op == "QuantizeDynamic"
        self._scale, self._quant = node.get("alpha", 1.0), node.get("quant", (0, 0, 255))
        self.kernel = f"quantize_i8_{LANES}"

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        (x,) = inputs
        scale, quant = np.float32(self._scale), self._quant
        if self._is_dynamic:
            scale, zero = range_of(x)
            quant = (zero, 0, 255)
        groups = -(-x.shape[1] // 4)
        y = room.empty((x.shape[0], groups, *x.shape[2:]), np.uint32)
        tasks, columns = _planes_of(y)
        sizes = (x.shape[1], groups, columns)
        arguments = (room.plain(x), as_floats(y), sizes, scale, _f32(quant))
        room.launch(qplanes.quantize_planes, arguments, tasks if columns else 0)
        if self._is_dynamic:
            return y, np.array([scale, quant[0]], np.float32)
        return (y,)


@makes("DequantizePacked", "sparsert")
class _Dequantize(StepWithoutWeights):
    """Bytes to f32 [N, channels, ...]."""

    def __init__(self, node: Node) -> None:
        self._scale, self._zero = np.float32(node.get("alpha")), np.float32(node.get("quant")[0])
        self._channels = node.get("channels")
        self.kernel = f"dequantize_i8_{LANES}"

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        (x,) = inputs
        _check_channels(x, self._channels)
        y = room.empty((x.shape[0], self._channels, *x.shape[2:]))
        tasks, columns = _planes_of(x)
        sizes = (self._channels, x.shape[1], columns)
        arguments = (room.plain(x), as_floats(y), sizes, self._scale, self._zero)
        room.launch(qplanes.dequantize_planes, arguments, tasks if columns else 0)
        return (y,)


def _check_channels(x: np.ndarray, channels: int) -> None:
    if x.shape[1] != -(-channels // 4):
        raise ValueError(f"{channels} channels are not in {x.shape[1]} groups of four")


@makes("QAdd", "sparsert")
class _Add(StepWithoutWeights):
    """The sum of two tensors of bytes."""

    def __init__(self, node: Node) -> None:
        a_zero, b_zero, *quant = node.get("quant")
        self._quant = _f32([a_zero, node.get("alpha"), node.get("beta"), b_zero, *quant])
        self.kernel = f"add_i8_{LANES}"

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        a, b = inputs
        if a.shape != b.shape:
            raise ValueError(f"the operands have shapes {a.shape} and {b.shape}")
        y = room.empty(a.shape, np.uint32)
        tasks, columns = _planes_of(y)
        arguments = (room.plain(a), room.plain(b), as_floats(y), columns, self._quant)
        room.launch(qplanes.add_planes, arguments, tasks)
        return (y,)


@makes("QLookup", "sparsert")
def _make_lookup(node: Node) -> Step | str:
    table = node.constants[1]
    return "its table is not constant" if table is None else _Lookup(table)


class _Lookup(StepWithoutWeights):
    """Each byte becomes its entry of a table."""

    constants: Sequence[int] = (1,)

    def __init__(self, table: np.ndarray) -> None:
        self._table = np.ascontiguousarray(table)
        self.kernel = "lookup_i8"

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        (x,) = inputs
        y = room.empty(x.shape, np.uint32)
        tasks, columns = _planes_of(y)
        levels, out = room.plain(x).view(np.uint8), y.reshape(-1).view(np.uint8)
        room.launch(qplanes.lookup_planes, (levels, out, self._table, columns), tasks)
        return (y,)


@makes("QMaxPool", "sparsert")
@makes("QAveragePool", "sparsert")
class _Pool(StepWithoutWeights):
    """The largest byte, or the mean of bytes, of windows; without a window, of whole planes."""

    def __init__(self, node: Node) -> None:
        self._taps = list(node.get("kernel_shape", ()))
        ones = [1] * len(self._taps)
        self._strides, self._dilations = node.get("strides", ones), node.get("dilations", ones)
        self._pads, self._auto = node.get("pads"), node.get("auto_pad")
        self._ceil, self._counts_pads = (
            bool(node.get("ceil_mode")),
            bool(node.get("count_include_pad")),
        )
        self._is_max = node.op == "QMaxPool"
        self._alpha = np.float32(node.get("alpha", 1.0))
        self._zero, *quant = node.get("quant", (0,))
        self._quant = (np.int32(self._zero), *_f32(quant))
        self.kernel = f"{'max' if self._is_max else 'average'}_pool_i8_{LANES}"
        self._shapes: dict[Any, Any] = {}

    def _lay_out(self, size: tuple[int, ...]) -> Any:
        windows = PoolWindows.of(
            size,
            self._taps,
            self._strides,
            self._pads,
            self._dilations,
            self._auto,
            self._ceil,
        )
        args = (size, self._taps, self._strides, self._dilations, windows.begins, windows.out)
        g = Geometry.of(*args)
        segments = np.array(g.segments(0, g.columns), np.int32).reshape(-1, 3)
        counts = np.ones(g.columns + LANES, np.float32)
        if not self._is_max:
            found = windows.counts(self._counts_pads).reshape(-1)
            for start, at, count in segments:
                counts[start : start + count] = found[at : at + count]
        return g, segments, counts, (g.image, math.prod(windows.out), g.columns)

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        (x,) = inputs
        if not self._taps:
            return self._mean(x, room)
        size = x.shape[2:]
        if size not in self._shapes:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            self._shapes[size] = self._lay_out(size)
        g, segments, counts, sizes = self._shapes[size]
        y = room.empty((*x.shape[:2], *g.out), np.uint32)
        tasks = x.shape[0] * x.shape[1] if sizes[1] else 0
        if tasks == 0:
            return (y,)
        flat = _spread(x, g, 0 if self._is_max else self._zero, room)
        if self._is_max:
            room.launch(qplanes.max_planes, (flat, as_floats(y), g.taps, sizes, segments), tasks)
            return (y,)
        arguments = (flat, as_floats(y), g.taps, counts, sizes, segments, self._alpha, self._quant)
        room.launch(qplanes.average_planes, arguments, tasks)
        return (y,)

    def _mean(self, x: np.ndarray, room: Room) -> _Arrays:
        y = room.empty((*x.shape[:2], *[1] * (x.ndim - 2)), np.uint32)
        tasks, columns = _planes_of(x)
        arguments = (room.plain(x), as_floats(y), columns, self._alpha, self._quant)
        room.launch(qplanes.mean_planes, arguments, tasks)
        return (y,)


@makes("QElementwise", "sparsert")
def _make_elementwise(node: Node) -> Step | str:
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if node.constants[1] is None or (has_bias and node.constants[2] is None):
        return "its scales or bias are not constant"
    if node.get("to") == PACKED_BYTES and not Activation.of(node).is_whole:
        return f"no kernel of Numba for the activation {node.get('act')}"
    return _Elementwise(node)


class _Elementwise(StepWithoutWeights):
    """Bytes, a bias per channel, a residual and an activation."""

    constants: Sequence[int] = (1, 2)

    def __init__(self, node: Node) -> None:
        scales = node.constants[1]
        assert scales is not None
        self._scales = _f32(scales)
        self._bias = node.constants[2] if len(node.constants) > 2 else None
        self._channels = node.get("channels")
        self._to_bytes = node.get("to") == PACKED_BYTES
        self._quant = _f32([*node.get("quant"), 0, 0, 0][:5])
        self._act = Activation.of(node)
        self.kernel = f"change_i8_{LANES}"

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        x, *rest = inputs
        _check_channels(x, self._channels)
        residual = rest[0] if rest else None
        floats = (x.shape[0], self._channels, *x.shape[2:])
        kind = 0
        if residual is not None:
            kind = 2 if residual.dtype == np.uint32 else 1
            expected = x.shape if kind == 2 else floats
            if residual.shape != expected:
                raise ValueError(f"the residual has shape {residual.shape}; expected {expected}")
        y = room.empty(x.shape if self._to_bytes else floats, np.uint32 if self._to_bytes else "f4")
        tasks, columns = _planes_of(x)
        out = as_floats(y)
        other = as_floats(room.plain(residual)) if residual is not None else out
        bias = np.zeros(1, np.float32) if self._bias is None else self._bias
        has_bias = int(self._bias is not None)
        sizes = (self._channels, x.shape[1], columns, has_bias, kind, int(self._to_bytes))
        end = (self._scales, self._quant, self._act.arguments)
        arguments = (room.plain(x), out, bias, other, sizes, *end)
        room.launch(qplanes.change_planes, arguments, tasks if columns else 0)
        return (self._act.finish(y),)
