"""APoZ: neurons go that are zero most of the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.criteria import Job, register

if TYPE_CHECKING:
    from sparsert.prune.criteria import Scores


@register("apoz", needs="inputs", measures_channels=True)
def apoz(job: Job) -> Scores:
    """1 - APoZ: the share of an output channel's activations that are above zero.

    APoZ is the average percentage of zeros after a ReLU. Where no ReLU follows, what it would cut
    counts. Hu et al., "Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient
    Deep Architectures", 2016 (arXiv 1607.03250).
    """
    from sparsert.prune.calibration import follow_activations

    return follow_activations(job, lambda _out, _targets, tensors: [a > 0 for a in tensors])
