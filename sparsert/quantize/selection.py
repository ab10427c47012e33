"""Chooses the layers that stay in float: by an accuracy that is to be kept, or by their SQNR."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.quantize.engine import make_runner
from sparsert.quantize.feeds import Feeds

if TYPE_CHECKING:
    import onnx

RANKING_FEEDS = 4  # feeds of the runs that rank layers


@dataclass(frozen=True)
class Choice:
    """Which layers stay in float.

    Attributes:
        kept_float: their names, and why.
        accuracy_float: of the float model, as `evaluate` says; None without it.
        accuracy: of the quantised one.
        output_errors: of the model's outputs when each layer alone is quantised: the squared
            differences over the squared outputs; empty where layers were not ranked.
    """

    kept_float: dict[str, str]
    accuracy_float: float | None = None
    accuracy: float | None = None
    output_errors: Mapping[str, float] | None = None


def choose_by_sqnr(sqnr: Mapping[str, float], least: float | None) -> Choice:
    """Leaves layers in float whose SQNR is below `least` decibels."""
    if least is None:
        return Choice({})
    return Choice(
        {name: f"SQNR below {least:g} dB" for name, value in sqnr.items() if value < least}
    )


def choose_by_accuracy(
    names: Sequence[str],
    build: Callable[[set[str]], onnx.ModelProto],
    feeds: Feeds,
    evaluate: Callable[[Any], float],
    max_drop: float,
    on_run: Callable[[int], None],
) -> Choice:
    """Leaves as few of the worst layers in float as keep the accuracy.

    Layers are ranked only when quantising all of them loses too much. How many of the worst must
    stay is then searched for by halving; the result itself has been evaluated.

    Args:
        names: of the layers.
        build: the names of layers in integers -> the model, quantised so.
        feeds: the calibration data; the first few rank layers.
        evaluate: a sparsert.Model -> its accuracy.
        max_drop: how much less than the float model's it may be.
        on_run: called after runs, with their number.
    """
    exact = accuracy_of(build(set()), evaluate)
    on_run(len(feeds))
    accuracy = accuracy_of(build(set(names)), evaluate)
    on_run(len(feeds))
    if _holds(exact, accuracy, max_drop):
        return Choice({}, exact, accuracy)
    errors = _rank(names, build, feeds[:RANKING_FEEDS], on_run)
    worst = sorted(names, key=lambda name: -errors[name])
    too_few, enough = 0, len(worst)
    accuracies = {enough: exact}
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        accuracies[middle] = accuracy_of(build(set(worst[middle:])), evaluate)
        on_run(len(feeds))
        if _holds(exact, accuracies[middle], max_drop):
            enough = middle
        else:
            too_few = middle
    if enough == len(worst):
        warnings.warn(
            f"quantize: no layer can be quantised within max_drop={max_drop:g}; the model stays in "
            "float",
            stacklevel=4,
        )
    kept = {
        name: f"number {place} by the error it causes in the outputs"
        for place, name in enumerate(worst[:enough], 1)
    }
    return Choice(kept, exact, accuracies[enough], errors)


def runs_of_choice(layers: int, feeds: int) -> int:
    """Returns the most runs that choose_by_accuracy() counts."""
    evaluations = 2 + max(layers - 1, 0).bit_length()
    return evaluations * feeds + (layers + 1) * min(feeds, RANKING_FEEDS)


def _holds(exact: float, accuracy: float, max_drop: float) -> bool:
    return exact - accuracy <= max_drop + 1e-9  # a drop of 0.99 - 0.98 is one of 0.01


def accuracy_of(model: onnx.ModelProto, evaluate: Callable[[Any], float]) -> float:
    """Returns what `evaluate` says of a model, which must be a number."""
    from sparsert.api import load

    accuracy = evaluate(load(model, tune=False))
    try:
        number = float(accuracy)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError(f"quantize: evaluate returned {accuracy!r}, expected a number")
    return number


def _rank(
    names: Sequence[str],
    build: Callable[[set[str]], onnx.ModelProto],
    feeds: Feeds,
    on_run: Callable[[int], None],
) -> dict[str, float]:
    """Returns, per layer, the relative squared error of the outputs when it alone is quantised."""
    run = make_runner(build(set()))
    exact = [run(feed) for feed in feeds]
    on_run(len(feeds))
    errors = {}
    for name in names:
        run = make_runner(build({name}))
        signal = noise = 0.0
        for feed, expected in zip(feeds, exact, strict=True):
            for key, array in run(feed).items():
                if array.dtype.kind == "f":
                    noise += float(np.square(array - expected[key], dtype=np.float64).sum())
                    signal += float(np.square(expected[key], dtype=np.float64).sum())
        on_run(len(feeds))
        errors[name] = noise / signal if signal > 0 else noise
    return errors
