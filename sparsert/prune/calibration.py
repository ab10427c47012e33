"""Runs of a module over data that measure it: gradients, activations, inputs of layers.

The module runs in eval mode, so that neither dropout nor the statistics of batch norms take part,
and is left as it was. Imports torch at its top: imported only when a pruning function runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import Tensor, nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

from sparsert.prune.attention import ATTENTION  # noqa: E402
from sparsert.prune.layer_inputs import (  # noqa: E402
    attention_inputs,
    columns_of,
    recurrent_inputs,
)
from sparsert.prune.masking import (  # noqa: E402
    CONVOLUTIONS,
    PRUNABLE,
    PrunableLayer,
    held_mask,
    parameter_of,
    sites_of,
)

if TYPE_CHECKING:
    from sparsert.prune.criteria import Job, Scores

Batch = tuple[tuple[Any, ...], dict[str, Any], Any]  # arguments, keyword ones, targets
Loss = Callable[[Any, Any], Tensor]

MOST_VALUES = 1 << 24  # inputs of a convolution's windows at a time

# Functions whose result is still the activation of the layer that they are called on.
_FOLLOWED = {
    *(
        "relu",
        "relu_",
        "relu6",
        "leaky_relu",
        "leaky_relu_",
        "elu",
        "elu_",
        "selu",
        "selu_",
        "celu",
    ),
    *("gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "hardtanh_", "softplus"),
    *("sigmoid", "sigmoid_", "tanh", "tanh_", "prelu", "batch_norm", "instance_norm", "group_norm"),
    *("clamp", "clamp_", "clip", "dropout", "feature_dropout"),
}


def split_batch(batch: Any, device: Any = None) -> Batch:
    """Returns the arguments of the module and the targets, on a device.

    Args:
        batch: (inputs, targets), a tensor of inputs, or a mapping of keyword arguments. Inputs: a
            tensor, a tuple of several, or a mapping.
        device: where the tensors go; None: they stay.
    """
    targets = None
    if isinstance(batch, tuple | list) and len(batch) == 2:
        batch, targets = batch
    elif isinstance(batch, tuple | list) and len(batch) == 1:
        (batch,) = batch
    elif not isinstance(batch, Tensor | Mapping):
        raise ValueError(
            f"a batch is a {type(batch).__name__}, expected a tensor, (inputs, targets) or a "
            "mapping of the module's arguments"
        )
    if device is not None:
        batch, targets = _move(batch, device), _move(targets, device)
    if isinstance(batch, Mapping):
        return (), dict(batch), targets
    return (tuple(batch) if isinstance(batch, tuple | list) else (batch,)), {}, targets


def _move(value: Any, device: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _move(part, device) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_move(part, device) for part in value)
    return value


def loss_of(outputs: Any, targets: Any, loss: Loss | None) -> Tensor:
    """Returns loss(outputs, targets); by default outputs.loss, or else cross entropy."""
    if loss is not None:
        return loss(outputs, targets)
    if targets is not None:
        return nn.functional.cross_entropy(outputs, targets)
    own = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if own is None:
        raise ValueError("a batch has no targets: expected (inputs, targets)")
    return cast(Tensor, own)


def compute_loss(job: Job, outputs: Any, targets: Any) -> Tensor:
    """Returns the loss of a job's batch.

    Raises:
        ValueError: it is not one finite number.
    """
    value = loss_of(outputs, targets, job.loss)
    if value.numel() != 1:
        raise ValueError(f"the loss has shape {list(value.shape)}, expected one number")
    if not bool(value.isfinite()):
        raise ValueError(f"the loss is {float(value)}")
    return value.reshape(())


def device_of(model: nn.Module) -> Any:
    """Returns where the module's first parameter is; None if it has none."""
    return next((parameter.device for parameter in model.parameters()), None)


