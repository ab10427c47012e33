"""Steps of recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.kernels import recurrent
from sparsert.kernels.lanes import LANES
from sparsert.runtime.numba_layers import Linear
from sparsert.runtime.numba_ops import Activation, Node, Step, makes
from sparsert.runtime.numba_weights import pack

if TYPE_CHECKING:
    from sparsert.runtime.numba_room import Room

_Arrays = Sequence[Any]
# What a step's functions of an element cost, in products of vectors.
_WORK_OF_CELL = 64


def _linear(weight: np.ndarray, bias: np.ndarray | None = None) -> Linear:
    node = Node("Linear", {}, [None, weight, bias], [None] * 3, 1)
    return Linear(node, weight, pack(weight))


@makes("Recurrent", "sparsert")
def _make_recurrent(node: Node) -> Step | str:
    weight = node.constants[1]
    if weight is None or weight.dtype != np.float32 or node.inputs[0] != np.float32:
        return "its weights are not f32 constants"
    constants = [*node.constants, *[None] * 9][:9]
    names = node.get("activations")
    parameters = constants[8] if constants[8] is not None else np.zeros((len(names), 2))
    acts = [Activation(fn, a, b) for fn, (a, b) in zip(names, parameters, strict=True)]
    if not all(act.is_whole for act in acts):
        return f"no kernel of Numba for its activations {', '.join(names)}"
    return _Recurrent(node, weight, constants, tuple(act.arguments for act in acts))


class _Recurrent:
    """The steps of an LSTM, GRU or plain recurrent layer."""

    constants: Sequence[int] = (1, 2, 3, 7, 8)

    def __init__(
        self, node: Node, weight: np.ndarray, constants: list[Any], acts: tuple[Any, ...]
    ) -> None:
        self._cell, self._acts = node.get("cell"), acts
        self._clip = np.float32(node.get("clip", math.inf))
        self._reverse = bool(node.get("reverse"))
        self._input_forget = int(bool(node.get("input_forget")))
        self._outputs = node.outputs
        self._hidden = weight.shape[1]
        self._gates = {"rnn": 1, "lstm": 4, "gru": 3}[self._cell]
        self._product = _linear(weight, constants[2])
        candidate, peephole = constants[3], constants[7]
        self._candidate = None if candidate is None else _linear(candidate)
        self._peephole = np.zeros(0, np.float32) if peephole is None else np.array(peephole)
        parts = [self._product] + ([] if self._candidate is None else [self._candidate])
        self.format, self.why = self._product.format, self._product.why
        self.kernel = f"{self._cell}_{self.format}_f32_{LANES}"
        self.weights = sum(part.weights for part in parts)
        self.nonzeros = sum(part.nonzeros for part in parts)
        self.packed_bytes = sum(part.packed_bytes for part in parts)

    def _places(self, steps: int, lengths: np.ndarray | None, count: int) -> np.ndarray:
        """The step of x that each sequence is at: i64 [steps, count], -1 where it is over."""
        ends = np.full(count, steps) if lengths is None else np.clip(lengths, 0, steps)
        at = np.arange(steps)[:, None]
        return np.where(at < ends, ends - 1 - at if self._reverse else at, -1).astype(np.int64)

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        x, initial_h, initial_c, lengths = [*inputs, None, None, None][:4]
        steps, count = x.shape[:2]
        if x.shape[2] != self._gates * self._hidden:
            raise ValueError(
                f"the input has shape {list(x.shape)}; expected {self._gates * self._hidden} "
                "elements a step"
            )
        y = room.empty((steps, count, self._hidden))
        states = []
        for initial in (initial_h, initial_c):
            state = room.empty((count, self._hidden))
            state[...] = 0 if initial is None else initial
            if lengths is not None:
                state[lengths <= 0] = 0
            states.append(state)
        h, c = states
        if lengths is not None:
            y[...] = 0
        if y.size:
            flat = [array.reshape(-1) for array in (h, c, y)]
            for place in self._places(steps, lengths, count):
                self._step(room.plain(x), place, h, flat, room)
        return (y, h, c)[: self._outputs]

    def _step(
        self, x: np.ndarray, place: np.ndarray, state: np.ndarray, flat: list[Any], room: Room
    ) -> None:
        h, c, y = flat
        tasks, work = place.size, h.size * _WORK_OF_CELL // LANES
        (products,) = self._product.run([state], room)
        given = (x, place, products.reshape(-1), h)
        end = (self._acts, self._clip)
        if self._cell == "rnn":
            room.launch(recurrent.rnn_step, (*given, y, *end), tasks, work)
            return
        if self._cell == "lstm":
            cell = (c, self._peephole, y, *end, self._input_forget)
            room.launch(recurrent.lstm_step, (*given, *cell), tasks, work)
            return
        update, last = room.empty(h.shape), room.empty(state.shape)
        room.launch(recurrent.gru_gates, (*given, update, last.reshape(-1), *end), tasks, work)
        if self._candidate is not None:
            (last,) = self._candidate.run([last], room)
        arguments = (x, place, h, update, last.reshape(-1), y, *end)
        room.launch(recurrent.gru_step, arguments, tasks, work)
