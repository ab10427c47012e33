"""Schedules: pruning little by little during a training, and moving zeros to better places.

A schedule is an object whose step() is called after each step of the optimizer, in fine_tune() as
`after_batch` or in any loop of the user's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparsert.errors import describe_problems
from sparsert.prune.keras_check import is_keras, refuse_keras
from sparsert.prune.report import PruneReport
from sparsert.prune.selection import Options, check_options, prune_model
from sparsert.prune.torch_import import import_torch

if TYPE_CHECKING:
    import torch

Shape = Callable[[float, float, float], float]


def _cubic(share: float, first: float, last: float) -> float:
    return last + (first - last) * (1 - share) ** 3


def _linear(share: float, first: float, last: float) -> float:
    return first + (last - first) * share


def _geometric(share: float, first: float, last: float) -> float:
    return 1 - (1 - first) ** (1 - share) * (1 - last) ** share


# Name -> (share of the way, first, last) -> sparsity.
SHAPES: dict[str, Shape] = {"cubic": _cubic, "linear": _linear, "geometric": _geometric}


class Gradual:
    """Prunes a module at every so many steps, from an initial sparsity to the final one.

    "cubic" takes most weights early, while many are left to make up for them: s_t = s_f +
    (s_i - s_f) (1 - (t - t_0) / (t_n - t_0))^3 (Zhu and Gupta, "To prune, or not to prune", 2017,
    arXiv 1710.01878). "geometric" takes the same share of what is left each time, as iterative
    pruning does; "linear" the same number.

    Args:
        model: the module that is trained.
        sparsity: final share of zeros, or one for each layer: {layer: number}.
        end: the step that reaches it.
        begin: the step of the first pruning, counted from 0.
        every: steps between prunings.
        initial: share of zeros of the first pruning.
        shape: "cubic", "linear" or "geometric".
        options: of sparsert.prune(): method, pattern, scope, exclude, data, loss, seed.

    Attributes:
        reports: of the prunings so far.

    Raises:
        ValueError: lists what is wrong with the arguments.

    Example:
        >>> schedule = sparsert.prune.Gradual(model, sparsity=0.9, end=300)    # doctest: +SKIP
        >>> for x, y in batches:                                               # doctest: +SKIP
        ...     train_one_step(x, y)
        ...     schedule.step()
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        sparsity: float | Mapping[str, float],
        end: int,
        begin: int = 0,
        every: int = 10,
        initial: float = 0.0,
        shape: str = "cubic",
        **options: Any,
    ) -> None:
        problems = []
        if shape not in SHAPES:
            problems.append(f"shape is {shape!r}, expected one of {', '.join(SHAPES)}")
        if not 0 <= begin <= end:
            problems.append(f"begin is {begin} and end {end}: expected 0 <= begin <= end")
        if every < 1:
            problems.append(f"every is {every}, expected at least 1")
        if not 0 <= initial < 1:
            problems.append(f"initial is {initial}, expected at least 0 and less than 1")
        elif any(s < initial for s in _shares(sparsity)):
            problems.append(f"initial is {initial}, more than the final sparsity")
        if problems:
            raise ValueError(describe_problems("Gradual", problems))
        self.reports: list[PruneReport] = []
        self._model = model
        self._options = Options(sparsity=sparsity, **options)
        if check_options(self._options).sparsity is not None:
            raise ValueError("Gradual: an N:M pattern has a single share of zeros: use prune()")
        self._begin, self._end, self._every = begin, end, every
        self._initial, self._shape = initial, SHAPES[shape]
        self._step = 0

    @property
    def finished(self) -> bool:
        """Whether the final sparsity was reached."""
        return self._step > self._end

    def sparsity_at(self, step: int) -> float | dict[str, float]:
        """Returns the share of zeros after a step's pruning."""
        way = max(self._end - self._begin, 1)
        share = 1.0 if step >= self._end else max(step - self._begin, 0) / way
        final = self._options.sparsity
        if isinstance(final, Mapping):
            return {n: self._shape(share, self._initial, s) for n, s in final.items()}
        assert final is not None
        return self._shape(share, self._initial, final)

    def step(self) -> PruneReport | None:
        """Counts a step of the optimizer; returns the report if it was time to prune."""
        now = self._step
        self._step += 1
        is_due = self._begin <= now < self._end and (now - self._begin) % self._every == 0
        if not is_due and now != self._end:
            return None
        report = prune_model(self._model, replace(self._options, sparsity=self.sparsity_at(now)))
        self.reports.append(report)
        return report


