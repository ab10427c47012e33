"""Steps of layers with weights: convolutions and linear ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.kernels import depthwise, planes, rows, vectors
from sparsert.kernels.lanes import LANES
from sparsert.runtime.numba_geometry import MAX_SHAPES, Geometry
from sparsert.runtime.numba_ops import Activation, Node, Step, makes
from sparsert.runtime.numba_weights import Packed, arguments, pack
from sparsert.runtime.numpy_windows import window_pads

if TYPE_CHECKING:
    from sparsert.runtime.numba_room import Room

_Arrays = Sequence[Any]

_KERNELS = {"csr": rows.rows_csr, "bits": rows.rows_bits, "dense": rows.rows_four}
_KERNELS["bsr4"] = rows.rows_four


# Bytes of inputs that stay in the L1 of any machine, beside weights and sums.
_SLAB_BYTES = 24 << 10
_SLAB_WEIGHTS = 10


def _slab(packed: Packed, plane_bytes: int, planes_: int, columns: int, groups: int) -> int:
    """Returns how many columns of weights to take at a time; 0: all.

    Args:
        packed: the weights.
        plane_bytes: that a tile reads of one plane.
        planes_: planes of the input.
        columns: of weights, for each plane.
        groups: of a convolution.
    """
    if groups > 1 or packed.format == "bits" or packed.size:
        return 0
    if plane_bytes * planes_ <= 2 * _SLAB_BYTES:
        return 0
    slab = max(4, _SLAB_BYTES // plane_bytes)
    # Sums go to scratch and back for each slab: a row should have that many weights in it.
    rows_ = packed.row_ptr.size - 1
    per_row = packed.places.size / max(1, rows_ * planes_)
    slab = max(slab, math.ceil(_SLAB_WEIGHTS / max(per_row, 1e-9)))
    return 0 if 2 * slab > planes_ else slab * columns


def _kernel(packed: Packed) -> Any:
    return rows.rows_wide if packed.size else _KERNELS[packed.format]


def _widest(packed: Packed) -> int:
    return rows.WIDEST_OF_FOUR if packed.is_four else rows.WIDEST


class _Weighted:
    """A step with a matrix of weights."""

    constants: Sequence[int] = (1, 2)

    def __init__(self, node: Node, op: str, packed: Packed, weight: np.ndarray) -> None:
        self._packed = packed
        self._act = Activation.of(node)
        bias = node.constants[2] if len(node.constants) > 2 else None
        self._bias = np.zeros(weight.shape[0], np.float32)
        if bias is not None:
            self._bias[:] = bias
        self.format = packed.format
        self.kernel = f"{op}_{packed.format}_f32_{LANES}"
        self.why = packed.why
        self.weights = int(weight.size)
        self.nonzeros = int(np.count_nonzero(weight))
        self.packed_bytes = packed.nbytes
        self._shapes: dict[Any, Any] = {}

    def _of_shape(self, shape: Any) -> Any:
        found = self._shapes.get(shape)
        if found is None:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            found = self._shapes[shape] = self._lay_out(shape)
        return found

    def _lay_out(self, shape: Any) -> Any:
        raise NotImplementedError


def _constant_f32(node: Node, *indices: int) -> bool:
    arrays = [node.constants[i] if i < len(node.constants) else None for i in indices]
    return all(x is not None and x.dtype == np.float32 for x in arrays)


def _check_residual(residual: np.ndarray | None, y: np.ndarray) -> None:
    if residual is not None and residual.shape != y.shape:
        raise ValueError(f"the residual has shape {residual.shape}; expected {y.shape}")


def _why_not(node: Node) -> str | None:
    """Why a weighted node has no step."""
    if not _constant_f32(node, 1):
        return "its weights are not f32 constants"
    bias = len(node.inputs) > 2 and (node.inputs[2] is not None or node.constants[2] is not None)
    if bias and not _constant_f32(node, 2):
        return "its bias is not an f32 constant"
    return None


@makes("Conv", "sparsert")
def _make_conv(node: Node) -> Step | str:
    weight = node.constants[1]
    reason = _why_not(node)
    if reason is not None or weight is None:
        return reason or ""
    if not 3 <= weight.ndim <= 5:
        return f"no kernel of Numba for {weight.ndim - 2} spatial dimensions"
    packed = pack(weight.reshape(weight.shape[0], -1), node.get("group", 1))
    is_depthwise = weight.shape[1] == 1 < node.get("group", 1) and packed.format == "csr"
    return (_Depthwise if is_depthwise else _Conv)(node, weight, packed)


class _Conv(_Weighted):
    """act(conv(x, weight) + bias + residual) over planes."""

    op = "conv"

    def __init__(self, node: Node, weight: np.ndarray, packed: Packed) -> None:
        count = weight.ndim - 2
        self._group = node.get("group", 1)
        super().__init__(node, self.op, packed, weight)
        self._channels = weight.shape[1] * self._group
        self._rows = weight.shape[0]
        self._taps = list(weight.shape[2:])
        self._strides = node.get("strides", [1] * count)
        self._dilations = node.get("dilations", [1] * count)
        self._pads, self._auto = node.get("pads"), node.get("auto_pad")

    def _geometry(self, shape: Any) -> tuple[Geometry | None, tuple[int, ...]]:
        """Where the inputs are, if there are outputs, and the shape of these."""
        size = shape[2:]
        if len(size) != len(self._taps) or shape[1] != self._channels:
            raise ValueError(
                f"the input has shape {list(shape)}; expected {self._channels} channels and "
                f"{len(self._taps)} more dimensions"
            )
        reach = [(k - 1) * d + 1 for k, d in zip(self._taps, self._dilations, strict=True)]
        begins, ends = window_pads(size, reach, self._strides, self._pads, self._auto)
        out = [
            (size[i] + begins[i] + ends[i] - reach[i]) // self._strides[i] + 1
            for i in range(len(size))
        ]
        if min(out) < 0:
            raise ValueError(f"the window {reach} does not fit into the padded input {list(size)}")
        y_shape = (shape[0], self._rows, *out)
        if 0 in out:
            return None, y_shape
        return Geometry.of(size, self._taps, self._strides, self._dilations, begins, out), y_shape

    def _lay_out(self, shape: Any) -> Any:
        g, y_shape = self._geometry(shape)
        if g is None:
            return None, None, None, y_shape, 0
        shift = (np.arange(self._channels, dtype=np.int64)[:, None] * g.image + g.taps).reshape(-1)
        if shift.size and shift[-1] + g.columns >= 2**31:
            raise ValueError(f"the input {list(shape)} is too large for a kernel of Numba")
        tiles, segments = g.tables(_widest(self._packed))
        outputs = math.prod(g.out)
        spread = int(g.taps.max() - g.taps.min()) if len(g.phases) == 1 else 0
        reads = 4 * (len(g.phases) * int(tiles[:, 1].max()) * LANES + spread)
        slab = _slab(self._packed, reads, self._channels, len(g.taps), self._group)
        height = rows.SLAB_HEIGHT if slab else rows.HEIGHT
        bands = -(-self._rows // height)
        image = g.image * self._channels
        sizes = (image, outputs * self._rows, outputs, len(tiles), bands, self._rows, height)
        weights = arguments(self._packed, shift.astype(np.int32), slab)
        return g, weights, (sizes, tiles, segments), y_shape, shape[0] * len(tiles) * bands

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        x = inputs[0]
        residual = inputs[1] if len(inputs) > 1 else None
        g, weights, tables, shape, tasks = self._of_shape(x.shape)
        y = room.empty(shape)
        if tasks == 0:
            return (self._act.finish(y),)
        _check_residual(residual, y)
        if g.is_direct:
            flat = room.flat(x)
        else:
            flat = room.empty((x.shape[0] * self._channels * g.image,))
            count = x.shape[0] * self._channels
            spread = (room.plain(x), flat, g.window, g.phases, np.float32(0))
            room.launch(planes.split_planes, spread, count, flat.size // LANES)
        sizes, tiles, segments = tables
        y_flat = y.reshape(-1)
        has_residual = residual is not None
        other = room.plain(residual) if residual is not None else y_flat
        sizes = (*sizes[:6], int(has_residual), 0, sizes[6])
        out = (self._bias, other, y_flat)
        room.launch(
            _kernel(self._packed),
            (flat, weights, (sizes, tiles, segments, out, self._act.arguments)),
            tasks,
            x.shape[0] * int(tiles[:, 1].sum()) * self._packed.values.size,
        )
        return (self._act.finish(y),)


class _Depthwise(_Conv):
    """The same where each row of weights reads one channel: plane by plane."""

    op = "depthwise"

    def _lay_out(self, shape: Any) -> Any:
        g, y_shape = self._geometry(shape)
        if g is None:
            return None, None, y_shape, 0
        packed = self._packed
        weights = (packed.values, g.taps[packed.places % len(g.taps)], packed.row_ptr)
        geometry = (g.window, g.phases, g.lines, g.line, self._channels, g.image)
        return weights, geometry, y_shape, shape[0] * self._channels

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        x = inputs[0]
        residual = inputs[1] if len(inputs) > 1 else None
        weights, geometry, shape, tasks = self._of_shape(x.shape)
        y = room.empty(shape)
        _check_residual(residual, y)
        flat = y.reshape(-1)
        other = room.plain(residual) if residual is not None else flat
        out = (self._bias, other, residual is not None, flat)
        arguments = (room.plain(x), weights, geometry, out, self._act.arguments)
        work = y.size * (len(self._packed.values) // max(1, self._rows) + 1) // LANES
        room.launch(depthwise.depthwise_csr, arguments, tasks, work)
        return (self._act.finish(y),)


@makes("Linear", "sparsert")
def _make_linear(node: Node) -> Step | str:
    weight = node.constants[1]
    reason = _why_not(node)
    if reason is not None or weight is None:
        return reason or ""
    return Linear(node, weight, pack(weight))


class Linear(_Weighted):
    """act(x W' + bias + residual); x [..., K], W [N, K]."""

    def __init__(self, node: Node, weight: np.ndarray, packed: Packed) -> None:
        super().__init__(node, "linear", packed, weight)
        self._shape = weight.shape
        self._of_one = self._weights_of_one()

    def _weights_of_one(self) -> tuple[Any, Any]:
        """The kernel for a single vector, and the weights as it takes them."""
        packed = self._packed
        if packed.format == "csr":
            return vectors.vector_csr, (packed.values, packed.places, packed.row_ptr)
        if packed.format == "bits":
            return vectors.vector_bits, (packed.values, packed.places, packed.row_ptr)
        if packed.size:
            return vectors.vector_wide, (packed.values, packed.places, packed.row_ptr, packed.size)
        return vectors.vector_four, (packed.values, packed.places, packed.row_ptr)

    def _lay_out(self, shape: Any) -> Any:
        count, features = shape
        g = Geometry.of((count,), (1,), (1,), (1,), (0,), (count,))
        shift = (np.arange(features, dtype=np.int64) * count).astype(np.int32)
        tiles, segments = g.tables(_widest(self._packed))
        reads = 4 * int(tiles[:, 1].max(initial=0)) * LANES
        slab = _slab(self._packed, reads, features, 1, 1)
        height = rows.SLAB_HEIGHT if slab else rows.HEIGHT
        bands = -(-self._shape[0] // height)
        sizes = (0, 0, count, len(tiles), bands, self._shape[0], height)
        return arguments(self._packed, shift, slab), sizes, tiles, segments, len(tiles) * bands

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        x = inputs[0]
        residual = inputs[1] if len(inputs) > 1 else None
        outputs, features = self._shape
        if x.shape[-1] != features:
            raise ValueError(f"the input has shape {list(x.shape)}; expected [..., {features}]")
        y = room.empty((*x.shape[:-1], outputs))
        _check_residual(residual, y)
        count = math.prod(x.shape[:-1])
        y_flat = y.reshape(-1)
        if y_flat.size == 0:
            return (self._act.finish(y),)
        other = room.plain(residual) if residual is not None else y_flat
        act = self._act.arguments
        if count == 1:
            one = (self._bias, other, residual is not None)
            kernel, weights = self._of_one
            tasks = outputs if kernel is not vectors.vector_four else -(-outputs // 4)
            room.launch(
                kernel,
                (room.plain(x), y_flat, weights, one, act),
                tasks,
                self._packed.values.size // LANES,
            )
            return (self._act.finish(y),)
        weights, sizes, tiles, segments, tasks = self._of_shape((count, features))
        columns = room.empty((features * count,))
        bands = -(-features // LANES)
        turned = (room.plain(x), columns, count, features)
        room.launch(planes.to_columns, turned, bands, columns.size // LANES)
        sizes = (*sizes[:6], int(residual is not None), 1, sizes[6])
        out = (self._bias, other, y_flat)
        room.launch(
            _kernel(self._packed),
            (columns, weights, (sizes, tiles, segments, out, act)),
            tasks,
            int(tiles[:, 1].sum()) * self._packed.values.size,
        )
        return (self._act.finish(y),)
