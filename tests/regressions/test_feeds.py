"""Feeds that once went wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sparsert
from sparsert.errors import ModelFormatError, ShapeError
from sparsert.runtime.types import TensorSpec, check_feeds

SPEC = [TensorSpec("x", ("n",), np.dtype(np.float32))]


def test_unaligned_arrays_are_copied() -> None:
    """The core reads whole elements at their own alignment."""
    memory = np.zeros(4 * 5 + 1, np.uint8)
    x = memory[1:].view(np.float32)
    x[:] = range(5)
    assert x.flags.c_contiguous
    assert not x.flags.aligned
    fed = check_feeds(SPEC, {"x": x})["x"]
    assert fed.flags.aligned
    assert fed.tolist() == x.tolist()


def test_tensors_that_require_gradients() -> None:
    """NumPy refuses them; a module in training hands them over all the same."""
    x = torch.ones(3, requires_grad=True)
    assert check_feeds(SPEC, {"x": x})["x"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("value", [[[1.0], [2.0, 3.0]], torch.ones(3, dtype=torch.bfloat16)])
def test_what_is_no_array_is_named(value: object) -> None:
    """They raised NumPy's own error, without the input's name."""
    with pytest.raises(ShapeError, match="input 'x'"):
        check_feeds(SPEC, {"x": value})


def test_an_empty_buffer_is_no_model() -> None:
    """An empty .sprt file was said to be unaligned."""
    with pytest.raises(ModelFormatError):
        sparsert.load(b"")
