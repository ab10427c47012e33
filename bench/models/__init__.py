"""Architectures with random weights, pruned by magnitude, as ONNX files; NumPy and onnx only."""

from bench.models.architectures import MODELS, build_model, input_shape

__all__ = ["MODELS", "build_model", "input_shape"]
