"""The steps of recurrent layers: what follows the products of a state with its weights.

Arguments that the kernels share; everything is f32 and flat, and a task is a sequence:

    x         [steps, sequences, gates H]: the inputs' products with their weights
    place     i64 [sequences]: the step of x and y that a sequence is at; -1: it is over
    products  [sequences, gates H]: those of the state
    h         [sequences, H]: the state
    y         [steps, sequences, H]: the states
    acts      for each of the layer's functions its number and parameters
    clip      what gates are bounded by
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.activations import activate
from sparsert.kernels.compiling import inner, kernel, outline
from sparsert.kernels.lanes import aligned

_ONE = np.float32(1)


@inner
def _add(a: Any, b: Any, y: Any) -> None:
    for i in range(y.size):
        y[i] = a[i] + b[i]


@inner
def _add_product(a: Any, b: Any, y: Any) -> None:
    for i in range(y.size):
        y[i] += a[i] * b[i]


@inner
def _copy(x: Any, y: Any) -> None:
    for i in range(y.size):
        y[i] = x[i]


@outline
def _gate(y: Any, act: Any, clip: float) -> None:
    """Bounds y and replaces it by a function of it."""
    activate(y, 0, y.size, 0, -clip, clip)
    activate(y, 0, y.size, act[0], act[1], act[2])


@kernel
def rnn_step(
    x: Any, place: Any, products: Any, h: Any, y: Any, acts: Any, clip: float, begin: int, end: int
) -> None:
    """A plain step: h = f(x + products)."""
    hidden = h.size // place.size
    for n in range(begin, end):
        if place[n] < 0:
            continue
        at, first = (place[n] * place.size + n) * hidden, n * hidden
        state = h[first : first + hidden]
        _add(x[at : at + hidden], products[first : first + hidden], state)
        _gate(state, acts[0], clip)
        _copy(state, y[at : at + hidden])


@kernel
def lstm_step(
    x: Any, place: Any, products: Any, h: Any, c: Any, peephole: Any, y: Any, acts: Any,
    clip: float, input_forget: int, begin: int, end: int,
) -> None:  # fmt: skip
    """A step of an LSTM with the gates i, o, f and c.

    c: the cells, like h; peephole: [3 H], or empty; input_forget: f is 1 - i.
    """
    hidden = h.size // place.size
    gates = aligned(4 * hidden)
    from_in, from_out = gates[:hidden], gates[hidden : 2 * hidden]
    forget, new = gates[2 * hidden : 3 * hidden], gates[3 * hidden :]
    for n in range(begin, end):
        if place[n] < 0:
            continue
        at, first = (place[n] * place.size + n) * hidden, n * hidden
        given = x[4 * at : 4 * (at + hidden)]
        _add(given, products[4 * first : 4 * (first + hidden)], gates)
        cell, state = c[first : first + hidden], h[first : first + hidden]
        if peephole.size:
            _add_product(peephole[:hidden], cell, from_in)
            _add_product(peephole[2 * hidden :], cell, forget)
        _gate(from_in, acts[0], clip)
        _gate(forget, acts[0], clip)
        _gate(new, acts[1], clip)
        if input_forget:
            for i in range(hidden):
                forget[i] = _ONE - from_in[i]
        for i in range(hidden):
            cell[i] = forget[i] * cell[i] + from_in[i] * new[i]
        if peephole.size:
            _add_product(peephole[hidden : 2 * hidden], cell, from_out)
        _gate(from_out, acts[0], clip)
        _copy(cell, new)
        activate(new, 0, hidden, acts[2][0], acts[2][1], acts[2][2])
        for i in range(hidden):
            state[i] = from_out[i] * new[i]
        _copy(state, y[at : at + hidden])


@kernel
def gru_gates(
    x: Any, place: Any, products: Any, h: Any, update: Any, last: Any, acts: Any, clip: float,
    begin: int, end: int,
) -> None:  # fmt: skip
    """The gates z (to `update`, like h) and r of a GRU.

    last: r times the products of the third gate, or, where there are none, r times the state.
    """
    hidden = h.size // place.size
    count = products.size // h.size
    reset = aligned(hidden)
    for n in range(begin, end):
        if place[n] < 0:
            continue
        at, first = 3 * (place[n] * place.size + n) * hidden, n * hidden
        state, own = h[first : first + hidden], products[count * first :]
        gate, after = update[first : first + hidden], last[first : first + hidden]
        _add(x[at : at + hidden], own, gate)
        _gate(gate, acts[0], clip)
        _add(x[at + hidden : at + 2 * hidden], own[hidden : 2 * hidden], reset)
        _gate(reset, acts[0], clip)
        source = own[2 * hidden : 3 * hidden] if count == 3 else state
        for i in range(hidden):
            after[i] = reset[i] * source[i]


@kernel
def gru_step(
    x: Any, place: Any, h: Any, update: Any, last: Any, y: Any, acts: Any, clip: float,
    begin: int, end: int,
) -> None:  # fmt: skip
    """H = (1 - z) g(x + last) + z h, after gru_gates()."""
    hidden = h.size // place.size
    new = aligned(hidden)
    for n in range(begin, end):
        if place[n] < 0:
            continue
        at, first = (place[n] * place.size + n) * hidden, n * hidden
        state, gate = h[first : first + hidden], update[first : first + hidden]
        _add(x[3 * at + 2 * hidden : 3 * (at + hidden)], last[first : first + hidden], new)
        _gate(new, acts[1], clip)
        for i in range(hidden):
            state[i] = (_ONE - gate[i]) * new[i] + gate[i] * state[i]
        _copy(state, y[at : at + hidden])
