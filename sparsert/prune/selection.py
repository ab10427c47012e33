"""Chooses the weights that go: a criterion's importance, a pattern, and a scope or threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sparsert.errors import describe_problems
from sparsert.option_checks import OptionChecks, is_number
from sparsert.prune.criteria import CRITERIA, Job
from sparsert.prune.explanation import explain_layer
from sparsert.prune.keras_check import check_module, is_keras
from sparsert.prune.patterns import (
    CHANNEL,
    UNSTRUCTURED,
    Pattern,
    channel_scores_to_weights,
    from_matrices,
    parse_pattern,
    to_matrices,
)
from sparsert.prune.report import LayerZeros, PruneReport
from sparsert.prune.torch_import import import_torch

if TYPE_CHECKING:
    import torch

    from sparsert.prune.masking import PrunableLayer

DEFAULT_METHOD = "magnitude"
SCOPES = ("layer", "global", "row")


@dataclass(frozen=True)
class Options:
    """The arguments of sparsert.prune(), which documents them."""

    method: str = DEFAULT_METHOD
    sparsity: float | Mapping[str, float] | None = None
    threshold: float | None = None
    relative_threshold: float | None = None
    scope: str = "layer"
    pattern: str | None = None
    exclude: Sequence[str] = ()
    data: Any = None
    loss: Any = None
    reconstruct: bool | None = None
    seed: int = 0

    def pattern_name(self) -> str:
        """The pattern, or the method's own."""
        criterion = CRITERIA.get(self.method)
        if self.pattern is not None:
            return self.pattern
        return CHANNEL if criterion is not None and criterion.measures_channels else UNSTRUCTURED

    def is_reconstructing(self) -> bool:
        """Whether weights make up for others, as asked for or by the method's own choice."""
        own = CRITERIA[self.method].reconstructs
        return own if self.reconstruct is None else self.reconstruct


@dataclass
class _Units:
    """What goes together in one layer.

    Attributes:
        scores: mean importance of each, [groups, rows, taps, columns] of units.
        alive: how many of its weights are not zero yet.
        gone: bool [groups, rows, taps, columns] of weights that are zero already.
    """

    scores: torch.Tensor
    alive: torch.Tensor
    gone: torch.Tensor


def prune_model(model: torch.nn.Module, options: Options) -> PruneReport:
    """Does what sparsert.prune() promises."""
    check_module("prune", model)
    pattern = check_options(options)
    import_torch()
    if is_keras(model):
        from sparsert.prune.keras_view import KerasView, check_method

        check_method(options.method, CRITERIA)
        view = KerasView(model)
        report = prune_model(view, options)
        view.write_back()
        return report
    from sparsert.prune.masking import prunable_layers, set_masks, weight_of

    layers = prunable_layers(model)
    chosen, sparsity = _choose_layers(model, layers, options, pattern)
    if pattern.sparsity is not None:
        sparsity = pattern.sparsity
    weights = {name: weight_of(layers[name]) for name in chosen}
    _check_finite("weights", weights)
    job = Job(
        model,
        {name: layers[name] for name in chosen},
        weights,
        options.data,
        options.loss,
        options.seed,
    )
    if options.is_reconstructing():
        _check_writable(job)
    scores = measure(options.method, job)
    keep = choose_masks(job, scores, replace(options, sparsity=sparsity), pattern)
    explanations = [
        explain_layer(name, layers[name], scores[name], weights[name] != 0, keep[name])
        for name in chosen
    ]
    if options.is_reconstructing():
        from sparsert.prune.reconstruction import reconstruct, write_weights

        write_weights(job, reconstruct(job, keep))
    set_masks(model, {**keep, **_bias_masks(job, keep, pattern)})
    return PruneReport(
        method=options.method,
        scope=options.scope,
        layers=[count_zeros(name, weight_of(layer)) for name, layer in layers.items()],
        parameters=count_parameters(model),
        pattern=pattern.name,
        explanations=explanations,
    )


def measure(method: str, job: Job) -> dict[str, torch.Tensor]:
    """Returns the importance of every weight of a job, of the weights' shapes.

    Raises:
        ValueError: the method gave something else.
    """
    criterion = CRITERIA[method]
    measured = criterion.measure(job)
    scores = {}
    problems = []
    for name, weight in job.weights.items():
        score = measured.get(name)
        if score is None:
            problems.append(f"method {method!r} did not measure {name!r}")
            continue
        if criterion.measures_channels:
            score = channel_scores_to_weights(job.layers[name], score, weight)
        if score.shape != weight.shape:
            problems.append(
                f"method {method!r} measured {list(score.shape)} values of {name!r}, expected "
                f"{list(weight.shape)}"
            )
        elif bool((score < 0).any()):
            problems.append(f"method {method!r} measured values below 0 of {name!r}")
        scores[name] = score.float() if score.dtype.itemsize < 4 else score
    if problems:
        raise ValueError(describe_problems("prune", problems))
    _check_finite(f"values of method {method!r}", scores)
    return scores


