"""Chooses the layers that stay in float because integers gain no time there, by measurement."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.errors import SparsertError

if TYPE_CHECKING:
    import onnx

    from sparsert.runtime.model import Model

ROUNDS = 9
_TURN_SECONDS = 0.02
_PROFILE_RUNS = 9

Feed = Mapping[str, np.ndarray]


def choose_by_speed(
    names: Sequence[str],
    build: Callable[[Collection[str]], onnx.ModelProto],
    feed: Feed,
    least: float,
) -> dict[str, str]:
    """Returns which of the layers are to stay in float, and why.

    Each layer is timed within the model that is all float and within the one with all these layers
    in integers. Those that are less than `least` times as fast in integers go back to float if the
    whole model, with the conversions that this takes, then runs faster; else half of them, the
    slowest ones, are tried, and so on.

    Args:
        names: of the layers in integers.
        build: the names of layers in integers -> the model, quantised so.
        feed: what the models run on.
        least: how many times as fast as in float.
    """
    if not names:
        return {}
    try:
        best = _load(build(set(names)))
        floats, integers = _layer_times(_load(build(set())), feed), _layer_times(best, feed)
    except SparsertError as error:
        warnings.warn(f"quantize: min_speedup is ignored: {error}", stacklevel=4)
        return {}
    known = [name for name in names if name in floats and name in integers]
    slow = [name for name in known if floats[name] < least * integers[name]]
    slow.sort(key=lambda name: floats[name] - integers[name])
    while slow:
        mixed = _load(build(set(names) - set(slow)))
        if _speedup(mixed, best, feed) > 1:
            return {name: _reason(integers[name], floats[name]) for name in slow}
        slow = slow[: len(slow) // 2]
    return {}


def _reason(integer_ns: float, float_ns: float) -> str:
    return f"int8 {integer_ns / 1e3:.3g} us, float {float_ns / 1e3:.3g} us"


def _load(model: onnx.ModelProto) -> Model:
    from sparsert.api import load

    return load(model, strict=True)


def _layer_times(model: Model, feed: Feed) -> dict[str, float]:
    """Returns nanoseconds of the layers with weights, by name."""
    nodes: list[dict[str, Any]] = model.profile(feed, _PROFILE_RUNS).records
    return {node["name"]: node["time_ns"] for node in nodes if node["weights"]}


def _speedup(model: Model, other: Model, feed: Feed) -> float:
    """Returns how many times as fast as the other a model is: the median over alternating turns."""
    runs = max(1, round(_TURN_SECONDS / max(_turn(other, feed, 1), 1e-9)))
    ratios = []
    for number in range(ROUNDS):
        order = (model, other) if number % 2 else (other, model)
        seconds = {id(one): _turn(one, feed, runs) for one in order}
        ratios.append(seconds[id(other)] / seconds[id(model)])
    return statistics.median(ratios)


def _turn(model: Model, feed: Feed, runs: int) -> float:
    """Returns the seconds of some runs after one that does not count."""
    model.run(None, feed)
    begin = time.perf_counter()
    for _ in range(runs):
        model.run(None, feed)
    return time.perf_counter() - begin
