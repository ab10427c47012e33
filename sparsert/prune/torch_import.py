"""Imports PyTorch, or says how to get it."""

from __future__ import annotations

from typing import Any

from sparsert.errors import BackendError


def import_torch() -> Any:
    """Returns the module torch.

    Raises:
        BackendError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise BackendError(
            f'pruning needs PyTorch ({error}); pip install "sparsert[torch]"'
        ) from error
    return torch