def choose_masks(
    job: Job, scores: Mapping[str, torch.Tensor], options: Options, pattern: Pattern
) -> dict[str, torch.Tensor]:
    """Returns the masks of all layers."""
    units = {
        name: _units(job.layers[name], job.weights[name], scores[name], pattern)
        for name in job.layers
    }
    if pattern.of:
        kept = {
            name: pattern.keep_best(
                to_matrices(job.layers[name], scores[name]).masked_fill(unit.gone, -1)
            )
            for name, unit in units.items()
        }
    elif options.sparsity is None:
        kept = _above_threshold(units, options)
    elif options.scope == "global":
        assert not isinstance(options.sparsity, Mapping)
        kept = _keep_of_all(units, options.sparsity)
    else:
        kept = _keep_of_each(units, options)
    masks = {}
    for name, unit in units.items():
        shape = job.weights[name].shape
        wide = pattern.spread(kept[name], unit.gone.shape) & ~unit.gone
        masks[name] = from_matrices(job.layers[name], wide, shape)
    return masks


def _units(
    layer: PrunableLayer, weight: torch.Tensor, scores: torch.Tensor, pattern: Pattern
) -> _Units:
    here = to_matrices(layer, scores)
    gone = to_matrices(layer, weight == 0)
    alive = pattern.pool((~gone).to(here.dtype))
    total = pattern.pool(here.masked_fill(gone, 0))
    return _Units((total / alive).masked_fill(alive == 0, -1), alive, gone)


def _above_threshold(units: Mapping[str, _Units], options: Options) -> dict[str, torch.Tensor]:
    if options.threshold is not None:
        return {name: unit.scores > options.threshold for name, unit in units.items()}
    assert options.relative_threshold is not None
    sums = {n: float((u.scores * u.alive).clamp_min(0).sum()) for n, u in units.items()}
    counts = {n: float(u.alive.sum()) for n, u in units.items()}
    if options.scope == "global":
        sums = dict.fromkeys(sums, sum(sums.values()))
        counts = dict.fromkeys(counts, sum(counts.values()))
    return {
        name: unit.scores > options.relative_threshold * sums[name] / max(counts[name], 1)
        for name, unit in units.items()
    }


def _keep_of_each(units: Mapping[str, _Units], options: Options) -> dict[str, torch.Tensor]:
    """Reaches the sparsity in each layer, or in each row of each."""
    kept, problems = {}, []
    for name, unit in units.items():
        share = options.sparsity
        share = share[name] if isinstance(share, Mapping) else share
        assert share is not None
        groups, rows = unit.scores.shape[:2]
        lines = groups * rows if options.scope == "row" else 1
        alive = unit.alive.reshape(lines, -1)
        count = unit.gone.numel()
        wanted = round(share * count / lines) - (count / lines - alive.sum(1))
        mask, nearest = _keep_in_lines(unit.scores.reshape(lines, -1), alive, wanted)
        kept[name] = mask.reshape(unit.scores.shape)
        if nearest is not None:
            reached = (nearest + count - float(alive.sum())) / count
            problems.append(
                f"sparsity {share:g} of {name!r} would leave nothing of "
                f"{'some rows' if options.scope == 'row' else 'the layer'}; {reached:.4g} can be "
                "reached: ask for that, or exclude the layer"
            )
    if problems:
        raise ValueError(describe_problems("prune", problems))
    return kept


def _keep_of_all(units: Mapping[str, _Units], share: float) -> dict[str, torch.Tensor]:
    """Reaches the sparsity over all layers; each keeps its best unit, so that none dies."""
    import torch

    scores = [unit.scores.flatten().clone() for unit in units.values()]
    alive = torch.cat([unit.alive.flatten() for unit in units.values()])
    for flat in scores:
        flat[flat.argmax()] = torch.inf
    joined = torch.cat(scores)
    total = sum(unit.gone.numel() for unit in units.values())
    needed = float(alive[joined == torch.inf].sum())
    wanted = round(share * total) - (total - float(alive.sum()))
    if wanted > float(alive.sum()) - needed:
        raise ValueError(
            f"prune: sparsity {share:g} over all layers would leave nothing of some; "
            f"{1 - needed / total:.4g} can be reached"
        )
    mask, _ = _keep_in_lines(joined[None], alive[None], alive.new_tensor([wanted]))
    parts = torch.split(mask[0], [flat.numel() for flat in scores])
    return {
        name: part.reshape(unit.scores.shape)
        for (name, unit), part in zip(units.items(), parts, strict=True)
    }


