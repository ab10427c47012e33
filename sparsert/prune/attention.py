"""Attention with some of its heads taken out.

Imports torch at its top: imported only when a pruning function runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import Tensor, nn  # noqa: E402


class FewerHeads(nn.Module):
    """What torch's MultiheadAttention is without some of its heads.

    torch's own takes the width of a head to be embed_dim / num_heads, which no longer holds.

    Attributes:
        heads: the numbers that the heads had at first, in their order; a buffer, so that the state
            says which they are.
        in_proj_weight: [3 * heads * head_dim, embed_dim]: of queries, keys, values.
        out_proj: heads * head_dim -> embed_dim.
    """

    heads: Tensor

    def __init__(self, attention: Any, kept: Sequence[int]) -> None:
        """Copies the parameters of the heads that are left.

        Args:
            attention: a MultiheadAttention or FewerHeads for which refuse_heads() returns "".
            kept: numbers of the heads of `attention` that stay, ascending.
        """
        super().__init__()
        self.embed_dim = attention.embed_dim
        self.head_dim = attention.head_dim
        self.num_heads = len(kept)
        self.batch_first = attention.batch_first
        self.dropout = attention.dropout
        self._qkv_same_embed_dim = False  # keeps encoder layers from their fused path
        self.training = attention.training
        before = getattr(attention, "heads", torch.arange(attention.num_heads))
        self.heads_before: int = getattr(attention, "heads_before", attention.num_heads)
        self.register_buffer("heads", before[list(kept)])

        def rows(parameter: Tensor) -> nn.Parameter:
            parts = parameter.detach().unflatten(0, (3, attention.num_heads, self.head_dim))
            return nn.Parameter(parts[:, list(kept)].flatten(0, 2), parameter.requires_grad)

        self.in_proj_weight = rows(attention.in_proj_weight)
        self.in_proj_bias = None
        if attention.in_proj_bias is not None:
            self.in_proj_bias = rows(attention.in_proj_bias)
        old = attention.out_proj
        width = self.num_heads * self.head_dim
        self.out_proj = nn.Linear(width, self.embed_dim, old.bias is not None).to(old.weight)
        columns = old.weight.detach().unflatten(1, (-1, self.head_dim))[:, list(kept)]
        self.out_proj.weight = nn.Parameter(columns.flatten(1), old.weight.requires_grad)
        if old.bias is not None:
            self.out_proj.bias = old.bias

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Does what MultiheadAttention.forward() documents."""
        is_single = query.ndim == 2
        tensors = [x[None] if is_single else x for x in (query, key, value)]
        if not self.batch_first and not is_single:
            tensors = [x.transpose(0, 1) for x in tensors]
        weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            nn.functional.linear(x, w, b).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
            for x, w, b in zip(tensors, weights, biases, strict=True)
        )  # [samples, heads, positions, head_dim]
        mask = self._mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        shares = None
        if need_weights:
            scores = q @ k.transpose(2, 3) / self.head_dim**0.5
            shares = torch.softmax(scores if mask is None else scores + mask, -1)
            shares = nn.functional.dropout(shares, dropout) if dropout else shares
            mixed = shares @ v
        else:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        y = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if shares is not None and average_attn_weights:
            shares = shares.mean(1)
        if is_single:
            return y[0], None if shares is None else shares[0]
        return (y if self.batch_first else y.transpose(0, 1)), shares

    def _mask(
        self, mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor
    ) -> Tensor | None:
        """Returns what is added to the scores, [samples or 1, heads or 1, queries or 1, keys]."""

        def added(given: Tensor) -> Tensor:
            if given.dtype != torch.bool:
                return given.to(q.dtype)
            return q.new_zeros(given.shape).masked_fill(given, -torch.inf)

        total = None
        if mask is not None:
            total = added(mask)
            if mask.ndim == 3:  # [samples * heads, queries, keys]
                total = total.unflatten(0, (-1, self.heads_before))[:, self.heads]
            else:
                total = total[None, None]
        if key_padding_mask is not None:
            padding = added(key_padding_mask).reshape(-1, 1, 1, key_padding_mask.shape[-1])
            total = padding if total is None else total + padding
        return total


ATTENTION = (nn.MultiheadAttention, FewerHeads)


def projection_names(module: nn.Module) -> list[str]:
    """Returns the names of an attention's weights of queries, keys and values."""
    names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    return [name for name in names if getattr(module, name, None) is not None]


def refuse_heads(module: nn.Module) -> str:
    """Returns why no heads can be taken out of an attention; "" if they can."""
    if isinstance(module, FewerHeads):
        return ""
    if getattr(module, "in_proj_weight", None) is None:
        return "its keys or values have widths of their own"
    if getattr(module, "bias_k", None) is not None or getattr(module, "add_zero_attn", False):
        return "it adds keys of its own (add_bias_kv, add_zero_attn)"
    return ""
