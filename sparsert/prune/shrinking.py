"""Takes channels, heads and whole blocks out of a module, so that it has fewer parameters."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsert.errors import describe_problems
from sparsert.prune.criteria import CRITERIA, Job
from sparsert.prune.keras_check import refuse_keras
from sparsert.prune.selection import DEFAULT_METHOD, measure
from sparsert.prune.shrink_report import GroupChange, ShrinkReport
from sparsert.prune.torch_import import import_torch

if TYPE_CHECKING:
    import torch

    from sparsert.prune.channel_groups import ChannelGroup, Shrinker

STRATEGIES = ("layerwise", "greedy")
ALIGNMENT = 16  # channels that are left: floats of the widest vector


@dataclass(frozen=True)
class ShrinkOptions:
    """The arguments of sparsert.prune.shrink(), which documents them."""

    method: str = DEFAULT_METHOD
    channels: float | Mapping[str, float] | None = None
    parameters: float | None = None
    strategy: str = STRATEGIES[0]
    align: int = ALIGNMENT
    head_sizes: Mapping[str, int] | None = None
    exclude: Sequence[str] = ()
    data: Iterable[Any] | None = None
    loss: Any = None
    evaluate: Any = None
    seed: int = 0


def check_shrink_options(options: ShrinkOptions) -> None:
    """Raises ValueError: lists all that is wrong with the options, whatever the model."""
    problems = []
    criterion = CRITERIA.get(options.method)
    if criterion is None:
        problems.append(f"method is {options.method!r}, expected one of {', '.join(CRITERIA)}")
    elif criterion.needs != "nothing" and options.data is None:
        problems.append(f"method {options.method!r} needs data")
    if options.strategy not in STRATEGIES:
        expected = ", ".join(STRATEGIES)
        problems.append(f"strategy is {options.strategy!r}, expected one of {expected}")
    if (options.channels is None) == (options.parameters is None):
        problems.append("give either channels or parameters: the share that goes")
    elif options.strategy == "greedy" and options.parameters is None:
        problems.append('strategy "greedy" takes parameters, not channels')
    if options.strategy == "greedy" and options.data is None and options.evaluate is None:
        problems.append('strategy "greedy" needs data or evaluate')
    given = options.channels
    shares = dict(given) if isinstance(given, Mapping) else {"channels": given}
    for name, share in {**shares, "parameters": options.parameters}.items():
        if share is not None and not (isinstance(share, int | float) and 0 <= share < 1):
            problems.append(f"{name} is {share}, expected at least 0 and less than 1")
    if options.align < 1:
        problems.append(f"align is {options.align}, expected at least 1")
    bad = {name: size for name, size in (options.head_sizes or {}).items() if size < 1}
    problems += [f"the head size of {name!r} is {size}" for name, size in bad.items()]
    if problems:
        raise ValueError(describe_problems("shrink", problems))


def shrink_model(
    model: torch.nn.Module, example_inputs: Any, options: ShrinkOptions
) -> ShrinkReport:
    """Does what sparsert.prune.shrink() promises."""
    check_shrink_options(options)
    refuse_keras("shrink", model)
    import_torch()
    from sparsert.prune.channel_groups import Shrinker, count_parameters

    with _without_masks(model):
        shrinker = Shrinker(model, example_inputs)
        groups = shrinker.find_groups(options.head_sizes or {})
        _check_layers(model, groups, options)
        for group in groups:
            group.reason = group.reason or _reason(group, options)
        able = [group for group in groups if not group.reason]
        importance = _importance(model, able, options)
        able = [group for group in able if not group.reason]
        if not able:
            reasons = [f"{group.name!r}: {group.reason}" for group in groups]
            reasons = reasons or ["there are no channels that only layers inside read"]
            raise ValueError(describe_problems("shrink: nothing can go", reasons))
        count = count_parameters(model, able)
        before = sum(parameter.numel() for parameter in model.parameters())
        if options.strategy == "greedy":
            left, why = _choose_greedily(shrinker, able, importance, count, before, options)
        else:
            left, why = _choose_by_layer(able, count, before, options)
        changes = []
        for group in groups:
            if group.reason:
                changes.append(_unchanged(group))
                continue
            gone = _least(importance[group.name], group, group.width - left[group.name])
            changes.append(_take_out(shrinker, group, gone, importance[group.name], why))
    return ShrinkReport(
        method=options.method,
        strategy=options.strategy,
        groups=changes,
        parameters_before=before,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        error=shrinker.worst_error,
    )


@contextlib.contextmanager
def _without_masks(model: torch.nn.Module) -> Iterator[None]:
    """Bakes masks in, and holds the zeros of the same layers again at the end."""
    import torch

    from sparsert.prune.channel_groups import has_parametrizations
    from sparsert.prune.masking import (
        bake_masks,
        get_masks,
        hold_present_zeros,
        maskable,
        parameter_of,
        set_masks,
    )

    masks = get_masks(model)
    parameters = {name: parameter_of(maskable(model)[name]) for name in masks}
    values = {name: p.detach().clone() for name, p in parameters.items() if p is not None}
    bake_masks(model)
    try:
        others = has_parametrizations(model)
        if others:
            raise ValueError(
                f"shrink: {', '.join(others)} have parametrizations besides masks: take them off "
                "first"
            )
        yield
    except BaseException:
        set_masks(model, masks)
        with torch.no_grad():  # what the masks hide too
            for name, value in values.items():
                parameters[name].copy_(value)  # type: ignore[union-attr]
        raise
    hold_present_zeros(model, list(masks))


def _check_layers(
    model: torch.nn.Module, groups: Sequence[ChannelGroup], options: ShrinkOptions
) -> None:
    known = sorted({name for group in groups for name in (group.name, *group.makers)})
    named = [*options.exclude, *(options.head_sizes or {})]
    named += list(options.channels) if isinstance(options.channels, Mapping) else []
    unknown = sorted(set(named) - set(known) - {name for name, _ in model.named_modules()})
    if unknown:
        raise ValueError(
            f"shrink: there is no layer {', '.join(map(repr, unknown))}; those with channels or "
            f"heads: {', '.join(known) or 'none'}"
        )
    stuck = {
        name: group.reason
        for group in groups
        for name in {group.name, *group.makers} & set(named)
        if group.reason and isinstance(options.channels, Mapping) and name in options.channels
    }
    if stuck:
        problems = [f"{name!r} cannot shrink: {reason}" for name, reason in stuck.items()]
        raise ValueError(describe_problems("shrink", problems))


def _reason(group: ChannelGroup, options: ShrinkOptions) -> str:
    """Returns why the options leave a group alone."""
    names = {group.name, *group.makers}
    if names & set(options.exclude):
        return "excluded"
    if isinstance(options.channels, Mapping) and not names & set(options.channels):
        return "not named"
    if group.width < 2 * _unit(group, options.align) and group.kind == "channels":
        return f"fewer than 2 x {_unit(group, options.align)} channels"
    if group.kind == "heads" and CRITERIA[options.method].measures_channels:
        return f"{options.method} measures channels of layers"
    return ""


def _unit(group: ChannelGroup, align: int) -> int:
    """What the number of channels that are left is a multiple of."""
    if group.kind == "heads":
        return 1
    both = math.lcm(align, group.head_size)
    return both if group.head_size == 1 or 2 * both <= group.width else group.head_size


def _round(group: ChannelGroup, wanted: float, align: int) -> int:
    """Returns how many are left when that many should be."""
    unit = _unit(group, align)
    kept = max(1, round(wanted / unit)) * unit
    return group.width if wanted >= group.width or kept > group.width else kept


def _importance(
    model: torch.nn.Module, groups: Sequence[ChannelGroup], options: ShrinkOptions
) -> dict[str, torch.Tensor]:
    """Returns the importance of every channel or head: the mean of its weights', summed up."""
    import torch

    from sparsert.prune.attention import projection_names
    from sparsert.prune.masking import join, prunable_layers, weight_of
    from sparsert.prune.patterns import to_matrices

    layers = prunable_layers(model)
    makers: dict[str, dict[str, list[list[int]]]] = {}
    for group in groups:
        if group.kind == "heads":
            attention: Any = model.get_submodule(group.name)
            size, total = attention.head_dim, attention.head_dim * group.width
            rows = [
                [part * total + head * size + i for part in range(3) for i in range(size)]
                for head in range(group.width)
            ]
            names = [join(group.name, name) for name in projection_names(attention)]
            makers[group.name] = dict.fromkeys(names, rows)
        else:
            makers[group.name] = {n: rows for n, rows in group.makers.items() if n in layers}
    wanted = {name for rows in makers.values() for name in rows}
    chosen = {name: layer for name, layer in layers.items() if name in wanted}
    weights = {name: weight_of(layer) for name, layer in chosen.items()}
    job = Job(model, chosen, weights, options.data, options.loss, options.seed)
    scores = measure(options.method, job) if chosen else {}
    found = {}
    for group in groups:
        total = torch.zeros(group.width, dtype=torch.float64)
        for name, rows in makers[group.name].items():
            means = to_matrices(chosen[name], scores[name]).double().mean((2, 3)).flatten().cpu()
            total += torch.stack([means[places].mean() for places in rows])
        found[group.name] = total
    return found


