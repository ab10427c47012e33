"""Removes redundant operators with onnxscript's rewrite rules."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules.common import (
    _basic_rules,
    _collapse_slices,
    _fuse_relus_clips,
    _min_max_to_clip,
)

# Not used: the rules for batch normalisation and Pad (they compute with the weights at once and
# overlook dilations; fold_affines and fold_pads do it lazily), Flatten to Reshape, and x + 0, x * 1
# (they also drop numbers that are only nearly so, such as the epsilon of a norm).
_RULES = (
    *_collapse_slices.rules,
    *_min_max_to_clip.rules,
    *_fuse_relus_clips.rules,
    _basic_rules.cast_cast_rule,
    _basic_rules.no_op_cast_rule,
    _basic_rules.no_op_expand_rule,
    _basic_rules.no_op_transpose_rule,
    _basic_rules.transpose_transpose_rule,
    _basic_rules.reshape_reshape_rule,
    _basic_rules.unsqueeze_unsqueeze_rule,
)


def run(model: ir.Model) -> None:
    """Applies the rules in place; what they leave unused is removed."""
    logger = logging.getLogger("onnxscript.rewriter")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        RewritePass(list(_RULES))(model)
    finally:
        logger.setLevel(level)
    common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
