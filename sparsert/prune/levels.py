"""Levels: one set of weights that is pruned to several shares of zeros, and trained for all."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsert.errors import describe_problems
from sparsert.prune.fine_tuning import recalibrate_batch_norms, train
from sparsert.prune.keras_check import refuse_keras
from sparsert.prune.report import PruneReport
from sparsert.prune.selection import DEFAULT_METHOD, Options, prune_model
from sparsert.prune.torch_import import import_torch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LevelsResult:
    """What fine_tune_levels() made.

    Attributes:
        modules: one for each level, the densest first: plain weights with zeros, and batch norms of
            its own; what sparsert.convert() takes.
        reports: of the pruning of each level.
        losses: the mean loss of each epoch, summed over the levels of a step.
    """

    modules: dict[str, torch.nn.Module]
    reports: dict[str, PruneReport]
    losses: list[float]


def fine_tune_levels(
    model: torch.nn.Module,
    sparsity: Mapping[str, float],
    batches: Iterable[Any],
    *,
    method: str = DEFAULT_METHOD,
    scope: str = "layer",
    pattern: str | None = None,
    exclude: Sequence[str] = (),
    data: Iterable[Any] | None = None,
    epochs: int = 1,
    learning_rate: float = 1e-4,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    after_batch: Callable[[], Any] | None = None,
    seed: int = 0,
) -> LevelsResult:
    """Prunes a module to several shares of zeros and trains one set of weights for all of them.

    Each level is pruned from the denser one, so that its weights are some of those. Every step of
    the training adds the gradients of the densest level, of the sparsest and of one between them,
    chosen at random (the sandwich rule of Yu and Huang 2019), before the optimizer moves the
    weights. Then the batch norms of each level are measured anew.

    Args:
        model: trained in place; left with the masks of the densest level.
        sparsity: the share of zeros of each level by its name, such as {"accurate": 0.5,
            "fast": 0.9}.
        batches: as in fine_tune(); iterated once per epoch, and once for each level's batch norms.
        method: as in prune(), as scope, pattern, exclude, data and seed.
        scope: where a share is reached.
        pattern: which weights go together.
        exclude: names of layers to leave alone.
        data: for the methods that measure it.
        epochs: as in fine_tune(), as learning_rate, loss, optimizer and after_batch; an epoch takes
            up to three times as long.
        learning_rate: of Adam.
        loss: (outputs, targets) -> scalar.
        optimizer: over the module's parameters.
        after_batch: called after each step.
        seed: of the levels of a step, and of the method "random".

    Returns:
        A module for each level.

    Raises:
        ValueError: lists what is wrong with the arguments; those of prune() and fine_tune().
        BackendError: PyTorch is not installed.

    Example:
        >>> levels = sparsert.prune.fine_tune_levels(                          # doctest: +SKIP
        ...     module, {"accurate": 0.5, "balanced": 0.8, "fast": 0.9}, batches, epochs=5
        ... )
        >>> sparsert.convert(levels.modules, "m.sprt", example_inputs=x)       # doctest: +SKIP
    """
    problems = check_levels(sparsity)
    if problems:
        raise ValueError(describe_problems("levels", problems))
    refuse_keras("fine_tune_levels", model)
    names = sorted(sparsity, key=lambda name: sparsity[name])
    torch = import_torch()
    from sparsert.prune.masking import bake_masks, get_masks, set_masks, swap_masks

    trial = copy.deepcopy(model)
    reports, masks = {}, {}
    for name in names:
        options = Options(
            method=method,
            sparsity=sparsity[name],
            scope=scope,
            pattern=pattern,
            exclude=exclude,
            data=data,
            loss=loss,
            reconstruct=False,
            seed=seed,
        )
        reports[name] = prune_model(trial, options)
        masks[name] = get_masks(trial)
    del trial
    every = masks[names[-1]]  # a mask where any level has one
    set_masks(model, every)
    for held in masks.values():
        held.update({k: torch.ones_like(mask) for k, mask in every.items() if k not in held})
    draw = random.Random(seed)
    views = _Views([functools.partial(swap_masks, model, masks[name]) for name in names], draw)
    losses = train(model, batches, epochs, learning_rate, loss, optimizer, after_batch, views)
    modules = {}
    for name in reversed(names):
        swap_masks(model, masks[name])
        modules[name] = copy.deepcopy(model)
        recalibrate_batch_norms(modules[name], batches)
        bake_masks(modules[name])
    return LevelsResult({name: modules[name] for name in names}, reports, losses)


class _Views:
    """The levels of a step: the first, the last, and one between them."""

    def __init__(self, levels: Sequence[Callable[[], None]], draw: random.Random) -> None:
        self._levels = levels
        self._draw = draw

    def __iter__(self) -> Iterator[Callable[[], None]]:
        yield self._levels[0]
        if len(self._levels) > 2:
            yield self._draw.choice(self._levels[1:-1])
        yield self._levels[-1]


def check_levels(sparsity: Mapping[str, float]) -> list[str]:
    """Returns all that is wrong with the shares of levels."""
    problems = []
    if len(sparsity) < 2:
        problems.append(f"{len(sparsity)} levels, expected at least 2")
    if len(set(sparsity.values())) != len(sparsity):
        problems.append("two levels have the same sparsity")
    return problems + [f"a level's name is {name!r}" for name in sparsity if not name]
