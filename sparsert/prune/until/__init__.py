"""prune_until(): prunes and trains in turns until a measured target is reached."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsert.prune.fine_tuning import fine_tune
from sparsert.prune.keras_check import refuse_keras
from sparsert.prune.torch_import import import_torch
from sparsert.prune.until.goals import (
    PATTERNS,
    SPARSITIES,
    Settings,
    TargetError,
    check_goal,
    refuse,
)

if TYPE_CHECKING:
    import torch

    from sparsert.prune.until.loop import Bench
    from sparsert.prune.until.result import PruneUntilResult

__all__ = ["TargetError", "prune_until"]


def prune_until(
    model: torch.nn.Module,
    evaluate: Callable[[torch.nn.Module], float],
    *,
    max_drop: float | None = None,
    target_speedup: float | None = None,
    target_latency: float | None = None,
    target_bytes: float | None = None,
    data: Iterable[Any] | None = None,
    train: Callable[..., Sequence[float] | None] | None = None,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    example_inputs: Any = None,
    method: str = Settings.method,
    patterns: Sequence[str] = PATTERNS,
    sparsities: Sequence[float] = SPARSITIES,
    exclude: Sequence[str] = (),
    epochs: int = Settings.epochs,
    learning_rate: float = Settings.learning_rate,
    rounds: int = Settings.rounds,
    retries: int = Settings.retries,
    tolerance: float = Settings.tolerance,
    batches: int = Settings.batches,
    trials: int = Settings.trials,
    threads: int = Settings.threads,
    seed: int = Settings.seed,
    state: str | os.PathLike[str] | None = None,
    bench: Bench | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    after_batch: Callable[[], Any] | None = None,
) -> PruneUntilResult:
    """Prunes and trains a module in turns until it is as fast, or as small, as asked for.

    Every layer is timed on this machine in sparsert's kernels, with random zeros of each pattern
    and sparsity, and pruned on its own to see what that does to the outputs. In each round the
    patterns and sparsities of least harm within the round's time are found by dynamic programming,
    and by a random search around it for what all layers together do to the outputs. The whole
    module is timed beside the dense one in ONNX Runtime, the choices are corrected by that, the
    module is trained, and evaluated. A round that loses more than `max_drop` is trained once more,
    then rolled back, and one that goes half as far is tried.

    Args:
        model: pruned in place, and left at the chosen point with its masks held; as it was after
            the last round that held, if anything is raised.
        evaluate: measures the module, which is in eval mode: more is better, such as accuracy.
        max_drop: how much of what `evaluate` returned at first may be lost. With no target: the
            module gets as fast as that allows.
        target_speedup: times as fast as the dense module in ONNX Runtime (if that is not
            installed: in sparsert).
        target_latency: seconds of a run that nothing else on the machine disturbs.
        target_bytes: of the .sprt file.
        data: batches, as in fine_tune(), that can be gone through again and again. To go on after a
            kill exactly as if it had not been, their order must come from torch's own generator,
            as a DataLoader's does.
        train: your own training loop in the place of fine_tune(), as in Recipe.run().
        loss: (outputs, targets) -> scalar; None: cross entropy.
        example_inputs: what the module is timed on, as in sparsert.load(); None: the first sample
            of the data.
        method: of prune().
        patterns: to choose from: those of sparsert.forecast().
        sparsities: shares of zeros to measure at, ascending; those between are chosen as well.
        exclude: names of layers to leave alone.
        epochs: of each training.
        learning_rate: of each training.
        rounds: in how many rounds a target is approached, each the same part of the way.
        retries: how many rounds of half the way are tried after one that lost too much.
        tolerance: how near to the target the time of the whole module is to come.
        batches: of the data, that methods and the sensitivity analysis see. Without data, each
            layer's harm is what `evaluate` loses.
        trials: in each round, how many other choices are tried on the whole module, on those
            batches: the harm of all layers together is not the sum of each one's.
        threads: of a run, in each engine.
        seed: of training, random criteria and the zeros of the table.
        state: folder, made if missing, in which everything done is kept: after a kill, the same
            call goes on where it was. None: in memory.
        bench: what measures, if not this machine: see sparsert.report.module_bench.ModuleBench.
        on_progress: called with what is being done, and the share of it that is done.
        after_batch: called after each batch of training.

    Returns:
        Every point that was measured, their front, the chosen one, and the tables of costs and
        sensitivities; `.recipe()` replays its rounds without measuring.

    Raises:
        TargetError: the target cannot be reached with the most zeros in every layer; it names the
            nearest that can, before anything is trained.
        ValueError: lists what is wrong with the arguments; `evaluate` or the training returned
            what is not finite.
        SparsertError: the state is of another run, or an engine failed.
        BackendError: PyTorch is not installed.

    Example:
        >>> result = sparsert.prune.prune_until(         # doctest: +SKIP
        ...     module, accuracy, target_speedup=4, max_drop=0.01, data=loader, state="run"
        ... )
        >>> print(result)                                # doctest: +SKIP
        >>> sparsert.prune.remove(module)                # doctest: +SKIP
    """
    import_torch()
    refuse_keras("prune_until", model)
    goal, problems = check_goal(max_drop, target_speedup, target_latency, target_bytes)
    if data is None and train is None:
        problems.append("give data, or train: a training loop of yours")
    if data is not None and iter(data) is data:
        problems.append("data is an iterator, which can be used once: give a list or a DataLoader")
    if isinstance(data, Sized) and not len(data):
        problems.append("data is empty")
    if bench is None and example_inputs is None and data is None:
        problems.append("give example_inputs, or data: what the module is timed on")
    refuse(problems)
    settings = Settings(
        method=method,
        patterns=tuple(patterns),
        sparsities=tuple(sparsities),
        exclude=tuple(exclude),
        epochs=epochs,
        learning_rate=learning_rate,
        rounds=rounds,
        retries=retries,
        tolerance=tolerance,
        batches=batches,
        trials=trials,
        threads=threads,
        seed=seed,
    )
    from sparsert.prune.until.loop import Loop
    from sparsert.report.module_bench import ModuleBench

    def fit(report: Callable[[float], None]) -> Sequence[float]:
        total = epochs * len(data) if isinstance(data, Sized) else 0
        done = 0

        def after() -> None:
            nonlocal done
            done += 1
            if done <= total:
                report(done / total)
            if after_batch is not None:
                after_batch()

        if train is not None:
            options = {"epochs": epochs, "learning_rate": learning_rate}
            return train(model, after_batch=after, **options) or ()
        assert data is not None
        return fine_tune(
            model, data, epochs=epochs, learning_rate=learning_rate, loss=loss, after_batch=after
        )

    def wait(seconds: float) -> None:
        if on_progress is not None:
            on_progress(f"waiting for a calm machine, {max(0.0, seconds):.0f} s at most", 0.0)

    own = None
    if bench is None:
        example = first_sample(data) if example_inputs is None else example_inputs
        bench = own = ModuleBench(model, example, threads=threads, seed=seed, on_wait=wait)
    try:
        return Loop(
            model,
            evaluate,
            fit,
            bench,
            goal,
            settings,
            data=data,
            loss=loss,
            state=None if state is None else Path(state),
            on_progress=on_progress,
        ).run()
    finally:
        if own is not None:
            own.close()


def first_sample(data: Any) -> Any:
    """Returns the inputs of the first sample of the data, as example_inputs."""
    from sparsert.prune.calibration import split_batch

    for batch in data:
        args, kwargs, _ = split_batch(batch)
        if kwargs:
            return {name: value[:1] for name, value in kwargs.items()}
        return tuple(value[:1] for value in args)
    raise ValueError("data is empty")
