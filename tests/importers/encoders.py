"""Transformers as people write them in torch: small, random, with dynamic batch and sequence."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, TOKENS, LAYERS, MAX_LENGTH = 32, 4, 300, 2, 512
SIZE = WIDTH // HEADS


@dataclasses.dataclass(frozen=True)
class Style:
    """What tells architectures apart.

    Attributes:
        attention: "eager" (products, a sum and a softmax) or "sdpa" (torch's own function).
        positions: "learned", "from_mask" (counted over the mask, as in RoBERTa), "rotary", "bias"
            (of the distance, in buckets, as in T5 and MPNet) or "none".
        norm: "layer" or "rms".
        gated: the feed-forward layer is act(a) * b.
        window: keys further away are hidden; 0: none are.
        causal: later keys are hidden.
        kv_heads: heads of keys and values.
        scaled: scores are divided by the root of the size.
    """

    attention: str = "eager"
    positions: str = "learned"
    norm: str = "layer"
    gated: bool = False
    window: int = 0
    causal: bool = False
    kv_heads: int = HEADS
    scaled: bool = True


STYLES = {
    "bert": Style(),
    "bert-sdpa": Style("sdpa"),
    "roberta": Style("sdpa", "from_mask"),
    "mpnet": Style("eager", "bias"),
    "t5": Style("eager", "bias", "rms", gated=True, scaled=False),
    "modernbert": Style("sdpa", "rotary", gated=True, window=8),
    "llama": Style("eager", "rotary", "rms", gated=True, causal=True, kv_heads=2),
    "qwen": Style("sdpa", "rotary", "rms", gated=True, causal=True, kv_heads=2),
}


class RmsNorm(nn.Module):
    """As transformers writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last dimension."""
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs of features by the angle of their position."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


def buckets(distance: Tensor, count: int = 16, far: int = 64) -> Tensor:
    """The bucket of a distance between tokens: exact when near, logarithmic when far."""
    half = count // 2
    found = (distance > 0).long() * half
    distance = distance.abs()
    exact = half // 2
    large = exact + (
        torch.log(distance.float() / exact) / math.log(far / exact) * (half - exact)
    ).to(torch.long)
    large = torch.min(large, torch.full_like(large, half - 1))
    return found + torch.where(distance < exact, distance, large)


class Layer(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and added to its input."""

    def __init__(self, style: Style) -> None:
        super().__init__()
        self.style = style
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, SIZE * style.kv_heads)
        self.value = nn.Linear(WIDTH, SIZE * style.kv_heads)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(2 * WIDTH if style.gated else 4 * WIDTH, WIDTH)
        make = RmsNorm if style.norm == "rms" else lambda: nn.LayerNorm(WIDTH)
        self.norms = nn.ModuleList([make(), make()])

    def split(self, x: Tensor) -> Tensor:
        """[N, tokens, heads * size] as [N, heads, tokens, size]."""
        return x.view(*x.shape[:-1], -1, SIZE).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attention with a mask: bool for sdpa, else what is added."""
        groups = HEADS // self.style.kv_heads
        if groups > 1:
            shape = (k.shape[0], k.shape[1], groups, k.shape[2], k.shape[3])
            k = k[:, :, None].expand(shape).reshape(shape[0], HEADS, shape[3], shape[4])
            v = v[:, :, None].expand(shape).reshape(shape[0], HEADS, shape[3], shape[4])
        if self.style.attention == "sdpa":
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        scores = torch.matmul(q, k.transpose(-1, -2))
        if self.style.scaled:
            scores = scores / math.sqrt(SIZE)
        return torch.matmul(torch.softmax(scores + mask, dim=-1), v)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        turn: tuple[Tensor, Tensor] | None,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the result, and all keys and values."""
        h = self.norms[0](x)
        q, k, v = (self.split(part(h)) for part in (self.query, self.key, self.value))
        if turn is not None:
            q, k = rotated(q, *turn), rotated(k, *turn)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        y = self.attend(q, k, v, mask)
        x = x + self.out(y.transpose(1, 2).reshape(*x.shape[:-1], -1))
        h = self.up(self.norms[1](x))
        if self.style.gated:
            a, b = h.chunk(2, dim=-1)
            h = functional.silu(a) * b
        else:
            h = functional.gelu(h)
        return x + self.down(h), k, v


class Encoder(nn.Module):
    """Token numbers and their mask to one unit vector per text: mean pooling, L2 normalisation."""

    def __init__(self, style: Style) -> None:
        super().__init__()
        self.style = style
        self.tokens = nn.Embedding(TOKENS, WIDTH)
        self.places = nn.Embedding(MAX_LENGTH + 2, WIDTH)
        self.bias = nn.Embedding(16, HEADS)
        self.layers = nn.ModuleList([Layer(style) for _ in range(LAYERS)])

    def hidden(
        self, ids: Tensor, mask: Tensor, past: list[tuple[Tensor, Tensor]] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns the tokens behind the last layer, and the keys and values of each layer."""
        style, length, total = self.style, ids.shape[1], mask.shape[1]
        x = self.tokens(ids)
        keys = torch.arange(total, device=ids.device)
        queries = keys[total - length :]
        if style.positions == "learned":
            x = x + self.places(queries)
        elif style.positions == "from_mask":
            counted = (torch.cumsum(mask, dim=1) * mask + 1).long()
            x = x + self.places(counted)
        seen = mask[:, None, None, :].bool() & (queries >= 0)[None, None, :, None]
        distance = keys[None, :] - queries[:, None]
        if style.causal:
            seen = seen & (distance <= 0)
        if style.window:
            seen = seen & (distance.abs() <= style.window)
        seen = seen.expand(ids.shape[0], 1, length, total)
        added = seen
        if style.attention == "eager":
            added = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
        if style.positions == "bias":
            added = self.bias(buckets(distance)).permute(2, 0, 1)[None] + added
        turn = None
        if style.positions == "rotary":
            rates = 1.0 / 100 ** (torch.arange(0, SIZE, 2) / SIZE)
            angles = queries[:, None].float() * torch.cat((rates, rates))[None]
            turn = angles.cos()[None, None], angles.sin()[None, None]
        presents: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, k, v = layer(x, added, turn, None if past is None else past[i])
            presents += [k, v]
        return x, presents

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns the embeddings [N, WIDTH]."""
        x, _ = self.hidden(input_ids, attention_mask, None)
        weight = attention_mask[..., None].expand(x.shape).float()
        mean = (x * weight).sum(1) / torch.clamp(weight.sum(1), min=1e-9)
        return functional.normalize(mean, p=2.0, dim=1)


class Decoder(Encoder):
    """Logits of the next token from new tokens and the keys and values of those before."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Returns the logits, and keys and values with the new tokens'."""
        pairs = [(past[2 * i], past[2 * i + 1]) for i in range(LAYERS)]
        x, presents = self.hidden(input_ids, attention_mask, pairs)
        return (torch.matmul(x, self.tokens.weight.t()), *presents)
