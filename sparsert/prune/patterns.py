"""Patterns: which weights of a layer go together.

Every weight is seen as [groups, rows, taps, columns]: rows are output channels of a group, columns
its input channels, taps the positions of a convolution's window. Groups are those of a convolution,
the gates of a recurrent layer, or the queries, keys and values of an attention; nothing goes
together across them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch

    from sparsert.prune.masking import PrunableLayer

BLOCK_SIZES = (2, 4, 8, 16)  # what files and kernels know
UNSTRUCTURED = "unstructured"
CHANNEL = "channel"
PATTERNS_HELP = (
    f"{UNSTRUCTURED}, {CHANNEL}, Rx1 or 1xC with R, C of "
    f"{', '.join(map(str, BLOCK_SIZES))}, or N:M such as 2:4"
)


@dataclass(frozen=True)
class Pattern:
    """Weights that go together.

    Attributes:
        name: as given.
        rows: of a block: successive output channels.
        columns: of a block: successive input channels, at one tap.
        is_channel: whether all weights of an output channel go together.
        keep: of N:M, the weights kept of `of` successive input channels; 0: another pattern.
        of: see `keep`.
    """

    name: str
    rows: int = 1
    columns: int = 1
    is_channel: bool = False
    keep: int = 0
    of: int = 0

    @property
    def sparsity(self) -> float | None:
        """The only share of zeros that the pattern can have; None: any."""
        return 1 - self.keep / self.of if self.of else None

    def pool(self, values: torch.Tensor) -> torch.Tensor:
        """Sums [groups, rows, taps, columns] over what goes together."""
        import torch

        if self.is_channel:
            return values.sum((2, 3), keepdim=True)
        if self.rows == self.columns == 1:
            return values
        more = (-values.shape[1] % self.rows, -values.shape[3] % self.columns)
        values = torch.nn.functional.pad(values, (0, more[1], 0, 0, 0, more[0]))
        blocks = values.unflatten(3, (-1, self.columns)).sum(4)
        return blocks.unflatten(1, (-1, self.rows)).sum(2)

    def spread(self, units: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Gives every weight of [groups, rows, taps, columns] the value of its unit."""
        if self.is_channel:
            return units.expand(shape)
        if self.rows == self.columns == 1:
            return units
        wide = units.repeat_interleave(self.rows, 1).repeat_interleave(self.columns, 3)
        return wide[:, : shape[1], :, : shape[3]]

    def keep_best(self, scores: torch.Tensor) -> torch.Tensor:
        """Returns the mask of an N:M pattern for [groups, rows, taps, columns]."""
        import torch

        columns = scores.shape[3]
        more = -columns % self.of
        padded = torch.nn.functional.pad(scores, (0, more), value=-torch.inf)
        grouped = padded.unflatten(3, (-1, self.of))
        order = grouped.argsort(dim=4, descending=True, stable=True)
        mask = torch.zeros_like(grouped, dtype=torch.bool)
        mask.scatter_(4, order[..., : self.keep], True)
        return mask.flatten(3)[..., :columns]


def parse_pattern(name: str) -> Pattern:
    """Returns the pattern of a name.

    Raises:
        ValueError: there is none of that name.
    """
    if name == UNSTRUCTURED:
        return Pattern(name)
    if name == CHANNEL:
        return Pattern(name, is_channel=True)
    block = re.fullmatch(r"(\d+)x(\d+)", name) if isinstance(name, str) else None
    if block:
        rows, columns = int(block[1]), int(block[2])
        if rows == columns == 1:
            return Pattern(name)
        if 1 in (rows, columns) and max(rows, columns) in BLOCK_SIZES:
            return Pattern(name, rows, columns)
    share = re.fullmatch(r"(\d+):(\d+)", name) if isinstance(name, str) else None
    if share and 0 < int(share[1]) < int(share[2]):
        return Pattern(name, keep=int(share[1]), of=int(share[2]))
    raise ValueError(f"pattern is {name!r}, expected {PATTERNS_HELP}")


def to_matrices(layer: PrunableLayer, weight: torch.Tensor) -> torch.Tensor:
    """Returns a tensor of the weight's shape as [groups, rows, taps, columns], a view or a copy."""
    from sparsert.prune.masking import TRANSPOSED

    groups = groups_of(layer)
    first, second = weight.shape[:2]
    if isinstance(layer.module, TRANSPOSED):  # [in, out / groups, taps...]
        return weight.reshape(groups, first // groups, second, -1).permute(0, 2, 3, 1)
    return weight.reshape(groups, first // groups, second, -1).transpose(2, 3)


def from_matrices(layer: PrunableLayer, matrices: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Undoes to_matrices()."""
    from sparsert.prune.masking import TRANSPOSED

    if isinstance(layer.module, TRANSPOSED):
        return matrices.permute(0, 3, 1, 2).reshape(shape)
    return matrices.transpose(2, 3).reshape(shape)


def groups_of(layer: PrunableLayer) -> int:
    """Returns a convolution's groups, a recurrent layer's gates, an attention's 3, or 1."""
    from torch import nn

    if isinstance(layer.module, nn.LSTM | nn.LSTMCell):
        return 1 if "_hr_" in layer.parameter else 4
    if isinstance(layer.module, nn.GRU | nn.GRUCell):
        return 3
    if layer.is_attention:
        return 3 if layer.parameter == "in_proj_weight" else 1
    return cast(int, getattr(layer.module, "groups", 1))


def channel_scores_to_weights(
    layer: PrunableLayer, scores: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Spreads the importance of output channels over their weights, in ratio to their magnitude.

    The mean of a channel's weights is the channel's own importance, so that channels are chosen by
    it; finer patterns choose the small weights of unimportant channels first.

    Args:
        layer: whose `weight` it is.
        scores: [output channels].
        weight: what the layer computes with.
    """
    import torch

    size = to_matrices(layer, weight.abs())
    mean = size.mean((2, 3), keepdim=True)
    shares = torch.where(mean > 0, size / mean, torch.ones_like(size))
    spread = shares * scores.to(shares).reshape(mean.shape)
    return from_matrices(layer, spread, weight.shape)