def _least(importance: torch.Tensor, group: ChannelGroup, count: int) -> list[int]:
    """Returns the `count` least important channels, whole heads."""
    units = importance.unflatten(0, (-1, group.head_size))
    order = units.mean(1).argsort(stable=True)[: count // group.head_size]
    size = group.head_size
    return sorted(int(unit) * size + i for unit in order for i in range(size))


def _choose_by_layer(
    groups: Sequence[ChannelGroup],
    count: Callable[[Mapping[str, int]], int],
    before: int,
    options: ShrinkOptions,
) -> tuple[dict[str, int], str]:
    """Returns how many are left of each group, and why."""

    def left(share: float) -> dict[str, int]:
        return {g.name: _round(g, (1 - share) * g.width, options.align) for g in groups}

    multiples = f"channels to a multiple of {options.align}"
    if options.channels is not None:
        shares = {}
        for group in groups:
            share = options.channels
            if isinstance(share, Mapping):
                named = {group.name, *group.makers}
                share = max(value for name, value in share.items() if name in named)
            shares[group.name] = share
        found = {g.name: _round(g, (1 - shares[g.name]) * g.width, options.align) for g in groups}
        return found, f"the least of its group, {multiples}"
    assert options.parameters is not None
    goal = (1 - options.parameters) * before
    low, high = 0.0, 1.0
    _check_reachable(count(left(high)), before, options.parameters)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if count(left(middle)) <= goal else (middle, high)
    found = left(high)
    # Groups of a kind are rounded alike: what went too much comes back where most was cut off.
    for group in sorted(groups, key=lambda g: found[g.name] - (1 - high) * g.width):
        more = {**found, group.name: found[group.name] + _unit(group, options.align)}
        if more[group.name] <= group.width and count(more) <= goal:
            found = more
    return found, f"the least of its group: {high:.3g} of each, {multiples}"


def _check_reachable(least: int, before: int, share: float) -> None:
    reachable = 1 - least / before
    if reachable < share:
        raise ValueError(
            f"shrink: {share:g} of the parameters cannot go, at most {reachable:.4g}: ask for "
            "less, or for a smaller align"
        )


def _choose_greedily(
    shrinker: Shrinker,
    groups: Sequence[ChannelGroup],
    importance: Mapping[str, torch.Tensor],
    count: Callable[[Mapping[str, int]], int],
    before: int,
    options: ShrinkOptions,
) -> tuple[dict[str, int], str]:
    """Returns how many are left of each group, and why.

    Each step tries one unit of every group; that goes for which the loss rises the least per
    parameter.
    """
    assert options.parameters is not None
    goal = (1 - options.parameters) * before
    score = scorer(shrinker.model, options.data, options.loss, options.evaluate)
    left = {group.name: group.width for group in groups}
    least = {g.name: _round(g, 1, options.align) for g in groups}
    _check_reachable(count(least), before, options.parameters)
    now, total = score(), before
    while total > goal:
        tried = []
        for group in groups:
            unit = _unit(group, options.align)
            fewer = (left[group.name] - 1) // unit * unit  # the next multiple below
            if fewer < least[group.name]:
                continue
            trial = {**left, group.name: fewer}
            gone = [(g, _least(importance[g.name], g, g.width - trial[g.name])) for g in groups]
            with shrinker.ignoring(gone):
                loss = score()
            size = count(trial)
            tried.append(((loss - now) / max(total - size, 1), loss, size, trial))
        _, now, total, left = min(tried, key=lambda entry: entry[0])
    what = "the score falls" if options.evaluate is not None else "the loss rises"
    return left, f"there {what} least per parameter"


def scorer(
    model: torch.nn.Module,
    data: Iterable[Any] | None,
    loss: Any,
    evaluate: Callable[[Any], float] | None,
) -> Callable[[], float]:
    """Returns a function that measures what is to be small: the loss, or less the score.

    Raises:
        ValueError: by that function: the loss or the score is not finite, or there is no data.
    """
    import torch

    from sparsert.prune.calibration import batches_of, compute_loss, eval_mode

    batches = None if data is None else data if isinstance(data, Mapping) else list(data)
    job = Job(model, {}, {}, batches, loss)

    def score() -> float:
        with eval_mode(model), torch.no_grad():
            if evaluate is not None:
                value = -float(evaluate(model))
                if not math.isfinite(value):
                    raise ValueError(f"evaluate returned {-value}")
                return value
            values = [
                float(compute_loss(job, model(*args, **kwargs), targets))
                for _, (args, kwargs, targets) in batches_of(job)
            ]
        return sum(values) / len(values)

    return score


def _unchanged(group: ChannelGroup) -> GroupChange:
    makers = list(group.makers) or [group.name]
    return GroupChange(
        *(group.name, group.kind, makers, list(group.readers), group.width),
        reason=f"left alone: {group.reason}",
    )


def _take_out(
    shrinker: Shrinker,
    group: ChannelGroup,
    gone: Sequence[int],
    importance: torch.Tensor,
    why: str,
) -> GroupChange:
    """Takes channels or heads out and says what that did."""
    shrinker.take_out(group, gone)
    kept = [i for i in range(group.width) if i not in set(gone)]
    total = float(importance.sum())
    return GroupChange(
        name=group.name,
        kind=group.kind,
        makers=list(group.makers) or [group.name],
        readers=list(group.readers),
        before=group.width,
        gone=list(gone),
        importance_kept=float(importance[kept].sum()) / total if total > 0 else 1.0,
        highest_gone=float(importance[list(gone)].max()) if gone else None,
        lowest_kept=float(importance[kept].min()),
        reason=why,
    )


def shrink_zero_channels(
    model: torch.nn.Module, example_inputs: Any, align: int = 1
) -> ShrinkReport:
    """Does what sparsert.prune.shrink_zeros() promises."""
    refuse_keras("shrink_zeros", model)
    import_torch()
    from sparsert.prune.channel_groups import LeftAloneError, Shrinker

    if align < 1:
        raise ValueError(f"shrink: align is {align}, expected at least 1")
    before = sum(parameter.numel() for parameter in model.parameters())
    with _without_masks(model):
        shrinker = Shrinker(model, example_inputs)
        expected = shrinker.outputs()
        changes = []
        for group in shrinker.find_groups({}):
            if group.kind == "heads":
                continue
            if group.reason:
                changes.append(_unchanged(group))
                continue
            dead = _dead_channels(model, group)
            kept = max(1, -(-(group.width - len(dead)) // align)) * align
            gone = dead[: max(0, group.width - kept)]
            why = "their weights are zero"
            try:
                with shrinker.ignoring([(group, gone)]):
                    shrinker.compare(shrinker.outputs(), expected)
                shrinker.take_out(group, gone)
            except LeftAloneError:
                gone, why = [], "left alone: zero weights, but constants behind a norm or function"
            makers, readers = list(group.makers), list(group.readers)
            changes.append(
                GroupChange(
                    *(group.name, group.kind, makers, readers, group.width, gone),
                    reason=why if gone or dead else "no zero channels",
                )
            )
    return ShrinkReport(
        method="zero weights",
        strategy="layerwise",
        groups=changes,
        parameters_before=before,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        error=shrinker.worst_error,
    )


def _dead_channels(model: torch.nn.Module, group: ChannelGroup) -> list[int]:
    """Returns the channels that all makers set to zero, or that no reader multiplies with."""
    import torch

    from sparsert.prune.channel_groups import reader_columns
    from sparsert.prune.masking import PrunableLayer
    from sparsert.prune.patterns import to_matrices

    made = torch.ones(group.width, dtype=torch.bool)
    for name, rows in group.makers.items():
        module: Any = model.get_submodule(name)
        used = (to_matrices(PrunableLayer(module), module.weight.detach()) != 0).flatten(2).any(2)
        used = used.flatten()
        if module.bias is not None:
            used = used | (module.bias.detach() != 0)
        made &= torch.stack([~used[places].any() for places in rows]).cpu()
    readers = reader_columns(model, group)
    ignored = torch.full((group.width,), len(readers) > 0)
    for weight, axis, columns in readers:
        used = (weight.detach() != 0).movedim(axis, 0).flatten(1).any(1)
        ignored &= torch.stack([~used[places].any() for places in columns]).cpu()
    return [int(i) for i in (made | ignored).nonzero().flatten()]
