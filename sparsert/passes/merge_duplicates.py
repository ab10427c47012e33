"""Computes equal subexpressions once."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes import common

# Elements; larger constants are weights, which are not read to be compared.
SMALL_CONSTANT = 16


def run(model: ir.Model) -> None:
    """Merges nodes with the same operator, attributes and inputs, in place.

    Small constants of the same value count as the same input.
    """
    logger = logging.getLogger("onnx_ir.passes.common.initializer_deduplication")
    level = logger.level
    logger.setLevel(logging.ERROR)  # constants that are outputs stay, and need no warning
    try:
        common.DeduplicateInitializersPass(size_limit=SMALL_CONSTANT)(model)
    finally:
        logger.setLevel(level)
    common.CommonSubexpressionEliminationPass()(model)
