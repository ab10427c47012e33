"""A Slice whose axes the run gives was taken for one of the first axes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import sparsert
from tests.passes.pass_checks import build, node


@pytest.mark.parametrize("backend", ["native", "numpy"])
@pytest.mark.parametrize(("axis", "step", "shape"), [(1, 1, (2, 7, 3)), (2, 2, (2, 8, 2))])
def test_axes_and_steps_of_the_run(backend: str, axis: int, step: int, shape: tuple) -> None:
    bounds = {"start": np.array([0]), "end": np.array([7])}
    slice_ = node("Slice", ["x", "start", "end", "axes", "steps"], ["y"])
    proto = build([slice_], {"x": (2, 8, 3)}, ["y"], bounds, opset=21)
    for name in ("axes", "steps"):
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, [1]))
    x = np.arange(48, dtype=np.float32).reshape(2, 8, 3)
    feeds = {"x": x, "axes": np.array([axis]), "steps": np.array([step])}
    (y,) = sparsert.load(proto, backend=backend).run(None, feeds)
    assert y.shape == shape
    np.testing.assert_array_equal(y, x[:, :7] if axis == 1 else x[:, :, ::2])
