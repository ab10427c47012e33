"""Tells Keras models from torch modules, without importing Keras."""

from __future__ import annotations

import sys
from typing import Any


def is_keras(model: Any) -> bool:
    """Whether a model is one of Keras'; with torch as its backend it is a torch module too."""
    keras = sys.modules.get("keras")  # an object of its class exists only if it is loaded
    return keras is not None and isinstance(model, keras.Model)
