"""Runs ONNX models while quantising: ONNX Runtime where it is installed, else sparsert."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

# Feeds -> the outputs by name.
Runner = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def make_runner(model: onnx.ModelProto) -> Runner:
    """Makes a model ready to run; QuantizeLinear and DequantizeLinear compute in float."""
    names = [value.name for value in model.graph.output]
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Products of bytes saturate at 16 bits on CPUs without VNNI.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        run = session.run
    else:
        from sparsert.api import load

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what runs by fallback matters to later loads
            run = load(model, tune=False).run
    return lambda feeds: dict(zip(names, run(names, dict(feeds)), strict=True))
