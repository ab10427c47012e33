"""Importance of weights: one function per method, a weight tensor in, scores of its shape out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def magnitude(weight: torch.Tensor) -> torch.Tensor:
    """abs(w)."""
    return weight.abs()


# Method -> criterion; the weights of the lowest scores go.
CRITERIA: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"magnitude": magnitude}