def _keep_in_lines(
    scores: torch.Tensor, alive: torch.Tensor, wanted: torch.Tensor
) -> tuple[torch.Tensor, float | None]:
    """Drops the units of the lowest scores in each line.

    Args:
        scores: [lines, units]; units that are gone have the lowest.
        alive: weights of each unit that are not zero yet.
        wanted: [lines], how many of them to drop; units are whole, so the nearest is taken.

    Returns:
        bool [lines, units], True: kept. If a line is left with nothing: how many weights can be
        dropped in all lines together so that none is.
    """
    import torch

    lines, count = scores.shape
    order = scores.argsort(dim=1, stable=True)
    sums = alive.gather(1, order).double().cumsum(1)
    sums = torch.cat([sums.new_zeros(lines, 1), sums], 1)  # after 0, 1, ... units
    distance = (sums - wanted[:, None].clamp_min(0)).abs() + sums * 1e-9  # the fewer if in doubt
    dropped = distance.argmin(1, keepdim=True)
    total = sums[:, -1:]
    is_empty = (sums.gather(1, dropped) >= total) & (total > 0)
    nearest = None
    if bool(is_empty.any()):
        most = sums.masked_fill(sums >= total, 0).amax(1, keepdim=True)
        nearest = float(torch.where(is_empty, most, sums.gather(1, dropped)).sum())
    mask = torch.ones_like(scores, dtype=torch.bool)
    mask.scatter_(1, order, torch.arange(count, device=scores.device)[None] >= dropped)
    return mask, nearest


def _bias_masks(
    job: Job, keep: Mapping[str, torch.Tensor], pattern: Pattern
) -> dict[str, torch.Tensor]:
    """Returns masks of the biases of channels that are gone, so that these give zeros."""
    from sparsert.prune.masking import join

    masks = {}
    for name, mask in keep.items():
        layer = job.layers[name]
        if pattern.is_channel and layer.module.bias is not None:
            masks[join(name, "bias")] = to_matrices(layer, mask).flatten(2).any(2).flatten()
    return masks


def _choose_layers(
    model: torch.nn.Module,
    layers: Mapping[str, PrunableLayer],
    options: Options,
    pattern: Pattern,
) -> tuple[list[str], float | Mapping[str, float] | None]:
    """Returns the names of the layers to prune, and the sparsity by those names."""
    from sparsert.prune.masking import shared_names

    sparsity = options.sparsity
    if isinstance(sparsity, Mapping):
        sparsity = {
            name: share
            for given, share in sparsity.items()
            for name in expand_names(layers, [given])
        }
    excluded = options.exclude
    exclude = expand_names(layers, [excluded] if isinstance(excluded, str) else excluded)
    named = list(sparsity) if isinstance(sparsity, Mapping) else list(layers)
    check_names(list(layers), shared_names(model), [*named, *exclude])
    chosen = [name for name in named if name not in exclude]
    measures_channels = CRITERIA[options.method].measures_channels
    if pattern.is_channel or measures_channels:
        several = [n for n in chosen if layers[n].is_recurrent or layers[n].is_attention]
        if measures_channels:  # its outputs are not seen
            several += [name for name in chosen if layers[name].is_projection]
        if isinstance(sparsity, Mapping) and several:
            raise ValueError(
                "prune: the channels of recurrent layers and attentions cannot go one by one: "
                f"{', '.join(several)}"
            )
        chosen = [name for name in chosen if name not in several]
    if pattern.is_channel and not isinstance(sparsity, Mapping) and len(layers) > 1:
        chosen = [name for name in chosen if name != list(layers)[-1]]
    if not chosen:
        raise ValueError("the module has no convolution, linear or recurrent layer to prune")
    return chosen, sparsity


def expand_names(layers: Mapping[str, PrunableLayer], names: Sequence[str]) -> list[str]:
    """Returns the names with those of a recurrent module's weights in the place of its own."""
    modules: dict[str, list[str]] = {}  # name of a module -> those of its layers
    for name, layer in layers.items():
        modules.setdefault(name.removesuffix(layer.parameter).removesuffix("."), []).append(name)
    return [name for given in names for name in modules.get(given, [given])]


