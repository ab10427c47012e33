"""Second order: Optimal Brain Surgeon, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.criteria import Job, register

if TYPE_CHECKING:
    from sparsert.prune.criteria import Scores


@register("second-order", needs="inputs", reconstructs=True)
def second_order(job: Job) -> Scores:
    """w^2 / inverse(H)[j, j]: the error of a layer's output when w goes and the others adapt.

    H = X X' over the inputs X of the layer, with 1 % of its mean diagonal added. The weights that
    are left are then set to the least squares solution (sparsert/prune/reconstruction.py). Hassibi
    and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", 1993; Frantar
    and Alistarh, "Optimal Brain Compression", 2022 (arXiv 2208.11580) and "SparseGPT", 2023 (arXiv
    2301.00774), whose greedy order this replaces by one choice and an exact solution.
    """
    import torch

    from sparsert.prune.patterns import from_matrices, to_matrices
    from sparsert.prune.reconstruction import damped_grams

    scores = {}
    for name, gram in damped_grams(job).items():
        layer, weight = job.layers[name], job.weights[name]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        diagonal = inverse.diagonal(dim1=1, dim2=2)  # [groups or 1, taps * input channels]
        matrices = to_matrices(layer, weight.to(gram.dtype))
        saliency = matrices.square() / diagonal.reshape(-1, 1, *matrices.shape[2:])
        scores[name] = from_matrices(layer, saliency, weight.shape)
    return scores
