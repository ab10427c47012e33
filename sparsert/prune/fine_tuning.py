"""Training of a pruned module with its masks held."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sparsert.prune.torch_import import import_torch

if TYPE_CHECKING:
    import torch


def fine_tune(
    model: torch.nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    epochs: int = 1,
    learning_rate: float = 1e-4,
    loss: Callable[[Any, torch.Tensor], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    after_batch: Callable[[], None] | None = None,
) -> list[float]:
    """Trains a module; weights that masks hold stay zero, all others move.

    After a pruning a learning rate well below that of the training keeps what was learnt.

    Args:
        model: trained in place; left in the mode (train or eval) it was in.
        batches: (inputs, targets) pairs; iterated once per epoch, such as a DataLoader.
        epochs: how many times.
        learning_rate: of Adam; ignored when `optimizer` is given.
        loss: (outputs, targets) -> scalar; None: cross entropy of logits with class numbers.
        optimizer: over the module's parameters, made after it was pruned; None: Adam.
        after_batch: called after each step, for progress bars.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: `batches` is empty.
        BackendError: PyTorch is not installed.

    Example:
        >>> sparsert.prune.fine_tune(module, loader, epochs=3)  # doctest: +SKIP
    """
    torch = import_torch()
    measure = torch.nn.functional.cross_entropy if loss is None else loss
    if optimizer is None:
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    means = []
    was_training = model.training
    model.train()
    try:
        for _ in range(epochs):
            losses = []
            for inputs, targets in batches:
                optimizer.zero_grad()
                value = measure(model(inputs), targets)
                value.backward()
                optimizer.step()
                losses.append(float(value.detach()))
                if after_batch is not None:
                    after_batch()
            if not losses:
                raise ValueError("batches is empty (an iterator can be used for one epoch only)")
            means.append(sum(losses) / len(losses))
    finally:
        model.train(was_training)
    return means
