"""Channels that can only go together, found and taken out through torch-pruning's graph.

Imports torch at its top: imported only when a pruning function runs.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparsert.errors import BackendError
from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import Tensor, nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402

from sparsert.prune.attention import ATTENTION, FewerHeads, refuse_heads  # noqa: E402
from sparsert.prune.calibration import device_of, eval_mode, split_batch  # noqa: E402
from sparsert.prune.masking import CONVOLUTIONS, TRANSPOSED  # noqa: E402

OPAQUE = (nn.LSTM, nn.GRU, nn.RNN, *ATTENTION)
TOLERANCE = 1e-4  # largest difference of outputs over the largest output


class LeftAloneError(ValueError):
    """Channels cannot go; the message says why."""


@dataclass
class ChannelGroup:
    """Channels, or heads, of which each can only go from all these modules at once.

    Attributes:
        name: of the first layer that makes the channels, or of the attention.
        width: how many there are.
        kind: "channels" or "heads".
        makers: layer -> its output channels, one list for each of the group's channels.
        readers: layer -> its inputs, likewise.
        others: modules whose parameters lie along the channels, such as norms, likewise.
        head_size: successive channels that go together.
        reason: why the group is left alone; "": it can shrink.
    """

    name: str
    width: int = 0
    kind: str = "channels"
    makers: dict[str, list[list[int]]] = field(default_factory=dict)
    readers: dict[str, list[list[int]]] = field(default_factory=dict)
    others: dict[str, list[list[int]]] = field(default_factory=dict)
    head_size: int = 1
    reason: str = ""


class Shrinker:
    """A module and the inputs that it is traced and checked with."""

    def __init__(self, model: nn.Module, example_inputs: Any) -> None:
        """Runs the module once.

        Args:
            model: without parametrizations; changed in place.
            example_inputs: a tensor, a tuple of arguments or a mapping of keyword ones.
        """
        self.model = model
        if isinstance(example_inputs, tuple | list):
            example_inputs = (example_inputs, None)
        self._args, self._kwargs, _ = split_batch(example_inputs, device_of(model))
        self.worst_error = 0.0
        self._groups: list[ChannelGroup] = []

    def outputs(self) -> list[Tensor]:
        """Returns every tensor that the module gives for the example inputs."""
        with eval_mode(self.model), torch.no_grad():
            return _flatten(self.model(*self._args, **self._kwargs))

    def find_groups(self, head_sizes: Mapping[str, int]) -> list[ChannelGroup]:
        """Returns the groups of the module, and its attentions, each tried out.

        Args:
            head_sizes: layer -> successive channels of its group that go together.
        """
        names = {part: name for name, part in self.model.named_modules()}
        with self._traced() as graph:
            groups = graph.get_all_groups(root_module_types=(*CONVOLUTIONS, nn.Linear))
            found = [one for g in groups for one in _describe(graph, g, names, head_sizes)]
        for name, part in self.model.named_modules():
            if isinstance(part, ATTENTION):
                reason = refuse_heads(part)
                found.append(ChannelGroup(name, part.num_heads, "heads", reason=reason))
        shared = _shared_parameters(self.model)
        places = {name: number for number, name in enumerate(names.values())}
        for group in found:
            twice = sorted({*group.makers, *group.readers, *group.others, group.name} & shared)
            if twice and not group.reason:
                group.reason = f"the weights of {', '.join(twice)} are shared"
            if group.width < 2 * group.head_size and not group.reason:
                group.reason = "there is one only"
            if not group.reason:
                self._try_out(group)
        self._groups = sorted(found, key=lambda group: places[group.name])
        return self._groups

    def _try_out(self, group: ChannelGroup) -> None:
        last = range(group.width - group.head_size, group.width)
        error = self.worst_error
        with self.restoring():
            try:
                self._take_out(group, last)
            except LeftAloneError as problem:
                group.reason = str(problem)
        self.worst_error = error

    def take_out(self, group: ChannelGroup, gone: Sequence[int]) -> None:
        """Takes channels or heads out, and checks the outputs.

        Raises:
            LeftAloneError: the module does not run without them, or gives other outputs than it
                does when nothing reads them; it is as it was.
        """
        if gone:
            self._take_out(group, gone)
            self._renumber(group, gone)

    def _renumber(self, group: ChannelGroup, gone: Sequence[int]) -> None:
        """Corrects the places of other groups in the modules that they share with this one."""
        for kind in ("makers", "readers", "others"):
            for name, columns in getattr(group, kind).items():
                lost = torch.tensor(sorted(place for c in gone for place in columns[c]))
                for other in self._groups:
                    if other is group or name not in getattr(other, kind):
                        continue
                    getattr(other, kind)[name] = [
                        [place - int((lost < place).sum()) for place in places]
                        for places in getattr(other, kind)[name]
                    ]

    def _take_out(self, group: ChannelGroup, gone: Sequence[int]) -> None:
        with self.ignoring([(group, gone)]):
            expected = self.outputs()
        with self.restoring(only_if_failed=True):
            flags = {name: p.requires_grad for name, p in self.model.named_parameters()}
            try:
                if group.kind == "heads":
                    self._take_heads(group, gone)
                else:
                    self._take_channels(group, gone)
                found = self.outputs()
            except LeftAloneError:
                raise
            except Exception as error:
                raise LeftAloneError(f"the module does not run without it: {error}") from error
            self.compare(found, expected)
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(flags.get(name, True))

    def compare(self, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """Checks outputs, and remembers their largest difference.

        Raises:
            LeftAloneError: they differ.
        """
        if [x.shape for x in found] != [x.shape for x in expected]:
            raise LeftAloneError("they are the model's outputs")
        for x, y in zip(found, expected, strict=True):
            size = float(y.abs().max()) if y.numel() else 0.0
            error = float((x.double() - y.double()).abs().max()) if y.numel() else 0.0
            if not error <= TOLERANCE * max(size, 1e-6):
                raise LeftAloneError("other outputs change with them, as by a norm over channels")
            self.worst_error = max(self.worst_error, error / max(size, 1e-6))

    def _take_channels(self, group: ChannelGroup, gone: Sequence[int]) -> None:
        with self._traced() as graph:
            root = self.model.get_submodule(group.name)
            pruner = graph.get_pruner_of_module(root)
            places = sorted(group.makers[group.name][channel][0] for channel in gone)
            found = graph.get_pruning_group(root, pruner.prune_out_channels, places)
            found.prune(record_history=False)
        if group.head_size > 1:
            _count_heads(self.model, group, len(gone))

    def _take_heads(self, group: ChannelGroup, gone: Sequence[int]) -> None:
        attention = self.model.get_submodule(group.name)
        kept = [head for head in range(group.width) if head not in set(gone)]
        replace_module(self.model, group.name, FewerHeads(attention, kept))

    @contextlib.contextmanager
    def ignoring(self, gone: Sequence[tuple[ChannelGroup, Sequence[int]]]) -> Iterator[None]:
        """Sets to zero what readers multiply channels or heads with, for a while."""
        before: list[tuple[Tensor, Tensor, list[int]]] = []
        try:
            with torch.no_grad():
                for group, channels in gone:
                    for weight, axis, columns in reader_columns(self.model, group):
                        places = [i for channel in channels for i in columns[channel]]
                        part = weight.detach().movedim(axis, 0)
                        before.append((part, part[places], places))  # a copy
                        part[places] = 0
            yield
        finally:
            with torch.no_grad():
                for part, values, places in reversed(before):
                    part[places] = values

    @contextlib.contextmanager
    def restoring(self, only_if_failed: bool = False) -> Iterator[None]:
        """Makes the module what it was, at the end or after an exception.

        Parameters are replaced, not written to, when channels go: no tensor is copied.
        """
        before = [(part, _contents(part)) for part in self.model.modules()]
        is_failed = True
        try:
            yield
            is_failed = False
        finally:
            if is_failed or not only_if_failed:
                for part, contents in before:
                    part.__dict__.clear()
                    part.__dict__.update(contents)

    @contextlib.contextmanager
    def _traced(self) -> Iterator[Any]:
        """Gives the dependency graph of the module as it is now."""
        torch_pruning = _import_torch_pruning()
        graph = torch_pruning.DependencyGraph()
        pruner = _make_pruner(torch_pruning)
        hidden = [part for _, part in names_of(self.model, OPAQUE)]
        frozen = [p for p in self.model.parameters() if not p.requires_grad]
        try:
            for parameter in frozen:
                parameter.requires_grad_(parameter.is_floating_point())
            with (
                eval_mode(self.model),
                torch.enable_grad(),
                warnings.catch_warnings(),
                _opaque(hidden),
            ):
                warnings.simplefilter("ignore")
                yield graph.build_dependency(
                    self.model,
                    None,
                    forward_fn=lambda model, _: model(*self._args, **self._kwargs),
                    output_transform=lambda y: [t for t in _flatten(y) if t.grad_fn is not None],
                    customized_pruners=dict.fromkeys(OPAQUE, pruner),
                    verbose=False,
                )
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)


def _import_torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise BackendError(
            f'shrinking needs torch-pruning ({error}); pip install "sparsert[torch]"'
        ) from error
    return torch_pruning


class _Opaque(torch.autograd.Function):  # type: ignore[name-defined]
    """Makes one node of the autograd graph of what gave y from tensors."""

    @staticmethod
    def forward(_context: Any, y: Tensor, *_inputs: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(_context: Any, *_gradients: Tensor) -> Any:
        raise NotImplementedError


@contextlib.contextmanager
def _opaque(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Hides what modules do inside from a trace of the autograd graph."""

    def wrap(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                y = forward(*args, **kwargs)
            inputs = _flatten([*args, *kwargs.values()])

            def mark(value: Any) -> Any:
                if isinstance(value, Tensor):
                    return _Opaque.apply(value, *inputs)
                return tuple(map(mark, value)) if isinstance(value, tuple) else value

            return mark(y)

        return run

    for module in modules:
        module.forward = wrap(module.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _make_pruner(torch_pruning: Any) -> Any:
    """Returns what takes inputs away from recurrent layers, and nothing else from OPAQUE ones."""

    class Pruner(torch_pruning.BasePruningFunc):  # type: ignore[misc]
        """Of the modules of OPAQUE."""

        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            if not isinstance(layer, nn.RNNBase):
                raise LeftAloneError("an attention reads them")
            kept = [i for i in range(layer.input_size) if i not in set(idxs)]
            for name, _ in list(layer.named_parameters()):
                if name.startswith("weight_ih_l0"):
                    setattr(layer, name, nn.Parameter(getattr(layer, name).detach()[:, kept]))
            layer.input_size = len(kept)
            return layer

        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            raise LeftAloneError(f"a {type(layer).__name__} makes them")

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.input_size if isinstance(layer, nn.RNNBase) else layer.embed_dim)

        def get_out_channels(self, layer: Any) -> int:
            if isinstance(layer, nn.RNNBase):
                return int((layer.proj_size or layer.hidden_size) * (1 + layer.bidirectional))
            return int(layer.embed_dim)

    return Pruner()


def _flatten(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, tuple | list):
        return []
    return [tensor for part in value for tensor in _flatten(part)]


def names_of(model: nn.Module, kinds: tuple[type, ...]) -> list[tuple[str, Any]]:
    """Returns the modules of some classes, by name."""
    return [(name, part) for name, part in model.named_modules() if isinstance(part, kinds)]


def _contents(part: nn.Module) -> dict[str, Any]:
    owned = {k: v for k, v in vars(part).items() if "hooks" not in k}
    copies = {k: v.copy() for k, v in owned.items() if isinstance(v, dict | list | set)}
    return {**vars(part), **copies}


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Puts a module into the place of another one."""
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent)._modules[child] = new


def _describe(
    graph: Any, group: Any, names: Mapping[nn.Module, str], head_sizes: Mapping[str, int]
) -> list[ChannelGroup]:
    """Makes groups of one of torch-pruning's, which has all its channels.

    Where layers that are concatenated make some of the channels each, theirs are groups apart.
    """
    width = len(group[0].idxs)
    order = {name: number for number, name in enumerate(names.values())}
    reasons = {}
    places: dict[str, dict[str, list[list[int]]]] = {"makers": {}, "readers": {}, "others": {}}
    for item in group:
        module, handler = item.dep.target.module, item.dep.handler
        if not isinstance(module, nn.Module) or module not in names:
            continue  # an operation, or a parameter of its own
        name = names[module]
        is_output = graph.is_out_channel_pruning_fn(handler)
        is_both = is_output and graph.is_in_channel_pruning_fn(handler)
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            reasons[name] = "a norm over all channels"
        elif isinstance(module, ATTENTION):
            reasons[name] = "the width of an attention"
            continue
        elif not is_both and getattr(module, "groups", 1) > 1:
            reasons[name] = "a grouped convolution"
        kind = "others" if is_both else "makers" if is_output else "readers"
        columns = places[kind].setdefault(name, [[] for _ in range(width)])
        for place, channel in zip(item.idxs, item.root_idxs, strict=True):
            columns[channel].append(place)
    by_makers: dict[tuple[str, ...], list[int]] = {}
    for channel in range(width):
        here = [name for name, columns in places["makers"].items() if columns[channel]]
        by_makers.setdefault(tuple(sorted(here, key=order.__getitem__)), []).append(channel)
    found = []
    for makers, channels in by_makers.items():
        parts = {
            kind: {
                name: [modules[name][channel] for channel in channels]
                for name in sorted(modules, key=order.__getitem__)
                if any(modules[name][channel] for channel in channels)
            }
            for kind, modules in places.items()
        }
        one = ChannelGroup(makers[0] if makers else names[group[0].dep.target.module])
        one.width, one.makers, one.readers, one.others = len(channels), *parts.values()
        one.reason = ", ".join(f"{what} ({name})" for name, what in reasons.items())
        if not makers:
            one.reason = "no layer makes them"
        sizes = {head_sizes[name] for name in makers if name in head_sizes}
        if sizes:
            one.head_size = max(sizes)
            if len(sizes) > 1 or one.width % one.head_size:
                one.reason = f"its {one.width} channels are no heads of {sorted(sizes)}"
        found.append(one)
    return found


def _shared_parameters(model: nn.Module) -> set[str]:
    """Returns the names of modules whose parameters others have too."""
    owners: dict[int, list[str]] = {}
    for name, part in model.named_modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def reader_columns(
    model: nn.Module, group: ChannelGroup
) -> list[tuple[nn.Parameter, int, list[list[int]]]]:
    """Returns weights that multiply a group's channels: weight, axis, places of each channel."""
    if group.kind == "heads":
        attention: Any = model.get_submodule(group.name)
        size = attention.head_dim
        columns = [list(range(h * size, (h + 1) * size)) for h in range(group.width)]
        return [(attention.out_proj.weight, 1, columns)]
    found = []
    for name, columns in group.readers.items():
        reader: Any = model.get_submodule(name)
        if isinstance(reader, nn.RNNBase):
            weights = [n for n, _ in reader.named_parameters() if n.startswith("weight_ih_l0")]
        else:
            weights = ["weight"] if isinstance(reader, (*CONVOLUTIONS, nn.Linear)) else []
        axis = 0 if isinstance(reader, TRANSPOSED) else 1
        found += [(getattr(reader, weight), axis, columns) for weight in weights]
    return found


def _count_heads(model: nn.Module, group: ChannelGroup, gone: int) -> None:
    """Corrects the numbers of heads, and their total width, that modules around keep."""
    for name in group.makers:
        parent = model.get_submodule(name.rpartition(".")[0])
        for key, value in list(vars(parent).items()):
            if "head" not in key or not isinstance(value, int) or isinstance(value, bool):
                continue
            if value == group.width:
                setattr(parent, key, group.width - gone)
            elif value == group.width // group.head_size != group.head_size:
                setattr(parent, key, (group.width - gone) // group.head_size)


def has_parametrizations(model: nn.Module) -> list[str]:
    """Returns the modules with parametrizations."""
    return [name for name, part in model.named_modules() if parametrize.is_parametrized(part)]


def count_parameters(
    model: nn.Module, groups: Sequence[ChannelGroup]
) -> Callable[[Mapping[str, int]], int]:
    """Returns a function: how many are left of each group -> parameters of the module.

    Groups that are not named keep all.
    """
    along: dict[int, list[tuple[str, float]]] = {}  # id of a parameter -> group, its share of it

    def note(parameter: Any, group: ChannelGroup, columns: list[list[int]], size: int) -> None:
        if parameter is not None:
            share = sum(map(len, columns)) / size
            along.setdefault(id(parameter), []).append((group.name, share))

    for group in groups:
        if group.kind == "heads":
            attention: Any = model.get_submodule(group.name)
            every = [[head] for head in range(group.width)]
            names = ("in_proj_weight", "in_proj_bias")
            for parameter in (*(getattr(attention, n) for n in names), attention.out_proj.weight):
                note(parameter, group, every, group.width)
            continue
        for name, columns in {**group.makers, **group.others}.items():
            module = model.get_submodule(name)
            for parameter in module.parameters(recurse=False):
                is_turned = isinstance(module, TRANSPOSED) and parameter.ndim > 1
                note(parameter, group, columns, parameter.shape[1 if is_turned else 0])
        for weight, axis, columns in reader_columns(model, group):
            note(weight, group, columns, weight.shape[axis])
    widths = {group.name: group.width for group in groups}
    sizes = [(p.numel(), along.get(id(p), [])) for p in model.parameters()]

    def count(left: Mapping[str, int]) -> int:
        total = 0.0
        for size, shares in sizes:
            factor = 1.0
            for name, share in shares:
                factor *= 1 - share * (1 - left.get(name, widths[name]) / widths[name])
            total += size * factor
        return round(total)

    return count
