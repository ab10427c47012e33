"""Gradient: weights go that the loss hardly depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.criteria import Job, register

if TYPE_CHECKING:
    from sparsert.prune.criteria import Scores


@register("gradient", needs="targets")
def gradient(job: Job) -> Scores:
    """abs(dL/dw), the mean over the batches.

    The absolute value is taken batch by batch: at the end of a training the gradients of batches
    cancel out.
    """
    from sparsert.prune.calibration import mean_of_gradients

    return mean_of_gradients(job, lambda slope, _weight: slope.abs())
