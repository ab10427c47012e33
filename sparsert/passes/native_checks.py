"""Says which nodes of a canonical graph the native engine cannot run, and why."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from sparsert.kernels.custom_ops import find_custom_op
from sparsert.modelfile.lower_node import PACKED_OPS
from sparsert.modelfile.opset import BINARY_FN, OP_RULES, REDUCE_FN
from sparsert.passes.fuse_activations import UNARY_OPS, activation_of
from sparsert.passes.graph_tools import (
    SPARSERT,
    attribute,
    constant,
    constant_array,
    input_at,
    is_f32,
    rank_of,
)
from sparsert.passes.known_values import (
    BINARY,
    COMPARISONS,
    INTEGERS,
    MOVEMENT,
    NUMBERS,
    REDUCTIONS,
    SHAPE_SOURCES,
    known_values,
)
from sparsert.passes.lower_recurrent import OPS as RECURRENT_OPS
from sparsert.passes.lower_recurrent import recurrent_reason

MAX_RANK = 8

_NORMS = ("LayerNormalization", "RMSNormalization")
_INTEGER_BINARY = frozenset("Mod BitShift BitwiseAnd BitwiseOr BitwiseXor".split())
_WINDOWS = frozenset("MaxPool AveragePool GlobalAveragePool GlobalMaxPool".split())
# Operators whose results are as large as their data says.
_SIZED_BY_DATA = frozenset("Compress NonMaxSuppression NonZero Unique".split())
_SCATTERS = frozenset({"ScatterElements", "ScatterND"})
_COORDINATES = frozenset(
    "half_pixel pytorch_half_pixel align_corners asymmetric half_pixel_symmetric "
    "tf_crop_and_resize".split()
)
_FILE_DTYPES = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13})


# Operators that are native for some attributes and types, directly or by another pass.
NATIVE_OPS = (
    frozenset(OP_RULES)
    | frozenset(BINARY_FN)
    | frozenset(REDUCE_FN)
    | COMPARISONS
    | frozenset(UNARY_OPS)
    | frozenset(RECURRENT_OPS)
    | frozenset("BitShift BitwiseNot Gemm QuantizeLinear DequantizeLinear".split())
)


@dataclasses.dataclass(frozen=True)
class NonNativeNode:
    """A node that the native engine cannot run."""

    node: str  # its name
    op: str  # its operator, with the domain unless that is ONNX's
    reason: str
    is_custom: bool = False  # a kernel is registered for it

    def __str__(self) -> str:
        return f"node '{self.node}' ({self.op}): {self.reason}"


def find_non_native(model: ir.Model) -> list[NonNativeNode]:
    """Returns one record per non-native node of the main graph, in the graph's order."""
    known = known_values(model.graph)
    found = []
    for node in model.graph:
        custom = find_custom_op(node.domain, node.op_type)
        reason = _reason(node, known) if custom is None else f"its kernel is {custom.kernel}"
        if reason is not None:
            op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            found.append(NonNativeNode(node.name or "", op, reason, custom is not None))
    return found


def _reason(node: ir.Node, known: set[ir.Value]) -> str | None:
    """Returns why a node is not native, or None if it is."""
    if any(
        a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for a in node.attributes.values()
    ):
        return "it has a subgraph"
    for value in (*node.inputs, *node.outputs):
        if value is None:
            continue
        rank = rank_of(value)
        if rank is not None and rank > MAX_RANK:
            return f"'{value.name}' has {rank} dimensions; at most {MAX_RANK} are supported"
        if value.dtype is not None and int(value.dtype) not in _FILE_DTYPES:
            return f"'{value.name}' is of the type {value.dtype.name}"
    if node.domain == SPARSERT and node.op_type == "Recurrent":
        return _require_f32(node, known, 6)
    if node.domain == SPARSERT:
        return None if node.op_type in PACKED_OPS else _require_f32(node, known)
    if node.domain != "":
        return f"operators of the domain '{node.domain}' are not in the sparsert opset"
    if node.op_type in MOVEMENT:
        return _movement_reason(node, known)
    if node.op_type in NUMBERS:
        return _require_number(node) or _require_known(node, NUMBERS[node.op_type], known)
    if node.op_type in _SCATTERS:
        return _require_number(node) if attribute(node, "reduction", "none") != "none" else None
    if node.op_type in ("Range", "ConstantOfShape"):
        return _require_known(node, range(len(node.inputs)), known)
    if node.op_type in SHAPE_SOURCES:
        return None
    if node.outputs and all(value in known for value in node.outputs):
        return None
    return _compute_reason(node, known)


def _movement_reason(node: ir.Node, known: set[ir.Value]) -> str | None:
    op = node.op_type
    if op == "Pad" and attribute(node, "mode", "constant") not in (
        "constant",
        "reflect",
        "edge",
        "wrap",
    ):
        return f"Pad mode '{attribute(node, 'mode')}' is not supported"
    if op == "Pad" and input_at(node, 2) is not None and input_at(node, 2) not in known:
        return "its padding value is not constant"
    if (
        op == "Gather"
        and (rank_of(input_at(node, 0)) or 0) == 0
        and (rank_of(input_at(node, 0)) is not None)
    ):
        return "it gathers from a scalar"
    if op == "Cast":
        to = attribute(node, "to", 0)
        if to not in _FILE_DTYPES:
            return f"it casts to the type {ir.DataType(to).name}"
    if op == "Tile":
        repeats = constant_array(input_at(node, 1))
        if repeats is not None and repeats.size + np.count_nonzero(repeats != 1) > MAX_RANK:
            return f"it repeats a tensor of {repeats.size} dimensions along too many of them"
    return _require_known(node, MOVEMENT[op], known)


