"""Which weights of a layer went, and why: the distribution of importance before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsert.runtime.table import Table

if TYPE_CHECKING:
    import torch

    from sparsert.prune.masking import PrunableLayer

BINS = 32
DECADES = 6  # that the bins span, below the greatest importance


@dataclass(frozen=True)
class LayerExplanation:
    """What a pruning did to one layer.

    Attributes:
        name: of the layer.
        weights: number of its weights.
        zero_before: weights that were zero already.
        dropped: weights that went now.
        importance_kept: share of the sum of importance that is left, 0 to 1.
        highest_dropped: the greatest importance that went; None: nothing went.
        lowest_kept: the least importance that stayed; None: nothing stayed. It is below
            `highest_dropped` where weights went together or row by row.
        edges: of the histogram, from the least to the greatest importance; a bin's edges have all
            the same ratio, and the first bin has everything below too.
        before: how many weights that were not zero each bin had.
        after: how many of them are left.
        dead_outputs: output channels without any weight left.
        dead_inputs: input channels that no weight reads any more.
    """

    name: str
    weights: int
    zero_before: int
    dropped: int
    importance_kept: float
    highest_dropped: float | None
    lowest_kept: float | None
    edges: Sequence[float]
    before: Sequence[int]
    after: Sequence[int]
    dead_outputs: Sequence[int]
    dead_inputs: Sequence[int]


def explain_layer(
    name: str,
    layer: PrunableLayer,
    scores: torch.Tensor,
    alive: torch.Tensor,
    keep: torch.Tensor,
) -> LayerExplanation:
    """Describes a layer.

    Args:
        name: of the layer.
        layer: the layer.
        scores: importance of each weight.
        alive: True: was not zero before.
        keep: True: stays.
    """
    from sparsert.prune.patterns import to_matrices

    lost, left = scores[alive & ~keep].double(), scores[keep].double()
    both = scores[alive].double()
    edges = _edges(both)
    kept = to_matrices(layer, keep)  # [groups, rows, taps, columns]
    inputs = kept.any(2).any(1)
    if layer.is_recurrent or layer.is_attention:  # every gate reads the same inputs
        inputs = inputs.any(0)
    total = float(both.sum())
    return LayerExplanation(
        name=name,
        weights=scores.numel(),
        zero_before=int((~alive).sum()),
        dropped=lost.numel(),
        importance_kept=float(left.sum()) / total if total > 0 else 1.0,
        highest_dropped=float(lost.max()) if lost.numel() else None,
        lowest_kept=float(left.min()) if left.numel() else None,
        edges=edges.tolist(),
        before=_histogram(both, edges),
        after=_histogram(left, edges),
        dead_outputs=_dead(kept.flatten(2).any(2)),
        dead_inputs=_dead(inputs),
    )


def _dead(is_alive: torch.Tensor) -> list[int]:
    return [int(i) for i in (~is_alive.flatten()).nonzero().flatten()]


def _edges(scores: torch.Tensor) -> torch.Tensor:
    import torch

    positive = scores[scores > 0]
    if not positive.numel():
        return torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    high = float(positive.max())
    low = max(float(positive.min()), high / 10**DECADES)
    if low == high:
        low = high / 10
    steps = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    edges = low * (high / low) ** steps
    edges[-1] = high
    return edges


def _histogram(scores: torch.Tensor, edges: torch.Tensor) -> list[int]:
    import torch

    places = torch.bucketize(scores, edges.to(scores.device)[1:-1], right=True)
    return [int(n) for n in torch.bincount(places, minlength=BINS)]


def explain_table(
    method: str, scope: str, pattern: str, layers: Sequence[LayerExplanation]
) -> Table:
    """Returns one row per layer."""
    rows = [
        (
            layer.name,
            layer.dropped,
            f"{100 * layer.dropped / max(layer.weights - layer.zero_before, 1):.1f} %",
            f"{100 * layer.importance_kept:.2f} %",
            layer.highest_dropped,
            layer.lowest_kept,
            bars(layer.before),
            bars(layer.after),
            list_places(layer.dead_outputs),
            list_places(layer.dead_inputs),
        )
        for layer in layers
    ]
    columns = [
        *("layer", "went", "of weights", "importance kept", "highest gone", "lowest kept"),
        *("before", "after", "dead outputs", "dead inputs"),
    ]
    chosen = {
        "layer": "in each layer",
        "global": "over all layers together",
        "row": "in each row of each layer",
    }
    notes = [
        f"importance: {method}; the lowest went, {chosen[scope]}; pattern {pattern}",
        "before, after: number of weights by importance, low to high, on a logarithmic scale",
    ]
    records = [
        {key: getattr(layer, key) for key in LayerExplanation.__dataclass_fields__}
        for layer in layers
    ]
    return Table("Which weights went, and why", columns, rows, notes, records)


def bars(counts: Sequence[int]) -> str:
    """Draws a histogram as eight characters."""
    groups = [sum(counts[i : i + BINS // 8]) for i in range(0, BINS, BINS // 8)]
    most = max(groups)
    return "".join(" ▁▂▃▄▅▆▇█"[-(-8 * count // most) if most else 0] for count in groups)


def list_places(indices: Sequence[int]) -> str:
    """Returns a few numbers as text, or how many they are and the first of them."""
    if len(indices) <= 4:
        return ", ".join(map(str, indices))
    return f"{len(indices)}: {', '.join(map(str, indices[:3]))}, ..."
