"""Turns nodes of the canonical graph into nodes of the file: op, attributes, inputs, outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparsert.errors import ModelFormatError, UnsupportedOpError
from sparsert.modelfile.opset import (
    BINARY_FN,
    COMPARE_FN,
    OP_RULES,
    OPS,
    REDUCE_FN,
    UNARY_DEFAULTS,
    UNARY_FN,
    VARIADIC,
    AttrType,
    attr_types,
    enum_names,
)

if TYPE_CHECKING:
    import onnx_ir as ir

SPARSERT_DOMAIN = "sparsert"

# ONNX op -> UnaryFn. Gelu's variant and Clip's bounds are found by the code below.
UNARY_OPS = {
    "Relu": "relu",
    "LeakyRelu": "leaky_relu",
    "Elu": "elu",
    "Selu": "selu",
    "Celu": "celu",
    "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Swish": "silu",
    "Gelu": "gelu",
    "Clip": "clip",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Abs": "abs",
    "Neg": "neg",
    "Reciprocal": "reciprocal",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Erf": "erf",
    "Sin": "sin",
    "Cos": "cos",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Mish": "mish",
    "Sign": "sign",
    "ThresholdedRelu": "thresholded_relu",
    "Tan": "tan",
    "Asin": "asin",
    "Acos": "acos",
    "Atan": "atan",
    "Sinh": "sinh",
    "Cosh": "cosh",
    "Asinh": "asinh",
    "Acosh": "acosh",
    "Atanh": "atanh",
}
# Second parameter's name in ONNX, where it is not beta.
_BETA_NAME = {"selu": "gamma"}

# Operators on packed bytes.
PACKED_OPS = tuple(op for op, number in OPS.items() if 90 <= number < 110)
# Operators of the domain sparsert besides those that take an activation.
_OWN_OPS = ("MatMul", "Attention", "Recurrent", "DeformColumns", *PACKED_OPS)
# Those of them that are not also operators of ONNX with the same inputs.
_ONLY_OWN = ("Attention", "Recurrent", "DeformColumns", *PACKED_OPS)
_FAMILIES = {
    "Unary": tuple(UNARY_OPS),
    "Binary": (*BINARY_FN, "BitShift"),
    "Reduce": REDUCE_FN,
    "Compare": COMPARE_FN,
}

FUSED_OPS = ("Conv", "ConvTranspose", "Linear", "BatchNormalization")

# Defaults written out, so that a file says them. Those that depend on a rank stay absent.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "Conv": {"group": 1},
    "ConvTranspose": {"group": 1},
    "MaxPool": {"ceil_mode": 0},
    "AveragePool": {"ceil_mode": 0, "count_include_pad": 0},
    "Split": {"axis": 0},
    "Reshape": {"allowzero": 0},
    "Flatten": {"axis": 1},
    "Gather": {"axis": 0},
    "Pad": {"mode": "constant"},
    "Resize": {
        "mode": "nearest",
        "coordinate_transformation_mode": "half_pixel",
        "nearest_mode": "round_prefer_floor",
        "keep_aspect_ratio_policy": "stretch",
    },
    "Reduce": {"keepdims": 1, "noop_with_empty_axes": 0},
    "Softmax": {"axis": -1},
    "LogSoftmax": {"axis": -1},
    "Shape": {"start": 0},
    "LayerNormalization": {"axis": -1, "epsilon": 1e-5},
    "RMSNormalization": {"axis": -1, "epsilon": 1e-5},
    "ArgMax": {"axis": 0, "keepdims": 1, "select_last_index": 0},
    "ArgMin": {"axis": 0, "keepdims": 1, "select_last_index": 0},
    "TopK": {"axis": -1, "largest": 1, "sorted": 1},
    "GatherElements": {"axis": 0},
    "GatherND": {"batch_dims": 0},
    "ScatterElements": {"axis": 0, "reduction": "none"},
    "ScatterND": {"reduction": "none"},
    "OneHot": {"axis": -1},
    "CumSum": {"exclusive": 0, "reverse": 0},
    "CumProd": {"exclusive": 0, "reverse": 0},
    "Trilu": {"upper": 1},
    "Recurrent": {"reverse": 0, "input_forget": 0},
    "GridSample": {"mode": "linear", "padding_mode": "zeros", "align_corners": 0},
    "RoiAlign": {
        "mode": "avg",
        "coordinate_transformation_mode": "half_pixel",
        "output_height": 1,
        "output_width": 1,
        "sampling_ratio": 0,
        "spatial_scale": 1.0,
    },
    "DeformColumns": {"group": 1},
    "QConv": {"group": 1},
    "QDepthwise": {"group": 1},
    "QConvDynamic": {"group": 1},
    "QMaxPool": {"ceil_mode": 0},
}
# Attributes that may be there but say nothing (given the others), and the values they must have.
_IGNORED: dict[str, tuple[str, ...]] = {
    "Conv": ("kernel_shape",),
    "ConvTranspose": ("kernel_shape",),
    "Cast": ("saturate", "round_mode"),
    "LayerNormalization": ("stash_type",),
    "RMSNormalization": ("stash_type",),
}


@dataclass
class FileNode:
    """A node as the file has it. Attributes are in the file's terms: enums are numbers."""

    op: str
    name: str
    inputs: list[ir.Value | None]
    outputs: list[ir.Value]
    attrs: dict[str, int | float | tuple[int, ...]] = field(default_factory=dict)


