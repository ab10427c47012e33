"""Which operators Numba's kernels run: the table from an operator to what makes its step."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparsert.kernels import activations, planes, rows, vectors
from sparsert.kernels.lanes import LANES
from sparsert.runtime.numba_weights import Packed, arguments, pack
from sparsert.runtime.numpy_functions import PoolWindows, window_pads

if TYPE_CHECKING:
    import onnx_ir as ir

    from sparsert.runtime.numba_room import Room

_Arrays = Sequence[Any]
# Geometries kept per step, one for each shape of its input.
_MAX_SHAPES = 16


class Step(Protocol):
    """What runs one node.

    Attributes:
        kernel: name of its kernel.
        format: of its weights; "" without any.
        why: the reason for the format.
        weights: elements of its weights.
        nonzeros: those that are not zero.
        packed_bytes: of its weights in memory.
        constants: indices of inputs that were read when it was made, and are not given to run().
    """

    kernel: str
    format: str
    why: str
    weights: int
    nonzeros: int
    packed_bytes: int
    constants: Sequence[int]

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        """Computes the outputs; memory and threads are the room's."""
        ...


@dataclasses.dataclass(frozen=True)
class Node:
    """A node of the graph as the makers of steps see it.

    Attributes:
        op: its type.
        attributes: values by name.
        constants: the value of each input that is a constant, else None.
        inputs: for each input its type, or None where it is absent.
        outputs: how many there are.
    """

    op: str
    attributes: dict[str, Any]
    constants: list[np.ndarray | None]
    inputs: list[np.dtype[Any] | None]
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        """Returns an attribute; the default if it is absent or empty."""
        value = self.attributes.get(name)
        return default if value is None or value == [] or value == () else value


# (domain, op) -> what makes its step, or says why there is none.
MAKERS: dict[tuple[str, str], Callable[[Node], Step | str]] = {}


def makes(op: str, domain: str = "") -> Callable[[Any], Any]:
    """Registers a function or class that makes the steps of an operator."""

    def register(maker: Any) -> Any:
        MAKERS[domain, op] = maker
        return maker

    return register


def make_step(node: ir.Node) -> Step | str:
    """Returns the step of a node, or why NumPy runs it."""
    maker = MAKERS.get((node.domain, node.op_type))
    if maker is None:
        return f"no kernel of Numba for {node.op_type}"
    return maker(read_node(node))


def read_node(node: ir.Node) -> Node:
    """Returns a node as the makers of steps see it."""
    constants: list[np.ndarray | None] = []
    inputs: list[np.dtype[Any] | None] = []
    for value in node.inputs:
        constant = None if value is None else value.const_value
        constants.append(None if constant is None else np.asarray(constant.numpy()))
        known = value is not None and value.dtype is not None
        inputs.append(np.dtype(value.dtype.numpy()) if known and value and value.dtype else None)
    values = {name: attribute.value for name, attribute in node.attributes.items()}
    return Node(node.op_type, values, constants, inputs, len(node.outputs))


class Activation:
    """act(), as the kernels take it: a number and two parameters."""

    def __init__(self, node: Node) -> None:
        fn = node.get("act") or "none"
        alpha, beta = node.get("act_alpha", 0.0), node.get("act_beta", 0.0)
        bounds = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
        if fn in bounds:
            fn, (alpha, beta) = "clip", bounds[fn]
        self.is_known = fn in activations.FUNCTIONS
        number = activations.FUNCTIONS.index(fn) if self.is_known else 0
        self.arguments = (number, np.float32(alpha), np.float32(beta))
        self.name = fn