def _shares(sparsity: float | Mapping[str, float]) -> list[float]:
    return list(sparsity.values()) if isinstance(sparsity, Mapping) else [sparsity]


def iterative(
    model: torch.nn.Module,
    train: Callable[[int], Any],
    *,
    sparsity: float | Mapping[str, float],
    rounds: int,
    initial: float = 0.0,
    shape: str = "geometric",
    **options: Any,
) -> list[PruneReport]:
    """Prunes and trains in turns, until the sparsity is reached.

    Args:
        model: changed in place.
        train: called after each pruning with the number of the round, from 0.
        sparsity: final share of zeros, or {layer: number}.
        rounds: how many.
        initial: share of zeros before the first round, such as that of the module.
        shape: how the share grows; Gradual documents it. "geometric" takes the same share of what
            is left in each round (Han et al., 2015; Frankle and Carbin, 2019).
        options: as in Gradual.

    Returns:
        The reports of the prunings.

    Raises:
        ValueError: lists what is wrong with the arguments.
    """
    if rounds < 1:
        raise ValueError(f"iterative: rounds is {rounds}, expected at least 1")
    schedule = Gradual(
        model, sparsity=sparsity, end=rounds, every=1, initial=initial, shape=shape, **options
    )
    reports = []
    for number in range(rounds):
        share = schedule.sparsity_at(number + 1)
        reports.append(prune_model(model, Options(sparsity=share, **options)))
        train(number)
    return reports


