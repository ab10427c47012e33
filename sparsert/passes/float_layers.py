"""What a model tells of its layers that stay in f32 although others compute in integers."""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx_ir as ir

from sparsert.modelfile.tables import FLOAT_LAYERS, KEPT_FLOAT


def name_of(node: ir.Node) -> str:
    """Returns the name that explain() has for a node."""
    return node.name or node.outputs[0].name or ""


def left_by_quantize(model: ir.Model) -> dict[str, str]:
    """Returns the layers that sparsert.quantize left in float, and why."""
    try:
        kept = json.loads(model.metadata_props.get(KEPT_FLOAT, "{}"))
    except ValueError:
        return {}
    if not isinstance(kept, dict):
        return {}
    return {name: f"quantize left it in float: {reason}" for name, reason in kept.items()}


def note_float_layers(model: ir.Model, reasons: Mapping[str, str]) -> None:
    """Writes the reasons of those nodes that the graph has into the model's metadata."""
    model.metadata_props.pop(FLOAT_LAYERS, None)
    present = {name_of(node) for node in model.graph}
    found = {name: reason for name, reason in reasons.items() if name in present}
    if found:
        model.metadata_props[FLOAT_LAYERS] = json.dumps(found)
