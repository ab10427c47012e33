"""Architectures with random weights, pruned by magnitude, as ONNX files; NumPy and onnx only."""

from bench.models.architectures import (
    ALL_MODELS,
    MODELS,
    PATTERNS,
    UNSEEN,
    build_model,
    input_shape,
)

__all__ = ["ALL_MODELS", "MODELS", "PATTERNS", "UNSEEN", "build_model", "input_shape"]
