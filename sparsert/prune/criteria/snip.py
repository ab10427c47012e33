"""SNIP: the sensitivity of the loss to each connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.criteria import Job, register

if TYPE_CHECKING:
    from sparsert.prune.criteria import Scores


@register("snip", needs="targets")
def snip(job: Job) -> Scores:
    """abs(w * dL/dw) over its sum in all layers, L the loss of all the data together.

    dL/dc for a connection's gate c = 1 is w * dL/dw. Unlike Taylor's, gradients of batches are
    added with their signs. The paper prunes before any training, over all layers (scope="global").
    Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity", 2019 (arXiv
    1810.02340).
    """
    from sparsert.prune.calibration import mean_of_gradients

    means = mean_of_gradients(job, lambda slope, _weight: slope)
    scores = {name: (slope * job.weights[name]).abs() for name, slope in means.items()}
    total = sum(float(score.sum()) for score in scores.values()) or 1.0
    return {name: score / total for name, score in scores.items()}