def _compute_reason(node: ir.Node, known: set[ir.Value]) -> str | None:
    op = node.op_type
    if op in RECURRENT_OPS:
        return recurrent_reason(node)
    if op == "Resize":
        return _resize_reason(node, known)
    if op in _WINDOWS:
        rank = rank_of(input_at(node, 0))
        if rank is not None and rank not in (3, 4):
            return f"only 1-D and 2-D pools are supported; this one has {rank - 2} dimensions"
        return _require_f32(node, known)
    if op in REDUCTIONS:
        reason = _require_f32(node, known, 1)
        return reason or _require_known(node, (1,), known)
    if op == "Where":
        return None
    if op in COMPARISONS:
        half = any(v is not None and v.dtype == ir.DataType.FLOAT16 for v in node.inputs)
        return "it compares f16" if half else None
    if op == "MatMul":
        return _require_f32(node, known)
    if op == "GridSample":
        return _grid_reason(node) or _require_f32(node, known)
    if op == "RoiAlign":
        return _require_f32(node, known, 2)
    if op in _NORMS:
        if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            return "only its first output is supported"
        return _require_f32(node, known)
    if op in ("Softmax", "LogSoftmax"):
        return _require_f32(node, known)
    if op in BINARY or op in _INTEGER_BINARY:
        if len(node.inputs) != 2:
            return f"it has {len(node.inputs)} inputs; 2 are supported"
        if all(v is not None and v.dtype in INTEGERS for v in node.inputs):
            return None
    if op in BINARY or op == "Mod":
        return _require_f32(node, known)
    if op == "PRelu":
        if constant(input_at(node, 1)) is None:
            return "its slope is not constant"
        return _require_f32(node, known)
    if op == "Clip":
        if any(v is not None and constant(v) is None for v in node.inputs[1:]):
            return "its bounds are not constant"
        return _require_f32(node, known)
    if activation_of(node) is not None:
        return _require_f32(node, known)
    return _unknown_reason(node)


def _grid_reason(node: ir.Node) -> str | None:
    rank = rank_of(input_at(node, 0))
    if rank is not None and not 3 <= rank <= 5:
        return f"only 1 to 3 spatial dimensions are supported; this one has {rank - 2}"
    if rank == 5 and attribute(node, "mode", "linear") == "cubic":
        return "cubic over 3 dimensions is not supported"
    return None


def _require_number(node: ir.Node) -> str | None:
    value = input_at(node, 0)
    if value is not None and (value.dtype in INTEGERS or is_f32(value)):
        return None
    kind = "an unknown type" if value is None or value.dtype is None else value.dtype.name
    return f"it computes with {kind}"


def _unknown_reason(node: ir.Node) -> str:
    op = node.op_type
    if op in ("Conv", "ConvTranspose", "Gemm", "BatchNormalization"):
        what = "statistics" if op == "BatchNormalization" else "weights"
        tensors = [constant(value) for value in node.inputs[1:]]
        if op == "BatchNormalization" and attribute(node, "training_mode", 0):
            return "it is in training mode"
        if not is_f32(node.outputs[0]):
            return "it does not compute in f32"
        if any(tensor is not None and tensor.size == 0 for tensor in tensors):
            return f"its {what} are empty"
        if all(tensor is None for tensor in tensors):
            return f"its {what} are not constant"
        if op in ("Conv", "ConvTranspose"):
            weight = tensors[0]
            if weight is not None and len(weight.shape) not in (3, 4):
                return f"only 1-D and 2-D are supported; this one has {len(weight.shape) - 2}-D"
            return "its weights or bias are not constant"
        return f"its {what} are not constant or not a matrix"
    if op in _SIZED_BY_DATA:
        return "the size of its output depends on data; a plan is made for fixed sizes"
    return "the operator is not in the sparsert opset"


def _resize_reason(node: ir.Node, known: set[ir.Value]) -> str | None:
    mode = attribute(node, "mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        return f"Resize mode '{mode}' is not supported"
    coordinates = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if coordinates not in _COORDINATES:
        return f"the coordinates '{coordinates}' are not supported"
    if coordinates == "tf_crop_and_resize":
        if input_at(node, 3) is None:
            return "it crops and has scales instead of sizes"
        return _require_f32(node, known, 2) or _require_known(node, (1, 3), known)
    return _require_f32(node, known, 1) or _require_known(node, (2, 3), known)


def _require_known(
    node: ir.Node, indices: tuple[int, ...] | range, known: set[ir.Value]
) -> str | None:
    for index in indices:
        value = input_at(node, index)
        if value is not None and value not in known:
            return (
                f"its input '{value.name}' is computed from data; it must follow from shapes, "
                "constants and inputs of the graph"
            )
    return None


def _require_f32(node: ir.Node, known: set[ir.Value], count: int | None = None) -> str | None:
    inputs = node.inputs if count is None else node.inputs[:count]
    for value in inputs:
        if value is None or is_f32(value):
            continue
        kind = "an unknown type" if value.dtype is None else value.dtype.name
        if value.dtype is None and not any(v is not None and v.dtype for v in inputs):
            continue
        return f"it computes with '{value.name}' of {kind}; only f32 is supported at run time"
    return None
