"""Random quantised graphs: layers of all forms, and conversions that may be missing anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
BATCH = 2


class QuantisedGraph:
    """Adds one random layer after another; the same for the same seed.

    Attributes:
        unit: the largest scale of the graph's activations.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.unit = 0.0
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._values: list[tuple[str, Shape]] = []  # those that layers may read
        self._raw: dict[str, str] = {}  # a value that was rounded -> what it was before
        channels = int(self.pick((1, 3, 4, 6, 8, 16)))
        size = [int(self.pick((1, 4, 5, 7, 9))) for _ in range(2)]
        self._shape: Shape = (BATCH, channels, *size)
        self._keep("x", self._shape, often=0.9)

    def pick(self, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        """True so often."""
        return bool(self.rng.random() < share)

    # ---- nodes ----

    def _constant(self, array: Any) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def _add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def _value(self) -> tuple[str, Shape]:
        """A value, the last one more often; without its rounding now and then."""
        name, shape = self._values[-1] if self.chance(0.7) else self.pick(self._values)
        return (self._raw.get(name, name) if self.chance(0.05) else name), shape

    def _keep(self, name: str, shape: Shape, often: float = 0.85, positive: bool = False) -> None:
        """Lets later layers read a value, quantised or not."""
        rounded = self._rounded(name, positive) if self.chance(often) else name
        self._values.append((rounded, shape))
        if rounded != name:
            self._raw[rounded] = name

    def _rounded(self, name: str, positive: bool = False) -> str:
        scale = np.float32(self.rng.uniform(0.02, 0.04) / (2 if positive else 1))
        level = 0 if positive else int(self.rng.integers(90, 165))
        zero = self.pick((np.uint8(level), np.int8(level - 128)))
        self.unit = max(self.unit, float(scale))
        pair = [self._constant(scale), self._constant(zero)]
        return self._add("DequantizeLinear", self._add("QuantizeLinear", name, *pair), *pair)

    def _weight(self, shape: Shape, axis: int = 0, fan: int | None = None) -> tuple[str, Any]:
        """Weights in one of the forms that quantisers write, and the scale (None: floats)."""
        rows = shape[axis]
        inner = fan or int(np.prod(shape)) // rows
        form = self.pick(("i8", "i8", "i8", "u8", "skewed", "in the graph", "f32"))
        spread = [-1 if i == axis else 1 for i in range(len(shape))]
        per_row = self.chance(0.6)
        scale = self.rng.uniform(0.5, 1.5, rows if per_row else ()) / (60 * np.sqrt(inner))
        scale = scale.astype(np.float32)
        levels = np.clip(np.rint(45 * self.rng.standard_normal(shape)), -127, 127)
        levels[self.rng.random(shape) < self.pick((0.0, 0.5, 0.9))] = 0
        floats = (levels * (scale.reshape(spread) if per_row else scale)).astype(np.float32)
        if form == "f32":
            return self._constant(floats), None
        zero = np.zeros(scale.shape, np.int8)
        if form == "in the graph":
            inputs = [self._constant(array) for array in (floats, scale, zero)]
            stored = self._add("QuantizeLinear", *inputs, axis=axis)
            return self._add("DequantizeLinear", stored, *inputs[1:], axis=axis), scale
        if form != "i8":
            level = 128 if form == "u8" else int(self.rng.integers(20, 230))
            zero = np.full(scale.shape, level, np.uint8)
            levels = np.clip(levels * (1 if form == "u8" else 2), -level, 255 - level) + level
        if per_row and self.chance(0.1):
            scale[int(self.rng.integers(rows))] = 0
        inputs = [self._constant(a) for a in (levels.astype(zero.dtype), scale, zero)]
        return self._add("DequantizeLinear", *inputs, axis=axis), scale

    def _bias(self, rows: int, scale: Any) -> list[str]:
        form = self.pick(("none", "f32", "i32"))
        bias = 0.3 * self.rng.standard_normal(rows).astype(np.float32)
        if form == "none":
            return []
        if form == "f32" or scale is None or not np.all(scale > 0):
            return [self._constant(bias)]
        step = np.float32(0.03) * scale
        levels = np.rint(bias / step).astype(np.int32)
        return [self._add("DequantizeLinear", self._constant(levels), self._constant(step), axis=0)]

    # ---- layers ----

    def conv(self) -> None:
        x, (n, c, *size) = self._value()
        group = int(self.pick([g for g in (1, 1, 1, 2, 3, c) if c % g == 0]))
        rows = group * int(self.pick((1, 1, 2, 4) if group > 1 else (1, 4, 6, 8, 13)))
        kernel = [int(self.pick((1, 1, 3, 2))) for _ in range(2)]
        strides = [int(self.pick((1, 1, 2))) for _ in range(2)]
        dilations = [int(self.pick((1, 1, 2))) for _ in range(2)]
        pads = [int(self.pick((0, 1))) for _ in range(4)]
        out = []
        for i in range(2):
            room = size[i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1
            if room < 0:
                return
            out.append(room // strides[i] + 1)
        weight, scale = self._weight((rows, c // group, *kernel))
        y = self._add(
            "Conv",
            *(x, weight, *self._bias(rows, scale)),
            group=group,
            strides=strides,
            dilations=dilations,
            pads=pads,
        )
        self._behind(y, (n, rows, *out))

    def _behind(self, y: str, shape: Shape) -> None:
        """An activation or none, and the rounding of the result."""
        act = self.pick(("", "", "Relu", "Clip", "Sigmoid", "LeakyRelu"))
        if act == "Clip":
            y = self._add(act, y, self._constant(np.float32(0)), self._constant(np.float32(1.5)))
        elif act:
            y = self._add(act, y)
        self._keep(y, shape, positive=act in ("Relu", "Clip"))

    def add(self) -> None:
        a, shape = self._value()
        others = [name for name, other in self._values if other == shape]
        if self.chance(0.2):
            b = self._constant(self.rng.standard_normal((shape[1], 1, 1)).astype(np.float32))
        else:
            b = self.pick(others)
        self._behind(self._add("Add", *((a, b) if self.chance(0.5) else (b, a))), shape)

    def pool(self) -> None:
        x, (n, c, h, w) = self._value()
        kind = self.pick(("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"))
        if kind == "GlobalAveragePool":
            y, shape = self._add(kind, x), (n, c, 1, 1)
        elif kind == "ReduceMean":
            axes = self._constant(np.array([2, 3]))
            y, shape = self._add(kind, x, axes, keepdims=1), (n, c, 1, 1)
        elif min(h, w) < 2:
            return
        else:
            y = self._add(kind, x, kernel_shape=[2, 2], strides=[2, 1])
            shape = (n, c, (h - 2) // 2 + 1, w - 1)
        self._keep(y, shape)

    def concat(self) -> None:
        a, shape = self._value()
        fits = [v for v in self._values if v[1][2:] == shape[2:]]
        b, other = self.pick(fits)
        channels = shape[1] + other[1]
        if channels <= 40:
            self._keep(self._add("Concat", a, b, axis=1), (shape[0], channels, *shape[2:]))

    def move(self) -> None:
        x, (n, c, h, w) = self._value()
        if self.chance(0.5):
            shape = (n, c, w, h)
            y = self._add("Transpose", x, perm=[0, 1, 3, 2])
        else:
            shape = (n, c, 1, h * w)
            y = self._add("Reshape", x, self._constant(np.array(shape)))
        self._keep(y, shape, often=0.6)

    def function(self) -> None:
        x, shape = self._value()
        op = self.pick(("Relu", "Sigmoid", "HardSwish", "Tanh", "LeakyRelu"))
        self._keep(self._add(op, x), shape, often=0.6)

    def linear(self) -> None:
        """Flat planes or features of tokens through a product; its result is 4-D again."""
        x, (n, c, h, w) = self._value()
        rows = int(self.pick((1, 5, 8, 12)))
        if self.chance(0.5):
            columns = c * h * w
            if columns > 400:
                return
            flat = self._add("Flatten", x, axis=1)
            flat = self._rounded(flat) if self.chance(0.4) else flat
            turned = self.chance(0.5)
            shape = (rows, columns) if turned else (columns, rows)
            weight, scale = self._weight(shape, 1 - int(turned), columns)
            bias = self._bias(rows, scale)
            y = self._add("Gemm", flat, weight, *bias, transB=int(turned))
            target = (n, rows, 1, 1)
        else:
            weight, scale = self._weight((w, rows), 1, w)
            y = self._add("MatMul", x, weight)
            target = (n, c, h, rows)
            bias = self._bias(rows, None)
            y = self._add("Add", y, *bias) if bias else y
        y = self._rounded(y) if self.chance(0.6) else y
        if target[2:] == (1, 1):
            y = self._add("Reshape", y, self._constant(np.array(target)))
        self._keep(y, target, often=0.5)

    # ---- the whole ----

    def model(self, layers: int = 5) -> onnx.ModelProto:
        """Adds layers and returns the model; its output is of floats, or of bytes."""
        makers: list[Callable[[], None]] = [self.conv] * 5
        makers += [self.add, self.pool, self.concat, self.move, self.function, self.linear]
        while len(self._nodes) < 8 * layers:
            self.pick(makers)()
        last = self._nodes[-1]
        dtype = TensorProto.FLOAT
        if last.op_type == "DequantizeLinear" and self.chance(0.2):
            zero = next(c for c in self._constants if c.name == last.input[2])
            dtype = zero.data_type
            last = self._nodes[-2]
            self.unit = 1.0
        graph = helper.make_graph(
            self._nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self._shape))],
            [helper.make_tensor_value_info(last.output[0], dtype, None)],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def feeds(self) -> dict[str, np.ndarray]:
        """The input of the model."""
        return {"x": self.rng.standard_normal(self._shape).astype(np.float32)}
