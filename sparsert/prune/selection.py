"""Chooses the weights that go: by a threshold, or by a target share of zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sparsert.errors import describe_problems
from sparsert.prune.criteria import CRITERIA
from sparsert.prune.report import LayerZeros, PruneReport
from sparsert.prune.torch_import import import_torch

if TYPE_CHECKING:
    import torch

DEFAULT_METHOD = "magnitude"
METHODS = tuple(CRITERIA)
SCOPES = ("layer", "global")


def prune_model(
    model: torch.nn.Module,
    method: str,
    sparsity: float | Mapping[str, float] | None,
    threshold: float | None,
    scope: str,
    exclude: Sequence[str],
) -> PruneReport:
    """Does what sparsert.prune() promises."""
    _check_options(method, sparsity, threshold, scope)
    import_torch()
    from sparsert.prune.masking import prunable_layers, set_masks, weight_of

    layers = prunable_layers(model)
    modules: dict[str, list[str]] = {}  # name of a module -> those of its layers
    for name, layer in layers.items():
        modules.setdefault(name.removesuffix(layer.parameter).removesuffix("."), []).append(name)
    if isinstance(sparsity, Mapping):
        sparsity = {
            name: share for given, share in sparsity.items() for name in modules.get(given, [given])
        }
    exclude = [name for given in exclude for name in modules.get(given, [given])]
    named = list(sparsity) if isinstance(sparsity, Mapping) else list(layers)
    _check_names(list(layers), [*named, *exclude])
    chosen = [name for name in named if name not in exclude]
    if not chosen:
        raise ValueError("the module has no convolution, linear or recurrent layer to prune")
    weights = {name: weight_of(layers[name]) for name in chosen}
    _check_finite(weights)
    scores = {name: CRITERIA[method](weight) for name, weight in weights.items()}
    if threshold is not None:
        keep = {name: score > threshold for name, score in scores.items()}
    elif isinstance(sparsity, Mapping):
        keep = {name: keep_highest(scores[name], sparsity[name]) for name in chosen}
    elif scope == "layer":
        assert sparsity is not None
        keep = {name: keep_highest(score, sparsity) for name, score in scores.items()}
    else:
        assert sparsity is not None
        keep = _keep_highest_of_all(scores, sparsity)
    set_masks(model, keep)
    return PruneReport(
        method=method,
        scope=scope,
        layers=[_count(name, weight_of(layer)) for name, layer in layers.items()],
        parameters=_count_parameters(model),
    )


def keep_highest(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Returns a mask that drops exactly round(sparsity * count) scores, the lowest.

    Args:
        scores: any shape.
        sparsity: share to drop; among equal scores, those of the lowest index go.

    Returns:
        bool, of the shape of `scores`; True: kept.
    """
    import torch

    flat = scores.flatten()
    order = torch.argsort(flat, stable=True)
    keep = torch.ones_like(flat, dtype=torch.bool)
    keep[order[: round(sparsity * flat.numel())]] = False
    return keep.reshape(scores.shape)


def _keep_highest_of_all(
    scores: Mapping[str, torch.Tensor], sparsity: float
) -> dict[str, torch.Tensor]:
    import torch

    sizes = [score.numel() for score in scores.values()]
    keep = keep_highest(torch.cat([score.flatten() for score in scores.values()]), sparsity)
    parts = torch.split(keep, sizes)
    return {
        name: part.reshape(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def _check_options(
    method: str,
    sparsity: float | Mapping[str, float] | None,
    threshold: float | None,
    scope: str,
) -> None:
    problems = []
    if method not in CRITERIA:
        problems.append(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if scope not in SCOPES:
        problems.append(f"scope is {scope!r}, expected one of {', '.join(SCOPES)}")
    if (sparsity is None) == (threshold is None):
        problems.append("give either sparsity or threshold")
    if isinstance(sparsity, Mapping):
        if scope == "global":
            problems.append('scope="global" takes one sparsity, not one per layer')
        shares = dict(sparsity)
    else:
        shares = {} if sparsity is None else {"": sparsity}
    for name, share in shares.items():
        if not 0 <= share < 1:
            where = f" of {name!r}" if name else ""
            problems.append(f"sparsity{where} is {share}, expected at least 0 and less than 1")
    if threshold is not None and not 0 <= threshold < float("inf"):
        problems.append(f"threshold is {threshold}, expected a finite number of at least 0")
    if problems:
        raise ValueError(describe_problems("prune", problems))


def _check_names(known: list[str], names: list[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(
            f"there is no layer {', '.join(map(repr, unknown))}; the module's convolutions, "
            f"linear and recurrent layers: {', '.join(known) or 'none'}"
        )


def _check_finite(weights: Mapping[str, torch.Tensor]) -> None:
    bad = [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
    if bad:
        raise ValueError(f"weights that are not finite: {', '.join(bad)}")


def _count(name: str, weight: torch.Tensor) -> LayerZeros:
    zeros = int((weight == 0).sum())
    return LayerZeros(name, tuple(weight.shape), weight.numel(), zeros)


def _count_parameters(model: torch.nn.Module) -> int:
    """Counts every trainable value; masks are buffers and do not count."""
    return sum(parameter.numel() for parameter in model.parameters())
