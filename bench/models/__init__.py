"""Architectures with random weights, pruned by magnitude, as ONNX files; NumPy and onnx only."""

from bench.models.architectures import (
    ALL_MODELS,
    ENCODERS,
    LINEAR,
    MODELS,
    NETWORKS,
    PATTERNS,
    UNSEEN,
    build_model,
    input_shape,
    make_feeds,
)

__all__ = [
    "ALL_MODELS",
    "ENCODERS",
    "LINEAR",
    "MODELS",
    "NETWORKS",
    "PATTERNS",
    "UNSEEN",
    "build_model",
    "input_shape",
    "make_feeds",
]
