"""Fuses the addition of a residual into the convolution or linear layer that feeds it."""

from __future__ import annotations

import onnx_ir as ir

from sparsert.passes.fuse_activations import behind_moves, gives_floats
from sparsert.passes.graph_tools import (
    SPARSERT,
    attribute,
    has_single_use,
    input_at,
    is_f32,
    is_op,
    make_node,
    nodes_of,
    replace_node,
    same_shape,
)

# Layers that take a residual, and which of their inputs it is.
_PLACES = {"Conv": 3, "Linear": 3, "QConv": 4, "QConvDynamic": 5}


def run(model: ir.Model) -> None:
    """Turns Add(layer(x), residual) into layer(x, residual) where shapes are provably equal.

    Of two layers the later one takes the addition, so that the other's result is ready by then.
    The fused layer stands where the Add was: both operands are known there.
    """
    position = {node: index for index, node in enumerate(model.graph)}
    for node in nodes_of(model.graph):
        if not is_op(node, "Add") or not is_f32(node.outputs[0]):
            continue
        a, b = node.inputs
        if a is None or b is None or a is b or not same_shape(a, b):
            continue
        candidates = []
        for value, residual in ((a, b), (b, a)):
            last = value.producer()
            if last is None:
                continue
            layer = behind_moves(last)
            if _takes_residual(layer) and layer in position and not is_op(last, "Squeeze"):
                candidates.append((position[layer], layer, last, residual))
        if candidates:
            _, layer, last, residual = max(candidates, key=lambda candidate: candidate[0])
            nodes = _with_residual(layer, last, residual)
            position.update(dict.fromkeys(nodes, position[node]))
            replace_node(node, nodes)
            if last is not layer:
                model.graph.remove(last, safe=True)
            model.graph.remove(layer, safe=True)


def _takes_residual(layer: ir.Node) -> bool:
    return (
        layer.op_type in _PLACES
        and (is_op(layer, "Conv", "Linear", domain=SPARSERT) or gives_floats(layer))
        and "act" not in layer.attributes
        and input_at(layer, _PLACES[layer.op_type]) is None
        and has_single_use(layer.outputs[0])
    )


def _with_residual(layer: ir.Node, last: ir.Node, residual: ir.Value) -> list[ir.Node]:
    """Returns the layer with a residual, between Transposes if `last` is the one behind it."""
    name = layer.name or layer.op_type
    before, after = [], []
    if last is not layer:
        back = attribute(last, "perm")
        there = [back.index(axis) for axis in range(len(back))]
        before.append(make_node("Transpose", [residual], {"perm": there}, name=f"{name}_turn"))
        residual, like = before[0].outputs[0], layer.outputs[0]
        residual.type, residual.shape = like.type, like.shape
    place = _PLACES[layer.op_type]
    inputs = [input_at(layer, index) for index in range(place)]
    fused = ir.node(
        layer.op_type,
        [*inputs, residual],
        attributes=layer.attributes,
        domain=SPARSERT,
        name=layer.name,
    )
    fused.outputs[0].type = layer.outputs[0].type
    fused.outputs[0].shape = layer.outputs[0].shape
    if last is not layer:
        after.append(make_node("Transpose", [fused.outputs[0]], {"perm": back}, name=last.name))
        after[0].outputs[0].type, after[0].outputs[0].shape = (
            last.outputs[0].type,
            last.outputs[0].shape,
        )
    return [*before, fused, *after]
