"""OpRun classes that teach onnx's reference evaluator the sparsert opset."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.reference.op_run import OpRun
from onnx.reference.ops import load_op, op_loop

from sparsert.runtime import numpy_functions as functions
from sparsert.runtime import numpy_windows as windows
from sparsert.runtime.numpy_sampling import deform_columns, grid_sample

_Result = tuple[np.ndarray, ...]


def _activated(y: np.ndarray, attributes: dict[str, Any]) -> _Result:
    alpha, beta = attributes.get("act_alpha") or 0.0, attributes.get("act_beta") or 0.0
    return (functions.activate(y, attributes.get("act"), alpha, beta),)


class Conv(OpRun):
    """sparsert.Conv: act(conv(x, weight) + bias + residual)."""

    op_domain = "sparsert"

    def _run(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        window = windows.window_of(attributes, x.ndim - 2)
        y = windows.conv(x, weight, bias, group=attributes.get("group") or 1, **window)
        return _activated(_with_residual(y, residual), attributes)


class ConvTranspose(OpRun):
    """sparsert.ConvTranspose: act(conv_transpose(x, weight) + bias)."""

    op_domain = "sparsert"

    def _run(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        y = windows.conv_transpose(
            x,
            weight,
            bias,
            group=attributes.get("group") or 1,
            output_padding=attributes.get("output_padding"),
            output_shape=attributes.get("output_shape"),
            **windows.window_of(attributes, x.ndim - 2),
        )
        return _activated(y, attributes)


class Linear(OpRun):
    """sparsert.Linear: act(x @ weight.T + bias + residual); x [..., K], weight [N, K]."""

    op_domain = "sparsert"

    def _run(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        residual: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        y = np.matmul(x, weight.T)
        if bias is not None:
            y = y + bias
        return _activated(_with_residual(y, residual), attributes)


class BatchNormalization(OpRun):
    """sparsert.BatchNormalization: act(x * scale + shift) per channel, axis 1."""

    op_domain = "sparsert"

    def _run(
        self, x: np.ndarray, scale: np.ndarray, shift: np.ndarray, **attributes: Any
    ) -> _Result:
        shape = (-1, *[1] * (x.ndim - 2))
        return _activated(x * scale.reshape(shape) + shift.reshape(shape), attributes)


class MatMul(OpRun):
    """sparsert.MatMul: alpha * a @ b; trans_a and trans_b swap the last two axes of an operand."""

    op_domain = "sparsert"

    def _run(self, a: np.ndarray, b: np.ndarray, **attributes: Any) -> _Result:
        a = a.swapaxes(-1, -2) if attributes.get("trans_a") else a
        b = b.swapaxes(-1, -2) if attributes.get("trans_b") else b
        alpha = attributes.get("alpha")
        return (np.asarray(np.matmul(a, b) * np.float32(1 if alpha is None else alpha)),)


class Attention(OpRun):
    """sparsert.Attention: softmax(alpha * q k' + mask) v of each head."""

    op_domain = "sparsert"

    def _run(
        self,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        mask: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        heads, alpha = attributes.get("heads"), attributes.get("alpha")
        kv_heads = attributes.get("kv_heads") or heads
        y = functions.attention(
            functions.split_heads(q, heads),
            functions.split_heads(k, kv_heads),
            functions.split_heads(v, kv_heads),
            mask,
            1.0 if alpha is None else alpha,
            bool(attributes.get("zero_nan")),
        )
        if heads:
            y = y.swapaxes(1, 2).reshape(*q.shape[:2], -1)
        return (y,)


class Recurrent(OpRun):
    """sparsert.Recurrent: the steps of an LSTM, GRU or plain recurrent layer."""

    op_domain = "sparsert"

    def _run(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        candidate: np.ndarray | None = None,
        initial_h: np.ndarray | None = None,
        initial_c: np.ndarray | None = None,
        lengths: np.ndarray | None = None,
        peephole: np.ndarray | None = None,
        parameters: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        names = attributes["activations"]
        pairs = np.zeros((len(names), 2)) if parameters is None else parameters
        cell = functions.RecurrentCell(
            attributes["cell"],
            [(name, float(a), float(b)) for name, (a, b) in zip(names, pairs, strict=True)],
            attributes.get("clip"),
            bool(attributes.get("reverse")),
            bool(attributes.get("input_forget")),
        )
        weights = functions.RecurrentWeights(weight, bias, candidate, peephole)
        results = functions.recurrent(x, cell, weights, (initial_h, initial_c), lengths)
        return results[: len(self.onnx_node.output)]


class DeformColumns(OpRun):
    """sparsert.DeformColumns: the columns of a deformable convolution."""

    op_domain = "sparsert"

    def _run(
        self,
        x: np.ndarray,
        offsets: np.ndarray,
        mask: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        y = deform_columns(
            x,
            offsets,
            mask,
            attributes["kernel_shape"],
            attributes.get("strides") or (1, 1),
            attributes.get("pads") or (0, 0, 0, 0),
            attributes.get("dilations") or (1, 1),
            attributes.get("group") or 1,
        )
        return (y,)


class GridSample(OpRun):
    """ONNX GridSample; onnx's own version fails for axes of one element."""

    op_domain = ""

    def _run(self, x: np.ndarray, grid: np.ndarray, **attributes: Any) -> _Result:
        y = grid_sample(
            x,
            grid,
            attributes.get("mode") or "linear",
            attributes.get("padding_mode") or "zeros",
            bool(attributes.get("align_corners")),
        )
        return (y,)


def _with_residual(y: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
    if residual is None:
        return y
    if residual.shape != y.shape:
        raise ValueError(f"the residual has shape {residual.shape}; expected {y.shape}")
    return y + residual


def _binary_op(name: str, ufunc: Any) -> type[OpRun]:
    def _run(self: OpRun, a: np.ndarray, b: np.ndarray, **attributes: Any) -> _Result:
        with np.errstate(all="ignore"):
            return _activated(np.asarray(ufunc(a, b), dtype=np.float32), attributes)

    return type(name, (OpRun,), {"op_domain": "sparsert", "_run": _run})


# ONNX op -> (scalar function, alpha's default, beta's name and default).
_UNARY: dict[str, tuple[str, float, str, float]] = {
    "Elu": ("elu", 1.0, "beta", 0.0),
    "Selu": ("selu", 1.67326319217681884765625, "gamma", 1.05070102214813232421875),
    "Celu": ("celu", 1.0, "beta", 0.0),
    "HardSigmoid": ("hard_sigmoid", 0.2, "beta", 0.5),
    "HardSwish": ("hard_swish", 0.0, "beta", 0.0),
    "Swish": ("silu", 1.0, "beta", 0.0),
    "Gelu": ("gelu", 0.0, "beta", 0.0),
    "Mish": ("mish", 0.0, "beta", 0.0),
    "Softplus": ("softplus", 0.0, "beta", 0.0),
    "Sigmoid": ("sigmoid", 0.0, "beta", 0.0),
    "LeakyRelu": ("leaky_relu", 0.01, "beta", 0.0),
    "ThresholdedRelu": ("thresholded_relu", 1.0, "beta", 0.0),
}


def _unary_op(name: str) -> type[OpRun]:
    fn, default_alpha, beta_name, default_beta = _UNARY[name]

    def _run(self: OpRun, x: np.ndarray, **attributes: Any) -> _Result:
        alpha = attributes.get("alpha")
        beta = attributes.get(beta_name)
        chosen = "gelu_tanh" if attributes.get("approximate") == "tanh" else fn
        y = functions.activate(
            x,
            chosen,
            default_alpha if alpha is None else alpha,
            default_beta if beta is None else beta,
        )
        return (y.astype(x.dtype, copy=False),)

    return type(name, (OpRun,), {"op_domain": "", "_run": _run})


def _pool_op(name: str, kind: str) -> type[OpRun]:
    def _run(self: OpRun, x: np.ndarray, **attributes: Any) -> _Result:
        kernel = attributes["kernel_shape"]
        window = windows.window_of(attributes, len(kernel))
        ceil_mode = bool(attributes.get("ceil_mode"))
        include = bool(attributes.get("count_include_pad"))
        y = windows.pool(x, kind, kernel, ceil_mode=ceil_mode, count_include_pad=include, **window)
        y = y.astype(x.dtype, copy=False)
        if len(self.onnx_node.output) == 1:
            return (y,)
        column_major = bool(attributes.get("storage_order"))
        return y, windows.max_places(x, y, kernel, column_major=column_major, **window)

    return type(name, (OpRun,), {"op_domain": "", "_run": _run})


class Resize(OpRun):
    """ONNX Resize, nearest and linear."""

    op_domain = ""

    def _run(
        self,
        x: np.ndarray,
        roi: np.ndarray | None = None,
        scales: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        given = scales is not None and scales.size > 0
        y = functions.resize(
            x,
            scales.tolist() if given and scales is not None else None,
            None if given or sizes is None else sizes.tolist(),
            attributes.get("axes"),
            attributes.get("mode") or "nearest",
            attributes.get("coordinate_transformation_mode") or "half_pixel",
            attributes.get("nearest_mode") or "round_prefer_floor",
            attributes.get("keep_aspect_ratio_policy") or "stretch",
        )
        return (y.astype(x.dtype, copy=False),)


class Pad(OpRun):
    """ONNX Pad with negative amounts, which onnx's own version lacks."""

    op_domain = ""

    def _run(
        self,
        x: np.ndarray,
        pads: np.ndarray,
        value: np.ndarray | None = None,
        axes: np.ndarray | None = None,
        **attributes: Any,
    ) -> _Result:
        chosen = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes.flat]
        begins, ends = [0] * x.ndim, [0] * x.ndim
        for i, axis in enumerate(chosen):
            begins[axis], ends[axis] = int(pads[i]), int(pads[i + len(chosen)])
        mode = attributes.get("mode") or "constant"
        fill = 0 if value is None else value.reshape(())
        return (functions.pad(x, begins, ends, mode, fill),)


class GlobalMaxPool(OpRun):
    """ONNX GlobalMaxPool of any rank; onnx's own version knows rank 4 only."""

    op_domain = ""

    def _run(self, x: np.ndarray) -> _Result:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class Cast(load_op("", "Cast")):  # type: ignore[misc]
    """ONNX Cast; onnx's own version leaves floats beyond the range of integers to the machine."""

    op_domain = ""

    def _run(self, x: np.ndarray, to: int, **attributes: Any) -> _Result:
        dtype = np.dtype(tensor_dtype_to_np_dtype(to))
        if dtype.kind in "iu" and x.dtype.kind not in "iub":
            return (functions.saturated(x, dtype),)
        return super()._run(x, to=to, **attributes)


class Loop(op_loop.Loop):
    """ONNX Loop; onnx's own version never runs without a condition, and joins scan outputs."""

    op_domain = ""
    body: Any  # these two are made from the node's attribute
    _run_body: Any

    def _run(  # type: ignore[override]
        self,
        limit: np.ndarray | None = None,
        condition: np.ndarray | None = None,
        *carried: Any,
        context: dict[str, Any] | None = None,
        attributes: Any = None,
        bindings: Any = None,
        **_: Any,
    ) -> tuple[Any, ...]:
        names = self.body.input_names
        state = list(carried)
        scanned: list[list[Any]] = [[] for _ in range(self.K)]
        go = True if condition is None else bool(np.asarray(condition).item())
        count = 0
        while go and (limit is None or count < np.asarray(limit).item()):
            inputs = dict(context or {})
            inputs.update(zip(names, [np.array(count), np.array(go), *state], strict=True))
            outputs = self._run_body(inputs, attributes=attributes, bindings=bindings)
            go = bool(np.asarray(outputs[0]).item())
            state = list(outputs[1 : 1 + self.N])
            for values, output in zip(scanned, outputs[1 + self.N :], strict=True):
                values.append(output)
            count += 1
        types = self.body.output_types[1 + self.N :]
        stacks = [
            np.stack(values) if values else _no_values(kind.tensor_type)
            for values, kind in zip(scanned, types, strict=True)
        ]
        return (*state, *stacks)


def _no_values(kind: Any) -> np.ndarray:
    """A scan output of no iterations; dimensions that only an iteration tells are 0."""
    dims = [dim.dim_value for dim in kind.shape.dim]
    return np.empty((0, *dims), tensor_dtype_to_np_dtype(kind.elem_type or 1))


class GatherElements(OpRun):
    """ONNX GatherElements; onnx's own version wants indices as large as the data."""

    op_domain = ""

    def _run(self, x: np.ndarray, indices: np.ndarray, **attributes: Any) -> _Result:
        axis = attributes.get("axis") or 0
        places: list[np.ndarray] = list(np.indices(indices.shape, sparse=True))
        places[axis] = indices
        return (x[tuple(places)],)


class LogSoftmax(OpRun):
    """ONNX LogSoftmax; onnx's own version takes the logarithm of 0 for large inputs."""

    op_domain = ""

    def _run(self, x: np.ndarray, **attributes: Any) -> _Result:
        axis = attributes.get("axis")
        axis = -1 if axis is None else axis
        shifted = x - x.max(axis=axis, keepdims=True)
        return (shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)),)


SPARSERT_OPS: tuple[type[OpRun], ...] = (
    Conv,
    ConvTranspose,
    Linear,
    BatchNormalization,
    MatMul,
    Attention,
    Recurrent,
    DeformColumns,
    _binary_op("Add", np.add),
    _binary_op("Sub", np.subtract),
    _binary_op("Mul", np.multiply),
    _binary_op("Div", np.divide),
    _binary_op("Pow", np.power),
    _binary_op("Min", np.minimum),
    _binary_op("Max", np.maximum),
)
UNARY_OPS: tuple[type[OpRun], ...] = tuple(_unary_op(name) for name in _UNARY)
# onnx's own versions of these loop over every output element in Python.
MAX_POOL = _pool_op("MaxPool", "max")
AVERAGE_POOL = _pool_op("AveragePool", "average")
GLOBAL_MAX_POOL = GlobalMaxPool
LOG_SOFTMAX = LogSoftmax
LOOP = Loop
CAST = Cast
GATHER_ELEMENTS = GatherElements
GRID_SAMPLE = GridSample
RESIZE = Resize
PAD = Pad
