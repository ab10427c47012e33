"""Computes equal subexpressions once."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common


def run(model: ir.Model) -> None:
    """Merges nodes with the same operator, attributes and inputs, in place."""
    common.CommonSubexpressionEliminationPass()(model)
