"""The .sprt files that are emulated: single layers, and networks of bench.models."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import onnx

import sparsert
from bench.models.architectures import PATTERNS, build_model
from bench.models.network import Network
from bench.models.quantised import quantise


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model, as it is emulated.

    Attributes:
        name: of a network; or layer-CHANNELS-SIZE: a 1x1 convolution of as many channels to as
            many, on planes of SIZE x SIZE, with Relu.
        sparsity: share of zeros in its pruned layers.
        pattern: of the zeros, a key of bench.models.PATTERNS.
        int8: quantised.
    """

    name: str
    sparsity: float = 0.0
    pattern: str = "unstructured"
    int8: bool = False

    def __str__(self) -> str:
        pattern = "" if self.pattern == "unstructured" else f" {self.pattern}"
        return f"{self.name} {100 * self.sparsity:g} %{pattern}{' int8' if self.int8 else ''}"


def write_model(subject: Subject, path: Path) -> int:
    """Writes the .sprt file. Returns its multiply-adds, those of zeros included."""
    if subject.name.startswith("layer-"):
        channels, size = map(int, subject.name.split("-")[1:])
        net = Network((1, channels, size, size), subject.sparsity, False, 0, _pattern(subject))
        proto = net.finish(net.relu(net.conv("input", "conv", channels, 1)), subject.name)
        layers = net.layers
    else:
        proto, layers = build_model(subject.name, subject.sparsity, pattern=subject.pattern)
    if not subject.int8:
        sparsert.convert(proto, path)
    else:
        with tempfile.TemporaryDirectory() as folder:
            onnx_path = Path(folder) / "model.onnx"
            quantise(subject.name, subject.sparsity, onnx_path, pattern=subject.pattern)
            sparsert.convert(onnx.load(onnx_path), path)
    return sum(layer.macs for layer in layers)


def _pattern(subject: Subject) -> tuple[int, int]:
    return PATTERNS[subject.pattern]