class Regrowth:
    """Moves the zeros of a pruned module during its training: RigL.

    At every so many steps the weights of least magnitude go in each layer, and as many zeros with
    the greatest gradients of the loss may grow again, from 0. The number of zeros stays. The share
    falls as a cosine from `fraction` to 0 at step `end`. Evci et al., "Rigging the Lottery: Making
    All Tickets Winners", 2020 (arXiv 1911.11134).

    Args:
        model: pruned before, so that masks are held. Prune at random or by erdos_renyi() shares to
            train a sparse module from the beginning.
        optimizer: that trains it: what it remembers of new weights is set to 0; None: it is not.
        end: the step after which nothing moves any more.
        every: steps between updates.
        fraction: of the weights left that go and grow in the first update.
        pattern: which weights go and grow together, as in the pruning.

    Attributes:
        moved: how many weights each update moved.

    Raises:
        ValueError: lists what is wrong with the arguments.

    Example:
        >>> sparsert.prune(model, method="random", sparsity=0.9)               # doctest: +SKIP
        >>> rigl = sparsert.prune.Regrowth(model, optimizer, end=750)          # doctest: +SKIP
        >>> sparsert.prune.fine_tune(                                          # doctest: +SKIP
        ...     model, batches, optimizer=optimizer, after_batch=rigl.step
        ... )
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        end: int,
        every: int = 100,
        fraction: float = 0.3,
        pattern: str = "unstructured",
    ) -> None:
        import_torch()
        from sparsert.prune.masking import held_mask, prunable_layers
        from sparsert.prune.patterns import parse_pattern

        refuse_keras("Regrowth", model)
        problems = []
        if every < 1 or end < 1:
            problems.append(f"every is {every} and end {end}, expected at least 1")
        if not 0 < fraction <= 1:
            problems.append(f"fraction is {fraction}, expected more than 0 and at most 1")
        self._pattern = parse_pattern(pattern)
        if self._pattern.of:
            problems.append("an N:M pattern does not regrow: its share is fixed in every group")
        layers = prunable_layers(model)
        self._layers = {
            name: layer for name, layer in layers.items() if held_mask(layer) is not None
        }
        if not self._layers:
            problems.append("no mask is held: prune the module first, or call hold_zeros()")
        if problems:
            raise ValueError(describe_problems("Regrowth", problems))
        self.moved: list[int] = []
        self._optimizer = optimizer
        self._end, self._every, self._fraction = end, every, fraction
        self._step = 0
        self._watch(every == 1)

    def step(self) -> int:
        """Counts a step of the optimizer; returns how many weights moved."""
        self._step += 1
        if self._step >= self._end:
            self._watch(False)
            return 0
        if self._step % self._every:
            self._watch((self._step + 1) % self._every == 0)  # the gradients of the next step
            return 0
        share = self._fraction / 2 * (1 + math.cos(math.pi * self._step / self._end))
        moved = self._move(share)
        self._watch(self._every == 1)
        self.moved.append(moved)
        return moved

    def _watch(self, is_watching: bool) -> None:
        from sparsert.prune.masking import held_mask

        for layer in self._layers.values():
            mask = held_mask(layer)
            if mask is not None:
                mask.is_watching = is_watching
                mask.gradient = None

    def _move(self, share: float) -> int:
        from sparsert.prune.masking import held_mask

        problems, missing = [], []
        for name, layer in self._layers.items():
            mask = held_mask(layer)
            if mask is None:
                problems.append(f"{name!r} has lost its mask")
            elif mask.gradient is None:
                missing.append(name)
            elif not bool(mask.gradient.isfinite().all()):
                problems.append(f"the gradient of {name!r} is not finite")
        if missing:
            problems.append(
                f"no backward pass reached {', '.join(map(repr, missing))}: call step() once after "
                "each step of the optimizer"
            )
        if problems:
            raise ValueError(describe_problems("Regrowth", problems))
        return sum(self._move_layer(layer, share) for layer in self._layers.values())

    def _move_layer(self, layer: Any, share: float) -> int:
        import torch

        from sparsert.prune.masking import held_mask, parameter_of, weight_of
        from sparsert.prune.patterns import from_matrices, to_matrices

        held = held_mask(layer)
        assert held is not None and held.gradient is not None
        mask = to_matrices(layer, held.mask)
        size = self._pattern.pool(to_matrices(layer, weight_of(layer).abs()))
        slope = self._pattern.pool(to_matrices(layer, held.gradient.abs()))
        weights = self._pattern.pool(mask.to(size.dtype))
        is_active = (weights > 0).flatten()
        count = min(int(share * int(is_active.sum())), int((~is_active).sum()))
        if count == 0:
            return 0
        drop = size.flatten().masked_fill(~is_active, torch.inf).argsort(stable=True)[:count]
        active = is_active.clone()
        active[drop] = False
        grow = slope.flatten().masked_fill(active, -1).argsort(descending=True, stable=True)[:count]
        active[grow] = True
        new = self._pattern.spread(active.reshape(size.shape), mask.shape)
        came_back = torch.zeros_like(active)
        came_back[grow] = True
        fresh = self._pattern.spread((came_back & ~is_active).reshape(size.shape), mask.shape)
        # Of units that stay, weights that were masked on their own stay masked.
        merged = torch.where(fresh, fresh, new & mask)
        shape = held.mask.shape
        before = held.mask.clone()
        held.mask.copy_(from_matrices(layer, merged, shape))
        is_new = held.mask & ~before
        parameter = parameter_of(layer)
        assert parameter is not None
        with torch.no_grad():
            parameter[is_new] = 0
            state = self._optimizer.state.get(parameter, {}) if self._optimizer else {}
            for value in state.values():
                if isinstance(value, torch.Tensor) and value.shape == shape:
                    value[is_new] = 0
        return int(is_new.sum())


def erdos_renyi(model: torch.nn.Module, sparsity: float) -> dict[str, float]:
    """Returns a sparsity for each layer so that small ones keep more: ERK, for prune().

    The weights that a layer keeps are in ratio to the sum of its weight's dimensions, kernel
    included; layers that would keep more than all stay dense (Mocanu et al., 2018; Evci et al.,
    2020).

    Args:
        model: any torch module, or a Keras model.
        sparsity: share of zeros over all layers.
    """
    import_torch()
    from sparsert.prune.masking import prunable_layers, weight_of

    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}, expected at least 0 and less than 1")
    if is_keras(model):
        from sparsert.prune.keras_view import KerasView

        model = KerasView(model)
    shapes = {name: weight_of(layer).shape for name, layer in prunable_layers(model).items()}
    dense: set[str] = set()
    while True:
        left = (1 - sparsity) * sum(shape.numel() for shape in shapes.values())
        left -= sum(shapes[name].numel() for name in dense)
        sums = {name: sum(shape) for name, shape in shapes.items() if name not in dense}
        scale = left / max(sum(sums.values()), 1)
        full = {name for name, size in sums.items() if scale * size > shapes[name].numel()}
        if not full:
            break
        dense |= full
    return {
        name: 0.0 if name in dense else 1 - scale * sums[name] / shape.numel()
        for name, shape in shapes.items()
    }
