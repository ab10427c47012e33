"""What the weights of a layer are multiplied with.

Imports torch at its top: imported only when a pruning function runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import Tensor, nn  # noqa: E402

from sparsert.prune.masking import CONVOLUTIONS, TRANSPOSED  # noqa: E402


def columns_of(module: Any, x: Tensor) -> Tensor:
    """Returns the inputs of a linear layer or convolution, one row for each output position.

    Args:
        module: the layer.
        x: its input.

    Returns:
        f32, [groups, samples and positions, taps * input channels of a group]: the columns are
        those of to_matrices().
    """
    x = x.detach().float()
    if not isinstance(module, CONVOLUTIONS):
        return x.reshape(1, -1, x.shape[-1])
    kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    rank = len(kernel)
    if x.ndim == rank + 1:
        x = x[None]
    if isinstance(module, TRANSPOSED):
        x, stride = _stretch(module, x), (1,) * rank
    else:
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = nn.functional.pad(x, list(module._reversed_padding_repeated_twice), mode=mode)
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    sizes = [(n - r - 1) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    taps = []
    for tap in itertools.product(*(range(k) for k in kernel)):
        first = [t * d for t, d in zip(tap, dilation, strict=True)]
        if isinstance(module, TRANSPOSED):  # its window runs backwards
            first = [r - f for r, f in zip(reach, first, strict=True)]
        window = tuple(
            slice(f, f + (n - 1) * s + 1, s) for f, n, s in zip(first, sizes, stride, strict=True)
        )
        taps.append(x[(slice(None), slice(None), *window)].flatten(2))
    stacked = torch.stack(taps)  # [taps, samples, channels, positions]
    grouped = stacked.unflatten(2, (module.groups, -1))
    return grouped.permute(2, 1, 4, 0, 3).flatten(3).flatten(1, 2)


def _stretch(module: Any, x: Tensor) -> Tensor:
    """Returns the input whose plain convolution is a transposed one."""
    stretched = x.new_zeros(
        *x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], module.stride, strict=True))
    )
    stretched[(slice(None), slice(None), *(slice(None, None, s) for s in module.stride))] = x
    pads: list[int] = []
    settings = zip(
        module.kernel_size, module.dilation, module.padding, module.output_padding, strict=True
    )
    for kernel, dilation, padding, more in reversed(list(settings)):
        edge = dilation * (kernel - 1) - padding
        pads += [edge, edge + more]
    return nn.functional.pad(stretched, pads)


def recurrent_inputs(
    module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Returns what each weight of a recurrent module is multiplied with, by parameter name.

    The module's levels run one after another, those of both directions by themselves.

    Raises:
        ValueError: the input is packed, or the module projects its state.
    """
    given: dict[str, Any] = {**dict(zip(("input", "hx"), args, strict=False)), **kwargs}
    x, state = given["input"], given.get("hx")
    if isinstance(module, nn.RNNCellBase):
        hidden = state[0] if isinstance(state, tuple) else state
        if hidden is None:
            hidden = x.new_zeros(*x.shape[:-1], module.hidden_size)
        return {"weight_ih": x, "weight_hh": hidden}
    if not isinstance(x, Tensor) or module.proj_size:
        raise ValueError(
            f"the inputs of a {type(module).__name__} with packed sequences or proj_size cannot be "
            "measured: use another method, or exclude it"
        )
    if x.ndim == 2:
        x = x.unsqueeze(0 if module.batch_first else 1)
        states = state if isinstance(state, tuple) else (state,)
        unbatched = tuple(part[:, None] for part in states if part is not None)
        state = (unbatched if isinstance(state, tuple) else unbatched[0]) if unbatched else None
    x = x.transpose(0, 1) if module.batch_first else x  # [time, batch, features]
    found = {}
    ways = 2 if module.bidirectional else 1
    for level in range(module.num_layers):
        outputs = []
        for way in range(ways):
            suffix = f"_l{level}" + ("_reverse" if way else "")
            place = level * ways + way
            start = _state_at(state, place)
            here = x.flip(0) if way else x
            output = _run_level(module, suffix, here, start)
            first = start[0] if isinstance(start, tuple) else start
            if first is None:
                first = x.new_zeros(1, x.shape[1], module.hidden_size)
            found[f"weight_ih{suffix}"] = here
            found[f"weight_hh{suffix}"] = torch.cat([first, output[:-1]])
            outputs.append(output.flip(0) if way else output)
        x = torch.cat(outputs, -1)
    return found


def attention_inputs(
    module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Returns what each weight of an attention is multiplied with, by the parameter's name.

    Those of the projection behind it are called "out_proj".

    Returns:
        [1 or 3, samples and positions, features]; 3 where queries, keys and values differ. Rows of
        zeros make up for fewer positions.
    """
    names = ("query", "key", "value")
    given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
    tensors = [given[name] for name in names]
    rows = [x.detach().reshape(-1, x.shape[-1]).float() for x in tensors]
    found = {}
    if getattr(module, "in_proj_weight", None) is None:
        for letter, x in zip("qkv", rows, strict=True):
            found[f"{letter}_proj_weight"] = x[None]
    elif tensors[0] is tensors[1] is tensors[2]:
        found["in_proj_weight"] = rows[0][None]
    else:
        found["in_proj_weight"] = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    if isinstance(module, nn.MultiheadAttention):  # it computes with out_proj by itself
        last = module.out_proj
        unchanged = nn.Linear(last.in_features, last.in_features).to(last.weight)
        with torch.no_grad():
            nn.init.eye_(unchanged.weight)
            nn.init.zeros_(unchanged.bias)
            module._modules["out_proj"] = unchanged
            try:
                mixed = module.forward(*args, **kwargs)[0]
            finally:
                module._modules["out_proj"] = last
        found["out_proj"] = mixed.reshape(1, -1, mixed.shape[-1]).float()
    return found


def _state_at(state: Any, place: int) -> Any:
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(part[place : place + 1] for part in state)
    return state[place : place + 1]


def _run_level(module: Any, suffix: str, x: Tensor, state: Any) -> Tensor:
    """Runs one level in one direction with the weights that the module computes with."""
    kind = next(kind for kind in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(module, kind))
    options = {"nonlinearity": module.nonlinearity} if kind is nn.RNN else {}
    level = kind(x.shape[-1], module.hidden_size, bias=module.bias, **options).to(x)
    with torch.no_grad():
        for name, parameter in level.named_parameters():
            parameter.copy_(getattr(module, name.removesuffix("_l0") + suffix))
        output: Tensor = level(x, state)[0]
    return output
