"""Asks onnxruntime for the types of what operators that ONNX does not define compute."""

from __future__ import annotations

import logging
from typing import Any

import onnx
import onnx_ir as ir

from sparsert.passes.graph_tools import SPARSERT

# Initializers with more bytes than this are inputs of the model that onnxruntime is given.
_INLINE_BYTES = 1024
_LOG = logging.getLogger(__name__)


def type_foreign_values(graph: ir.Graph, opsets: dict[str, int], ir_version: int) -> bool:
    """Fills in types that are unknown behind operators of other domains; says whether it found any.

    Without onnxruntime, or where it does not know an operator, nothing is filled in.
    """
    untyped = {
        value.name: value
        for node in graph
        if node.domain not in ("", SPARSERT)
        for value in node.outputs
        if value.name and value.type is None
    }
    if not untyped or any(node.domain == SPARSERT for node in graph):
        return False
    found = False
    for name, type_name, dims in _answers(_question(graph, list(untyped), opsets, ir_version)):
        dtype = _dtype_of(type_name)
        if dtype is not None:
            untyped[name].type = ir.TensorType(dtype)
            # onnxruntime says [] of a scalar and of what it knows no rank of.
            untyped[name].shape = ir.Shape(dims) if dims else None
            found = True
    return found


def _question(
    graph: ir.Graph, names: list[str], opsets: dict[str, int], ir_version: int
) -> onnx.ModelProto:
    """Returns a model whose outputs are those values; their types are left out."""
    proto = onnx.ModelProto(ir_version=ir_version)
    proto.graph.name = "types"
    for domain, version in opsets.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.node.extend(ir.to_proto(node) for node in graph)
    for value in (*graph.inputs, *graph.initializers.values()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes <= _INLINE_BYTES:
            proto.graph.initializer.append(ir.to_proto(tensor))
            proto.graph.initializer[-1].name = value.name or ""
        else:
            proto.graph.input.append(ir.serde.serialize_value(value))
    for name in names:
        proto.graph.output.add(name=name)
    return proto


def _answers(proto: onnx.ModelProto) -> list[tuple[str, str, list[Any]]]:
    """Returns name, type and dimensions of each output."""
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except ImportError:
        return []
    except Exception as error:  # onnxruntime raises types of its own
        _LOG.debug("onnxruntime tells no types: %s", error)
        return []
    return [(value.name, value.type, list(value.shape)) for value in session.get_outputs()]


def _dtype_of(name: str) -> ir.DataType | None:
    """Returns the type that onnxruntime calls "tensor(float)", for example."""
    kind, _, element = name.removesuffix(")").partition("(")
    return getattr(ir.DataType, element.upper(), None) if kind == "tensor" else None
