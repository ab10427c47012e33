"""What a quantisation did, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparsert.runtime.table import Table

_Range = tuple[float, float]


@dataclass(frozen=True)
class LayerPrecision:
    """One convolution or product with constant weights.

    Attributes:
        name: of its node.
        weight: name of its weight.
        op: its type.
        shape: of the weight.
        precision: "int8", or "f32" where it was left in float.
        zeros_before: zeros of the float weight.
        zeros: zeros of the weight that the model holds.
        sqnr: signal to quantisation noise ratio in decibels of its results when it alone is
            quantised, infinite if nothing is lost; None if that was not measured.
        output_error: squared error of the model's outputs over their squares when it alone is
            quantised; None if layers were not ranked.
        input_range: the least and the greatest value that its input's integers stand for.
        output_range: of its output; None where it hands on floats.
        method: what chose the ranges.
        why: why it is in float; "" if it is not.
    """

    name: str
    weight: str
    op: str
    shape: tuple[int, ...]
    precision: str
    zeros_before: int
    zeros: int
    sqnr: float | None
    output_error: float | None
    input_range: _Range | None
    output_range: _Range | None
    method: str
    why: str

    @property
    def weights(self) -> int:
        """Number of elements of the weight."""
        return math.prod(self.shape)

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        return self.zeros / self.weights


@dataclass(frozen=True)
class QuantizeReport:
    """Every layer after a quantisation; prints as a table.

    Attributes:
        layers: in the order of the graph.
        method: what chose the ranges of activations; "dynamic": each run does.
        activation: "u8" or "s8".
        samples: runs of the calibration.
        other_nodes: nodes without weights that compute in integers.
        accuracy_float: of the float model, as evaluate= said; None without it.
        accuracy: of the quantised one.
    """

    layers: Sequence[LayerPrecision]
    method: str
    activation: str
    samples: int
    other_nodes: Sequence[str] = ()
    accuracy_float: float | None = None
    accuracy: float | None = None

    @property
    def quantised(self) -> int:
        """Layers in integers."""
        return sum(layer.precision == "int8" for layer in self.layers)

    def table(self) -> Table:
        """Returns one row per layer."""
        rows: list[Sequence[Any]] = [
            (
                layer.name,
                layer.weight,
                layer.op,
                "x".join(map(str, layer.shape)),
                layer.precision,
                f"{100 * layer.sparsity:.1f} %",
                None if layer.sqnr is None else f"{layer.sqnr:.1f}",
                _range_text(layer.input_range),
                _range_text(layer.output_range),
                layer.method,
                layer.why,
            )
            for layer in self.layers
        ]
        columns = [
            *("layer", "weight", "op", "shape", "precision", "zeros", "SQNR dB", "input"),
            *("output", "method", "why"),
        ]
        records = [
            {
                **asdict(layer),
                "sqnr": layer.sqnr
                if math.isfinite(layer.sqnr or 0.0)
                else None,  # no number in JSON
                "weights": layer.weights,
                "sparsity": layer.sparsity,
            }
            for layer in self.layers
        ]
        how = "in each run" if self.method == "dynamic" else f"by {self.method}"
        title = f"Quantised to int8 weights and {self.activation} activations {how}"
        return Table(title, columns, rows, self._notes(), records)

    def _notes(self) -> list[str]:
        notes = [f"{self.quantised} of {len(self.layers)} layers in integers"]
        if self.method != "dynamic":
            notes[0] += (
                f", and {len(self.other_nodes)} nodes without weights; calibrated with "
                f"{self.samples} runs"
            )
        zeros, before = (sum(getattr(x, n) for x in self.layers) for n in ("zeros", "zeros_before"))
        weights = sum(layer.weights for layer in self.layers)
        notes.append(f"zeros: {before:,} of {weights:,} weights before, {zeros:,} after")
        if self.accuracy is not None and self.accuracy_float is not None:
            drop = self.accuracy_float - self.accuracy
            notes.append(
                f"accuracy {self.accuracy_float:.4f} in float, {self.accuracy:.4f} quantised: "
                f"{drop:+.4f} lost"
            )
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers, unrounded, with one dictionary per layer under "rows"."""
        return {
            **self.table().to_dict(),
            "method": self.method,
            "activation": self.activation,
            "samples": self.samples,
            "other_nodes": list(self.other_nodes),
            "accuracy_float": self.accuracy_float,
            "accuracy": self.accuracy,
        }

    def to_markdown(self) -> str:
        """Returns the table as Markdown."""
        return self.table().to_markdown()

    def __str__(self) -> str:
        return str(self.table())


def _range_text(ends: _Range | None) -> str | None:
    return None if ends is None else f"{ends[0]:.3g} to {ends[1]:.3g}"