def batches_of(job: Job) -> Iterator[tuple[int, Batch]]:
    """Numbers the batches of a job.

    Raises:
        ValueError: there are none.
    """
    assert job.data is not None
    data: Any = [job.data] if isinstance(job.data, Tensor | Mapping) else job.data
    device = device_of(job.model)
    number = -1
    for number, batch in enumerate(data):
        yield number, split_batch(batch, device)
    if number < 0:
        raise ValueError("data is empty (an iterator can be used once only)")


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Sets eval mode, then every part's own mode again."""
    flags = [(part, part.training) for part in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for part, training in flags:
            part.training = training


def mean_of_gradients(job: Job, measure: Callable[[Tensor, Tensor], Tensor]) -> Scores:
    """Returns the mean over batches of measure(gradient, weight), by layer.

    The gradient is that by the weight which the layer computes with, so that masked entries have
    one too; batches count by their number of samples.

    Raises:
        ValueError: no data, a layer that the loss does not depend on, or a gradient or loss that
            is not finite.
    """
    sums: Scores = {}
    total = 0
    sites = _weight_sites(job)
    with _requiring_gradients(job), eval_mode(job.model), torch.enable_grad():
        for number, (args, kwargs, targets) in batches_of(job):
            with parametrize.cached():
                weights = [getattr(site.module, site.parameter) for _, site in sites]
                loss = compute_loss(job, job.model(*args, **kwargs), targets)
                parts = torch.autograd.grad(loss, weights, allow_unused=True)
            slopes: dict[str, Tensor] = {}
            for (name, _), part in zip(sites, parts, strict=True):
                if part is not None:
                    slopes[name] = slopes[name] + part if name in slopes else part
            _check_reached([name for name in job.layers if name not in slopes])
            _check_finite("gradients", number, slopes)
            count = count_samples(args, kwargs)
            total += count
            for name, slope in slopes.items():
                value = measure(slope, job.weights[name]) * count
                sums[name] = sums[name] + value if name in sums else value
    return {name: value / total for name, value in sums.items()}


def _weight_sites(job: Job) -> list[tuple[str, PrunableLayer]]:
    """Returns every place where a layer's weight is computed with.

    An unmasked weight that several modules share is one tensor, and one place is enough.
    """
    found = []
    for name, layer in job.layers.items():
        is_masked = held_mask(layer) is not None
        sites = sites_of(job.model, layer) if is_masked else [layer]
        found += [(name, site) for site in sites]
    return found


@contextlib.contextmanager
def _requiring_gradients(job: Job) -> Iterator[None]:
    parameters = [parameter_of(layer) for layer in job.layers.values()]
    frozen = [p for p in parameters if p is not None and not p.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def count_samples(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Returns the length of the first input."""
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    return next((tensor.shape[0] for tensor in tensors if tensor.ndim), 1)


def _check_reached(names: Sequence[str]) -> None:
    if names:
        raise ValueError(f"layers that the data does not reach: {', '.join(names)}; exclude them")


def _check_finite(what: str, number: int, values: Mapping[str, Tensor]) -> None:
    bad = [name for name, value in values.items() if not bool(value.isfinite().all())]
    if bad:
        raise ValueError(f"{what} of batch {number} that are not finite: {', '.join(bad)}")


class _Follow(TorchFunctionMode):
    """Keeps the activations of layers through the norms and activation functions behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, Tensor]] = []
        self._place: dict[int, int] = {}  # id of a tensor -> its place in `found`

    def add(self, name: str, output: Tensor) -> None:
        """Begins to follow the output of a layer."""
        self._place[id(output)] = len(self.found)
        self.found.append((name, output))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs a function of torch."""
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _FOLLOWED and args and isinstance(result, Tensor):
            place = self._place.get(id(args[0]))
            if place is not None and self.found[place][1] is args[0]:
                self._place[id(result)] = place
                self.found[place] = (self.found[place][0], result)
        return result


@contextlib.contextmanager
def _following(job: Job) -> Iterator[_Follow]:
    follow = _Follow()

    def hook_of(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: follow.add(name, output)

    handles = [
        layer.module.register_forward_hook(hook_of(name)) for name, layer in job.layers.items()
    ]
    try:
        with follow:
            yield follow
    finally:
        for handle in handles:
            handle.remove()


def _by_channel(module: nn.Module, values: Tensor) -> Tensor:
    """Returns [output channels, everything else]."""
    spatial = len(module.kernel_size) if isinstance(module, CONVOLUTIONS) else 0
    return values.movedim(values.ndim - 1 - spatial, 0).flatten(1)


def follow_activations(job: Job, measure: Callable[[Any, Any, list[Tensor]], list[Any]]) -> Scores:
    """Returns per output channel the mean over samples and positions of abs(measured values).

    Args:
        job: layers must be convolutions and linear ones.
        measure: (outputs, targets, activations) -> a tensor for each activation.

    Raises:
        ValueError: no data, a layer that is not reached, or values that are not finite.
    """
    sums: Scores = {}
    counts: dict[str, int] = {}
    with _requiring_gradients(job), eval_mode(job.model), torch.enable_grad():
        for number, (args, kwargs, targets) in batches_of(job):
            with _following(job) as follow:
                outputs = job.model(*args, **kwargs)
            names = [name for name, _ in follow.found]
            _check_reached([name for name in job.layers if name not in names])
            _check_finite("activations", number, dict(follow.found))
            values = measure(outputs, targets, [tensor for _, tensor in follow.found])
            _check_reached([n for n, value in zip(names, values, strict=True) if value is None])
            values = [value.detach().float() for value in values]
            _check_finite("values", number, dict(zip(names, values, strict=True)))
            for name, value in zip(names, values, strict=True):
                here = _by_channel(job.layers[name].module, value.abs())
                total = here.sum(1)
                sums[name] = sums[name] + total if name in sums else total
                counts[name] = counts.get(name, 0) + here.shape[1]
    return {name: sums[name] / counts[name] for name in job.layers}


def channel_slopes(job: Job) -> Scores:
    """Returns per output channel the mean of abs(da/dx); activation-sensitivity documents it."""
    sums: Scores = {}
    total = 0
    with _requiring_gradients(job), eval_mode(job.model), torch.enable_grad():
        for number, (args, kwargs, _targets) in batches_of(job):
            args, kwargs, x = _with_slopes(args, kwargs)
            with _following(job) as follow:
                job.model(*args, **kwargs)
            names = [name for name, _ in follow.found]
            _check_reached([name for name in job.layers if name not in names])
            _check_finite("activations", number, dict(follow.found))
            count = x.shape[0] if x.ndim else 1
            total += count
            for name, tensor in follow.found:
                channels = _by_channel(job.layers[name].module, tensor)
                means = channels.sum(1) * (count / channels.shape[1])
                slopes = [
                    torch.autograd.grad(mean, x, retain_graph=True, allow_unused=True)[0]
                    for mean in means
                ]
                _check_reached([name] if slopes[0] is None else [])
                values = torch.stack([slope.abs().mean() * count for slope in slopes])
                _check_finite("sensitivities", number, {name: values})
                sums[name] = sums[name] + values if name in sums else values
    return {name: sums[name] / total for name in job.layers}


def _with_slopes(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """Makes the first input of floats one that gradients are taken by."""
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for key, value in places:
        if isinstance(value, Tensor) and value.is_floating_point():
            x = value.detach().clone().requires_grad_(True)
            if isinstance(key, int):
                return (*args[:key], x, *args[key + 1 :]), kwargs, x
            return args, {**kwargs, key: x}, x
    raise ValueError(
        "the model has no input of floats, by which activations could be differentiated: use "
        "another method"
    )


def _parts(module: nn.Module, x: Tensor) -> Sequence[Tensor]:
    """Splits a batch whose windows would take much memory."""
    if not isinstance(module, CONVOLUTIONS) or x.ndim != len(module.kernel_size) + 2:
        return [x]
    taps = module.weight[0, 0].numel()
    return x.split(max(1, MOST_VALUES * len(x) // max(1, x.numel() * taps)))


def visit_inputs(job: Job, visit: Callable[[str, Tensor], None]) -> None:
    """Runs the data; calls visit(layer, columns) for the inputs of every call of every layer.

    Args:
        job: the layers whose inputs are wanted.
        visit: gets [groups or 1, samples and positions, taps * input channels], f32: what each
            weight of to_matrices() is multiplied with.

    Raises:
        ValueError: no data, a layer that is not reached, or inputs that are not finite.
    """
    seen: set[str] = set()
    number = 0
    by_module: dict[nn.Module, list[str]] = {}
    for name, layer in job.layers.items():
        module = layer.module
        if layer.is_projection:  # it is not called: the attention computes with its weight
            module = next(m for m in job.model.modules() if layer.module in m.children())
        by_module.setdefault(module, []).append(name)

    def show(name: str, columns: Tensor) -> None:
        _check_finite("inputs", number, {name: columns})
        seen.add(name)
        visit(name, columns)

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = by_module[module]
        if isinstance(module, PRUNABLE):
            x = args[0] if args else kwargs["input"]
            for part in _parts(module, x):
                show(names[0], columns_of(module, part))
            return
        if isinstance(module, ATTENTION):
            for parameter, x in attention_inputs(module, args, kwargs).items():
                for name in names:
                    layer = job.layers[name]
                    if parameter == ("out_proj" if layer.is_projection else layer.parameter):
                        show(name, x)
            return
        for parameter, x in recurrent_inputs(module, args, kwargs).items():
            for name in names:
                if job.layers[name].parameter == parameter:
                    show(name, x.reshape(1, -1, x.shape[-1]).float())

    handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module in by_module]
    try:
        with eval_mode(job.model), torch.no_grad():
            for number, (args, kwargs, _targets) in batches_of(job):  # noqa: B007
                job.model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    _check_reached([name for name in job.layers if name not in seen])
