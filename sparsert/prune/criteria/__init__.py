"""Criteria: what the importance of weights is measured by. Each module here is one of them.

A criterion is a function of a Job that returns the importance of the weights of each layer, at
least 0: those of the lowest go. Its pattern and scope are chosen elsewhere. A new one is a file in
this folder, or a function of yours that register() is called for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from sparsert.prune.masking import PrunableLayer

    Scores = dict[str, torch.Tensor]

NEEDS = ("nothing", "inputs", "targets")


@dataclass(frozen=True)
class Job:
    """What a criterion measures.

    Attributes:
        model: in any mode; a criterion leaves it as it was.
        layers: those to measure, by name.
        weights: what they compute with, masks included, detached.
        data: batches, as sparsert.prune() documents; None: not given.
        loss: (outputs, targets) -> scalar; None: cross entropy.
        seed: of what is random.
    """

    model: torch.nn.Module
    layers: Mapping[str, PrunableLayer]
    weights: Mapping[str, torch.Tensor]
    data: Iterable[Any] | None = None
    loss: Callable[[Any, Any], torch.Tensor] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Criterion:
    """A registered criterion.

    Attributes:
        name: the method of sparsert.prune().
        measure: the function.
        needs: of `data`: "nothing", "inputs", or "targets" too.
        measures_channels: whether the scores are [output channels] instead of the weight's shape.
        reconstructs: whether the weights that are left make up for the others.
    """

    name: str
    measure: Callable[[Job], Scores]
    needs: str = "nothing"
    measures_channels: bool = False
    reconstructs: bool = False


CRITERIA: dict[str, Criterion] = {}  # by name


def register(
    name: str,
    *,
    needs: str = "nothing",
    measures_channels: bool = False,
    reconstructs: bool = False,
) -> Callable[[Callable[[Job], Scores]], Callable[[Job], Scores]]:
    """Makes a function a method of sparsert.prune(); Criterion documents the arguments.

    Raises:
        ValueError: the name is taken, or `needs` is unknown.

    Example:
        >>> @sparsert.prune.register("square")
        ... def square(job):
        ...     return {name: weight**2 for name, weight in job.weights.items()}
    """
    if name in CRITERIA:
        raise ValueError(f"there is a method {name!r} already")
    if needs not in NEEDS:
        raise ValueError(f"needs is {needs!r}, expected one of {', '.join(NEEDS)}")

    def add(measure: Callable[[Job], Scores]) -> Callable[[Job], Scores]:
        CRITERIA[name] = Criterion(name, measure, needs, measures_channels, reconstructs)
        return measure

    return add


for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")
