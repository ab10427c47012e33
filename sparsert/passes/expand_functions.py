"""Replaces operators that ONNX defines by others, where all of those are native."""

from __future__ import annotations

import itertools
import logging

import onnx
import onnx_ir as ir
from onnx import inliner
from onnx_ir import convenience

from sparsert.passes.graph_tools import nodes_of
from sparsert.passes.native_checks import NATIVE_OPS

# Operators without kernels of their own whose definition ONNX gives as a function.
_EXPANDED = frozenset(
    "AffineGrid BlackmanWindow CastLike CausalConvWithState CenterCropPad DepthToSpace "
    "HammingWindow HannWindow LinearAttention MeanVarianceNormalization RotaryEmbedding "
    "SpaceToDepth SwiGLU".split()
)
# What later passes bring to native operators, at least with known sizes.
_LATER = frozenset({"CastLike", "Constant", "If", "Scan"})
_DEFINITIONS = "definitions"
_LOG = logging.getLogger(__name__)


def run(model: ir.Model) -> None:
    """Expands such operators of the main graph, in place; others stay for the fallback."""
    for node in nodes_of(model.graph):
        if node.domain == "" and node.op_type in _EXPANDED:
            body = _expand(node, model)
            if body is not None:
                _replace(model.graph, node, body)


def _expand(node: ir.Node, model: ir.Model) -> ir.Graph | None:
    """Returns the operator's definition as a graph with the node's inputs, if it is native."""
    if any(value is not None and value.type is None for value in node.inputs):
        return None
    proto = onnx.ModelProto(ir_version=model.ir_version)
    proto.opset_import.add(domain="", version=model.opset_imports[""])
    made = ir.to_proto(node)
    for kind, names, values in (
        ("input", made.input, node.inputs),
        ("output", made.output, node.outputs),
    ):
        seen = set()
        for index, value in enumerate(values):
            if value is None or value in seen:
                continue
            seen.add(value)
            info = ir.serde.serialize_value(value)
            getattr(proto.graph, kind).append(info)
            names[index] = info.name
    present = {attribute.name for attribute in made.attribute}
    schema = onnx.defs.get_schema(node.op_type, model.opset_imports[""], "")
    for name, declared in schema.attributes.items():
        if name not in present and declared.default_value.name:
            made.attribute.append(declared.default_value)
    proto.graph.name = node.op_type
    proto.graph.node.append(made)
    try:
        inlined = _inline_with_gaps(proto, schema) if "" in made.input else _inline(proto)
    except Exception as error:  # of onnx's C++ code
        _LOG.debug("%s is not expanded: %s", node.op_type, error)
        return None
    body = ir.from_proto(inlined).graph
    ops = {inner.op_type for inner in body}
    return body if ops <= NATIVE_OPS | _LATER else None


def _inline(proto: onnx.ModelProto) -> onnx.ModelProto:
    op = proto.graph.node[0].op_type
    return inliner.inline_selected_functions(proto, [("", op)], inline_schema_functions=True)


def _inline_with_gaps(proto: onnx.ModelProto, schema: onnx.defs.OpSchema) -> onnx.ModelProto:
    """Does the same for a node that lacks an input before others, which onnx's inliner refuses."""
    node = proto.graph.node[0]
    types = {value.name: value.type for value in proto.graph.input}
    body = schema.get_context_dependent_function(  # type: ignore[attr-defined]
        node.SerializeToString(),
        [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input],
    )
    function = onnx.FunctionProto.FromString(body)
    function.domain = node.domain = _DEFINITIONS
    proto.functions.append(function)
    proto.opset_import.add(domain=_DEFINITIONS, version=1)
    return inliner.inline_local_functions(proto, convert_version=True)


def _replace(graph: ir.Graph, node: ir.Node, body: ir.Graph) -> None:
    outside = {value.name: value for value in node.inputs if value is not None}
    for value in body.inputs:
        convenience.replace_all_uses_with(value, outside[value.name])
    inner = list(body)
    results = list(body.outputs)
    body.outputs.clear()
    body.remove(inner)
    for value, number in zip(
        itertools.chain.from_iterable(made.outputs for made in inner), itertools.count()
    ):
        if value not in results:
            value.name = f"{node.name}_{number}"
    for number, made in enumerate(inner):
        made.name = f"{node.name}_{made.op_type}_{number}"
    kept = [output for output in node.outputs if output.name in {v.name for v in results}]
    convenience.replace_nodes_and_values(graph, node, [node], inner, kept, results)