def _tiles(columns: int, widest: int) -> list[tuple[int, int]]:
    """Cuts columns into tiles of about the same number of vectors: (first column, vectors)."""
    count = -(-columns // LANES)
    parts = -(-count // widest)
    ends = [count * i // parts for i in range(parts + 1)]
    return [(a * LANES, b - a) for a, b in itertools.pairwise(ends)]


@dataclasses.dataclass
class _Geometry:
    """Where the inputs of a window are, and where its outputs go, for one shape of the input."""

    out: tuple[int, ...]  # spatial
    is_direct: bool  # the planes of the input are used as they are
    window: np.ndarray  # for split_planes()
    phases: np.ndarray
    image: int  # elements of one plane with its phases
    taps: np.ndarray  # where each tap begins in it
    columns: int  # from the first output to the last, those between lines included
    lines: np.ndarray  # first column of each line of outputs
    line: int  # outputs of a line

    @staticmethod
    def of(
        size: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        begins: Sequence[int],
        out: Sequence[int],
    ) -> _Geometry:
        """Lays out windows over planes of up to three dimensions."""
        ones = [1] * (3 - len(size))
        pad = [0] * (3 - len(size))
        size, kernel, out3 = [*ones, *size], [*ones, *kernel], [*ones, *out]
        strides, dilations, begins = [*ones, *strides], [*ones, *dilations], [*pad, *begins]
        places = [[k * d for k in range(n)] for n, d in zip(kernel, dilations, strict=True)]
        quotient = [o + at[-1] // s for o, at, s in zip(out3, places, strides, strict=True)]
        is_direct = all(s == 1 for s in strides) and not any(begins) and quotient == list(size)
        used = [sorted({p % s for p in at}) for at, s in zip(places, strides, strict=True)]
        phases = [(d, h, w) for d in used[0] for h in used[1] for w in used[2]]
        number = {phase: i for i, phase in enumerate(phases)}
        _, high, wide = quotient
        plane = math.prod(quotient)
        taps = []
        for d in places[0]:
            for h in places[1]:
                for w in places[2]:
                    at = number[d % strides[0], h % strides[1], w % strides[2]] * plane
                    at += (d // strides[0]) * high * wide + (h // strides[1]) * wide
                    taps.append(at + w // strides[2])
        lines = [(d * high + h) * wide for d in range(out3[0]) for h in range(out3[1])]
        line = out3[2]
        if line == wide and out3[1] == high:
            lines, line = [0], math.prod(out3)
        elif line == wide:
            lines, line = [d * high * wide for d in range(out3[0])], out3[1] * wide
        return _Geometry(
            tuple(out),
            is_direct,
            np.array([size, strides, begins, quotient], np.int64),
            np.array(phases, np.int64),
            plane * len(phases),
            np.array(taps, np.int32),
            lines[-1] + line if line else 0,
            np.array(lines, np.int64),
            line,
        )

    def segments(self, begin: int, end: int) -> list[tuple[int, int, int]]:
        """Returns what of the columns from begin to end are outputs: (column, place, count)."""
        found = []
        first = int(np.searchsorted(self.lines, begin - self.line, side="right"))
        for i in range(first, len(self.lines)):
            start = int(self.lines[i])
            if start >= end:
                break
            low, high = max(start, begin), min(start + self.line, end)
            if low < high:
                found.append((low - begin, i * self.line + low - start, high - low))
        return found

    def tables(self, widest: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tiles and segments that the kernels of rows take."""
        tiles, segments = [], []
        for start, vectors_ in _tiles(self.columns, widest):
            mine = self.segments(start, start + vectors_ * LANES)
            tiles.append((start, vectors_, len(segments), len(segments) + len(mine)))
            segments += mine
        return np.array(tiles, np.int32).reshape(-1, 4), np.array(segments, np.int32).reshape(-1, 3)


_KERNELS = {"csr": rows.rows_csr, "bits": rows.rows_bits, "dense": rows.rows_four}
_KERNELS["bsr4"] = rows.rows_four


# Bytes of inputs that stay in the L1 of any machine, beside weights and sums.
_SLAB_BYTES = 24 << 10
_SLAB_WEIGHTS = 16


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

    constants = (1, 2)

    def __init__(self, node: Node, op: str, packed: Packed, weight: np.ndarray) -> None:
        self._packed = packed
        self._act = Activation(node)
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
            if len(self._shapes) >= _MAX_SHAPES:
                self._shapes.clear()
            found = self._shapes[shape] = self._lay_out(shape)
        return found

    def _lay_out(self, shape: Any) -> Any:
        raise NotImplementedError


def _constant_f32(node: Node, *indices: int) -> bool:
    arrays = [node.constants[i] if i < len(node.constants) else None for i in indices]
    return all(x is not None and x.dtype == np.float32 for x in arrays)


def _why_not(node: Node) -> str | None:
    """Why a weighted node has no step."""
    if not _constant_f32(node, 1):
        return "its weights are not f32 constants"
    bias = len(node.inputs) > 2 and (node.inputs[2] is not None or node.constants[2] is not None)
    if bias and not _constant_f32(node, 2):
        return "its bias is not an f32 constant"
    if not Activation(node).is_known:
        return f"no kernel of Numba for the activation {node.get('act')}"
    return None


@makes("Conv", "sparsert")
def _make_conv(node: Node) -> Step | str:
    weight = node.constants[1]
    reason = _why_not(node)
    if reason is not None or weight is None:
        return reason or ""
    if not 3 <= weight.ndim <= 5:
        return f"no kernel of Numba for {weight.ndim - 2} spatial dimensions"
    return _Conv(node, weight)


class _Conv(_Weighted):
    """act(conv(x, weight) + bias + residual) over planes."""

    def __init__(self, node: Node, weight: np.ndarray) -> None:
        count = weight.ndim - 2
        self._group = node.get("group", 1)
        packed = pack(weight.reshape(weight.shape[0], -1), self._group)
        super().__init__(node, "conv", packed, weight)
        self._channels = weight.shape[1] * self._group
        self._rows = weight.shape[0]
        self._taps = list(weight.shape[2:])
        self._strides = node.get("strides", [1] * count)
        self._dilations = node.get("dilations", [1] * count)
        self._pads, self._auto = node.get("pads"), node.get("auto_pad")

    def _lay_out(self, shape: Any) -> Any:
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
        if 0 in out:
            return None, None, None, None, (shape[0], self._rows, *out), 0
        g = _Geometry.of(size, self._taps, self._strides, self._dilations, begins, out)
        shift = (np.arange(self._channels, dtype=np.int64)[:, None] * g.image + g.taps).reshape(-1)
        if shift.size and shift[-1] + g.columns >= 2**31:
            raise ValueError(f"the input {list(shape)} is too large for a kernel of Numba")
        tiles, segments = g.tables(_widest(self._packed))
        outputs = math.prod(out)
        spread = int(g.taps.max() - g.taps.min()) if len(g.phases) == 1 else 0
        reads = 4 * (len(g.phases) * int(tiles[:, 1].max()) * LANES + spread)
        slab = _slab(self._packed, reads, self._channels, len(g.taps), self._group)
        height = rows.SLAB_HEIGHT if slab else rows.HEIGHT
        bands = -(-self._rows // height)
        image = g.image * self._channels
        sizes = (image, outputs * self._rows, outputs, len(tiles), bands, self._rows, height)
        weights = arguments(self._packed, shift.astype(np.int32), slab)
        y_shape = (shape[0], self._rows, *out)
        return g, weights, (sizes, tiles, segments), None, y_shape, shape[0] * len(tiles) * bands

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        x = inputs[0]
        residual = inputs[1] if len(inputs) > 1 else None
        g, weights, tables, _, shape, tasks = self._of_shape(x.shape)
        y = room.empty(shape)
        if tasks == 0:
            return (y,)
        if residual is not None and residual.shape != y.shape:
            raise ValueError(f"the residual has shape {residual.shape}; expected {y.shape}")
        if g.is_direct:
            flat = room.flat(x)
        else:
            flat = room.empty((x.shape[0] * self._channels * g.image,))
            count = x.shape[0] * self._channels
            spread = (room.plain(x), flat, g.window, g.phases, np.float32(0))
            room.launch(planes.split_planes, spread, count)
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
        )
        return (y,)


@makes("Linear", "sparsert")
def _make_linear(node: Node) -> Step | str:
    weight = node.constants[1]
    reason = _why_not(node)
    if reason is not None or weight is None:
        return reason or ""
    return _Linear(node, weight)


class _Linear(_Weighted):
    """act(x W' + bias + residual); x [..., K], W [N, K]."""

    def __init__(self, node: Node, weight: np.ndarray) -> None:
        super().__init__(node, "linear", pack(weight), weight)
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
        g = _Geometry.of((count,), (1,), (1,), (1,), (0,), (count,))
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
        if residual is not None and residual.shape != y.shape:
            raise ValueError(f"the residual has shape {residual.shape}; expected {y.shape}")
        count = math.prod(x.shape[:-1])
        y_flat = y.reshape(-1)
        if y_flat.size == 0:
            return (y,)
        other = room.plain(residual) if residual is not None else y_flat
        act = self._act.arguments
        if count == 1:
            out = (self._bias, other, residual is not None)
            kernel, weights = self._of_one
            tasks = outputs if kernel is not vectors.vector_four else -(-outputs // 4)
            room.launch(kernel, (room.plain(x), y_flat, weights, out, act), tasks)
            return (y,)
        weights, sizes, tiles, segments, tasks = self._of_shape((count, features))
        columns = room.empty((features * count,))
        bands = -(-features // LANES)
        turned = (room.plain(x), columns, count, features)
        room.launch(planes.to_columns, turned, bands)
        sizes = (*sizes[:6], int(residual is not None), 1, sizes[6])
        out = (self._bias, other, y_flat)
        room.launch(
            _kernel(self._packed), (columns, weights, (sizes, tiles, segments, out, act)), tasks
        )
        return (y,)


def _window(node: Node) -> tuple[Any, ...]:
    kernel = list(node.get("kernel_shape"))
    ones = [1] * len(kernel)
    return kernel, node.get("strides", ones), node.get("dilations", ones)


@makes("MaxPool")
@makes("AveragePool")
def _make_pool(node: Node) -> Step | str:
    if node.inputs[0] != np.float32:
        return "no kernel of Numba for this type"
    if len(node.get("kernel_shape")) > 3:
        return f"no kernel of Numba for {len(node.get('kernel_shape'))} spatial dimensions"
    if node.outputs > 1:
        return "no kernel of Numba for indices"
    return _Pool(node)


class _Unweighted:
    """A step without weights."""

    format = why = ""
    weights = nonzeros = packed_bytes = 0
    constants: Sequence[int] = ()


class _Pool(_Unweighted):
    """The max or the mean of windows."""

    def __init__(self, node: Node) -> None:
        self._is_max = node.op == "MaxPool"
        self.kernel = f"{'max' if self._is_max else 'average'}_pool_f32_{LANES}"
        self._taps, self._strides, self._dilations = _window(node)
        self._pads, self._auto = node.get("pads"), node.get("auto_pad")
        self._ceil = bool(node.get("ceil_mode"))
        self._counts_pads = bool(node.get("count_include_pad"))
        self._shapes: dict[Any, Any] = {}

    def _lay_out(self, shape: tuple[int, ...]) -> Any:
        windows = PoolWindows.of(
            shape[2:],
            self._taps,
            self._strides,
            self._pads,
            self._dilations,
            self._auto,
            self._ceil,
        )
        g = _Geometry.of(
            shape[2:], self._taps, self._strides, self._dilations, windows.begins, windows.out
        )
        segments = np.array(g.segments(0, g.columns), np.int32).reshape(-1, 3)
        shares = np.zeros(0, np.float32)
        if not self._is_max:
            shares = np.zeros(g.columns, np.float32)
            counts = 1 / windows.counts(self._counts_pads).reshape(-1)
            for start, at, count in segments:
                shares[start : start + count] = counts[at : at + count]
        return g, segments, shares, tuple(windows.out)

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        (x,) = inputs
        found = self._shapes.get(x.shape)
        if found is None:
            if len(self._shapes) >= _MAX_SHAPES:
                self._shapes.clear()
            found = self._shapes[x.shape] = self._lay_out(x.shape)
        g, segments, shares, out = found
        y = room.empty((*x.shape[:2], *out))
        count = x.shape[0] * x.shape[1]
        flat = room.empty((count * g.image,))
        fill = np.float32(-np.inf if self._is_max else 0)
        room.launch(planes.split_planes, (room.plain(x), flat, g.window, g.phases, fill), count)
        sizes = (g.image, math.prod(out), g.columns)
        pool = (flat, y.reshape(-1), g.taps, shares, sizes, segments)
        room.launch(planes.pool_planes, pool, count if y.size else 0)
        return (y,)


@makes("GlobalAveragePool")
def _make_mean(node: Node) -> Step | str:
    return _Mean() if node.inputs[0] == np.float32 else "no kernel of Numba for this type"


class _Mean(_Unweighted):
    """The mean of each plane."""

    kernel = f"mean_f32_{LANES}"

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        (x,) = inputs
        y = room.empty((*x.shape[:2], *[1] * (x.ndim - 2)))
        size = math.prod(x.shape[2:])
        room.launch(planes.mean_planes, (room.plain(x), y.reshape(-1), size), y.size)
        return (y,)
