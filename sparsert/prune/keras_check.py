"""Tells Keras models from torch modules, without importing Keras."""

from __future__ import annotations

import sys
from typing import Any


def is_keras(model: Any) -> bool:
    """Whether a model is one of Keras'; with torch as its backend it is a torch module too."""
    keras = sys.modules.get("keras")  # an object of its class exists only if it is loaded
    return keras is not None and isinstance(model, keras.Model)


def check_module(function: str, model: Any) -> None:
    """Raises ValueError for what is neither a torch module nor a Keras model."""
    if not is_keras(model) and not callable(getattr(model, "named_modules", None)):
        raise ValueError(
            f"{function}: model is {model!r}, expected a torch module or a Keras model; what "
            "pruning would bring to a file is measured by sparsert.forecast()"
        )


def refuse_keras(function: str, model: Any) -> None:
    """Raises ValueError for a Keras model where only a torch module will do."""
    if is_keras(model):
        raise ValueError(
            f"{function}: a Keras model is not a torch module with torch's layers; prune(), "
            "iterative(), Gradual, erdos_renyi(), fine_tune() and the functions of masks take it"
        )
