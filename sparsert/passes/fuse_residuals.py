"""Fuses the addition of a residual into the convolution or linear layer that feeds it."""

from __future__ import annotations

import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SPARSERT,
    has_single_use,
    input_at,
    is_f32,
    is_op,
    nodes_of,
    replace_node,
    same_shape,
)


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
            layer = value.producer()
            if layer is not None and _takes_residual(layer) and layer in position:
                candidates.append((position[layer], layer, residual))
        if candidates:
            _, layer, residual = max(candidates, key=lambda candidate: candidate[0])
            fused = _with_residual(layer, residual)
            position[fused] = position[node]
            replace_node(node, fused)
            model.graph.remove(layer, safe=True)


def _takes_residual(layer: ir.Node) -> bool:
    return (
        is_op(layer, "Conv", "Linear", domain=SPARSERT)
        and "act" not in layer.attributes
        and input_at(layer, 3) is None
        and has_single_use(layer.outputs[0])
    )


def _with_residual(layer: ir.Node, residual: ir.Value) -> ir.Node:
    fused = ir.node(
        layer.op_type,
        [layer.inputs[0], layer.inputs[1], input_at(layer, 2), residual],
        attributes=layer.attributes,
        domain=SPARSERT,
        name=layer.name,
    )
    fused.outputs[0].type = layer.outputs[0].type
    fused.outputs[0].shape = layer.outputs[0].shape
    return fused
