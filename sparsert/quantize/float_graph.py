"""Makes the float graph that is quantised: cleaned, batch norms folded, and still plain ONNX."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes import load_pass
from sparsert.passes.convert_opset import convert_old
from sparsert.passes.graph_tools import (
    SPARSERT,
    add_initializer,
    constant,
    input_at,
    is_op,
    make_node,
    nodes_of,
    rank_of,
    replace_node,
)

# Convolutions and products become sparsert.Conv and sparsert.Linear for fold_affines, and ONNX's
# operators again afterwards. The opset stays what it is (18 or newer), so that every engine that
# ran the model runs the result.
_BEFORE = (
    "lift_constants",
    "infer_shapes",
    "fold_constants",
    "convert_floats",
    "infer_shapes",
    "drop_noops",
    "simplify_patterns",
    "fold_constants",
    "fold_pads",
    "infer_shapes",
    "drop_noops",
    "merge_duplicates",
    "lower_convs",
    "lower_linears",
    "lower_batch_norms",
    "fold_affines",
)
_AFTER = ("lift_constants", "infer_shapes", "tidy_graph")
_OLDEST_IR = 8


def make_float_graph(model: ir.Model, always_bias: bool) -> ir.Model:
    """Cleans an imported model, in place, and reads its weights.

    Args:
        model: as the importer returns it.
        always_bias: give every layer with weights a bias, if only of zeros.

    Returns:
        The same object: ONNX operators, each node with a name of its own.

    Raises:
        UnsupportedOpError: an operator cannot be brought to opset 18.
    """
    load_pass("inline_functions")(model)
    version = convert_old(model)
    for name in _BEFORE:
        load_pass(name)(model)
    columns: dict[ir.Value, ir.Value] = {}
    for node in nodes_of(model.graph):
        if node.domain == SPARSERT:
            _raise(node, model.graph, always_bias, columns)
    model.opset_imports[""] = model.graph.opset_imports[""] = version
    for name in _AFTER:
        load_pass(name)(model)
    model.opset_imports.pop(SPARSERT, None)
    common.RemoveUnusedOpsetsPass()(model)
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.LazyTensor):
            value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    return model


def _raise(
    node: ir.Node, graph: ir.Graph, always_bias: bool, columns: dict[ir.Value, ir.Value]
) -> None:
    """Replaces a node of the sparsert opset by the ONNX operators that it came from.

    `columns` are the weights of MatMul made so far, by those of Linear.
    """
    if node.op_type == "BatchNormalization":
        _raise_batch_norm(node, graph)
        return
    if is_op(node, "Conv", "ConvTranspose", "Linear", domain=SPARSERT):
        x, weight, bias = node.inputs[0], node.inputs[1], input_at(node, 2)
        assert weight is not None
        if bias is None and always_bias:
            zeros = np.zeros(_outputs_of(node), np.float32)
            bias = add_initializer(graph, f"{weight.name}_bias", zeros)
        if node.op_type == "Linear":
            _raise_linear(node, graph, bias, columns)
            return
        attributes = {key: attr.value for key, attr in node.attributes.items()}
        raised = make_node(
            node.op_type, [x, weight, bias], attributes, "", node.name, node.outputs[0]
        )
        replace_node(node, raised)


def _outputs_of(node: ir.Node) -> int:
    tensor = constant(node.inputs[1])
    assert tensor is not None
    shape = tensor.shape.numpy()
    if node.op_type != "ConvTranspose":
        return int(shape[0])
    return int(shape[1]) * int(node.attributes["group"].value)


def _raise_linear(
    node: ir.Node, graph: ir.Graph, bias: ir.Value | None, columns: dict[ir.Value, ir.Value]
) -> None:
    """Gemm for rows; MatMul and Add for other ranks."""
    x, weight = node.inputs[:2]
    assert weight is not None
    if rank_of(x) == 2:
        raised = make_node("Gemm", [x, weight, bias], {"transB": 1}, "", node.name, node.outputs[0])
        replace_node(node, raised)
        return
    if weight not in columns:
        tensor = constant(weight)
        assert tensor is not None
        transposed = np.ascontiguousarray(tensor.numpy().T)
        columns[weight] = add_initializer(graph, f"{weight.name}_columns", transposed)
    nodes = [make_node("MatMul", [x, columns[weight]], {}, "", node.name, node.outputs[0])]
    if bias is not None:
        product = nodes[0].outputs[0]
        nodes.append(
            make_node("Add", [product, bias], {}, "", f"{node.name}_bias", node.outputs[0])
        )
    replace_node(node, nodes)


def _raise_batch_norm(node: ir.Node, graph: ir.Graph) -> None:
    """One that no layer took in: scale and shift with mean 0 and variance 1."""
    scale = constant(node.inputs[1])
    assert scale is not None
    mean = add_initializer(graph, f"{node.name}_mean", np.zeros(scale.size, np.float32))
    variance = add_initializer(graph, f"{node.name}_variance", np.ones(scale.size, np.float32))
    inputs = [*node.inputs[:3], mean, variance]
    raised = make_node(
        "BatchNormalization", inputs, {"epsilon": 0.0}, "", node.name, node.outputs[0]
    )
    replace_node(node, raised)
