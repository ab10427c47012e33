"""Replaces calls of model-local functions by their bodies."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.kernels.custom_ops import find_custom_op


def run(model: ir.Model) -> None:
    """Inlines every function of the model but those with a registered kernel, in place."""
    for domain, name, overload in list(model.functions):
        if find_custom_op(domain, name) is not None:
            del model.functions[domain, name, overload]
    if model.functions:
        common.InlinePass()(model)
        common.RemoveUnusedFunctionsPass()(model)
    if "ai.onnx" in model.opset_imports:
        model.opset_imports.setdefault("", model.opset_imports.pop("ai.onnx"))
    for node in model.graph.all_nodes():
        node.version = None
