"""Random graphs of matrix products, norms and transposes, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.suite.harness import NETWORK, Case, random_weights
from tests.suite.random_graphs import Builder, used_constants


class FeatureBuilder(Builder):
    """Builder whose values often go through a matrix product along their last dimension."""

    def product(self) -> None:
        x, shape = self.any()
        out = int(self.pick((1, 3, 8, 17)))
        self.add(f"MatMul({x}, {self.weights(shape[-1], out)})", (*shape[:-1], out))

    def residual(self) -> None:
        """Two products and the sum with what went in."""
        x, shape = self.any()
        hidden = int(self.pick((4, 12)))
        inner = f"m{len(self.nodes)}"
        self.nodes.append(f"{inner} = MatMul({x}, {self.weights(shape[-1], hidden)})")
        self.nodes.append(f"r{inner} = MatMul({inner}, {self.weights(hidden, shape[-1])})")
        self.add(f"Add(r{inner}, {x})", shape)

    def layer_norm(self) -> None:
        x, shape = self.any()
        gamma = self.constant(random_weights(shape[-1], scale=1.0))
        self.add(f"LayerNormalization<epsilon=0.01>({x}, {gamma})", shape)

    def scale(self) -> None:
        x, shape = self.any()
        mask = self.pick(([0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]))
        sizes = [s if m else 1 for s, m in zip(shape, mask, strict=True)]  # type: ignore[call-overload]
        factor = self.constant(random_weights(*sizes, scale=1.0))
        self.add(f"{self.pick(('Mul', 'Sub'))}({x}, {factor})", shape)

    def to_features(self) -> None:
        x, (n, c, h, w) = self.any()
        self.add(f"Transpose<perm=[0,2,3,1]>({x})", (n, h, w, c))

    def to_planes(self) -> None:
        x, (n, h, w, c) = self.any()
        self.add(f"Transpose<perm=[0,3,1,2]>({x})", (n, c, h, w))

    def reduce_features(self) -> None:
        x, shape = self.any()
        op = self.pick(("ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"))
        self.add(f"{op}({x}, {self.constant(np.array([-1]))})", (*shape[:-1], 1))

    def softmax_features(self) -> None:
        x, shape = self.any()
        self.add(f"{self.pick(('Softmax', 'LogSoftmax'))}<axis=-1>({x})", shape)


def feature_case(seed: int, ops: int = 14) -> Case:
    """A graph of about `ops` ops with one to three outputs."""
    builder = FeatureBuilder(seed, batch=(1, 1, 2)[seed % 3])
    n, c, h, w = builder.input_shape
    builder.values = {"x": (n, c, 4 + h, 4 + w)}
    makers: list[Callable[[], None]] = [
        *4 * [builder.product, builder.residual],
        *3 * [builder.layer_norm, builder.scale, builder.unary],
        *3 * [builder.to_features, builder.to_planes],
        *2 * [builder.reduce_features, builder.softmax_features, builder.conv],
        # These want rows in the usual order.
        builder.binary,
        builder.concat,
        builder.slice,
        builder.split,
        builder.reshape,
    ]
    while len(builder.nodes) < ops:
        makers[int(builder.rng.integers(len(makers)))]()
    names = list(builder.values)[1:]
    count = int(builder.rng.integers(0, 3))
    outputs = list(dict.fromkeys([*(str(builder.pick(names)) for _ in range(count)), names[-1]]))
    return Case(
        f"features_{seed}",
        builder.nodes,
        {"x": (n, c, 4 + h, 4 + w)},
        used_constants(builder),
        outputs=outputs,
        tolerance=NETWORK,
    )
