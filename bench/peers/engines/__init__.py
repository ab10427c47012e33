"""One module per engine, each with the class Engine: load in __init__, compute in run().

A module imports its engine at its top, so that the worker can tell the memory of the engine's code
from the memory of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]
# Arrays by input name, in the order of the model's inputs.
Feeds = Mapping[str, Array]


class EngineProtocol(Protocol):
    """What the worker needs of an engine."""

    version: str

    def run(self, feeds: Feeds) -> Sequence[Array]:
        """Computes the model's outputs, in order."""
        ...
