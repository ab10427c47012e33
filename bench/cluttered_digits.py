"""A harder task made of scikit-learn's digits: where in the clutter is the whole digit, and which?

Each image has one digit, turned, scaled and moved at random, among pieces of others and noise.
Test images are made of digits that no training image has a piece of.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from sparsert.demo import PIXELS, Images

TRAIN, TEST = 2000, 6000  # images
PIECES = 2  # of other digits, in each image
PIECE = 7  # pixels of a side
TURN = 0.3  # radians, at most
SIZES = (0.75, 1.0)  # of the digit, of the side of the image
CONTRAST = (0.6, 1.0)
NOISE = 0.1
CLUTTERED = (
    f"Cluttered digits: in each image one of scikit-learn's digits, turned, scaled and moved, with "
    f"pieces of {PIECES} others over it, and noise; {TRAIN:,} images for training, {TEST:,} for "
    "testing, which are made of other digits."
)


@functools.cache
def load_cluttered_digits(seed: int) -> Images:
    """Returns images of a seed, the same each time."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    small = (digits.images / 16).astype(np.float32)
    train, test = train_test_split(
        np.arange(len(small)), test_size=0.25, random_state=seed, stratify=digits.target
    )
    found = []
    for part, count, salt in ((train, TRAIN, 0), (test, TEST, 1)):
        generator = torch.Generator().manual_seed(2 * seed + salt)
        picked = torch.randint(len(part), (count,), generator=generator).numpy()
        own = torch.from_numpy(small[part])
        images = _place(own[torch.from_numpy(picked)], generator)
        for _ in range(PIECES):
            others = torch.randint(len(part), (count,), generator=generator)
            images = torch.maximum(images, _cut(_place(own[others], generator), generator))
        low, high = CONTRAST
        images *= low + (high - low) * torch.rand(count, 1, 1, generator=generator)
        images += NOISE * torch.randn(images.shape, generator=generator)
        found += [images.clamp(0, 1)[:, None].numpy(), digits.target[part][picked].astype(np.int64)]
    return Images(*found)


def _place(small: Tensor, generator: torch.Generator) -> Tensor:
    """Draws digits of 8x8 pixels into images, turned, scaled and moved."""
    count = len(small)
    angle, size, x, y = torch.rand(4, count, generator=generator)
    angle = TURN * (2 * angle - 1)
    size = SIZES[0] + (SIZES[1] - SIZES[0]) * size
    sin, cos = angle.sin() / size, angle.cos() / size
    x, y = ((1 - size) * (2 * shift - 1) for shift in (x, y))
    rows = [cos, -sin, -cos * x + sin * y, sin, cos, -sin * x - cos * y]
    grid = affine_grid(
        torch.stack(rows, 1).reshape(-1, 2, 3), [count, 1, PIXELS, PIXELS], align_corners=False
    )
    return grid_sample(small[:, None], grid, align_corners=False)[:, 0]


def _cut(images: Tensor, generator: torch.Generator) -> Tensor:
    """Leaves a square piece at a random place of each image, and nothing else."""
    corners = torch.randint(PIXELS - PIECE + 1, (2, len(images)), generator=generator)
    pixels = torch.arange(PIXELS)
    inside = [(pixels >= c[:, None]) & (pixels < c[:, None] + PIECE) for c in corners]
    return images * (inside[0][:, :, None] & inside[1][:, None])
