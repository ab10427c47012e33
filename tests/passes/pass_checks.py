"""Helpers of the pass tests: tiny ONNX graphs, one pass, the same answers before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from sparsert.importers import import_model
from sparsert.passes import PASSES, load_pass
from sparsert.runtime.numpy_backend import NumpyBackend

F32 = TensorProto.FLOAT
NEWEST = onnx.defs.onnx_opset_version()


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    """A NodeProto."""
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attributes)


def weights(*shape: int, seed: int = 0, sparsity: float = 0.5) -> np.ndarray:
    """Random f32 weights with exact zeros."""
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(shape).astype(np.float32)
    array[rng.random(shape) < sparsity] = 0
    return array


def build(
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = NEWEST,
    dtype: int = F32,
    output_dtype: int | None = None,
) -> onnx.ModelProto:
    """A checked ModelProto."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, dtype, list(s)) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, output_dtype or dtype, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def apply(proto: onnx.ModelProto, *passes: str) -> ir.Model:
    """Imports, infers shapes and applies passes; with none named, all of them."""
    model = import_model(proto)
    if not passes:
        passes = PASSES
    else:
        passes = ("convert_opset", "lift_constants", "infer_shapes", *passes)
    for name in passes:
        load_pass(name)(model)
        assert_valid(model, name)
    return model


def assert_valid(model: ir.Model, name: str) -> None:
    """Onnx infers types and shapes of what a pass left, and finds no contradiction.

    Of sequences onnx_ir tells it the wrong type.
    """
    if any(n.op_type == "ConcatFromSequence" for n in model.graph.all_nodes()):
        return
    proto = ir.to_proto(model)
    known = {opset.domain for opset in proto.opset_import}
    for domain in {n.domain for n in proto.graph.node} - known:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    try:
        onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise AssertionError(f"{name} left a graph that is not valid: {error}") from error


def ops(model: ir.Model) -> list[str]:
    """The graph's operators in order, domain sparsert as a prefix."""
    return [f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model.graph]


def feeds_for(proto: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> dict:
    """Random inputs; `sizes` gives the symbols' values (else 2)."""
    rng = np.random.default_rng(7)
    feeds = {}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        shape = [
            (sizes or {}).get(d.dim_param, 2) if d.dim_param else d.dim_value
            for d in tensor.shape.dim
        ]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind in "iu":
            feeds[value.name] = np.asarray(rng.integers(0, 3, shape)).astype(dtype)
        else:
            feeds[value.name] = np.asarray(2 * rng.standard_normal(shape)).astype(dtype)
    return feeds


def assert_same(
    proto: onnx.ModelProto,
    model: ir.Model,
    sizes: Mapping[str, int] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """onnxruntime(before) and NumpyBackend(after) must agree."""
    feeds = feeds_for(proto, sizes)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, feeds)
    found = NumpyBackend(model).run(feeds)
    names = [value.name for value in proto.graph.output]
    assert list(found) == names
    for name, want in zip(names, expected, strict=True):
        assert found[name].shape == want.shape, name
        assert found[name].dtype == want.dtype, name
        scale = max(1.0, float(np.abs(want.astype(np.float64)).max(initial=0)))
        np.testing.assert_allclose(found[name], want, rtol=tolerance, atol=tolerance * scale)
