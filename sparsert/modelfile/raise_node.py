"""Turns nodes of a file back into nodes of the canonical graph (the inverse of lower_node)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.modelfile.lower_node import FUSED_OPS, PACKED_OPS, SPARSERT_DOMAIN, UNARY_OPS
from sparsert.modelfile.opset import BINARY_FN, COMPARE_FN, DTYPE_NUMPY, REDUCE_FN, enum_names

if TYPE_CHECKING:
    import onnx_ir as ir

# Binary function -> ONNX op and its attributes, where they are not the function's name alone.
_BINARY_OP_OF: dict[str, tuple[str, dict[str, Any]]] = {
    "Fmod": ("Mod", {"fmod": 1}),
    "ShiftLeft": ("BitShift", {"direction": "LEFT"}),
    "ShiftRight": ("BitShift", {"direction": "RIGHT"}),
}
_UNARY_OP_OF = {fn: op for op, fn in UNARY_OPS.items()} | {"gelu_tanh": "Gelu"}


def raise_node(
    op: str,
    name: str,
    attrs: dict[str, Any],
    inputs: list[ir.Value | None],
    outputs: list[ir.Value],
) -> tuple[ir.Node, list[ir.Value]]:
    """Builds the canonical node of a file node.

    Returns:
        The node, and the new constants that it reads (the bounds of a Clip).
    """
    import onnx_ir as ir

    values = {key: _named(op, key, value) for key, value in attrs.items()}
    constants: list[ir.Value] = []
    domain, op_type = "", op
    if op in FUSED_OPS or op in PACKED_OPS:
        domain = SPARSERT_DOMAIN
    elif op == "Binary":
        fn = BINARY_FN[attrs["fn"]]
        values.pop("fn")
        domain = SPARSERT_DOMAIN if "act" in values else ""
        op_type, more = _BINARY_OP_OF.get(fn, (fn, {}))
        values.update(more)
    elif op == "Reduce":
        op_type = REDUCE_FN[attrs["fn"]]
        values.pop("fn")
    elif op == "Compare":
        op_type = COMPARE_FN[attrs["fn"]]
        values.pop("fn")
    elif op in ("Attention", "Recurrent", "DeformColumns"):
        domain = SPARSERT_DOMAIN
    elif op == "RoiAlign":
        values["output_height"], values["output_width"] = values.pop("output_shape")
    elif op == "MatMul":
        domain = SPARSERT_DOMAIN if values else ""
    elif op == "Unary":
        op_type, values, constants = _raise_unary(values, outputs[0].name or name)
        inputs = [*inputs, *constants]
    elif op == "ConstantOfShape":
        dtype = np.dtype(DTYPE_NUMPY[attrs.get("to", 1)])
        values = {"value": ir.tensor(np.array([attrs.get("value", 0)], dtype))}
    attributes = ir.convenience.convert_attributes(values)
    node = ir.Node(domain, op_type, inputs, attributes, outputs=outputs, name=name or None)
    return node, constants


def _named(op: str, key: str, value: Any) -> Any:
    names = enum_names(op, key)
    if names is not None:
        return [names[item] for item in value] if isinstance(value, tuple) else names[value]
    return list(value) if isinstance(value, tuple) else value


def _raise_unary(values: dict[str, Any], prefix: str) -> tuple[str, dict[str, Any], list[ir.Value]]:
    """Returns the ONNX op, its attributes and, for Clip, its bounds as constants."""
    import onnx_ir as ir

    fn = values.pop("fn")
    if fn == "clip":
        bounds = []
        for key, suffix in (("alpha", "min"), ("beta", "max")):
            name = f"{prefix}_clip_{suffix}"
            tensor = ir.tensor(np.array(values[key], np.float32), name=name)
            bounds.append(
                ir.Value(
                    name=name,
                    shape=ir.Shape([]),
                    type=ir.TensorType(ir.DataType.FLOAT),
                    const_value=tensor,
                )
            )
        return "Clip", {}, bounds
    if fn == "selu" and "beta" in values:
        values["gamma"] = values.pop("beta")
    if fn == "gelu_tanh":
        values["approximate"] = "tanh"
    return _UNARY_OP_OF[fn], values, []
