"""Activation gradient: neurons go whose activation the loss hardly depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsert.prune.criteria import Job, register

if TYPE_CHECKING:
    from sparsert.prune.criteria import Scores


@register("activation-gradient", needs="targets", measures_channels=True)
def activation_gradient(job: Job) -> Scores:
    """abs(dL/da) of an output channel, the mean over samples and positions.

    a is what the next layer sees: after norms and the activation function that follow. L is the
    loss of one sample.
    """
    import torch

    from sparsert.prune.calibration import compute_loss, follow_activations

    def measure(outputs: object, targets: object, tensors: list[torch.Tensor]) -> list[object]:
        count = tensors[0].shape[0] if tensors else 1
        loss = compute_loss(job, outputs, targets) * count
        return list(torch.autograd.grad(loss, tensors, allow_unused=True))

    return follow_activations(job, measure)
