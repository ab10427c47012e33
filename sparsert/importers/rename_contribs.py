"""Moves what ONNX Runtime keeps in ONNX's domain, without being of it, to com.microsoft."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

MICROSOFT = "com.microsoft"
# The opset in which ONNX got an operator of this name; None: it has none.
_SINCE = {"LayerNormalization": 17, "SimplifiedLayerNormalization": None}


def rename_contribs(proto: onnx.ModelProto) -> None:
    """Renames the nodes of the main graph, in place, so that they are not taken for ONNX's."""
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    functions = {(f.domain, f.name) for f in proto.functions}
    found = False
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _SINCE:
            continue
        since = _SINCE[node.op_type]
        if (since is None or opset < since) and (node.domain, node.op_type) not in functions:
            node.domain, found = MICROSOFT, True
    if found and all(o.domain != MICROSOFT for o in proto.opset_import):
        proto.opset_import.add(domain=MICROSOFT, version=1)
