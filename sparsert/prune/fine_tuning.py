"""Training of a pruned module with its masks held."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sparsert.prune.keras_check import is_keras
from sparsert.prune.torch_import import import_torch

if TYPE_CHECKING:
    import torch


def fine_tune(
    model: torch.nn.Module,
    batches: Iterable[Any],
    *,
    epochs: int = 1,
    learning_rate: float = 1e-4,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    after_batch: Callable[[], Any] | None = None,
) -> list[float]:
    """Trains a module; weights that masks hold stay zero, all others move.

    After a pruning a learning rate well below that of the training keeps what was learnt.

    A Keras model (with torch as its backend) can be trained here, or by its own fit(), which holds
    the zeros too.

    Args:
        model: trained in place; left in the mode (train or eval) it was in.
        batches: (inputs, targets) pairs; iterated once per epoch, such as a DataLoader. Inputs
            may be a tensor, a tuple of them or a mapping; what prune() takes as data is fine.
        epochs: how many times.
        learning_rate: of Adam; ignored when `optimizer` is given.
        loss: (outputs, targets) -> scalar; None: cross entropy of logits with class numbers.
        optimizer: over the module's parameters, made after it was pruned; None: Adam.
        after_batch: called after each step: the step() of a schedule, or a progress bar.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: `batches` is empty, or the loss became infinite or NaN.
        BackendError: PyTorch is not installed.

    Example:
        >>> sparsert.prune.fine_tune(module, loader, epochs=3)  # doctest: +SKIP
    """
    if not is_keras(model):
        return train(model, batches, epochs, learning_rate, loss, optimizer, after_batch, (None,))
    if optimizer is not None or after_batch is not None:
        raise ValueError(
            "fine_tune: a Keras model takes no torch optimizer, nor after_batch: use its fit()"
        )
    import_torch()
    from sparsert.prune.keras_view import KerasView

    view = KerasView(model)
    losses = train(view, batches, epochs, learning_rate, loss, None, None, (None,))
    view.write_back()
    return losses


def train(
    model: torch.nn.Module,
    batches: Iterable[Any],
    epochs: int,
    learning_rate: float,
    loss: Callable[[Any, Any], torch.Tensor] | None,
    optimizer: torch.optim.Optimizer | None,
    after_batch: Callable[[], Any] | None,
    views: Iterable[Callable[[], None] | None],
) -> list[float]:
    """Trains; the loss of a batch is the sum of those of all `views`.

    Args:
        model: as in fine_tune(), as the others.
        batches: of the data.
        epochs: how many times.
        learning_rate: of Adam.
        loss: of a batch.
        optimizer: None: Adam.
        after_batch: called after each step.
        views: iterated for each batch; called before a forward and backward pass of its own, to
            change what the module computes with; None: nothing changes.
    """
    torch = import_torch()
    from sparsert.prune.calibration import device_of, loss_of, split_batch

    if optimizer is None:
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    means = []
    device = device_of(model)
    was_training = model.training
    model.train()
    try:
        for epoch in range(epochs):
            losses: list[float] = []
            for batch in batches:
                args, kwargs, targets = split_batch(batch, device)
                optimizer.zero_grad()
                total = 0.0
                for view in views:
                    if view is not None:
                        view()
                    value = loss_of(model(*args, **kwargs), targets, loss)
                    total += float(value.detach())
                    if not abs(total) < float("inf"):
                        raise ValueError(
                            f"the loss of batch {len(losses)} in epoch {epoch} is {total}: "
                            "try a smaller learning_rate"
                        )
                    value.backward()
                losses.append(total)
                optimizer.step()
                if after_batch is not None:
                    after_batch()
            if not losses:
                raise ValueError("batches is empty (an iterator can be used for one epoch only)")
            means.append(sum(losses) / len(losses))
    finally:
        model.train(was_training)
    return means


def recalibrate_batch_norms(
    model: torch.nn.Module, batches: Iterable[Any], *, most: int | None = None
) -> int:
    """Measures the means and variances of batch norms anew: a pruning shifts them.

    No weight changes; a pruned network often gets much of its accuracy back by this alone.

    Args:
        model: changed in place; left in the mode it was in.
        batches: as in fine_tune(); targets are not needed.
        most: how many batches to use; None: all.

    Returns:
        How many batch norms the module has; with none, the data is not read.

    Raises:
        ValueError: `batches` is empty; the model is one of Keras, whose norms fit() moves.
        BackendError: PyTorch is not installed.
    """
    torch = import_torch()
    if is_keras(model):
        raise ValueError(
            "recalibrate_batch_norms: the norms of a Keras model move in its fit(), or in fine_tune"
        )
    from sparsert.prune.calibration import device_of, eval_mode, split_batch

    norms = [
        part
        for part in model.modules()
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.track_running_stats
    ]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    device = device_of(model)
    count = 0
    with eval_mode(model), torch.no_grad():
        try:
            for batch in batches:
                if count == most:
                    break
                if count == 0:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # the mean of all batches
                        norm.training = True
                args, kwargs, _ = split_batch(batch, device)
                model(*args, **kwargs)
                count += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    if count == 0:
        raise ValueError("batches is empty (an iterator can be used once only)")
    return len(norms)
