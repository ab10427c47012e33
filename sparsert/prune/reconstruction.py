"""Least squares: the weights that are left make up for those that went, layer by layer.

Imports torch at its top: imported only when a pruning function runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import Tensor  # noqa: E402

from sparsert.prune.calibration import visit_inputs  # noqa: E402
from sparsert.prune.masking import parameter_of  # noqa: E402
from sparsert.prune.patterns import from_matrices, to_matrices  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sparsert.prune.criteria import Job

DAMPING = 0.01  # of the mean diagonal
ROUNDS = 100
TOLERANCE = 1e-4  # residual over the first one


def damped_grams(job: Job) -> dict[str, Tensor]:
    """Returns X X' of the inputs of each layer, damped: [groups or 1, columns, columns]."""
    grams: dict[str, Tensor] = {}

    def add(name: str, columns: Tensor) -> None:
        here = columns.transpose(1, 2) @ columns
        grams[name] = grams[name] + here if name in grams else here

    visit_inputs(job, add)
    for gram in grams.values():
        diagonal = gram.diagonal(dim1=1, dim2=2)
        mean = diagonal.mean(1, keepdim=True)
        diagonal += DAMPING * torch.where(mean > 0, mean, torch.ones_like(mean))
    return {name: grams[name] for name in job.layers}


def reconstruct(job: Job, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights under masks whose outputs are nearest to those of the job's weights.

    For each row w of a layer, the v that is zero where the mask is and minimises
    (w - v) H (w - v)', by conjugate gradients with H's diagonal as preconditioner.
    """
    found = {}
    for name, gram in damped_grams(job).items():
        layer, weight = job.layers[name], job.weights[name]
        rows = to_matrices(layer, weight.to(gram.dtype)).flatten(2)  # [groups, rows, columns]
        kept = to_matrices(layer, masks[name]).flatten(2).to(gram.dtype)
        solved = _solve(gram, rows, kept).reshape(to_matrices(layer, weight).shape)
        found[name] = from_matrices(layer, solved, weight.shape).to(weight.dtype)
    return found


def _solve(gram: Tensor, rows: Tensor, kept: Tensor) -> Tensor:
    inverse = 1 / gram.diagonal(dim1=1, dim2=2)[:, None]
    value = rows * kept
    residual = ((rows - value) @ gram) * kept
    step = residual * inverse
    size = (residual * step).sum(-1, keepdim=True)
    first = size.clone()
    for _ in range(ROUNDS):
        if bool((size <= first * TOLERANCE**2).all()):
            break
        push = (step @ gram) * kept
        length = size / (step * push).sum(-1, keepdim=True).clamp_min(1e-30)
        value = value + length * step
        residual = residual - length * push
        scaled = residual * inverse
        new = (residual * scaled).sum(-1, keepdim=True)
        step = scaled + (new / size.clamp_min(1e-30)) * step
        size = new
    return value


def write_weights(job: Job, weights: Mapping[str, Tensor]) -> None:
    """Sets the parameters of layers that have no other parametrization than a mask."""
    with torch.no_grad():
        for name, weight in weights.items():
            parameter = parameter_of(job.layers[name])
            assert parameter is not None
            parameter.copy_(weight)
