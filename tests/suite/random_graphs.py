"""Random graphs of native ops over rank-4 tensors, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.suite.harness import NETWORK, Case, random_weights

Shape = tuple[int, ...]

ACTIVATIONS = (
    "Relu",
    "Sigmoid",
    "Tanh",
    "HardSwish",
    "LeakyRelu<alpha=0.2>",
    "Elu",
    "Softplus",
    "Abs",
    "Neg",
    "Gelu",
    "Erf",
    "Clip(low, high)",
    "Softsign",
    "HardSigmoid",
    "Mish",
    "Identity",
)


class Builder:
    """Adds one random op after another to the values made so far."""

    def __init__(self, seed: int, batch: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[str] = []
        self.constants = {"low": np.float32(-1), "high": np.float32(1.5)}
        shape = (
            batch,
            *(
                int(self.pick(sizes))
                for sizes in ((1, 3, 4, 6, 8), (1, 4, 5, 7, 9, 12), (1, 3, 7, 8, 16, 17, 33))
            ),
        )
        self.values: dict[str, Shape] = {"x": shape}
        self.input_shape = shape

    def pick(self, choices: object) -> object:
        """One of the choices."""
        items = list(choices)  # type: ignore[call-overload]
        return items[int(self.rng.integers(len(items)))]

    def any(self) -> tuple[str, Shape]:
        """A value, the later ones more often."""
        names = list(self.values)
        at = len(names) - 1 - int(self.rng.integers(min(len(names), 4)))
        if self.rng.random() < 0.15:
            at = int(self.rng.integers(len(names)))
        return names[at], self.values[names[at]]

    def add(self, text: str, shape: Shape) -> None:
        """Adds a node whose output has this shape."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(f"{name} = {text}")
        self.values[name] = shape

    def constant(self, value: np.ndarray) -> str:
        """Adds a constant."""
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def weights(self, *shape: int) -> str:
        """Adds weights of random sparsity."""
        sparsity = float(self.pick((0.0, 0.5, 0.8, 0.95, 1.0)))  # type: ignore[arg-type]
        return self.constant(
            random_weights(*shape, sparsity=sparsity, seed=int(self.rng.integers(1 << 30)))
        )

    # ---- ops ----

    def conv(self) -> None:
        x, (n, c, h, w) = self.any()
        group = int(self.pick([g for g in (1, 1, 2, 3, c) if c % g == 0]))
        out = group * int(self.pick((1, 2, 3, 5) if group > 1 else (1, 4, 6, 9, 16)))
        kernel = [int(self.pick((1, 1, 2, 3, 5))) for _ in range(2)]
        stride = [int(self.pick((1, 1, 2, 3))) for _ in range(2)]
        dilation = [int(self.pick((1, 1, 2))) for _ in range(2)]
        pads = [int(self.pick((0, 1, 2))) for _ in range(4)]
        if self.rng.random() < 0.4:
            kernel, stride, dilation, pads = [1, 1], [1, 1], [1, 1], [0, 0, 0, 0]
        spatial = []
        for d, size in enumerate((h, w)):
            room = size + pads[d] + pads[d + 2] - dilation[d] * (kernel[d] - 1) - 1
            if room < 0:
                return
            spatial.append(room // stride[d] + 1)
        bias = (
            f", {self.constant(random_weights(out, scale=0.5))}" if self.rng.random() < 0.6 else ""
        )
        attributes = f"group={group}, strides={stride}, dilations={dilation}, pads={pads}"
        weights = self.weights(out, c // group, *kernel)
        self.add(f"Conv<{attributes}>({x}, {weights}{bias})", (n, out, *spatial))

    def conv_transpose(self) -> None:
        x, (n, c, h, w) = self.any()
        if h * w > 300:
            return
        kernel = int(self.pick((1, 2, 3)))
        stride = int(self.pick((1, 2)))
        out = int(self.pick((1, 3, 8)))
        weights = self.weights(c, out, kernel, kernel)
        text = f"ConvTranspose<strides=[{stride},{stride}]>({x}, {weights})"
        self.add(text, (n, out, (h - 1) * stride + kernel, (w - 1) * stride + kernel))

    def unary(self) -> None:
        x, shape = self.any()
        op = str(self.pick(ACTIVATIONS))
        self.add(op.replace("(", f"({x}, ") if "(" in op else f"{op}({x})", shape)

    def binary(self) -> None:
        x, shape = self.any()
        op = self.pick(("Add", "Add", "Mul", "Sub", "Max", "Min"))
        same = [name for name, other in self.values.items() if other == shape]
        wide = [
            name
            for name, other in self.values.items()
            if all(b in (1, a) for a, b in zip(shape, other, strict=True))
        ]
        choice = self.rng.random()
        if choice < 0.5:
            other = str(self.pick(same))
        elif choice < 0.75:
            other = str(self.pick(wide))
        else:
            mask = [a if self.rng.random() < 0.5 else 1 for a in shape]
            other = self.constant(random_weights(*mask, scale=1.0))
        pair = (x, other) if self.rng.random() < 0.5 else (other, x)
        self.add(f"{op}({pair[0]}, {pair[1]})", shape)

    def pool(self) -> None:
        x, (n, c, h, w) = self.any()
        if self.rng.random() < 0.3:
            self.add(f"{self.pick(('GlobalAveragePool', 'GlobalMaxPool'))}({x})", (n, c, 1, 1))
            return
        if h < 2 or w < 2:
            return
        op = self.pick(("MaxPool", "AveragePool"))
        self.add(f"{op}<kernel_shape=[2,2], strides=[2,2]>({x})", (n, c, h // 2, w // 2))

    def concat(self) -> None:
        x, shape = self.any()
        axis = int(self.pick((1, 1, 2, 3)))
        fits = [
            name
            for name, other in self.values.items()
            if all(d == axis or a == b for d, (a, b) in enumerate(zip(shape, other, strict=True)))
        ]
        others = [str(self.pick(fits)) for _ in range(int(self.rng.integers(1, 3)))]
        total = shape[axis] + sum(self.values[name][axis] for name in others)
        if total > 64:
            return
        shape = (*shape[:axis], total, *shape[axis + 1 :])
        self.add(f"Concat<axis={axis}>({', '.join([x, *others])})", shape)

    def slice(self) -> None:
        x, shape = self.any()
        axis = int(self.pick((1, 2, 3)))
        size = shape[axis]
        step = int(self.pick((1, 1, 2, -1)))
        begin = int(self.rng.integers(size))
        count = len(range(size)[begin::step])
        end = np.array([-(1 << 40) if step < 0 else 1 << 40])
        names = [self.constant(np.array([v])) for v in (begin,)]
        names += [
            self.constant(end),
            self.constant(np.array([axis])),
            self.constant(np.array([step])),
        ]
        self.add(f"Slice({x}, {', '.join(names)})", (*shape[:axis], count, *shape[axis + 1 :]))

    def transpose(self) -> None:
        x, shape = self.any()
        perm = [0, *(1 + int(p) for p in self.rng.permutation(3))]
        self.add(f"Transpose<perm={perm}>({x})", tuple(shape[p] for p in perm))

    def reshape(self) -> None:
        x, (n, c, h, w) = self.any()
        target = self.pick([(n, c, h * w, 1), (n, c * h, 1, w), (n, h, c, w), (n, 1, c, h * w)])
        name = self.constant(np.array(target))
        self.add(f"Reshape({x}, {name})", tuple(target))  # type: ignore[arg-type]

    def pad(self) -> None:
        x, (n, c, h, w) = self.any()
        if h * w > 400:
            return
        amounts = [int(v) for v in self.rng.integers(0, 3, 4)]
        name = self.constant(np.array([0, 0, amounts[0], amounts[1], 0, 0, amounts[2], amounts[3]]))
        mode = self.pick(("constant", "edge"))
        self.add(
            f'Pad<mode="{mode}">({x}, {name})',
            (n, c, h + amounts[0] + amounts[2], w + amounts[1] + amounts[3]),
        )

    def reduce(self) -> None:
        x, shape = self.any()
        axis = int(self.pick((1, 2, 3)))
        name = self.constant(np.array([axis]))
        op = self.pick(("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"))
        self.add(f"{op}({x}, {name})", (*shape[:axis], 1, *shape[axis + 1 :]))

    def softmax(self) -> None:
        x, shape = self.any()
        self.add(f"Softmax<axis={self.pick((1, 2, 3))}>({x})", shape)

    def matmul(self) -> None:
        x, (n, c, h, w) = self.any()
        out = int(self.pick((1, 5, 17, 24)))
        self.add(f"MatMul({x}, {self.weights(w, out)})", (n, c, h, out))

    def gemm(self) -> None:
        x, (n, c, h, w) = self.any()
        out = int(self.pick((4, 9, 20)))
        name = f"f{len(self.nodes)}"
        self.nodes.append(f"{name} = Flatten({x})")
        text = f"Gemm<transB=1>({name}, {self.weights(out, c * h * w)})"
        self.nodes.append(f"g{name} = {text}")
        self.add(f"Reshape(g{name}, {self.constant(np.array([n, out, 1, 1]))})", (n, out, 1, 1))

    def resize(self) -> None:
        x, (n, c, h, w) = self.any()
        if h * w > 300:
            return
        mode = self.pick(("nearest", "linear"))
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        text = f'Resize<mode="{mode}", coordinate_transformation_mode="asymmetric", '
        self.add(f'{text}nearest_mode="floor">({x}, , {scales})', (n, c, 2 * h, 2 * w))

    def split(self) -> None:
        x, shape = self.any()
        axis = int(self.pick((1, 3)))
        if shape[axis] < 2:
            return
        first = int(self.rng.integers(1, shape[axis]))
        sizes = (first, shape[axis] - first)
        name = self.constant(np.array(sizes))
        number = len(self.nodes)
        self.nodes.append(f"s{number}, t{number} = Split<axis={axis}>({x}, {name})")
        for output, size in zip((f"s{number}", f"t{number}"), sizes, strict=True):
            self.values[output] = (*shape[:axis], size, *shape[axis + 1 :])

    def normalize(self) -> None:
        x, shape = self.any()
        c = shape[1]
        names = [self.constant(random_weights(c, scale=0.5)) for _ in range(3)]
        names.append(self.constant(np.abs(random_weights(c, scale=1.0, seed=1)) + np.float32(0.5)))
        self.add(f"BatchNormalization({x}, {', '.join(names)})", shape)


def used_constants(builder: Builder) -> dict[str, np.ndarray]:
    """The constants that a node reads."""
    words = {
        word
        for node in builder.nodes
        for word in node.replace(",", " ").replace(")", " ").replace("(", " ").split()
    }
    return {name: value for name, value in builder.constants.items() if name in words}


def random_case(seed: int, ops: int = 14) -> Case:
    """A graph of about `ops` random ops with one to three outputs."""
    builder = Builder(seed, batch=1 + seed % 3)
    makers: list[Callable[[], None]] = [
        builder.conv,
        builder.conv,
        builder.conv,
        builder.unary,
        builder.unary,
        builder.binary,
        builder.binary,
        builder.pool,
        builder.concat,
        builder.slice,
        builder.transpose,
        builder.reshape,
        builder.pad,
        builder.reduce,
        builder.softmax,
        builder.matmul,
        builder.gemm,
        builder.resize,
        builder.split,
        builder.conv_transpose,
        builder.normalize,
    ]
    while len(builder.nodes) < ops:
        makers[int(builder.rng.integers(len(makers)))]()
    names = list(builder.values)[1:]
    count = int(builder.rng.integers(0, 3))
    outputs = list(dict.fromkeys([*(str(builder.pick(names)) for _ in range(count)), names[-1]]))
    return Case(
        f"random_{seed}",
        builder.nodes,
        {"x": builder.input_shape},
        used_constants(builder),
        outputs=outputs,
        tolerance=NETWORK,
    )