def lower_node(node: ir.Node) -> FileNode:
    """Maps one canonical node.

    Raises:
        UnsupportedOpError: the op, or a value of an attribute, is not in the sparsert opset.
        ModelFormatError: the node contradicts its op: inputs, outputs or attribute types.
    """
    where = f"node '{node.name or ''}' ({_op_name(node)})"
    values = {name: _attr_value(attr, where) for name, attr in node.attributes.items()}
    inputs = list(node.inputs)
    op = _file_op(node, where)
    outputs = list(node.outputs)
    while len(outputs) > 1 and not outputs[-1].name and not outputs[-1].uses():
        outputs.pop()
    if op == "Unary":
        values = _unary_values(node, inputs, values, where)
        inputs = inputs[:1]
    elif op in ("Reduce", "Compare"):
        values["fn"] = node.op_type
    elif op == "Binary":
        values["fn"] = binary_fn(node.op_type, values)
    elif op == "ConstantOfShape":
        values = _fill_value(values)
    elif op == "Resize":
        _resize_values(inputs, values)
    if "act" in values:
        _fill_act(values, where)
    if values.get("auto_pad") == "VALID":
        values.pop("auto_pad")
        values.pop("pads", None)
    for name in _IGNORED.get(op, ()):
        values.pop(name, None)
    if op == "MaxPool" and (len(outputs) == 1 or values.get("storage_order") == 0):
        values.pop("storage_order", None)
    values = {**_DEFAULTS.get(op, {}), **values}
    if op == "RoiAlign":
        values["output_shape"] = (values.pop("output_height"), values.pop("output_width"))
    while inputs and inputs[-1] is None:
        inputs.pop()
    _check(op, inputs, outputs, values, where)
    attrs = {name: _number(op, name, value, where) for name, value in values.items()}
    return FileNode(op, node.name or "", inputs, outputs, attrs)


def binary_fn(op_type: str, values: dict[str, Any]) -> str:
    """Returns the function of a binary operator and takes the attributes that say which."""
    if op_type == "BitShift":
        return "ShiftLeft" if values.pop("direction", "") == "LEFT" else "ShiftRight"
    if op_type == "Mod":
        return "Fmod" if values.pop("fmod", 0) else "Mod"
    return op_type


