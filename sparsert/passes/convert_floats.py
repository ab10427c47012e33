"""Turns f16, bf16 and f64 computation into f32, with Casts at the graph's boundaries."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import lazy_tensor, nodes_of

_F32 = ir.DataType.FLOAT
_OTHER_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
_OTHER_NUMBERS = frozenset(int(dtype) for dtype in _OTHER_FLOATS)
# Attributes that name an element type.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype")


def run(model: ir.Model) -> None:
    """Makes f32 the only float type inside the graph, in place; inputs and outputs keep theirs."""
    if not any(_has_other_floats(graph) for graph in model.graphs()):
        return
    if any(node.op_type == "BitCast" and node.domain == "" for node in model.graph.all_nodes()):
        return  # the bits of a value are those of its type
    output_dtypes = [value.dtype for value in model.graph.outputs]
    for graph in model.graphs():
        _convert_graph(graph, is_main=graph is model.graph)
    _cast_inputs(model.graph)
    _cast_outputs(model.graph, output_dtypes)


def _has_other_floats(graph: ir.Graph) -> bool:
    values = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
    for node in graph:
        values.extend(node.outputs)
        if any(_names_other_float(node, name) for name in _TYPE_ATTRIBUTES):
            return True
    return any(value.dtype in _OTHER_FLOATS for value in values)


def _names_other_float(node: ir.Node, name: str) -> bool:
    found = node.attributes.get(name)
    return (
        found is not None
        and found.type == ir.AttributeType.INT
        and node.domain == ""
        and found.as_int() in _OTHER_NUMBERS
    )


def _convert_graph(graph: ir.Graph, is_main: bool) -> None:
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in _OTHER_FLOATS:
            value.const_value = _as_f32(tensor, value.name or "")
            value.dtype = _F32
    if not is_main:
        for value in graph.inputs:
            _retype(value)
    for node in graph:
        for name in _TYPE_ATTRIBUTES:
            if _names_other_float(node, name):
                node.attributes[name] = ir.AttrInt64(name, int(_F32))
        for name, found in list(node.attributes.items()):
            if found.type == ir.AttributeType.TENSOR:
                tensor = found.as_tensor()
                if tensor.dtype in _OTHER_FLOATS:
                    node.attributes[name] = ir.AttrTensor(name, _as_f32(tensor, name))
        for value in node.outputs:
            _retype(value)


def _retype(value: ir.Value) -> None:
    if value.dtype in _OTHER_FLOATS:
        value.dtype = _F32


def _as_f32(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    if tensor.size <= 1024:
        return ir.Tensor(tensor.numpy().astype(np.float32), name=name)
    return lazy_tensor(lambda: tensor.numpy().astype(np.float32), tensor.shape.numpy(), name)


def _new_name(graph: ir.Graph, value: ir.Value) -> str:
    """Returns a name derived from a value's that no value of the graph has."""
    made = (output.name for node in graph for output in node.outputs)
    taken = {*made, *graph.initializers, *(v.name for v in graph.inputs)}
    name = f"{value.name}_f32"
    while name in taken:
        name += "_"
    return name


def _cast_inputs(graph: ir.Graph) -> None:
    casts = []
    for value in graph.inputs:
        if value.dtype not in _OTHER_FLOATS:
            continue
        cast = ir.node("Cast", [value], attributes={"to": int(_F32)})
        inside = cast.outputs[0]
        inside.name, inside.dtype, inside.shape = _new_name(graph, value), _F32, value.shape
        for usage in list(value.uses()):
            if usage.node is not cast:
                usage.node.replace_input_with(usage.idx, inside)
        casts.append(cast)
    first = nodes_of(graph)[0] if len(graph) else None
    for cast in casts:
        if first is None:
            graph.append(cast)
        else:
            graph.insert_before(first, cast)


def _cast_outputs(graph: ir.Graph, dtypes: list[ir.DataType | None]) -> None:
    for index, (value, dtype) in enumerate(zip(graph.outputs, dtypes, strict=True)):
        if dtype not in _OTHER_FLOATS or value.is_graph_input():
            continue
        cast = ir.node("Cast", [value], attributes={"to": int(dtype)})
        outside = cast.outputs[0]
        name = value.name
        value.name = _new_name(graph, value)
        outside.name, outside.dtype, outside.shape = name, dtype, value.shape
        graph.append(cast)
        graph.outputs[index] = outside
