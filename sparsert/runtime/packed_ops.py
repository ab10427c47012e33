"""OpRun classes that teach onnx's reference evaluator the operators on packed bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from sparsert.runtime import numpy_functions as functions
from sparsert.runtime import numpy_windows as windows
from sparsert.runtime import packed_functions as packed

_Result = tuple[np.ndarray, ...]
_BYTES = 12  # the number of uint32 in TensorProto.DataType


class QuantizePacked(OpRun):
    """sparsert.QuantizePacked: f32 [N, C, ...] to bytes."""

    op_domain = "sparsert"

    def _run(self, x: np.ndarray, **attributes: Any) -> _Result:
        return (packed.quantize(x, attributes["alpha"], attributes["quant"]),)


class DequantizePacked(OpRun):
    """sparsert.DequantizePacked: bytes to f32 [N, channels, ...]."""

    op_domain = "sparsert"

    def _run(self, x: np.ndarray, **attributes: Any) -> _Result:
        zero, channels = attributes["quant"][0], attributes["channels"]
        return (packed.dequantize(x, attributes["alpha"], zero, channels),)


class QConv(OpRun):
    """sparsert.QConv: a convolution of bytes with i8 weights; bytes or f32 out."""

    op_domain = "sparsert"

    def _run(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        scale: np.ndarray,
        start: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        quant = attributes["quant"]
        total = _sums(x, weight, quant[0], attributes)
        if attributes["to"] != _BYTES:
            return (_as_f32(total, scale, start, residual, attributes),)
        zero = quant[1]
        y = packed.requantize(total, start, scale, quant[1:4])
        if residual is not None:
            r_zero, *out = quant[4:]
            r = packed.unpack(residual, y.shape[1])
            alpha, beta = attributes["alpha"], attributes["beta"]
            y, zero = packed.add(y, r, alpha, beta, (zero, r_zero), out), out[0]
        return (packed.pack(y, zero),)


def _sums(x: np.ndarray, weight: np.ndarray, zero: int, attributes: dict[str, Any]) -> np.ndarray:
    """Returns the convolution of bytes, less their zero point, with i8 weights as int32."""
    weight = np.moveaxis(weight, -1, 1)
    group = attributes.get("group") or 1
    levels = packed.centred(packed.unpack(x, weight.shape[1] * group), zero)
    window = windows.window_of(attributes, x.ndim - 2)
    return windows.conv(levels, weight.astype(np.int32), None, group=group, **window)


def _as_f32(
    total: np.ndarray,
    scale: np.ndarray,
    start: np.ndarray | None,
    residual: np.ndarray | None,
    attributes: dict[str, Any],
) -> np.ndarray:
    shape = (-1, *[1] * (total.ndim - 2))
    y = total.astype(np.float32) * scale.reshape(shape)
    y = y if start is None else y + start.reshape(shape)
    y = y if residual is None else y + residual
    alpha, beta = attributes.get("act_alpha") or 0.0, attributes.get("act_beta") or 0.0
    return functions.activate(y, attributes.get("act"), alpha, beta)


class QDepthwise(QConv):
    """sparsert.QDepthwise: the same with one filter per channel."""


class QuantizeDynamic(OpRun):
    """sparsert.QuantizeDynamic: f32 [N, C, ...] to bytes, its scale and its zero point."""

    op_domain = "sparsert"

    def _run(self, x: np.ndarray) -> _Result:
        scale, zero = packed.range_of(x)
        levels = packed.quantize(x, float(scale), (zero, 0, 255))
        return levels, np.array([scale, zero], np.float32)


class QConvDynamic(OpRun):
    """sparsert.QConvDynamic: the same as QConv, of bytes whose scale and zero point are inputs."""

    op_domain = "sparsert"

    def _run(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        scale: np.ndarray,
        params: np.ndarray,
        bias: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        total = _sums(x, weight, int(params[1]), attributes)
        return (_as_f32(total, params[0] * scale, bias, residual, attributes),)


class QAdd(OpRun):
    """sparsert.QAdd: the sum of two tensors of bytes."""

    op_domain = "sparsert"

    def _run(self, a: np.ndarray, b: np.ndarray, **attributes: Any) -> _Result:
        a_zero, b_zero, *quant = attributes["quant"]
        levels = packed.add(
            packed.unpack(a),
            packed.unpack(b),
            attributes["alpha"],
            attributes["beta"],
            (a_zero, b_zero),
            quant,
        )
        return (packed.pack(levels, quant[0]),)


class QMaxPool(OpRun):
    """sparsert.QMaxPool: MaxPool of bytes; padding never wins."""

    op_domain = "sparsert"

    def _run(self, x: np.ndarray, **attributes: Any) -> _Result:
        levels = packed.unpack(x)
        window = _window(attributes)
        y = windows.pool(levels.astype(np.float32), "max", **window, count_include_pad=False)
        return (packed.pack(np.maximum(y, 0).astype(np.uint8), 0),)


class QAveragePool(OpRun):
    """sparsert.QAveragePool: the mean of bytes over windows, or over the planes."""

    op_domain = "sparsert"

    def _run(self, x: np.ndarray, **attributes: Any) -> _Result:
        x_zero, *quant = attributes["quant"]
        levels = packed.centred(packed.unpack(x), x_zero).astype(np.int64)
        if attributes.get("kernel_shape"):
            include = bool(attributes.get("count_include_pad"))
            window = {**_window(attributes), "count_include_pad": include}
            total, count = windows.pool_sums(levels, **window)
        else:
            total = levels.sum(axis=tuple(range(2, x.ndim)), keepdims=True)
            count = np.array(np.prod(x.shape[2:]), np.float32)
        mean = total.astype(np.float32) / count
        y = packed.to_bytes(mean * np.float32(attributes["alpha"]), *quant)
        return (packed.pack(y, quant[0]),)


class QLookup(OpRun):
    """sparsert.QLookup: each byte becomes its entry of a table."""

    op_domain = "sparsert"

    def _run(self, x: np.ndarray, table: np.ndarray) -> _Result:
        return (packed.pack(table[packed.unpack(x)], 0),)


class QElementwise(OpRun):
    """sparsert.QElementwise: bytes, a bias per channel, a residual and an activation."""

    op_domain = "sparsert"

    def _run(
        self,
        x: np.ndarray,
        scales: np.ndarray,
        bias: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        (x_zero, r_zero, *quant), channels = attributes["quant"], attributes["channels"]
        y = packed.dequantize(x, scales[0], x_zero, channels)
        y = y if bias is None else y + bias.reshape(-1, *[1] * (x.ndim - 2))
        if residual is not None:
            is_packed = residual.dtype == np.uint32
            r = packed.dequantize(residual, scales[1], r_zero, channels) if is_packed else residual
            y = y + r
        alpha, beta = attributes.get("act_alpha") or 0.0, attributes.get("act_beta") or 0.0
        y = functions.activate(y, attributes.get("act"), alpha, beta)
        if attributes["to"] != _BYTES:
            return (y,)
        return (packed.pack(packed.to_bytes(y * scales[2], *quant), quant[0]),)


class QAttention(OpRun):
    """sparsert.QAttention: attention of bytes, rounded after each of its steps."""

    op_domain = "sparsert"

    def _run(
        self,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        steps: np.ndarray,
        mask: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        queries, keys, values = (
            packed.heads(x, attributes["heads"], zero)
            for x, zero in zip((q, k, v), attributes["quant"], strict=True)
        )
        s = (queries @ keys.swapaxes(2, 3)).astype(np.float32) * steps[0, 0]
        s = packed.rounded(packed.rounded(s, steps[0]) * steps[1, 0], steps[1])
        s = packed.rounded(s if mask is None else s + mask, steps[2])
        shares = packed.step_bytes(packed.shares(s), steps[3])
        z = (packed.centred(shares, int(steps[3, 2])) @ values).astype(np.float32) * steps[4, 0]
        y = z.transpose(0, 1, 3, 2).reshape(z.shape[0], -1, z.shape[2])
        if attributes["to"] != _BYTES:
            return (y,)
        return (packed.pack(packed.step_bytes(y, steps[4]), 0),)


def _window(attributes: dict[str, Any]) -> dict[str, Any]:
    """Returns where the windows of a pool lie."""
    kernel = attributes["kernel_shape"]
    window = windows.window_of(attributes, len(kernel))
    return {"kernel": kernel, "ceil_mode": bool(attributes.get("ceil_mode")), **window}


PACKED_OPS: tuple[type[OpRun], ...] = (
    QuantizePacked,
    DequantizePacked,
    QConv,
    QDepthwise,
    QAdd,
    QMaxPool,
    QAveragePool,
    QLookup,
    QElementwise,
    QAttention,
    QuantizeDynamic,
    QConvDynamic,
)
