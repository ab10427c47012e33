"""Activation sensitivity: neurons go that hardly depend on the model's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.criteria import Job, register

if TYPE_CHECKING:
    from sparsert.prune.criteria import Scores


@register("activation-sensitivity", needs="inputs", measures_channels=True)
def activation_sensitivity(job: Job) -> Scores:
    """abs(da/dx) of an output channel, the mean over samples and elements of the input.

    a is what the next layer sees, the mean over a channel's positions; x the model's first input
    of floats. Each channel takes one backward pass: give few samples.
    """
    from sparsert.prune.calibration import channel_slopes

    return channel_slopes(job)
