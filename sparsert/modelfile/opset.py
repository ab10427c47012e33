"""Numbers and rules of the sparsert opset, as csrc/graph/*.inc and csrc/base/functions.h have them.

docs/format.md gives the semantics; tests compare these tables with the C++ ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

MAX_RANK = 8
VARIADIC = 65535

# Numbers of onnx.TensorProto.DataType that a file may hold, and the bytes of one element.
DTYPE_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8}
# Little-endian NumPy types of the same.
DTYPE_NUMPY = {
    1: "<f4",
    2: "|u1",
    3: "|i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    9: "|b1",
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
}

OPS = {
    "Conv": 1,
    "ConvTranspose": 2,
    "Linear": 3,
    "BatchNormalization": 4,
    "Unary": 5,
    "PRelu": 6,
    "Binary": 7,
    "MaxPool": 8,
    "AveragePool": 9,
    "GlobalAveragePool": 10,
    "GlobalMaxPool": 11,
    "Concat": 12,
    "Split": 13,
    "Slice": 14,
    "Reshape": 15,
    "Flatten": 16,
    "Squeeze": 17,
    "Unsqueeze": 18,
    "Transpose": 19,
    "Expand": 20,
    "Identity": 21,
    "Gather": 22,
    "Pad": 23,
    "Resize": 24,
    "Reduce": 25,
    "Softmax": 26,
    "LogSoftmax": 27,
    "Cast": 28,
    "Shape": 29,
    "Size": 30,
    "ConstantOfShape": 31,
    "Range": 32,
    "MatMul": 33,
    "LayerNormalization": 34,
    "Where": 35,
    "Compare": 36,
    "Attention": 37,
    "RMSNormalization": 38,
    "ArgMax": 40,
    "ArgMin": 41,
    "TopK": 42,
    "GatherElements": 43,
    "GatherND": 44,
    "ScatterElements": 45,
    "ScatterND": 46,
    "OneHot": 47,
    "CumSum": 48,
    "CumProd": 49,
    "Trilu": 50,
    "Tile": 51,
    "BitCast": 52,
    "Recurrent": 60,
    "GridSample": 61,
    "RoiAlign": 62,
    "DeformColumns": 63,
    "QuantizePacked": 90,
    "DequantizePacked": 91,
    "QConv": 92,
    "QDepthwise": 93,
    "QAdd": 94,
    "QMaxPool": 95,
    "QAveragePool": 96,
    "QLookup": 97,
    "QElementwise": 102,
    "QAttention": 103,
    "QuantizeDynamic": 104,
    "QConvDynamic": 105,
}

ATTRS = {
    "act": 1,
    "act_alpha": 2,
    "act_beta": 3,
    "strides": 4,
    "pads": 5,
    "dilations": 6,
    "group": 7,
    "auto_pad": 8,
    "output_padding": 9,
    "output_shape": 10,
    "fn": 11,
    "alpha": 12,
    "beta": 13,
    "kernel_shape": 14,
    "ceil_mode": 15,
    "count_include_pad": 16,
    "axis": 17,
    "num_outputs": 18,
    "allowzero": 19,
    "perm": 20,
    "mode": 21,
    "coordinate_transformation_mode": 22,
    "nearest_mode": 23,
    "axes": 24,
    "keep_aspect_ratio_policy": 25,
    "keepdims": 26,
    "noop_with_empty_axes": 27,
    "to": 28,
    "start": 29,
    "end": 30,
    "value": 31,
    "trans_a": 32,
    "trans_b": 33,
    "epsilon": 34,
    "heads": 35,
    "kv_heads": 36,
    "zero_nan": 37,
    "largest": 40,
    "sorted": 41,
    "exclusive": 42,
    "reverse": 43,
    "upper": 44,
    "batch_dims": 45,
    "reduction": 46,
    "select_last_index": 47,
    "cell": 48,
    "activations": 49,
    "clip": 50,
    "input_forget": 51,
    "padding_mode": 53,
    "align_corners": 54,
    "antialias": 55,
    "exclude_outside": 56,
    "cubic_coeff_a": 57,
    "extrapolation_value": 58,
    "sampling_ratio": 59,
    "spatial_scale": 60,
    "storage_order": 61,
    "quant": 62,
    "channels": 63,
}


class AttrType(IntEnum):
    """How an attribute record holds its value."""

    INT = 0
    FLOAT = 1
    INTS = 2
    FLOATS = 3
    STRING = 4


# Names of the scalar functions; a name's position is its number.
UNARY_FN = (
    "none",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "hard_sigmoid",
    "hard_swish",
    "sigmoid",
    "tanh",
    "silu",
    "gelu",
    "gelu_tanh",
    "clip",
    "exp",
    "log",
    "sqrt",
    "abs",
    "neg",
    "reciprocal",
    "floor",
    "ceil",
    "round",
    "erf",
    "sin",
    "cos",
    "softplus",
    "softsign",
    "mish",
    "sign",
    "thresholded_relu",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
)
# Those of the gates of recurrent layers.
GATE_FN = (*UNARY_FN, "affine", "scaled_tanh")
BINARY_FN = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mod", "Fmod"),
    *("ShiftLeft", "ShiftRight", "BitwiseAnd", "BitwiseOr", "BitwiseXor"),
)
REDUCE_FN = (
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
)
COMPARE_FN = (
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "And",
    "Or",
    "Xor",
    "Not",
)
RECURRENT_CELL = ("rnn", "lstm", "gru")
AUTO_PAD = ("NOTSET", "SAME_UPPER", "SAME_LOWER")
PAD_MODE = ("constant", "reflect", "edge", "wrap")
SCATTER_REDUCTION = ("none", "add", "mul", "max", "min")
RESIZE_MODE = ("nearest", "linear", "cubic")
COORDINATE_MODE = (
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "half_pixel_symmetric",
    "tf_crop_and_resize",
)
GRID_PADDING = ("zeros", "border", "reflection")
ROI_MODE = ("avg", "max")
ROI_COORDINATES = ("half_pixel", "output_half_pixel")
NEAREST_MODE = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
ASPECT_POLICY = ("stretch", "not_larger", "not_smaller")

# alpha and beta of the functions that use them, where a model does not give them (as ONNX).
INFINITY = float("inf")
UNARY_DEFAULTS: dict[str, tuple[float, ...]] = {
    "leaky_relu": (0.01,),
    "elu": (1.0,),
    "selu": (1.67326319217681884765625, 1.05070102214813232421875),
    "celu": (1.0,),
    "hard_sigmoid": (0.2, 0.5),
    "silu": (1.0,),
    "clip": (-INFINITY, INFINITY),
    "thresholded_relu": (1.0,),
}


@dataclass(frozen=True)
class OpRule:
    """What a node of an op may look like.

    The first `min_inputs` inputs must be there; later ones may be absent, except in variadic ops.
    `constants` are the inputs that must be constants when present.
    """

    min_inputs: int
    max_inputs: int
    min_outputs: int = 1
    max_outputs: int = 1
    constants: tuple[int, ...] = ()
    attrs: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


_ACT = ("act", "act_alpha", "act_beta")
_WINDOW = ("strides", "pads", "dilations", "auto_pad")

OP_RULES = {
    "Conv": OpRule(2, 4, constants=(1, 2), attrs=(*_ACT, *_WINDOW, "group")),
    "ConvTranspose": OpRule(
        2,
        3,
        constants=(1, 2),
        attrs=(*_ACT, *_WINDOW, "group", "output_padding", "output_shape"),
    ),
    "Linear": OpRule(2, 4, constants=(1, 2), attrs=_ACT),
    "BatchNormalization": OpRule(3, 3, constants=(1, 2), attrs=_ACT),
    "Unary": OpRule(1, 1, attrs=("fn", "alpha", "beta"), required=("fn",)),
    "PRelu": OpRule(2, 2, constants=(1,)),
    "Binary": OpRule(2, 2, attrs=(*_ACT, "fn"), required=("fn",)),
    "MaxPool": OpRule(
        1,
        1,
        1,
        2,
        attrs=(*_WINDOW, "kernel_shape", "ceil_mode", "storage_order"),
        required=("kernel_shape",),
    ),
    "AveragePool": OpRule(
        1,
        1,
        attrs=(*_WINDOW, "kernel_shape", "ceil_mode", "count_include_pad"),
        required=("kernel_shape",),
    ),
    "GlobalAveragePool": OpRule(1, 1),
    "GlobalMaxPool": OpRule(1, 1),
    "Concat": OpRule(1, VARIADIC, attrs=("axis",), required=("axis",)),
    "Split": OpRule(1, 2, 1, VARIADIC, attrs=("axis", "num_outputs")),
    "Slice": OpRule(3, 5),
    "Reshape": OpRule(2, 2, attrs=("allowzero",)),
    "Flatten": OpRule(1, 1, attrs=("axis",)),
    "Squeeze": OpRule(1, 2),
    "Unsqueeze": OpRule(2, 2),
    "Transpose": OpRule(1, 1, attrs=("perm",)),
    "Expand": OpRule(2, 2),
    "Identity": OpRule(1, 1),
    "Gather": OpRule(2, 2, attrs=("axis",)),
    "Pad": OpRule(2, 4, attrs=("mode",)),
    "Resize": OpRule(
        1,
        4,
        attrs=(
            "mode",
            "coordinate_transformation_mode",
            "nearest_mode",
            "axes",
            "keep_aspect_ratio_policy",
            "antialias",
            "exclude_outside",
            "cubic_coeff_a",
            "extrapolation_value",
        ),
    ),
    "Reduce": OpRule(1, 2, attrs=("fn", "keepdims", "noop_with_empty_axes"), required=("fn",)),
    "Softmax": OpRule(1, 1, attrs=("axis",)),
    "LogSoftmax": OpRule(1, 1, attrs=("axis",)),
    "Cast": OpRule(1, 1, attrs=("to",), required=("to",)),
    "Shape": OpRule(1, 1, attrs=("start", "end")),
    "Size": OpRule(1, 1),
    "ConstantOfShape": OpRule(1, 1, attrs=("value", "to")),
    "Range": OpRule(3, 3),
    "MatMul": OpRule(2, 2, attrs=("alpha", "trans_a", "trans_b")),
    "LayerNormalization": OpRule(2, 3, attrs=("axis", "epsilon")),
    "Where": OpRule(3, 3),
    "Compare": OpRule(1, 2, attrs=("fn",), required=("fn",)),
    "Attention": OpRule(3, 4, attrs=("alpha", "heads", "kv_heads", "zero_nan")),
    "RMSNormalization": OpRule(2, 2, attrs=("axis", "epsilon")),
    "ArgMax": OpRule(1, 1, attrs=("axis", "keepdims", "select_last_index")),
    "ArgMin": OpRule(1, 1, attrs=("axis", "keepdims", "select_last_index")),
    "TopK": OpRule(2, 2, 1, 2, attrs=("axis", "largest", "sorted")),
    "GatherElements": OpRule(2, 2, attrs=("axis",)),
    "GatherND": OpRule(2, 2, attrs=("batch_dims",)),
    "ScatterElements": OpRule(3, 3, attrs=("axis", "reduction")),
    "ScatterND": OpRule(3, 3, attrs=("reduction",)),
    "OneHot": OpRule(3, 3, attrs=("axis",)),
    "CumSum": OpRule(2, 2, attrs=("exclusive", "reverse")),
    "CumProd": OpRule(2, 2, attrs=("exclusive", "reverse")),
    "Trilu": OpRule(1, 2, attrs=("upper",)),
    "Tile": OpRule(2, 2),
    "BitCast": OpRule(1, 1, attrs=("to",), required=("to",)),
    "Recurrent": OpRule(
        2,
        9,
        1,
        3,
        constants=(1, 2, 3, 7, 8),
        attrs=("cell", "activations", "clip", "reverse", "input_forget"),
        required=("cell", "activations"),
    ),
    "GridSample": OpRule(2, 2, attrs=("mode", "padding_mode", "align_corners")),
    "RoiAlign": OpRule(
        3,
        3,
        attrs=(
            "mode",
            "coordinate_transformation_mode",
            "output_shape",
            "sampling_ratio",
            "spatial_scale",
        ),
        required=("output_shape",),
    ),
    "DeformColumns": OpRule(
        2,
        3,
        attrs=("kernel_shape", "strides", "pads", "dilations", "group"),
        required=("kernel_shape",),
    ),
    "QuantizePacked": OpRule(1, 1, attrs=("alpha", "quant"), required=("alpha", "quant")),
    "DequantizePacked": OpRule(
        1, 1, attrs=("alpha", "quant", "channels"), required=("alpha", "quant", "channels")
    ),
    "QConv": OpRule(
        3,
        5,
        constants=(1, 2, 3),
        attrs=(*_ACT, *_WINDOW, "group", "alpha", "beta", "to", "quant"),
        required=("to", "quant"),
    ),
    "QDepthwise": OpRule(
        3,
        4,
        constants=(1, 2, 3),
        attrs=(*_ACT, *_WINDOW, "group", "to", "quant"),
        required=("to", "quant"),
    ),
    "QAdd": OpRule(2, 2, attrs=("alpha", "beta", "quant"), required=("alpha", "beta", "quant")),
    "QMaxPool": OpRule(
        1, 1, attrs=(*_WINDOW, "kernel_shape", "ceil_mode"), required=("kernel_shape",)
    ),
    "QAveragePool": OpRule(
        1,
        1,
        attrs=(*_WINDOW, "kernel_shape", "ceil_mode", "count_include_pad", "alpha", "quant"),
        required=("alpha", "quant"),
    ),
    "QLookup": OpRule(2, 2, constants=(1,)),
    "QElementwise": OpRule(
        2,
        4,
        constants=(1, 2),
        attrs=(*_ACT, "to", "quant", "channels"),
        required=("to", "quant", "channels"),
    ),
    "QAttention": OpRule(
        4,
        5,
        constants=(3,),
        attrs=("to", "quant", "heads"),
        required=("to", "quant", "heads"),
    ),
    "QuantizeDynamic": OpRule(1, 1, 2, 2),
    "QConvDynamic": OpRule(4, 6, constants=(1, 2, 4), attrs=(*_ACT, *_WINDOW, "group")),
}

_INTS = ("strides", "pads", "dilations", "output_padding", "output_shape", "kernel_shape", "perm")
_FLOATS = (
    *("act_alpha", "act_beta", "alpha", "beta", "epsilon", "clip"),
    *("cubic_coeff_a", "extrapolation_value", "spatial_scale"),
)


def attr_types(name: str) -> tuple[AttrType, ...]:
    """Returns the types that attribute `name` may have in a file."""
    if name == "value":
        return AttrType.INT, AttrType.FLOAT
    if name in (*_INTS, "axes", "activations", "quant"):
        return (AttrType.INTS,)
    return (AttrType.FLOAT,) if name in _FLOATS else (AttrType.INT,)


def enum_names(op: str, attr: str) -> tuple[str, ...] | None:
    """Returns the names that the values of an enumerated attribute stand for, else None."""
    if attr == "mode":
        return {"Pad": PAD_MODE, "RoiAlign": ROI_MODE}.get(op, RESIZE_MODE)
    if attr == "coordinate_transformation_mode" and op == "RoiAlign":
        return ROI_COORDINATES
    if attr == "fn":
        return {
            "Unary": UNARY_FN,
            "Binary": BINARY_FN,
            "Reduce": REDUCE_FN,
            "Compare": COMPARE_FN,
        }[op]
    return {
        "act": UNARY_FN,
        "activations": GATE_FN,
        "cell": RECURRENT_CELL,
        "reduction": SCATTER_REDUCTION,
        "auto_pad": AUTO_PAD,
        "coordinate_transformation_mode": COORDINATE_MODE,
        "nearest_mode": NEAREST_MODE,
        "padding_mode": GRID_PADDING,
        "keep_aspect_ratio_policy": ASPECT_POLICY,
    }.get(attr)
