"""Expands what lower_quantized_nets leaves of DynamicQuantizeLinear."""

from __future__ import annotations

import onnx_ir as ir

from sparsert.passes.expand_functions import expand
from sparsert.passes.graph_tools import is_op, nodes_of


def run(model: ir.Model) -> None:
    """Replaces those of the main graph by ONNX's definition, in place."""
    for node in nodes_of(model.graph):
        if is_op(node, "DynamicQuantizeLinear"):
            expand(node, model)
