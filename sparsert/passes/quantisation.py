"""Reads what QuantizeLinear and DequantizeLinear say about bytes, weights and biases."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.defs import onnx_opset_version

from sparsert.passes.fold_constants import evaluator
from sparsert.passes.graph_tools import (
    attribute,
    constant_array,
    has_single_use,
    input_at,
    is_f32,
    is_op,
    nodes_of,
)

Floats = NDArray[np.floating[Any]]

BYTES = frozenset({ir.DataType.UINT8, ir.DataType.INT8})
_SIGN = 128  # packed bytes are unsigned: what is added to those of int8
_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)
_MANY = 1 << 26
# Weights of four bits become ones of eight.
_FROM_HALF_BYTES = {"int4": np.int8, "uint4": np.uint8}
# Operators that only move numbers.
_MOVES = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
# Operators that quantisers leave between constants and who reads them.
_COMPUTED = frozenset(
    {
        *_MOVES,
        *"Cast CastLike Clip Shape ConstantOfShape QuantizeLinear".split(),
        *"Add Sub Mul Div Sqrt Reciprocal".split(),  # of a batch norm's factors
    }
)


def is_normal(scale: Any) -> bool:
    """Says whether all of these are positive normal f32 numbers, as scales have to be."""
    values = np.asarray(scale, np.float64)
    return bool(np.all((values >= _SMALLEST) & (values <= _LARGEST)))  # False for NaN


@dataclasses.dataclass(frozen=True)
class Quantisation:
    """How bytes stand for numbers: (byte - zero) * scale; bytes and zero are unsigned."""

    scale: float  # exactly an f32
    zero: int
    dtype: ir.DataType

    @property
    def offset(self) -> int:
        """What was added to a value of `dtype` to make it an unsigned byte."""
        return _SIGN if self.dtype == ir.DataType.INT8 else 0

    def table(self) -> NDArray[np.float32]:
        """Returns the numbers of all 256 bytes."""
        return (np.arange(256) - self.zero).astype(np.float32) * np.float32(self.scale)

    def levels(self, values: Any) -> NDArray[np.uint8]:
        """Returns the bytes of f32 numbers without NaN."""
        with np.errstate(over="ignore"):
            rounded = np.rint(np.asarray(values, np.float32) / np.float32(self.scale))
        levels: NDArray[np.uint8] = np.clip(rounded + self.zero, 0, 255).astype(np.uint8)
        return levels


def known_array(value: ir.Value | None, max_elems: int = _MANY) -> NDArray[Any] | None:
    """Returns a constant, or what a graph computes from constants; None if it is neither.

    Quantisers leave to the graph: bytes of weights, scales of biases, types of zero points.
    """
    array = constant_array(value, max_elems)
    node = None if value is None else value.producer()
    if array is not None or node is None or node.domain != "":
        return array
    if node.op_type not in _COMPUTED:
        return None
    given = [known_array(operand, max_elems) for operand in node.inputs]
    if any(v is not None and a is None for v, a in zip(node.inputs, given, strict=True)):
        return None
    if node.op_type == "QuantizeLinear":
        return _quantised_constant(node, *given)
    evaluate = evaluator(node, onnx_opset_version())
    with np.errstate(all="ignore"):
        result = None if evaluate is None else evaluate(*given)
    return np.asarray(result[0] if isinstance(result, tuple) else result)


def _quantised_constant(node: ir.Node, x: Any, scale: Any, zero: Any = None) -> NDArray[Any] | None:
    dtype = ir.DataType(attribute(node, "output_dtype", 0) or int(ir.DataType.UINT8))
    numpy_dtype = zero.dtype if zero is not None else np.dtype(dtype.numpy())
    if numpy_dtype not in (np.uint8, np.int8) or attribute(node, "block_size", 0):
        return None
    if x.dtype != np.float32 or scale.ndim > 1 or not is_normal(scale):
        return None
    behind = x.ndim - 1 - attribute(node, "axis", 1) % x.ndim if scale.size > 1 else 0
    shape = (-1, *[1] * behind)
    levels = np.rint(x / scale.reshape(shape))
    levels = levels if zero is None else levels + zero.astype(np.float32).reshape(shape)
    limits = np.iinfo(numpy_dtype)
    levels = np.clip(levels, limits.min, limits.max)
    return None if np.isnan(levels).any() else levels.astype(numpy_dtype)


def read_quantisation(node: ir.Node) -> Quantisation | None:
    """Returns what a QuantizeLinear or DequantizeLinear of bytes with one constant scale says."""
    found = quantisation_or_reason(node)
    return None if isinstance(found, str) else found


def quantisation_or_reason(node: ir.Node) -> Quantisation | str:
    """Returns the same, or why it cannot be one of packed bytes."""
    if attribute(node, "block_size", 0):
        return "scales of blocks"
    scale, zero = known_array(input_at(node, 1)), input_at(node, 2)
    if scale is None:
        return "a scale that the run computes"
    if scale.dtype != np.float32:
        return f"scales of {scale.dtype}"
    if scale.size != 1:
        return "scales of channels on activations"
    if not is_normal(scale):
        return f"a scale of {float(scale.reshape(())):g}"
    offset = known_array(zero)
    if zero is not None and (offset is None or offset.size != 1):
        return "a zero point that is no constant number"
    dtype: ir.DataType | None
    if node.op_type == "QuantizeLinear":
        given = attribute(node, "output_dtype", 0) or int(ir.DataType.UINT8)
        dtype = ir.DataType(given) if offset is None else ir.DataType.from_numpy(offset.dtype)
        floats = input_at(node, 0)
    else:
        x = input_at(node, 0)
        dtype = None if x is None else x.dtype
        floats = node.outputs[0]
    if not is_f32(floats):
        return "floats of another type than f32"
    if dtype not in BYTES or (offset is not None and offset.dtype != dtype.numpy()):
        return f"integers of the type {'unknown' if dtype is None else dtype.name}"
    sign = _SIGN if dtype == ir.DataType.INT8 else 0
    level = 0 if offset is None else int(offset.reshape(()))
    return Quantisation(float(scale.reshape(())), level + sign, dtype)


def why_no_bytes(x: ir.Value | None) -> str:
    """Says why the input of a layer with quantised weights is not one of bytes."""
    node = None if x is None else x.producer()
    if node is None or not is_op(node, "DequantizeLinear"):
        return "its weights are quantised, but its input is not"
    reason = quantisation_or_reason(node)
    if isinstance(reason, str):
        return f"its input has {reason}"
    return "its input is of fewer than 2 dimensions, or of an unknown shape"


def reason_of_product(node: ir.Node, reason: str | None) -> str | None:
    """Returns why a layer stays in f32: in other words where it has no weights."""
    if reason is None or not is_op(node, "MatMul", "Gemm"):
        return reason
    source = input_at(node, 1)
    while source is not None and is_op(source.producer(), "DequantizeLinear", *_MOVES):
        producer = source.producer()
        source = None if producer is None else producer.inputs[0]
    if source is None or known_array(source) is not None:
        return reason
    if all(is_dequantised(value) for value in node.inputs[:2]):
        return (
            "a product of two values of the run: in integers only in attention whose queries, "
            "keys, values and shares are all quantised"
        )
    return "a product of two values of the run, one of which is not quantised"


def tidy_quantisers(graph: ir.Graph) -> None:
    """Brings each QuantizeLinear to where its bytes are computed, once for all who read them."""
    _merge_quantisers(graph)
    lifted = [node for node in nodes_of(graph) if _lift_above_moves(node)]
    if lifted:
        graph.sort()


def _merge_quantisers(graph: ir.Graph) -> None:
    """Lets all who read the same bytes of a value read them from one QuantizeLinear."""
    first: dict[tuple[ir.Value | None, Quantisation], ir.Node] = {}
    for node in nodes_of(graph):
        quant = read_quantisation(node) if is_op(node, "QuantizeLinear") else None
        if quant is None or node.outputs[0].is_graph_output():
            continue
        other = first.setdefault((node.inputs[0], quant), node)
        if other is not node:
            node.outputs[0].replace_all_uses_with(other.outputs[0])
            graph.remove(node, safe=True)


def _lift_above_moves(node: ir.Node) -> bool:
    """Rounds a sum before it is reshaped and transposed: who sums can round in the same pass."""
    value, q = node.inputs[0] if node.inputs else None, node.outputs[0]
    if not is_op(node, "QuantizeLinear") or value is None or q.is_graph_output():
        return False
    quant = read_quantisation(node)
    readers = [use.node for use in q.uses()]
    if quant is None or not readers or not all(is_op(r, "DequantizeLinear") for r in readers):
        return False
    if any(read_quantisation(reader) != quant for reader in readers):
        return False
    moves = []
    while has_single_use(value) and (mover := value.producer()) is not None:
        if not is_op(mover, "Reshape", "Transpose") or mover.inputs[0] is None:
            break
        moves.append(mover)
        value = mover.inputs[0]
    end, root = node.inputs[0], value.producer()
    if not moves or end is None or root is None or not is_op(root, "Add"):
        return False
    if not has_single_use(value):
        return False
    for reader in readers:
        reader.outputs[0].replace_all_uses_with(end, replace_graph_outputs=True)
    node.replace_input_with(0, value)
    floats = readers[0].outputs[0]
    moves[-1].replace_input_with(0, floats)
    q.shape = floats.shape = value.shape
    return True


@dataclasses.dataclass(frozen=True)
class QuantisedWeight:
    """Weights [M, ...] as integers without zero points; each row has a scale.

    Attributes:
        levels: i8, or i16 where zero points take them beyond -128 to 127.
        scale: of each row; that of a row of zeros is of no consequence.
    """

    levels: NDArray[Any]
    scale: NDArray[np.float64]

    @functools.cached_property
    def row_sizes(self) -> NDArray[np.int64]:
        """Sums of the magnitudes of each row."""
        rows = np.abs(self.levels.astype(np.int32)).reshape(self.levels.shape[0], -1)
        return rows.sum(axis=1, dtype=np.int64)

    def parts(self) -> list[NDArray[np.int8]]:
        """Returns i8 weights that add up to the levels: all in the first, as far as they go."""
        left = self.levels
        found: list[NDArray[np.int8]] = []
        while not found or left.any():
            found.append(np.clip(left, -128, 127).astype(np.int8))
            left = left - found[-1]
        return found


def weight_or_reason(value: ir.Value | None, axis: int) -> QuantisedWeight | str:
    """Returns constant weights of bytes with their rows, dimension `axis`, in front.

    Or why there are none: they are not quantised, or scales are not one or one per row.
    """
    found = _dequantised(value)
    if isinstance(found, str):
        return found
    levels, scale = found
    if levels.ndim < 2 or levels.size == 0:
        return "weights without rows"
    if np.isnan(scale).any():
        return "a scale of weights of nan"
    sizes = [1] * (levels.ndim - scale.ndim) + [*scale.shape]
    levels = np.moveaxis(levels, axis, 0)
    if scale.size in (1, sizes[axis]):
        row_scale = np.broadcast_to(scale.reshape(-1), levels.shape[:1])
    else:
        scales = np.moveaxis(np.broadcast_to(scale, found[0].shape), axis, 0)
        scales = scales.reshape(scales.shape[0], -1)
        row_scale = scales[:, 0]
        if (scales != row_scale[:, None]).any():
            return "scales of weights along another dimension than that of the outputs"
    is_zero = row_scale == 0  # so is what it stands for
    if is_zero.any():
        levels = np.where(is_zero.reshape(-1, *[1] * (levels.ndim - 1)), 0, levels)
        row_scale = np.where(is_zero, np.float32(1), row_scale)
    if not is_normal(row_scale):
        worst = next(s for s in row_scale if not is_normal(s))
        return f"a scale of weights of {float(worst):g}"
    fits = levels.min() >= -128 and levels.max() <= 127
    dtype = np.int8 if fits else np.int16
    return QuantisedWeight(np.ascontiguousarray(levels, dtype), row_scale.astype(np.float64))


def _dequantised(value: ir.Value | None) -> tuple[NDArray[np.int16], NDArray[Any]] | str:
    """Returns integers without zero points, and scales that broadcast over them; or why not."""
    node = None if value is None else value.producer()
    if node is not None and is_op(node, *_MOVES):
        return _moved(node)
    if node is None or not is_op(node, "DequantizeLinear"):
        return "weights that are not quantised"
    if attribute(node, "block_size", 0):
        return "scales of blocks of weights"
    stored, scale = known_array(node.inputs[0]), known_array(input_at(node, 1))
    if stored is None or scale is None:
        return "weights that are no constants"
    half = _FROM_HALF_BYTES.get(stored.dtype.name)
    stored = stored if half is None else stored.astype(half)
    if stored.dtype not in (np.uint8, np.int8):
        return f"weights of the type {stored.dtype}"
    if scale.dtype != np.float32 or stored.ndim == 0:
        return f"scales of {scale.dtype}"
    along = attribute(node, "axis", 1) % stored.ndim
    if scale.size != 1 and scale.shape != (stored.shape[along],):
        return f"{scale.size} scales for {stored.shape[along]} channels"
    shape = (-1, *[1] * (stored.ndim - 1 - along)) if scale.size != 1 else ()
    levels = stored.astype(np.int16)
    if input_at(node, 2) is not None:
        zero = known_array(node.inputs[2])
        zero = zero if zero is None or half is None else zero.astype(half)
        if zero is None or zero.size not in (1, scale.size) or zero.dtype != stored.dtype:
            return "zero points of weights that do not go with them"
        levels = levels - zero.astype(np.int16).reshape(shape)
    return levels, scale.reshape(shape)


def _moved(node: ir.Node) -> tuple[NDArray[np.int16], NDArray[Any]] | str:
    """Returns what _dequantised() does of the input of an operator that only moves numbers."""
    found = _dequantised(node.inputs[0])
    targets = [known_array(operand) for operand in node.inputs[1:]]
    evaluate = evaluator(node, onnx_opset_version())
    if isinstance(found, str):
        return found
    if evaluate is None or any(target is None for target in targets):
        return "weights that are moved by the run"
    levels, scale = found
    if scale.size > 1:
        scale = _first(evaluate(np.broadcast_to(scale, levels.shape), *targets))
    return _first(evaluate(levels, *targets)), scale.reshape(()) if scale.size == 1 else scale


def _first(result: Any) -> NDArray[Any]:
    return np.asarray(result[0] if isinstance(result, tuple) else result)


def read_floats(value: ir.Value | None, max_elems: int = _MANY) -> NDArray[np.float64] | None:
    """Returns a constant of f32, or of dequantised integers, in f64; None if it is none."""
    array = known_array(value, max_elems)
    if array is not None:
        return array.astype(np.float64) if array.dtype == np.float32 else None
    node = None if value is None else value.producer()
    if node is None or not is_op(node, "DequantizeLinear") or attribute(node, "block_size", 0):
        return None
    stored = known_array(node.inputs[0], max_elems)
    scale = known_array(input_at(node, 1), max_elems)
    if stored is None or scale is None or scale.dtype != np.float32 or scale.size == 0:
        return None
    if not np.isfinite(scale).all():
        return None
    zero = known_array(input_at(node, 2), max_elems)
    if input_at(node, 2) is not None and (zero is None or zero.size not in (1, scale.size)):
        return None
    behind = 0
    if scale.size > 1:
        axis = attribute(node, "axis", 1) % max(1, stored.ndim)
        if stored.ndim == 0 or scale.shape != (stored.shape[axis],):
            return None
        behind = stored.ndim - 1 - axis
    shape = (-1, *[1] * behind) if scale.size > 1 else ()
    levels = stored.astype(np.float64)
    levels = levels if zero is None else levels - zero.astype(np.float64).reshape(shape)
    return np.asarray(levels * scale.astype(np.float64).reshape(shape))


def is_dequantised(value: ir.Value | None, moves: Collection[str] = _MOVES) -> bool:
    """Says whether a value is dequantised integers, or those behind operators that move them."""
    node = None if value is None else value.producer()
    while node is not None and is_op(node, *moves):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return is_op(node, "DequantizeLinear")
