"""Whole residual blocks: found, and skipped where that costs least.

Imports torch at its top: imported only when a pruning function runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sparsert.errors import describe_problems
from sparsert.prune.attention import ATTENTION
from sparsert.prune.channel_groups import names_of, replace_module
from sparsert.prune.criteria import CRITERIA, Job
from sparsert.prune.keras_check import refuse_keras
from sparsert.prune.masking import PRUNABLE, RECURRENT, join, prunable_layers, weight_of
from sparsert.prune.selection import measure
from sparsert.prune.shrink_report import GroupChange, ShrinkReport
from sparsert.prune.shrinking import scorer
from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import Tensor, nn  # noqa: E402

from sparsert.prune.calibration import device_of, eval_mode, split_batch  # noqa: E402


class Skip(nn.Module):
    """Gives its first argument back, in the place of a residual block."""

    def forward(self, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """Returns x."""
        return x


def find_blocks(model: nn.Module, example_inputs: Any) -> list[str]:
    """Returns the names of the smallest residual blocks.

    Such a module has layers, gives a tensor of the shape of its first argument, and still depends
    on that when the weights of its layers are zero.
    """
    if isinstance(example_inputs, tuple | list):
        example_inputs = (example_inputs, None)
    args, kwargs, _ = split_batch(example_inputs, device_of(model))
    calls: dict[str, list[Any]] = {}

    def hook_of(name: str) -> Callable[..., None]:
        return lambda _module, args, kwargs, y: calls.setdefault(name, []).append((args, kwargs, y))

    handles = [
        part.register_forward_hook(hook_of(name), with_kwargs=True)
        for name, part in model.named_modules()
        if name and any(part.children()) and not isinstance(part, (*RECURRENT, *ATTENTION))
    ]
    with eval_mode(model), torch.no_grad():
        try:
            model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
        found = [
            name
            for name, seen in calls.items()
            if len(seen) == 1 and _is_residual(model.get_submodule(name), *seen[0])
        ]
    places = {name: number for number, (name, _) in enumerate(model.named_modules())}
    inner = [n for n in found if not any(other.startswith(f"{n}.") for other in found)]
    return sorted(inner, key=lambda name: places[name])


def _is_residual(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> bool:
    x = args[0] if args else None
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.shape != y.shape:
        return False
    if names_of(block, RECURRENT):
        return False
    zeros = {
        join(name, parameter): torch.zeros_like(value)
        for name, part in names_of(block, (*PRUNABLE, *ATTENTION))
        for parameter, value in part.named_parameters()
    }
    if not zeros:
        return False
    outputs = [
        torch.func.functional_call(block, zeros, (value, *args[1:]), kwargs)
        for value in (x, x.roll(1, -1) + 1)
    ]
    return bool((outputs[0] - outputs[1]).abs().max() > 1e-3)


def skip_residual_blocks(
    model: nn.Module,
    example_inputs: Any,
    count: int,
    *,
    method: str | None = None,
    exclude: Sequence[str] = (),
    data: Iterable[Any] | None = None,
    loss: Any = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    seed: int = 0,
) -> ShrinkReport:
    """Does what sparsert.prune.skip_blocks() promises."""
    refuse_keras("skip_blocks", model)
    blocks = find_blocks(model, example_inputs)
    problems = []
    unknown = sorted(set(exclude) - set(blocks))
    if unknown:
        problems.append(
            f"there is no residual block {', '.join(map(repr, unknown))}; the module has "
            f"{', '.join(blocks) or 'none'}"
        )
    able = [name for name in blocks if name not in exclude]
    if not 1 <= count <= len(able):
        problems.append(f"count is {count}, but {len(able)} residual blocks can be skipped")
    if method is not None and method not in CRITERIA:
        problems.append(f"method is {method!r}, expected one of {', '.join(CRITERIA)}")
    elif method is not None and CRITERIA[method].needs != "nothing" and data is None:
        problems.append(f"method {method!r} needs data")
    if method is None and data is None and evaluate is None:
        problems.append("give data, evaluate or a method: what shows the blocks that matter least")
    if problems:
        raise ValueError(describe_problems("skip_blocks", problems))
    before = sum(parameter.numel() for parameter in model.parameters())
    scores: dict[str, float] = {}
    if method is not None:
        scores = _importance(model, able, Job(model, {}, {}, data, loss, seed), method)
        gone = sorted(able, key=lambda name: scores[name])[:count]
        for name in gone:
            replace_module(model, name, Skip())
    else:
        score = scorer(model, data, loss, evaluate)
        gone = []
        for _ in range(count):
            trials = {}
            for name in able:
                block = model.get_submodule(name)
                replace_module(model, name, Skip())
                try:
                    trials[name] = score()
                finally:
                    replace_module(model, name, block)
            gone.append(min(trials, key=lambda name: trials[name]))
            able.remove(gone[-1])
            scores.update(trials)
            replace_module(model, gone[-1], Skip())
    what = method or ("loss" if evaluate is None else "score")
    sign = -1 if method is None and evaluate is not None else 1
    changes = []
    for name in blocks:
        reason = "excluded" if name in exclude else f"{what} {sign * scores[name]:.4g} without it"
        if method is not None and name in scores:
            reason = f"mean importance {scores[name]:.4g}"
        places = [0] if name in gone else []
        changes.append(GroupChange(name, "block", [name], [], 1, places, reason=reason))
    after = sum(parameter.numel() for parameter in model.parameters())
    return ShrinkReport(what, "blocks", changes, before, after, 0.0)


def _importance(model: nn.Module, blocks: Sequence[str], job: Job, method: str) -> dict[str, float]:
    """Returns the mean importance of each block's weights."""
    layers = {
        name: layer
        for name, layer in prunable_layers(model).items()
        if any(name.startswith(f"{block}.") for block in blocks)
    }
    weights = {name: weight_of(layer) for name, layer in layers.items()}
    found = measure(method, Job(model, layers, weights, job.data, job.loss, job.seed))
    means = {}
    for block in blocks:
        inside = [score for name, score in found.items() if name.startswith(f"{block}.")]
        means[block] = sum(float(s.sum()) for s in inside) / sum(s.numel() for s in inside)
    return means
