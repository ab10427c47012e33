"""Computes equal subexpressions once."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

# Elements; larger constants are weights, which are not read to be compared.
SMALL_CONSTANT = 16


def run(model: ir.Model) -> None:
    """Merges nodes with the same operator, attributes and inputs, in place.

    Small constants of the same value count as the same input.
    """
    common.DeduplicateInitializersPass(size_limit=SMALL_CONSTANT)(model)
    common.CommonSubexpressionEliminationPass()(model)
