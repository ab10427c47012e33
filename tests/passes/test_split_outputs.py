"""split_outputs: one value as several outputs of the graph, as Keras exports layers with states."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import sparsert
from tests.passes.pass_checks import build, node


def repeated() -> onnx.ModelProto:
    nodes = [node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["z"])]
    model = build(nodes, {"x": (3, 4)}, ["y", "z"])
    model.graph.output.insert(0, model.graph.output[0])
    model.graph.output.append(model.graph.output[1])
    return model


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_repeated_outputs(backend: str) -> None:
    loaded = sparsert.load(repeated(), backend=backend, strict=True)
    assert [spec.name for spec in loaded.outputs] == ["y", "y_2", "z", "y_3"]
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    found = loaded.run(None, {"x": x})
    for got, want in zip(found, [np.maximum(x, 0)] * 2 + [-x, np.maximum(x, 0)], strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(loaded.run(["y"], {"x": x})[0], np.maximum(x, 0))


def test_an_input_as_several_outputs() -> None:
    model = build([node("Identity", ["x"], ["y"])], {"x": (2,)}, ["y"])
    model.graph.output.append(model.graph.output[0])
    x = np.array([1, 2], np.float32)
    for got in sparsert.load(model, strict=True).run(None, {"x": x}):
        np.testing.assert_array_equal(got, x)
