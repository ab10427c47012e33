"""First-order Taylor expansion: weights go whose removal changes the loss least."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.criteria import Job, register

if TYPE_CHECKING:
    from sparsert.prune.criteria import Scores


@register("taylor", needs="targets")
def taylor(job: Job) -> Scores:
    """abs(w * dL/dw), the mean over the batches.

    L(w = 0) - L(w) is -w * dL/dw to first order. Molchanov et al., "Pruning Convolutional Neural
    Networks for Resource Efficient Inference", 2017 (arXiv 1611.06440), and "Importance Estimation
    for Neural Network Pruning", 2019 (arXiv 1906.10771).
    """
    from sparsert.prune.calibration import mean_of_gradients

    return mean_of_gradients(job, lambda slope, weight: (slope * weight).abs())
