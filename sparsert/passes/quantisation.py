"""Reads what QuantizeLinear and DequantizeLinear say about bytes, weights and biases."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sparsert.passes.graph_tools import attribute, constant, constant_array, input_at, is_f32, is_op

Floats = NDArray[np.floating[Any]]

BYTES = frozenset({ir.DataType.UINT8, ir.DataType.INT8})
_SIGN = 128  # packed bytes are unsigned: what is added to those of int8
_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)


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


def read_quantisation(node: ir.Node) -> Quantisation | None:
    """Returns what a QuantizeLinear or DequantizeLinear of bytes with one constant scale says.

    None: the scale is of blocks or channels, not constant, not f32, or no positive normal number.
    """
    if not is_op(node, "QuantizeLinear", "DequantizeLinear") or attribute(node, "block_size", 0):
        return None
    scale, zero = constant_array(input_at(node, 1), 1), input_at(node, 2)
    if not is_f32(input_at(node, 1)) or scale is None or scale.size != 1 or not is_normal(scale):
        return None
    if node.op_type == "QuantizeLinear":
        given = attribute(node, "output_dtype", 0) or int(ir.DataType.UINT8)
        dtype = ir.DataType(given) if zero is None else zero.dtype
        if not is_f32(input_at(node, 0)):
            return None
    else:
        x = input_at(node, 0)
        dtype = None if x is None else x.dtype
        if not is_f32(node.outputs[0]):
            return None
    if dtype not in BYTES:
        return None
    sign = _SIGN if dtype == ir.DataType.INT8 else 0
    if zero is None:
        return Quantisation(float(scale.reshape(())), sign, dtype)
    offset = constant_array(zero, 1)
    if offset is None or offset.size != 1 or zero.dtype != dtype:
        return None
    return Quantisation(float(scale.reshape(())), int(offset.reshape(())) + sign, dtype)


@dataclasses.dataclass(frozen=True)
class QuantisedWeight:
    """Weights [M, ...] as i8 without zero points; each row has a scale."""

    levels: NDArray[np.int8]
    scale: NDArray[np.float64]


def read_weight(value: ir.Value | None, axis: int) -> QuantisedWeight | None:
    """Returns constant weights of bytes with their rows, dimension `axis`, in front.

    None where zero points do not leave them in i8, or scales are not one or one per row.
    """
    node = None if value is None else value.producer()
    if node is None:
        return None
    if is_op(node, "Transpose"):
        perm = attribute(node, "perm")
        if perm is not None and tuple(perm) != (1, 0):
            return None
        source = node.inputs[0]
        is_matrix = source is not None and source.shape is not None and len(source.shape) == 2
        return read_weight(source, 1 - axis) if is_matrix else None
    if not is_op(node, "DequantizeLinear") or attribute(node, "block_size", 0):
        return None
    stored = _stored_weight(node.inputs[0])
    scale = constant_array(input_at(node, 1), 1 << 24)
    if stored is None or stored.ndim < 2 or scale is None or not is_f32(input_at(node, 1)):
        return None
    rows = stored.shape[axis]
    along = attribute(node, "axis", 1)
    if scale.size != 1 and (scale.shape != (rows,) or along % stored.ndim != axis):
        return None
    if not is_normal(scale):
        return None
    levels = np.moveaxis(stored, axis, 0).astype(np.int16)
    if input_at(node, 2) is not None:
        zero = constant_array(node.inputs[2], 1 << 24)
        if zero is None or zero.size not in (1, rows) or zero.dtype != stored.dtype:
            return None
        levels = levels - zero.astype(np.int16).reshape(-1, *[1] * (stored.ndim - 1))
    if levels.size == 0 or levels.min() < -128 or levels.max() > 127:
        return None
    row_scale = np.broadcast_to(scale.reshape(-1), (rows,)).astype(np.float64)
    return QuantisedWeight(np.ascontiguousarray(levels, np.int8), row_scale)


def _stored_weight(value: ir.Value | None) -> NDArray[Any] | None:
    """Returns constant bytes, or those that a QuantizeLinear of constants gives."""
    tensor = constant(value)
    if tensor is not None:
        return np.asarray(tensor.numpy()) if tensor.dtype in BYTES else None
    node = None if value is None else value.producer()
    if node is None or not is_op(node, "QuantizeLinear") or attribute(node, "block_size", 0):
        return None
    tensor, scale = constant(node.inputs[0]), constant_array(input_at(node, 1), 1 << 24)
    if tensor is None or scale is None or tensor.dtype != ir.DataType.FLOAT or scale.ndim > 1:
        return None
    dtype = None if value is None else value.dtype
    zero = constant_array(input_at(node, 2), 1 << 24)
    if dtype not in BYTES or (input_at(node, 2) is not None and zero is None):
        return None
    if not is_normal(scale):
        return None
    array = tensor.numpy()
    behind = array.ndim - 1 - attribute(node, "axis", 1) % array.ndim if scale.size > 1 else 0
    shape = (-1, *[1] * behind)
    levels = np.rint(array / scale.reshape(shape))
    levels = levels if zero is None else levels + zero.astype(np.float32).reshape(shape)
    limits = np.iinfo(dtype.numpy())
    return np.asarray(np.clip(levels, limits.min, limits.max).astype(dtype.numpy()))


def read_floats(value: ir.Value | None, max_elems: int = 1 << 24) -> NDArray[np.float64] | None:
    """Returns a constant of f32, or of dequantised integers, in f64; None if it is none."""
    array = constant_array(value, max_elems)
    if array is not None:
        return array.astype(np.float64) if array.dtype == np.float32 else None
    node = None if value is None else value.producer()
    if node is None or not is_op(node, "DequantizeLinear") or attribute(node, "block_size", 0):
        return None
    stored = constant_array(node.inputs[0], max_elems)
    scale = constant_array(input_at(node, 1), max_elems)
    if stored is None or scale is None or scale.dtype != np.float32 or scale.size == 0:
        return None
    if not np.isfinite(scale).all():
        return None
    zero = constant_array(input_at(node, 2), max_elems)
    if input_at(node, 2) is not None and (zero is None or zero.size != scale.size):
        return None
    behind = 0
    if scale.size > 1:
        behind = stored.ndim - 1 - attribute(node, "axis", 1) % max(1, stored.ndim)
    shape = (-1, *[1] * behind) if scale.size > 1 else ()
    levels = stored.astype(np.float64)
    levels = levels if zero is None else levels - zero.astype(np.float64).reshape(shape)
    return np.asarray(levels * scale.astype(np.float64).reshape(shape))
