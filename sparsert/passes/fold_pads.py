"""Moves zero padding into the window operator that follows it; spells out auto_pad VALID."""

from __future__ import annotations

import onnx_ir as ir

from sparsert.passes.graph_tools import (
    attribute,
    constant_array,
    constant_scalar,
    has_single_use,
    input_at,
    is_op,
    nodes_of,
    rank_of,
)

# The most that the engine takes as one window value.
MAX_PAD = 1 << 30


def run(model: ir.Model) -> None:
    """Folds Pad(0) into Conv, and into AveragePool that counts its padding, in place."""
    for node in nodes_of(model.graph):
        if not is_op(node, "Conv", "ConvTranspose", "MaxPool", "AveragePool"):
            continue
        if attribute(node, "auto_pad") == "VALID":
            del node.attributes["auto_pad"]
            node.attributes.pop("pads", None)
        elif attribute(node, "auto_pad") == "NOTSET":
            del node.attributes["auto_pad"]
        if is_op(node, "Conv", "AveragePool"):
            _fold(node)


def _fold(node: ir.Node) -> None:
    assert node.inputs[0] is not None
    pad = node.inputs[0].producer()
    if pad is None or not is_op(pad, "Pad") or "auto_pad" in node.attributes:
        return
    spatial = _spatial_pads(pad)
    if spatial is None:
        return
    count = len(spatial)
    old = attribute(node, "pads", (0,) * count)
    if len(old) != count:
        return
    pads = [a + b for a, b in zip(old, spatial, strict=True)]
    if max(pads, default=0) > MAX_PAD:
        return
    if is_op(node, "AveragePool") and not (
        # Its own padding and the folded one must be averaged alike.
        (attribute(node, "count_include_pad", 0) or not any(old))
        and not attribute(node, "ceil_mode", 0)
        and has_single_use(pad.outputs[0])
        and _is_within_kernel(pads, attribute(node, "kernel_shape", ()))
    ):
        return
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    if is_op(node, "AveragePool"):
        node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    node.replace_input_with(0, pad.inputs[0])
    if not pad.outputs[0].uses() and not pad.outputs[0].is_graph_output():
        assert isinstance(pad.graph, ir.Graph)
        pad.graph.remove(pad, safe=True)


def _is_within_kernel(pads: list[int], kernel: tuple[int, ...]) -> bool:
    """Says whether a pool may have these pads: every window must hold some of its input."""
    return len(pads) == 2 * len(kernel) and all(
        pad < size for pad, size in zip(pads, (*kernel, *kernel), strict=True)
    )


def _spatial_pads(pad: ir.Node) -> list[int] | None:
    """Returns the begins and ends of zero padding of the spatial axes, or None."""
    if attribute(pad, "mode", "constant") != "constant":
        return None
    value = input_at(pad, 2)
    if value is not None and constant_scalar(value) != 0:
        return None
    pads = constant_array(input_at(pad, 1))
    if pads is None:
        return None
    rank = rank_of(pad.inputs[0])
    axes_value = input_at(pad, 3)
    if axes_value is None:
        rank = pads.size // 2
        axes = list(range(rank))
    else:
        array = constant_array(axes_value)
        if array is None or rank is None:
            return None
        axes = [int(axis) % rank for axis in array.reshape(-1)]
    begins, ends = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begins[axis], ends[axis] = int(pads[i]), int(pads[i + len(axes)])
    if any(begins[:2]) or any(ends[:2]) or min(begins + ends) < 0:
        return None
    return begins[2:] + ends[2:]
