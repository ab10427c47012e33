"""Turns convolutions whose weights are known only to a run into gathers and matrix products."""

from __future__ import annotations

import itertools
import math

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    constant,
    input_at,
    is_f32,
    is_op,
    known_dims,
    nodes_of,
    rank_of,
)

# Indices of one node at most.
_MAX_INDICES = 1 << 22


def run(model: ir.Model) -> None:
    """Lowers f32 Conv nodes on known sizes, in place.

    The elements that each window covers are gathered into columns, which the weights multiply.
    """
    for node in nodes_of(model.graph):
        weight = input_at(node, 1)
        if not is_op(node, "Conv") or constant(weight) is not None or not is_f32(weight):
            continue
        rank = rank_of(node.inputs[0])
        if rank is None or rank < 3 or not is_f32(node.outputs[0]):
            continue
        if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            continue
        chain = Chain(node, model.graph)
        if _lower(node, rank - 2, chain):
            chain.replace()


def _lower(node: ir.Node, axes: int, chain: Chain) -> bool:
    x, weight, bias = node.inputs[0], node.inputs[1], input_at(node, 2)
    assert x is not None
    assert weight is not None
    sizes = known_dims(x, range(1, 2 + axes))
    shape = known_dims(weight, range(2 + axes))
    result = known_dims(node.outputs[0], range(2, 2 + axes))
    if sizes is None or shape is None or result is None:
        return False
    pads = attribute(node, "pads", (0,) * (2 * axes))
    strides = attribute(node, "strides", (1,) * axes)
    dilations = attribute(node, "dilations", (1,) * axes)
    group = attribute(node, "group", 1)
    kernel, places = shape[2:], math.prod(result)
    taps = math.prod(kernel)
    if taps * places > _MAX_INDICES:
        return False
    if any(pads):
        amounts = np.array([0, 0, *pads[:axes], 0, 0, *pads[axes:]])
        x = chain.add("Pad", [x, chain.constant("pads", amounts)])
    padded = [size + pads[i] + pads[i + axes] for i, size in enumerate(sizes[1:])]
    flat = chain.constant("flat", np.array([0, sizes[0], math.prod(padded)]))
    windows = _windows(kernel, result, padded, strides, dilations)
    columns = chain.add(
        "Gather",
        [chain.add("Reshape", [x, flat]), chain.constant("windows", windows)],
        axis=2,
    )
    in_group = shape[1] * taps
    split = chain.constant("columns", np.array([0, group, in_group, places]))
    matrix = chain.constant("matrix", np.array([group, shape[0] // group, in_group]))
    product = chain.add("Reshape", [weight, matrix])
    product = chain.add("MatMul", [product, chain.add("Reshape", [columns, split])])
    final = chain.constant("result", np.array([0, shape[0], *result]))
    y = chain.add("Reshape", [product, final])
    if bias is not None:
        along = chain.constant("along", np.array([shape[0]] + [1] * axes))
        chain.add("Add", [y, chain.add("Reshape", [bias, along])])
    return True


def _windows(
    kernel: list[int],
    result: list[int],
    padded: list[int],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> np.ndarray:
    """Returns i64 [taps, places]: which element of a padded plane a tap meets at a place."""
    rows = []
    for tap in itertools.product(*map(range, kernel)):
        index = np.zeros((), np.int64)
        for i, offset in enumerate(tap):
            along = np.arange(result[i]) * strides[i] + offset * dilations[i]
            index = index[..., None] * padded[i] + along
        rows.append(index.reshape(-1))
    return np.stack(rows)
