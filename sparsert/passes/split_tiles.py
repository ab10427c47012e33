"""Splits a Tile along more dimensions than one copy can repeat."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import constant_array, input_at, is_op, nodes_of
from sparsert.passes.native_checks import MAX_RANK


def run(model: ir.Model) -> None:
    """Splits nodes of constant repeats, in place: the last dimensions first."""
    for node in nodes_of(model.graph):
        repeats = constant_array(input_at(node, 1)) if is_op(node, "Tile") else None
        if repeats is None or repeats.ndim != 1:
            continue
        axes = np.flatnonzero(repeats != 1)[::-1]
        # A copy has one more dimension for each that is repeated.
        at_once = MAX_RANK - repeats.size
        if at_once < 1 or axes.size <= at_once:
            continue
        chain = Chain(node, model.graph)
        y = node.inputs[0]
        for first in range(0, axes.size, at_once):
            part = np.ones_like(repeats)
            part[axes[first : first + at_once]] = repeats[axes[first : first + at_once]]
            y = chain.add("Tile", [y, chain.constant("repeats", part)])
        chain.replace()
