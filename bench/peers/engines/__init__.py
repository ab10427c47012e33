"""One module per engine, each with the class Engine: load in __init__, compute in run().

A module imports its engine at its top, so that the worker can tell the memory of the engine's code
from the memory of the model.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class EngineProtocol(Protocol):
    """What the worker needs of an engine."""

    version: str

    def run(self, x: Array) -> Array:
        """Computes the model's only output from its only input."""
        ...
