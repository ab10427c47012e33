"""What a pruning left: zeros per layer and in all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparsert.prune.explanation import LayerExplanation, explain_table
from sparsert.runtime.table import Table


@dataclass(frozen=True)
class LayerZeros:
    """The weight of one layer; its bias does not count.

    Attributes:
        name: as in model.named_modules().
        shape: of the weight.
        weights: number of its elements.
        zeros: how many of them are zero.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class PruneReport:
    """Every prunable layer after a pruning; prints as a table.

    Attributes:
        method: what importance was measured by.
        scope: "layer" or "global".
        layers: in the order of the module, those left alone included.
        parameters: all trainable values of the module, biases and other layers included.
        pattern: which weights went together.
        explanations: of the layers that were pruned.
    """

    method: str
    scope: str
    layers: Sequence[LayerZeros]
    parameters: int
    pattern: str = "unstructured"
    explanations: Sequence[LayerExplanation] = ()

    @property
    def weights(self) -> int:
        """Weights of all layers."""
        return sum(layer.weights for layer in self.layers)

    @property
    def zeros(self) -> int:
        """Zeros among them."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Share of zeros among the weights."""
        return self.zeros / self.weights if self.weights else 0.0

    @property
    def compression_ratio(self) -> float:
        """All parameters over those that are not zero."""
        left = self.parameters - self.zeros
        return self.parameters / left if left else math.inf

    def explain(self) -> Table:
        """Returns what went in each layer and why: importance before and after, channels, cut."""
        return explain_table(self.method, self.scope, self.pattern, self.explanations)

    def table(self) -> Table:
        """Returns one row per layer and one for the sum."""
        rows: list[Sequence[Any]] = [
            (
                layer.name,
                "x".join(map(str, layer.shape)),
                layer.weights,
                layer.zeros,
                f"{100 * layer.sparsity:.1f} %",
            )
            for layer in self.layers
        ]
        rows.append(("all", "", self.weights, self.zeros, f"{100 * self.sparsity:.1f} %"))
        notes = [
            f"{self.parameters:,} parameters, {self.parameters - self.zeros:,} left: compression "
            f"ratio {self.compression_ratio:.2f} (all parameters over the non-zero ones)"
        ]
        records = [{**asdict(layer), "sparsity": layer.sparsity} for layer in self.layers]
        title = f"Pruned by {self.method}, scope {self.scope}, {self.pattern}"
        columns = ["layer", "shape", "weights", "zeros", "share"]
        return Table(title, columns, rows, notes, records)

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers, unrounded, with one dictionary per layer under "rows"."""
        return {
            **self.table().to_dict(),
            "method": self.method,
            "scope": self.scope,
            "pattern": self.pattern,
            "parameters": self.parameters,
            "weights": self.weights,
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "compression_ratio": self.compression_ratio,
            "explanations": [asdict(layer) for layer in self.explanations],
        }

    def to_markdown(self) -> str:
        """Returns the table as Markdown."""
        return self.table().to_markdown()

    def __str__(self) -> str:
        return str(self.table())
