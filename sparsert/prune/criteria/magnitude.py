"""Magnitude: small weights go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.criteria import Job, register

if TYPE_CHECKING:
    from sparsert.prune.criteria import Scores


@register("magnitude")
def magnitude(job: Job) -> Scores:
    """abs(w).

    Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015
    (arXiv 1506.02626).
    """
    return {name: weight.abs() for name, weight in job.weights.items()}
