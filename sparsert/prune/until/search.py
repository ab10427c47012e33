"""Chooses a pattern and a sparsity for each layer: the least loss within a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WIDEST, NARROWEST = 1.0, 0.25  # steps of explore(): deviations of the factors' logarithms
BINS = 5000  # of the limit; costs are rounded up to whole ones


@dataclass(frozen=True)
class Choice:
    """One way to prune a layer.

    Attributes:
        pattern: of its zeros; "" while it has none.
        sparsity: share of zeros.
        cost: seconds or bytes.
        loss: what it harms.
    """

    pattern: str
    sparsity: float
    cost: float
    loss: float


def choose(options: Mapping[str, Sequence[Choice]], limit: float) -> dict[str, Choice] | None:
    """Returns a choice for each layer with the least sum of losses, by dynamic programming.

    That is a knapsack with one item of each layer, as SPDY solves it (Frantar and Alistarh, 2022).

    Args:
        options: of each layer, at least one.
        limit: the sum of their costs must not exceed it.

    Returns:
        None if even the cheapest choices exceed the limit.
    """
    useful = {name: _not_beaten(choices) for name, choices in options.items()}
    if not useful:
        return {}
    if limit <= 0 or sum(choices[-1].cost for choices in useful.values()) > limit:
        return None
    best = np.zeros(BINS + 1)  # least loss of the layers so far, by the bins that they may use
    picks = []
    for choices in useful.values():
        losses = np.full((len(choices), BINS + 1), np.inf)
        for row, choice in zip(losses, choices, strict=True):
            bins = math.ceil(choice.cost / limit * BINS - 1e-9)
            if bins <= BINS:
                row[bins:] = best[: BINS + 1 - bins] + choice.loss
        picks.append(losses.argmin(axis=0))
        best = losses.min(axis=0)
    if not np.isfinite(best[BINS]):  # they fit, but not when rounded up
        return {name: choices[-1] for name, choices in useful.items()}
    chosen = {}
    left = BINS
    for (name, choices), pick in zip(reversed(useful.items()), reversed(picks), strict=True):
        choice = choices[pick[left]]
        chosen[name] = choice
        left -= math.ceil(choice.cost / limit * BINS - 1e-9)
    return {name: chosen[name] for name in useful}


def explore(
    names: Sequence[str], harm: Callable[[Mapping[str, float]], float], trials: int, seed: int
) -> dict[str, float]:
    """Returns factors for the layers' losses with which what choose() finds harms least.

    The harm of all layers together is not the sum of each one's; SPDY corrects that so too. Random
    steps from the best factors so far, smaller and smaller ones; at first all are 1.

    Args:
        names: of the layers.
        harm: of what is chosen with such factors.
        trials: how many to try.
        seed: of the steps.
    """
    generator = np.random.default_rng(seed)
    best = dict.fromkeys(names, 1.0)
    least = harm(best)
    for trial in range(trials):
        width = WIDEST * (NARROWEST / WIDEST) ** (trial / trials)
        steps = np.exp(width * generator.standard_normal(len(names)))
        factors = {name: best[name] * float(step) for name, step in zip(names, steps, strict=True)}
        found = harm(factors)
        if found < least:
            best, least = factors, found
    return best


def least_cost(options: Mapping[str, Sequence[Choice]]) -> float:
    """Returns the sum of the cheapest choices."""
    return sum(min(choice.cost for choice in choices) for choices in options.values())


def _not_beaten(choices: Sequence[Choice]) -> list[Choice]:
    """Returns the choices that no other one beats in both, the cheapest last."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.loss, c.cost)):
        if not kept or choice.cost < kept[-1].cost:
            kept.append(choice)
    return kept
