"""How much each layer harms the model when it is pruned alone, at each pattern and sparsity."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import Tensor, nn  # noqa: E402

from sparsert.prune.calibration import count_samples, device_of, eval_mode, split_batch  # noqa: E402
from sparsert.prune.criteria import CRITERIA, Job  # noqa: E402
from sparsert.prune.masking import (  # noqa: E402
    PrunableLayer,
    parameter_of,
    prunable_layers,
    weight_of,
)
from sparsert.prune.patterns import parse_pattern, to_matrices  # noqa: E402
from sparsert.prune.selection import Options, choose_masks, measure  # noqa: E402

# (pattern, sparsity) pairs to try, by layer -> loss of each.
Wanted = Mapping[str, Sequence[tuple[str, float]]]
Losses = dict[str, dict[str, list[list[float]]]]  # layer -> pattern -> [sparsity, loss] rows

FEWEST = 16  # samples of a batch whose own statistics norms can go by


class Scores:
    """The importance of every weight of a model as it is now."""

    def __init__(
        self, model: nn.Module, names: Sequence[str], method: str, data: Any, loss: Any, seed: int
    ) -> None:
        layers = prunable_layers(model)
        chosen = {name: layers[name] for name in names}
        weights = {name: weight_of(layer).clone() for name, layer in chosen.items()}
        needs = CRITERIA[method].needs != "nothing"
        self._job = Job(model, chosen, weights, data if needs else None, loss, seed)
        self._scores = measure(method, self._job)

    def mask(self, name: str, pattern: str, sparsity: float) -> Tensor:
        """Returns what one layer would keep."""
        job = Job(
            self._job.model,
            {name: self._job.layers[name]},
            {name: self._job.weights[name]},
        )
        options = Options(sparsity=sparsity, pattern=pattern)
        return choose_masks(job, self._scores, options, parse_pattern(pattern))[name]

    def layer(self, name: str) -> PrunableLayer:
        """Returns a layer by name."""
        return self._job.layers[name]


def count_units(layer: PrunableLayer, pattern: str) -> int:
    """Returns how many weights or blocks a layer has that go or stay as a whole."""
    ones = torch.ones_like(weight_of(layer))
    return parse_pattern(pattern).pool(to_matrices(layer, ones)).numel()


def measure_losses(
    model: nn.Module,
    scores: Scores,
    wanted: Wanted,
    batches: Sequence[Any],
    score: Callable[[], float],
    on_progress: Callable[[float], None],
) -> Losses:
    """Prunes one layer at a time, and puts it back.

    Args:
        model: unchanged in the end.
        scores: of its weights.
        wanted: what to try.
        batches: to run it on: the loss is the squared change of the outputs over their squares.
        score: without batches: the loss is how much of it is lost.
        on_progress: called with the share that is done.
    """
    total = max(sum(len(tries) for tries in wanted.values()), 1)
    done = 0
    found: Losses = {}
    with _trial_mode(model, batches), torch.no_grad():
        before = _outputs(model, batches) if batches else score()
        for name, tries in wanted.items():
            patterns = found.setdefault(name, {})
            for pattern, sparsity in tries:
                with _pruned(scores.layer(name), scores.mask(name, pattern, sparsity)):
                    if isinstance(before, list):
                        loss = _change(before, _outputs(model, batches))
                    else:
                        loss = max(before - score(), 0.0)
                patterns.setdefault(pattern, []).append([sparsity, loss])
                done += 1
                on_progress(done / total)
    return found


class WholeLoss:
    """What several layers do to the outputs when they are pruned at once."""

    def __init__(self, model: nn.Module, scores: Scores, batches: Sequence[Any]) -> None:
        self._model = model
        self._scores = scores
        self._batches = batches
        with _trial_mode(model, batches), torch.no_grad():
            self._before = _outputs(model, batches)

    def __call__(self, shares: Mapping[str, tuple[str, float]]) -> float:
        """Returns the squared change of the outputs over their squares.

        Args:
            shares: pattern and sparsity of each layer that is to get more zeros.
        """
        with _trial_mode(self._model, self._batches), torch.no_grad(), ExitStack() as stack:
            for name, (pattern, sparsity) in shares.items():
                mask = self._scores.mask(name, pattern, sparsity)
                stack.enter_context(_pruned(self._scores.layer(name), mask))
            return _change(self._before, _outputs(self._model, self._batches))


def loss_at(rows: Sequence[Sequence[float]], sparsity: float, start: float) -> float:
    """Returns the loss at a sparsity, on straight lines between [sparsity, loss] rows.

    Args:
        rows: ascending; a loss that falls counts as the greatest before.
        sparsity: at most the last one.
        start: the sparsity that the layer has, where the loss is 0.
    """
    points = [(start, 0.0), *((s, loss) for s, loss in rows if s > start)]
    heights = list(itertools.accumulate((loss for _, loss in points), max))
    place = min(bisect_left([s for s, _ in points], sparsity), len(points) - 1)
    if place == 0:
        return 0.0
    (low, _), (high, _) = points[place - 1], points[place]
    share = min((sparsity - low) / (high - low), 1.0)
    return heights[place - 1] + share * (heights[place] - heights[place - 1])


def scale_losses(losses: Losses, factors: Mapping[str, float]) -> Losses:
    """Returns the losses of each layer times its factor, if it has one."""
    return {
        name: {
            pattern: [[sparsity, loss * factors.get(name, 1.0)] for sparsity, loss in rows]
            for pattern, rows in patterns.items()
        }
        for name, patterns in losses.items()
    }


@contextmanager
def _pruned(layer: PrunableLayer, mask: Tensor) -> Iterator[None]:
    parameter = parameter_of(layer)
    assert parameter is not None
    before = parameter.data
    parameter.data = torch.where(mask, before, before.new_zeros(()))
    try:
        yield
    finally:
        parameter.data = before


@contextmanager
def _trial_mode(model: nn.Module, batches: Sequence[Any]) -> Iterator[None]:
    """Eval mode, but batch norms go by each batch: training moves their statistics after a pruning.

    With small batches, or none, they go by those that they have.
    """
    norms = [
        part
        for part in model.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats
    ]
    counts = [count_samples(*split_batch(batch)[:2]) for batch in batches]
    with eval_mode(model):
        if not counts or min(counts) < FEWEST:
            norms = []
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        try:
            yield
        finally:
            for norm in norms:
                norm.track_running_stats = True


def _outputs(model: nn.Module, batches: Sequence[Any]) -> list[Tensor]:
    device = device_of(model)
    found: list[Tensor] = []
    for batch in batches:
        args, kwargs, _ = split_batch(batch, device)
        found += _tensors(model(*args, **kwargs))
    return found


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [tensor for part in value for tensor in _tensors(part)]
    return []


def _change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    pairs = list(zip(before, after, strict=True))
    change = sum(float((y - x).square().sum()) for x, y in pairs)
    size = sum(float(x.square().sum()) for x in before)
    share = change / size if size else 0.0
    return share if math.isfinite(share) else 1e9
