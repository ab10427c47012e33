"""Steps of pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.kernels import planes
from sparsert.kernels.lanes import LANES
from sparsert.runtime.numba_geometry import MAX_SHAPES, Geometry
from sparsert.runtime.numba_ops import Node, Step, StepWithoutWeights, makes
from sparsert.runtime.numpy_windows import PoolWindows

if TYPE_CHECKING:
    from sparsert.runtime.numba_room import Room

_Arrays = Sequence[Any]


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


class _Pool(StepWithoutWeights):
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
        g = Geometry.of(
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
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            found = self._shapes[x.shape] = self._lay_out(x.shape)
        g, segments, shares, out = found
        y = room.empty((*x.shape[:2], *out))
        count = x.shape[0] * x.shape[1]
        flat = room.empty((count * g.image,))
        fill = np.float32(-np.inf if self._is_max else 0)
        work = flat.size // LANES
        room.launch(
            planes.split_planes, (room.plain(x), flat, g.window, g.phases, fill), count, work
        )
        sizes = (g.image, math.prod(out), g.columns)
        pool = (flat, y.reshape(-1), g.taps, shares, sizes, segments)
        work = y.size * len(g.taps) // LANES
        room.launch(planes.pool_planes, pool, count if y.size else 0, work)
        return (y,)


@makes("GlobalAveragePool")
def _make_mean(node: Node) -> Step | str:
    return _Mean() if node.inputs[0] == np.float32 else "no kernel of Numba for this type"


class _Mean(StepWithoutWeights):
    """The mean of each plane."""

    kernel = f"mean_f32_{LANES}"

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        (x,) = inputs
        y = room.empty((*x.shape[:2], *[1] * (x.ndim - 2)))
        size = math.prod(x.shape[2:])
        room.launch(
            planes.mean_planes, (room.plain(x), y.reshape(-1), size), y.size, x.size // LANES
        )
        return (y,)
