"""Runs ONNX models while quantising."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

# Feeds -> the outputs by name.
Runner = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def make_runner(model: onnx.ModelProto) -> Runner:
    """Makes a model ready to run."""
    from sparsert.api import load

    names = [value.name for value in model.graph.output]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what runs by fallback matters to later loads
        run = load(model, tune=False).run
    return lambda feeds: dict(zip(names, run(names, dict(feeds)), strict=True))
