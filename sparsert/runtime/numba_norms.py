"""Steps of normalisations of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.kernels import norms
from sparsert.kernels.lanes import LANES
from sparsert.runtime.numba_ops import Node, Step, StepWithoutWeights, makes

if TYPE_CHECKING:
    from sparsert.runtime.numba_room import Room

_Arrays = Sequence[Any]


@makes("LayerNormalization")
@makes("RMSNormalization")
def _make_norm(node: Node) -> Step | str:
    if any(dtype != np.float32 for dtype in node.inputs if dtype is not None):
        return "no kernel of Numba for this type"
    if node.outputs > 1:
        return "no kernel of Numba for the mean and the deviation"
    return _Norm(node)


class _Norm(StepWithoutWeights):
    """LayerNormalization and RMSNormalization."""

    def __init__(self, node: Node) -> None:
        self._axis = node.get("axis", -1)
        self._epsilon = np.float32(node.get("epsilon", 1e-5))
        self._centred = int(node.op == "LayerNormalization")
        self.kernel = f"{'layer' if self._centred else 'rms'}_norm_f32_{LANES}"

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        x, scale, *rest = inputs
        shape = x.shape[self._axis :]
        size = math.prod(shape)
        scale = room.plain(np.broadcast_to(scale, shape))
        given = rest[0] if rest else None
        bias = np.zeros(size, np.float32) if given is None else np.broadcast_to(given, shape)
        y = room.empty(x.shape)
        out = (y.reshape(-1), scale, room.plain(bias), self._centred, self._epsilon)
        tasks = y.size // size if size else 0
        room.launch(norms.norm_rows, (room.plain(x), *out), tasks, 4 * y.size // LANES)
        return (y,)
