"""rename_contribs: what ONNX Runtime keeps in ONNX's domain is told from ONNX's own operators."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from sparsert.importers import import_model
from sparsert.importers.rename_contribs import MICROSOFT


def model_of(op: str, opset: int) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, 1, [4]) for name in "xs"]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "s"], ["y"])],
        "test",
        inputs,
        [helper.make_tensor_value_info("y", 1, [4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize(
    ("op", "opset", "domain"),
    [
        ("SimplifiedLayerNormalization", 13, MICROSOFT),
        ("SimplifiedLayerNormalization", 23, MICROSOFT),
        ("LayerNormalization", 16, MICROSOFT),
        ("LayerNormalization", 17, ""),
    ],
)
def test_domain(op, opset, domain):
    proto = model_of(op, opset)
    model = import_model(proto)
    assert [node.domain for node in model.graph] == [domain]
    assert (MICROSOFT in model.opset_imports) == bool(domain)
    assert proto.graph.node[0].domain == ""
