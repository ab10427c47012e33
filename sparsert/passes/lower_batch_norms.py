"""Turns BatchNormalization with constant statistics into sparsert.BatchNormalization."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SPARSERT,
    add_initializer,
    attribute,
    constant,
    constant_array,
    is_f32,
    is_op,
    make_node,
    nodes_of,
    replace_node,
)


def run(model: ir.Model) -> None:
    """Replaces the four parameters of inference-mode nodes by one scale and one shift, in place."""
    for node in nodes_of(model.graph):
        if not is_op(node, "BatchNormalization") or attribute(node, "training_mode", 0):
            continue
        if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
            continue
        scale_tensor = constant(node.inputs[1])
        if scale_tensor is not None and scale_tensor.size == 0:  # no channels: nothing to compute
            replace_node(node, make_node("Identity", [node.inputs[0]], name=node.name))
            continue
        arrays = [constant_array(value, 1 << 20) for value in node.inputs[1:5]]
        if not is_f32(node.outputs[0]) or any(array is None for array in arrays):
            continue
        gamma, beta, mean, variance = (np.asarray(a, dtype=np.float64) for a in arrays)
        factor = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        name = node.name or "batch_norm"
        scale = add_initializer(model.graph, f"{name}_scale", factor.astype(np.float32))
        shift = add_initializer(
            model.graph, f"{name}_shift", (beta - mean * factor).astype(np.float32)
        )
        lowered = make_node(
            "BatchNormalization",
            [node.inputs[0], scale, shift],
            {},
            SPARSERT,
            node.name,
            node.outputs[0],
        )
        replace_node(node, lowered)