def _op_name(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _file_op(node: ir.Node, where: str) -> str:
    """Returns the file's op of a canonical node."""
    if node.domain == SPARSERT_DOMAIN:
        if node.op_type in FUSED_OPS or node.op_type in _OWN_OPS:
            return node.op_type
        if node.op_type in BINARY_FN:
            return "Binary"
    elif node.domain in ("", "ai.onnx"):
        for op, members in _FAMILIES.items():
            if node.op_type in members:
                return op
        if node.op_type in OP_RULES and node.op_type not in (*FUSED_OPS, *_ONLY_OWN):
            return node.op_type
    raise UnsupportedOpError(f"{where}: not an op of the sparsert opset")


def _attr_value(attr: ir.Attr, where: str) -> Any:
    """Returns an attribute's value as int, float, str, a tuple of these, or a NumPy array."""
    import onnx_ir as ir

    if attr.is_ref():
        raise UnsupportedOpError(f"{where}: attribute {attr.name} refers to a function's argument")
    if attr.type in (ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING):
        return attr.value
    if attr.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return tuple(attr.value)
    if attr.type == ir.AttributeType.TENSOR:
        return attr.value.numpy()
    raise UnsupportedOpError(f"{where}: attribute {attr.name} of type {attr.type.name}")


def _unary_values(
    node: ir.Node, inputs: list[ir.Value | None], values: dict[str, Any], where: str
) -> dict[str, Any]:
    """Returns fn, alpha and beta of a unary node."""
    fn = UNARY_OPS[node.op_type]
    if fn == "gelu" and values.pop("approximate", "none") == "tanh":
        fn = "gelu_tanh"
    result: dict[str, Any] = {"fn": fn}
    for i, default in enumerate(UNARY_DEFAULTS.get(fn, ())):
        key = ("alpha", "beta")[i]
        if fn == "clip":
            bound = inputs[i + 1] if i + 1 < len(inputs) else None
            result[key] = default if bound is None else _scalar(bound, where)
        else:
            onnx_key = _BETA_NAME.get(fn, key) if i == 1 else key
            result[key] = float(values.pop(onnx_key, default))
    if values:
        raise UnsupportedOpError(f"{where}: unknown attributes {', '.join(sorted(values))}")
    return result


def _resize_values(inputs: list[ir.Value | None], values: dict[str, Any]) -> None:
    """Leaves out what says nothing in a Resize of its mode and coordinates."""
    if values.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        values.pop("extrapolation_value", None)
        if len(inputs) > 1:
            inputs[1] = None
    if values.get("mode") != "cubic":
        values.pop("cubic_coeff_a", None)
    if values.get("mode", "nearest") == "nearest":
        values.pop("antialias", None)
        values.pop("exclude_outside", None)
    for name in ("antialias", "exclude_outside"):
        if values.get(name) == 0:
            values.pop(name)


def _scalar(value: ir.Value, where: str) -> float:
    """Returns the only element of a constant."""
    import onnx_ir as ir

    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise UnsupportedOpError(f"{where}: input '{value.name}' must be a constant")
    array = tensor.numpy()
    if array.size != 1:
        raise ModelFormatError(f"{where}: input '{value.name}' must be a scalar")
    return float(array.reshape(()))


def _fill_value(values: dict[str, Any]) -> dict[str, Any]:
    """Turns ConstantOfShape's one-element tensor into value and its dtype, `to`."""
    import onnx_ir as ir

    tensor = values.pop("value", None)
    if tensor is None:
        return {**values, "value": 0.0, "to": 1}
    item = tensor.reshape(-1)[0]
    is_float = tensor.dtype.kind == "f"
    to = int(ir.DataType.from_numpy(tensor.dtype))
    return {**values, "value": float(item) if is_float else int(item), "to": to}


def _fill_act(values: dict[str, Any], where: str) -> None:
    """Spells out a fused activation: relu6 is a clip, parameters get their defaults."""
    act = values["act"]
    if act == "relu6":
        values.update(act="clip", act_alpha=0.0, act_beta=6.0)
        return
    if act not in UNARY_FN:
        raise UnsupportedOpError(f"{where}: unknown activation '{act}'")
    defaults = UNARY_DEFAULTS.get(act, ())
    for i, key in enumerate(("act_alpha", "act_beta")):
        if i < len(defaults):
            values.setdefault(key, defaults[i])
        else:
            values.pop(key, None)
    if act == "none":
        values.pop("act")


def _check(
    op: str,
    inputs: list[ir.Value | None],
    outputs: list[ir.Value],
    values: dict[str, Any],
    where: str,
) -> None:
    """Checks counts of inputs and outputs and names of attributes against the op's rule."""
    rule = OP_RULES[op]
    if not rule.min_inputs <= len(inputs) <= rule.max_inputs:
        raise ModelFormatError(
            f"{where}: {len(inputs)} inputs, expected {rule.min_inputs} to {rule.max_inputs}"
        )
    present = len(inputs) if rule.max_inputs == VARIADIC else rule.min_inputs
    if any(value is None for value in inputs[:present]):
        raise ModelFormatError(f"{where}: a required input is absent")
    if not rule.min_outputs <= len(outputs) <= rule.max_outputs:
        raise UnsupportedOpError(
            f"{where}: {len(outputs)} outputs, expected {rule.min_outputs} to {rule.max_outputs}"
        )
    unknown = sorted(set(values) - set(rule.attrs))
    if unknown:
        raise UnsupportedOpError(f"{where}: unknown attributes {', '.join(unknown)}")
    missing = sorted(set(rule.required) - set(values))
    if missing:
        raise ModelFormatError(f"{where}: attributes {', '.join(missing)} are missing")


def _number(op: str, name: str, value: Any, where: str) -> int | float | tuple[int, ...]:
    """Converts an attribute's value to what the file holds."""
    names = enum_names(op, name)
    if names is not None:
        if isinstance(value, tuple) and all(item in names for item in value):
            return tuple(names.index(item) for item in value)
        if isinstance(value, str) and value in names:
            return names.index(value)
        raise UnsupportedOpError(f"{where}: {name}={value!r}, expected one of {', '.join(names)}")
    types = attr_types(name)
    try:
        if AttrType.INTS in types:
            return tuple(int(v) for v in value)
        if AttrType.FLOAT in types and isinstance(value, float):
            return value
        if AttrType.INT in types:
            return int(value)
        return float(value)
    except (TypeError, ValueError):
        raise ModelFormatError(f"{where}: attribute {name} has the value {value!r}") from None
