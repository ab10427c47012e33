"""Torch tensors as NumPy arrays and back; torch is never imported here."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np


def has_tensors(values: Iterable[Any]) -> bool:
    """Says whether one of the values is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and any(isinstance(value, torch.Tensor) for value in values)


def as_array(value: Any) -> np.ndarray:
    """Returns an array, tensor or the like as an array, which shares its memory where it can.

    Raises:
        TypeError, ValueError, RuntimeError: it has no array.
    """
    detach = getattr(value, "detach", None)  # NumPy refuses torch tensors that require gradients
    if not callable(detach):
        return np.asarray(value)
    tensor = detach()
    torch = sys.modules.get("torch")
    if torch is None or getattr(tensor, "dtype", None) is not torch.bfloat16:
        return np.asarray(tensor)
    import ml_dtypes

    return np.asarray(tensor.view(torch.int16)).view(ml_dtypes.bfloat16)


def as_tensor(array: np.ndarray) -> Any:
    """Returns a torch tensor that shares the array's memory; strings stay arrays."""
    torch = sys.modules["torch"]
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(array)
    except TypeError:
        return array
