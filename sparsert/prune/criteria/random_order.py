"""Random: what every other criterion has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.criteria import Job, register

if TYPE_CHECKING:
    from sparsert.prune.criteria import Scores


@register("random")
def random(job: Job) -> Scores:
    """Even from 0 to 1, the same for the same seed and layers."""
    import torch

    generator = torch.Generator().manual_seed(job.seed)
    return {
        name: torch.rand(weight.shape, generator=generator).to(weight.device)
        for name, weight in job.weights.items()
    }
