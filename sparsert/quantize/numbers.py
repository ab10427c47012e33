"""Scales, zero points and integers: of activations, weights and biases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# activation= -> type and its least value.
ACTIVATIONS: dict[str, tuple[type, int]] = {"u8": (np.uint8, 0), "s8": (np.int8, -128)}
LEVELS = 256
_INT32_MAX = 2**31 - 1
# The fraction of the largest bias that an all-zero channel, whose scale is free, resolves.
_BIAS_STEPS = 2**24


@dataclass(frozen=True)
class Activation:
    """How a tensor is quantised: real = (integer - zero) * scale.

    Attributes:
        low: the least real value, at most 0.
        high: the greatest one, at least 0.
        scale: f32.
        zero: of the integer type.
    """

    low: float
    high: float
    scale: NDArray[np.float32]
    zero: NDArray[np.uint8] | NDArray[np.int8]


def quantise_range(low: float, high: float, activation: str) -> Activation:
    """Spreads the integers of a type over a range that holds 0, so that 0 is one of them."""
    dtype, least = ACTIVATIONS[activation]
    scale = np.float32((high - low) / (LEVELS - 1))
    zero = int(np.clip(np.round(-low / float(scale)), 0, LEVELS - 1))
    return Activation(low, high, np.array(scale), np.array(zero + least, dtype))


@dataclass(frozen=True)
class Weight:
    """A weight as integers: real = integer * scale; zeros stay zero.

    Attributes:
        integers: int8, of the weight's shape.
        scale: f32, one number or one for each channel.
        axis: that of the channels; None for one scale.
    """

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]
    axis: int | None

    def dequantised(self) -> NDArray[np.float32]:
        """Returns the real numbers that the integers stand for."""
        scale = self.scale
        if self.axis is not None:
            scale = scale.reshape([-1 if i == self.axis else 1 for i in range(self.integers.ndim)])
        return self.integers.astype(np.float32) * scale


def quantise_weight(
    weight: NDArray[np.float32],
    axis: int,
    *,
    per_channel: bool,
    limit: int,
    least_scale: NDArray[np.float64],
) -> Weight:
    """Quantises a weight symmetrically.

    Args:
        weight: finite.
        axis: of the channels.
        per_channel: one scale for each channel instead of one for all.
        limit: the greatest integer: 127, or 64 for a range without overflow in 16 bits.
        least_scale: f64[channels]; scales are at least so large (what a bias asks for).
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    greatest = np.abs(weight).max(axis=others).astype(np.float64)
    if not per_channel:
        greatest = np.array([greatest.max()])
        least_scale = np.array([least_scale.max()])
    scale = np.maximum(greatest / limit, least_scale).astype(np.float32)
    scale[scale < np.finfo(np.float32).tiny] = 1.0  # nothing but zeros, and no bias
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    integers = np.clip(np.round(weight / scale.reshape(shape)), -limit, limit).astype(np.int8)
    if not per_channel:
        return Weight(integers, scale.reshape(()), None)
    return Weight(integers, scale, axis)


def least_weight_scale(
    weight: NDArray[np.float32],
    axis: int,
    bias: NDArray[np.float32] | None,
    x_scale: float,
    groups: int,
) -> NDArray[np.float64]:
    """Returns the scales of weights, f64[channels], with which every bias fits into 32 bits.

    A bias is a multiple of x_scale * weight scale. A channel whose weights are all zero takes the
    scale that its bias needs.

    Args:
        weight: of the layer.
        axis: of the channels.
        bias: f32[channels * groups].
        x_scale: of the layer's input.
        groups: that share each scale (ConvTranspose); 1 for other layers.
    """
    channels = weight.shape[axis]
    if bias is None:
        return np.zeros(channels)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    is_zero = ~np.any(weight, axis=others)
    largest = np.abs(bias.astype(np.float64)).reshape(groups, channels).max(axis=0)
    steps = np.where(is_zero, _BIAS_STEPS, _INT32_MAX - 1)
    return largest / (x_scale * steps)


def quantise_bias(
    bias: NDArray[np.float32], x_scale: NDArray[np.float32], weight: Weight, groups: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns the integers, int32[channels], and their scale: that of the layer's products."""
    scale = np.asarray(x_scale * weight.scale, np.float32)
    if scale.ndim:
        scale = np.tile(scale, groups)
    integers = np.round(bias.astype(np.float64) / scale.astype(np.float64))
    return np.clip(integers, -_INT32_MAX, _INT32_MAX).astype(np.int32), scale
