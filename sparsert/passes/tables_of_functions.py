"""Evaluates elementwise operators over tables of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sparsert.passes.graph_tools import constant_array

Table = NDArray[np.float32]

_BINARY: dict[str, Any] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Min": np.minimum,
    "Max": np.maximum,
}


def unary_table(node: ir.Node, table: Table) -> Table | None:
    """Returns what an activation with constant parameters makes of each number, or None."""
    proto = ir.to_proto(node)
    constants = []
    for name, value in zip(list(proto.input)[1:], node.inputs[1:], strict=True):
        array = constant_array(value, 1)
        if value is not None and array is None:
            return None
        if array is not None:
            constants.append(numpy_helper.from_array(array.reshape(()), name))
    names = [proto.input[0], proto.output[0]]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, table.shape) for n in names]
    graph = helper.make_graph([proto], "table", info[:1], info[1:], constants)
    opset = helper.make_opsetid("", onnx.defs.onnx_opset_version())
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[opset]))
    with np.errstate(all="ignore"):
        result: Any = evaluator.run(None, {names[0]: table})
    return np.asarray(result[0], np.float32).reshape(table.shape)


def binary_table(op_type: str, a: Any, b: Any) -> Table:
    """Returns what Add, Sub, Mul, Div, Min or Max makes of each pair of f32 numbers."""
    with np.errstate(all="ignore"):
        result: Table = np.asarray(_BINARY[op_type](a, b), np.float32)
    return result
