"""Random small graphs of odd quantisation: scales, types, blocks and halves of patterns.

QuantisedGraph has many layers of common forms; here are few, and little about them is ordinary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

Shape = tuple[int, ...]
Values = tuple[str, Shape, int]  # name, shape, element type

F32, F16 = TensorProto.FLOAT, TensorProto.FLOAT16
_LIMITS = {
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT4: (-8, 7),
}
_BYTES = (TensorProto.UINT8, TensorProto.INT8)
_FLOAT8 = (
    *(TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ),
    *(TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ),
)
_ODD_SCALES = (0.0, -0.03, 1e-45, 1e-40, 1e-38, 1e-37, 1e-30, 1e-9)
_ODD_SCALES = (*_ODD_SCALES, 1e9, 1e30, 1e37, 3e38, float("inf"), float("nan"))
# Those that do not blow the rounding errors of sums up to whole units.
_COARSE_SCALES = tuple(scale for scale in _ODD_SCALES if not 0 <= scale < 1)
_LARGE = 1e30  # numbers of integers of 16 bits may be infinite with such a scale
_ODD_NUMBERS = (float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 1e-42, -0.0)


class OddGraph:
    """A graph of one to three layers; the same for the same seed.

    Attributes:
        units: by graph output, the scale of its numbers: what one unit of rounding moves them by.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng((seed, 1))
        self.units: dict[str, float] = {}
        # What few bits make of NaN is no rule: odd numbers go with integers of 8 and 16 bits.
        self._odd = self.chance(0.6)
        self._floats = F16 if not self._odd and self.chance(0.2) else F32
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: dict[str, tuple[int, np.ndarray]] = {}
        self._outputs: list[Values] = []
        self._unit = 0.0
        self._scales = _ODD_SCALES  # of activations
        self._is_finite = True

    def pick(self, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        """True so often."""
        return bool(self.rng.random() < share)

    # ---- nodes ----

    def _constant(self, array: Any, dtype: int | None = None) -> str:
        """A constant; now and then an input of the graph instead."""
        array = np.asarray(array)
        dtype = self._floats if dtype is None else dtype
        name = f"c{len(self._constants) + len(self._inputs)}"
        if dtype not in (TensorProto.UINT4, TensorProto.INT4, *_FLOAT8) and self.chance(0.04):
            self._inputs[name] = dtype, _as(array, dtype)
            return name
        values = array.astype(np.float64).reshape(-1) if dtype in _FLOAT8 else array.reshape(-1)
        if dtype == F16:
            with np.errstate(over="ignore"):
                values = values.astype(np.float16)
        self._constants.append(helper.make_tensor(name, dtype, array.shape, values))
        return name

    def _add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def _scale(self, shape: Shape, odd_ones: Sequence[float] = _ODD_SCALES) -> np.ndarray:
        """Scales, one of which may be odd, or all of which may be."""
        scale = self.rng.uniform(0.02, 0.04, shape)
        if self._odd and self.chance(0.35):
            odd = self.pick(odd_ones)
            if scale.size == 0 or self.chance(0.5):
                scale = np.full(shape, odd)
            else:
                scale.reshape(-1)[int(self.rng.integers(scale.size))] = odd
        return scale.astype(np.float32)

    def _zero(self, shape: Shape, dtype: int) -> np.ndarray:
        """Zero points, often at the ends of their range."""
        low, high = _LIMITS[dtype]
        if self.chance(0.3):
            return np.full(shape, self.pick((low, high)))
        middle = (low + high + 1) // 2
        spread = max(1, min(30, (high - low) // 8))
        return self.rng.integers(middle - spread, middle + spread, shape)

    def _params(
        self, shape: Shape, dtype: int, odd_ones: Sequence[float] = _ODD_SCALES
    ) -> tuple[list[str], dict[str, Any], np.ndarray]:
        """Scale and zero point (or none) of a tensor, with the attributes of where they go."""
        form = self.pick(("one", "one", "one", "vector", "axis", "blocks"))
        axis = int(self.rng.integers(len(shape)))
        attributes: dict[str, Any] = {}
        if form == "axis":
            of_scale: Shape = (shape[axis],)
            attributes["axis"] = axis - len(shape) * int(self.chance(0.3))
        elif form == "blocks":
            size = int(self.pick((1, 2, 3, shape[axis])))
            of_scale = (*shape[:axis], -(-shape[axis] // size), *shape[axis + 1 :])
            attributes |= {"axis": axis, "block_size": size}
        else:
            of_scale = () if form == "one" else (1,)
        scale = self._scale(of_scale, odd_ones)
        names = [self._constant(scale)]
        if dtype in _FLOAT8:
            if self.chance(0.5):
                names.append(self._constant(np.zeros(of_scale), dtype))
        elif self.chance(0.85):
            names.append(self._constant(self._zero(of_scale, dtype), dtype))
        return names, attributes, scale

    def _type(self) -> int:
        if self.chance(0.6):
            return int(self.pick(_BYTES))
        return int(self.pick(tuple(_LIMITS)[:4] if self._odd else (*_LIMITS, *_FLOAT8)))

    def _rounded(self, x: str, shape: Shape) -> str:
        """Rounds floats: with both halves, or one, or two that contradict each other."""
        dtype = self._type()
        names, attributes, scale = self._params(shape, dtype, self._scales)
        q = self._add("QuantizeLinear", x, *names, **self._output_type(names, dtype), **attributes)
        if self.chance(0.25):
            q, shape, names = self._moved(q, shape, dtype, names)
            if len(attributes):  # the scales may not go with the dimensions now
                names, attributes, scale = self._params(shape, dtype, self._scales)
        if self.chance(0.15):
            self._outputs.append((q, shape, dtype))
            self.units[q] = 1.0
        if self.chance(0.1):
            names, attributes, scale = self._params(shape, dtype, self._scales)
        y = self._add("DequantizeLinear", q, *names, **attributes)
        self._unit, self._shape = _largest(scale), shape
        self._is_finite = bool(np.all(np.abs(scale) < _LARGE))  # False for NaN
        return y

    def _output_type(self, names: list[str], dtype: int) -> dict[str, int]:
        return {} if len(names) > 1 or dtype == TensorProto.UINT8 else {"output_dtype": dtype}

    def _moved(
        self, q: str, shape: Shape, dtype: int, names: list[str]
    ) -> tuple[str, Shape, list[str]]:
        """Integers through what moves them, or computes with them."""
        n, c, h, w = shape
        kind = self.pick(("turn", "fold", "cut", "twice", "cast", "pool"))
        if kind == "turn":
            return self._add("Transpose", q, perm=[0, 1, 3, 2]), (n, c, w, h), names
        if kind == "fold":
            target = self._constant(np.array([n, c, 1, h * w]), TensorProto.INT64)
            return self._add("Reshape", q, target), (n, c, 1, h * w), names
        if kind == "pool" and dtype in _BYTES and min(h, w) > 1:
            y = self._add("MaxPool", q, kernel_shape=[2, 2])
            return y, (n, c, h - 1, w - 1), names
        if dtype in (TensorProto.UINT4, TensorProto.INT4, *_FLOAT8):
            return q, shape, names
        if kind == "cut":
            ends = (np.array([0]), np.array([max(1, c - 1)]), np.array([1]))
            cut = self._add("Slice", q, *(self._constant(e, TensorProto.INT64) for e in ends))
            return cut, (n, max(1, c - 1), h, w), names
        if kind == "twice":
            return self._add("Concat", q, q, axis=1), (n, 2 * c, h, w), names
        wide = self._add("Cast", q, to=TensorProto.INT32)
        return self._add("Cast", wide, to=dtype), shape, names

    def _weight(self, shape: Shape) -> str:
        """Dequantised integers, with odd scales now and then; or floats."""
        if self.chance(0.15):
            return self._constant(self.rng.standard_normal(shape) / 4)
        dtype = self._type()
        names, attributes, _ = self._params(shape, dtype)
        if dtype in _FLOAT8:
            levels = self.rng.standard_normal(shape)
        else:
            low, high = _LIMITS[dtype]
            levels = self.rng.integers(max(low, -200), min(high, 250), shape, endpoint=True)
        if self.chance(0.15) and dtype not in _FLOAT8:
            floats = self._constant(self.rng.standard_normal(shape))
            more = self._output_type(names, dtype)
            stored = self._add("QuantizeLinear", floats, *names, **more, **attributes)
        else:
            stored = self._constant(levels, dtype)
        return self._add("DequantizeLinear", stored, *names, **attributes)

    def _bias(self, rows: int) -> list[str]:
        form = self.pick(("none", "floats", "i32"))
        if form == "none":
            return []
        if form == "floats":
            return [self._constant(self.rng.standard_normal(rows))]
        levels = self._constant(self.rng.integers(-900, 900, rows), TensorProto.INT32)
        return [self._add("DequantizeLinear", levels, self._constant(self._scale(())))]

    # ---- layers ----

    def _layer(self, x: str) -> str:
        n, c, h, w = self._shape
        kind = self.pick(("conv", "conv", "linear", "add", "pool", "mean", "function", "none"))
        if kind in ("conv", "linear") and not self._is_finite:
            kind = "add"  # weights that are zero are left out, although NaN times 0 is NaN
        if kind == "conv":
            group = int(self.pick((1, 1, c)))
            rows, kernel = group * int(self.pick((1, 4, 5))), int(self.pick((1, min(h, w, 2))))
            weight = self._weight((rows, c // group, kernel, kernel))
            y = self._add("Conv", x, weight, *self._bias(rows), group=group)
            self._shape = (n, rows, h - kernel + 1, w - kernel + 1)
        elif kind == "linear":
            rows = int(self.pick((1, 4, 7)))
            y = self._add("MatMul", x, self._weight((w, rows)))
            self._shape = (n, c, h, rows)
        elif kind == "add":
            other = self.pick((x, self._constant(self.rng.standard_normal((c, 1, 1)))))
            y = self._add("Add", x, other)
        elif kind == "pool" and min(h, w) > 1:
            op = self.pick(("MaxPool", "AveragePool"))
            y = self._add(op, x, kernel_shape=[2, 2])
            self._shape = (n, c, h - 1, w - 1)
        elif kind == "mean":
            y, self._shape = self._add("GlobalAveragePool", x), (n, c, 1, 1)
        elif kind == "function":
            self._scales = _COARSE_SCALES
            return self._add(self.pick(("Relu", "Sigmoid", "HardSwish", "LeakyRelu")), x)
        else:
            return x
        self._scales = _COARSE_SCALES
        return self._add("Relu", y) if self.chance(0.3) else y

    # ---- the whole ----

    def model(self) -> onnx.ModelProto:
        """Returns the model; feeds() has its inputs then."""
        c, h, w = (int(self.pick(sizes)) for sizes in ((1, 3, 4, 8), (1, 3, 5), (2, 4, 7)))
        self._shape: Shape = (2, c, h, w)
        x = self.rng.standard_normal(self._shape) * self.pick((0.1, 1, 3))
        if self._odd and self.chance(0.4):
            places = self.rng.random(x.shape) < 0.2
            x[places] = self.rng.choice(_ODD_NUMBERS, int(places.sum()))
            self._is_finite = False
        if self.chance(0.05):
            x[:] = 0
        self._inputs["x"] = self._floats, _as(x, self._floats)
        value = "x"
        if self.chance(0.85):
            value = self._rounded(value, self._shape)
        for _ in range(int(self.pick((0, 1, 1, 2)))):
            value = self._layer(value)
            if self.chance(0.7):
                value = self._rounded(value, self._shape)
        if not self._nodes:
            value = self._rounded(value, self._shape)
        if all(value != name for name, *_ in self._outputs):
            self._outputs.append((value, self._shape, self._floats))
            self.units[value] = self._unit
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self._nodes,
            "odd",
            [info(name, dtype, array.shape) for name, (dtype, array) in self._inputs.items()],
            [info(name, dtype, None) for name, _, dtype in self._outputs],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def feeds(self) -> dict[str, np.ndarray]:
        """The inputs of the model."""
        return {name: array for name, (_, array) in self._inputs.items()}


def _as(array: np.ndarray, dtype: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(helper.tensor_dtype_to_np_dtype(dtype))


def _largest(scale: np.ndarray) -> float:
    sound = np.abs(scale[np.isfinite(scale)])
    return float(sound.max(initial=0))