def check_options(options: Options) -> Pattern:
    """Returns the pattern.

    Raises:
        ValueError: lists all that is wrong with the options, whatever the model.
    """
    sparsity, threshold = options.sparsity, options.threshold
    checks = OptionChecks("prune")
    problems = checks.problems
    checks.word("method", options.method, CRITERIA)
    checks.refuse()  # what else has to be given depends on it
    pattern = None
    try:
        pattern = parse_pattern(options.pattern_name())
    except ValueError as error:
        problems.append(str(error))
    criterion = CRITERIA[options.method]
    if criterion.needs != "nothing" and options.data is None:
        what = "batches of inputs" if criterion.needs == "inputs" else "(inputs, targets) batches"
        problems.append(f"method {options.method!r} needs data: {what}")
    elif options.is_reconstructing() and options.data is None:
        problems.append("reconstruct=True needs data: batches of inputs")
    checks.word("scope", options.scope, SCOPES)
    checks.names("exclude", options.exclude)
    checks.seed(options.seed)
    checks.functions(loss=options.loss)
    if options.reconstruct is not None:
        checks.flags(reconstruct=options.reconstruct)
    given = [value is not None for value in (sparsity, threshold, options.relative_threshold)]
    if pattern is not None and pattern.sparsity is not None:
        if options.scope == "global" or any(given[1:]):
            problems.append(f"pattern {pattern.name} has a share of zeros of its own in each layer")
        elif isinstance(sparsity, Mapping) or sparsity not in (None, pattern.sparsity):
            problems.append(
                f"sparsity is {sparsity}, but pattern {pattern.name} always leaves "
                f"{pattern.sparsity:.4g}: leave it out"
            )
    elif sum(given) != 1:
        problems.append("give either sparsity or threshold (or relative_threshold)")
    if pattern is not None and pattern.is_channel and options.scope == "row":
        problems.append(
            'scope="row" chooses within an output channel, pattern="channel" whole ones'
        )
    if isinstance(sparsity, Mapping):
        if options.scope == "global":
            problems.append('scope="global" takes one sparsity, not one per layer')
        shares = dict(sparsity)
    else:
        shares = {} if sparsity is None else {"": sparsity}
    for name, share in shares.items():
        is_right = is_number(share) and 0 <= share < 1
        where = f" of {name!r}" if name else ""
        checks.require(is_right, f"sparsity{where}", share, "at least 0 and less than 1")
    for name in ("threshold", "relative_threshold"):
        value = getattr(options, name)
        is_right = value is None or (is_number(value) and 0 <= value < float("inf"))
        checks.require(is_right, name, value, "a finite number of at least 0")
    checks.refuse()
    assert pattern is not None
    return pattern


def check_names(known: list[str], shared: Mapping[str, str], names: list[str]) -> None:
    """Refuses names that are not of layers, or of layers that have another one's weight.

    Raises:
        ValueError: lists them.
    """
    problems = [
        f"layer {name!r} has the weight of {shared[name]!r}: name that one"
        for name in sorted(set(names) & set(shared))
    ]
    unknown = sorted(set(names) - set(known) - set(shared))
    if unknown:
        problems.append(
            f"there is no layer {', '.join(map(repr, unknown))}; the module's convolutions, "
            f"linear and recurrent layers: {', '.join(known) or 'none'}"
        )
    if problems:
        raise ValueError(describe_problems("prune", problems))


def _check_finite(what: str, values: Mapping[str, torch.Tensor]) -> None:
    bad = [name for name, value in values.items() if not bool(value.isfinite().all())]
    if bad:
        raise ValueError(f"{what} that are not finite: {', '.join(bad)}")


def _check_writable(job: Job) -> None:
    from sparsert.prune.masking import is_only_masked

    problems = [
        f"{name!r} has a parametrization besides its mask: its weight cannot be reconstructed"
        for name, layer in job.layers.items()
        if not is_only_masked(layer)
    ]
    if problems:
        raise ValueError(describe_problems("prune", problems))


def count_zeros(name: str, weight: torch.Tensor) -> LayerZeros:
    """Counts the weights of a layer and how many of them are zero."""
    zeros = int((weight == 0).sum())
    return LayerZeros(name, tuple(weight.shape), weight.numel(), zeros)


def count_parameters(model: torch.nn.Module) -> int:
    """Counts every trainable value; masks are buffers and do not count."""
    return sum(parameter.numel() for parameter in model.parameters())
