"""Wanda: weights by activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.criteria import Job, register

if TYPE_CHECKING:
    from sparsert.prune.criteria import Scores


@register("wanda", needs="inputs")
def wanda(job: Job) -> Scores:
    """abs(w) * norm(x), the Euclidean norm of what the weight is multiplied with over the data.

    The paper compares the weights of one output with each other (scope="row"). Sun et al., "A
    Simple and Effective Pruning Approach for Large Language Models", 2023 (arXiv 2306.11695).
    """
    import torch

    from sparsert.prune.calibration import visit_inputs
    from sparsert.prune.patterns import from_matrices, to_matrices

    squares: dict[str, torch.Tensor] = {}

    def add(name: str, columns: torch.Tensor) -> None:
        here = columns.square().sum(1)  # [groups or 1, taps * input channels]
        squares[name] = squares[name] + here if name in squares else here

    visit_inputs(job, add)
    scores = {}
    for name, weight in job.weights.items():
        layer = job.layers[name]
        size = to_matrices(layer, weight.abs())
        norm = squares[name].sqrt().reshape(-1, 1, *size.shape[2:])
        scores[name] = from_matrices(layer, size * norm, weight.shape)
    return scores
