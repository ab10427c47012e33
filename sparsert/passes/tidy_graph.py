"""Removes what is unused, merges equal small constants, names and orders everything."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes.graph_tools import SPARSERT, nodes_of


def run(model: ir.Model) -> None:
    """Leaves a compact graph in topological order with unique names, in place."""
    common.RemoveUnusedNodesPass()(model)
    common.DeduplicateInitializersPass(size_limit=1024)(model)
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)
    for index, node in enumerate(nodes_of(model.graph)):
        node.name = node.name or f"{node.op_type}_{index}"
    model.graph.sort()
    model.opset_imports[SPARSERT] = 1
    common.RemoveUnusedOpsetsPass()(model)
