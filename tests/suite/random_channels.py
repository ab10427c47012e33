"""Random graphs that join, split, reorder and reuse channels in every way, same for same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.suite.harness import NETWORK, Case
from tests.suite.random_graphs import Builder, used_constants


class ChannelBuilder(Builder):
    """Builder whose ops mostly keep height and width, so that values can be joined."""

    def same_conv(self) -> None:
        x, (n, c, h, w) = self.any()
        out = int(self.pick((1, 3, 4, 8)))
        kernel = int(self.pick((1, 1, 3)))
        pads = [kernel // 2] * 4
        self.add(f"Conv<pads={pads}>({x}, {self.weights(out, c, kernel, kernel)})", (n, out, h, w))

    def depthwise(self) -> None:
        x, (n, c, h, w) = self.any()
        kernel = int(self.pick((3, 5)))
        weights = self.weights(c, 1, kernel, kernel)
        self.add(f"Conv<group={c}, pads={[kernel // 2] * 4}>({x}, {weights})", (n, c, h, w))

    def same_pool(self) -> None:
        x, shape = self.any()
        op = self.pick(("MaxPool", "AveragePool"))
        self.add(f"{op}<kernel_shape=[3,3], pads=[1,1,1,1]>({x})", shape)

    def join(self) -> None:
        x, shape = self.any()
        fits = [
            name
            for name, other in self.values.items()
            if other[0] == shape[0] and other[2:] == shape[2:] and len(other) == len(shape)
        ]
        names = [x, *(str(self.pick(fits)) for _ in range(int(self.rng.integers(1, 4))))]
        self.rng.shuffle(names)
        total = sum(self.values[name][1] for name in names)
        if total <= 64:
            self.add(f"Concat<axis=1>({', '.join(names)})", (shape[0], total, *shape[2:]))

    def grow(self) -> None:
        """As in a dense block: each result joins all that came before it."""
        x, shape = self.any()
        names = [x]
        for _ in range(int(self.rng.integers(2, 4))):
            channels = sum(self.values[name][1] for name in names)
            if channels > 48:
                return
            joined = names[0]
            if len(names) > 1:
                self.add(f"Concat<axis=1>({', '.join(names)})", (shape[0], channels, *shape[2:]))
                joined = list(self.values)[-1]
            weights = self.weights(4, channels, 1, 1)
            self.add(f"Conv({joined}, {weights})", (shape[0], 4, *shape[2:]))
            names.append(list(self.values)[-1])

    def part(self) -> None:
        x, shape = self.any()
        begin = int(self.rng.integers(shape[1]))
        end = int(self.rng.integers(begin + 1, shape[1] + 1))
        names = [self.constant(np.array([value])) for value in (begin, end, 1)]
        self.add(f"Slice({x}, {', '.join(names)})", (shape[0], end - begin, *shape[2:]))

    def images(self) -> None:
        x, shape = self.any()
        begin = int(self.rng.integers(shape[0]))
        names = [self.constant(np.array([value])) for value in (begin, begin + 1, 0)]
        self.add(f"Slice({x}, {', '.join(names)})", (1, *shape[1:]))

    def shuffle(self) -> None:
        x, (n, c, h, w) = self.any()
        groups = [g for g in (2, 3, 4) if c % g == 0]
        if not groups:
            return
        group = int(self.pick(groups))
        apart = self.constant(np.array([n, group, c // group, h, w]))
        together = self.constant(np.array([n, c, h, w]))
        number = len(self.nodes)
        self.nodes.append(f"p{number} = Reshape({x}, {apart})")
        self.nodes.append(f"q{number} = Transpose<perm=[0,2,1,3,4]>(p{number})")
        self.add(f"Reshape(q{number}, {together})", (n, c, h, w))

    def shuffled_join(self) -> None:
        """As in ShuffleNetV2: halves are joined, then interleaved."""
        x, shape = self.any()
        fits = [name for name, other in self.values.items() if other == shape]
        if 2 * shape[1] > 64:
            return
        self.add(f"Concat<axis=1>({x}, {self.pick(fits)})", (shape[0], 2 * shape[1], *shape[2:]))
        joined, (n, c, h, w) = list(self.values.items())[-1]
        apart = self.constant(np.array([n, 2, c // 2, h, w]))
        together = self.constant(np.array([n, c, h, w]))
        self.nodes.append(f"p{joined} = Reshape({joined}, {apart})")
        self.nodes.append(f"q{joined} = Transpose<perm=[0,2,1,3,4]>(p{joined})")
        if self.rng.random() < 0.8:
            del self.values[joined]  # nothing else reads it
        self.add(f"Reshape(q{joined}, {together})", (n, c, h, w))

    def reorder(self) -> None:
        x, shape = self.any()
        indices = self.constant(self.rng.permutation(shape[1]))
        self.add(f"Gather<axis=1>({x}, {indices})", shape)


def channel_case(seed: int, ops: int = 16) -> Case:
    """A graph of about `ops` ops with one to four outputs, many of them views."""
    builder = ChannelBuilder(seed, batch=(1, 3, 2)[seed % 3])
    makers: list[Callable[[], None]] = [
        builder.same_conv,
        builder.same_conv,
        builder.same_conv,
        builder.depthwise,
        builder.unary,
        builder.binary,
        builder.same_pool,
        builder.pool,
        builder.join,
        builder.join,
        builder.join,
        builder.grow,
        builder.split,
        builder.split,
        builder.part,
        builder.part,
        builder.images,
        builder.shuffle,
        builder.shuffled_join,
        builder.shuffled_join,
        builder.reorder,
        builder.reshape,
        builder.resize,
        builder.reduce,
        builder.normalize,
        builder.softmax,
        builder.matmul,
    ]
    while len(builder.nodes) < ops:
        makers[int(builder.rng.integers(len(makers)))]()
    names = list(builder.values)[1:]
    count = int(builder.rng.integers(0, 4))
    outputs = list(dict.fromkeys([*(str(builder.pick(names)) for _ in range(count)), names[-1]]))
    return Case(
        f"channels_{seed}",
        builder.nodes,
        {"x": builder.input_shape},
        used_constants(builder),
        outputs=outputs,
        tolerance=NETWORK,
    )
