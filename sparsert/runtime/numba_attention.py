"""Steps of attention, over floats and over packed bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.kernels import attention
from sparsert.kernels.lanes import LANES
from sparsert.runtime.numba_ops import (
    PACKED_BYTES,
    Node,
    Step,
    StepWithoutWeights,
    as_floats,
    makes,
)

if TYPE_CHECKING:
    from sparsert.runtime.numba_room import Room

_Arrays = Sequence[Any]


def _mask_of(mask: np.ndarray | None, shape: tuple[int, ...], other: np.ndarray, room: Room) -> Any:
    """The mask of scores of some shape as kernels take it, and how far its elements are apart."""
    if mask is None:
        return other, (0, 0, 0, 0)
    mask = np.ascontiguousarray(mask)
    steps = tuple(step // 4 for step in np.broadcast_to(mask, shape).strides)
    return room.plain(mask), steps


@makes("Attention", "sparsert")
def _make_attention(node: Node) -> Step | str:
    if any(dtype != np.float32 for dtype in node.inputs if dtype is not None):
        return "no kernel of Numba for this type"
    return _Attention(node)


class _Attention(StepWithoutWeights):
    """softmax(alpha Q K' + mask) V of each head."""

    kernel = f"attention_f32_{LANES}"

    def __init__(self, node: Node) -> None:
        self._heads = node.get("heads")
        self._kv_heads = node.get("kv_heads") or self._heads
        self._alpha = np.float32(node.get("alpha", 1.0))
        self._zero_nan = int(bool(node.get("zero_nan")))

    def _heads_of(self, x: np.ndarray, heads: int) -> np.ndarray:
        """Returns [images, heads, tokens, features], of which the features are contiguous."""
        x = np.ascontiguousarray(x)
        return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2) if self._heads else x

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        q, k, v = (
            self._heads_of(x, heads)
            for x, heads in zip(
                inputs[:3], (self._heads, self._kv_heads, self._kv_heads), strict=True
            )
        )
        images, heads, queries, size = q.shape
        keys, value_size = v.shape[2:]
        if k.shape != (images, v.shape[1], keys, size) or heads % k.shape[1]:
            raise ValueError(f"Q {q.shape}, K {k.shape} and V {v.shape} do not fit")
        shape = (images, heads, queries, value_size)
        if self._heads:
            result = room.empty((images, queries, heads * value_size))
            y = result.reshape(images, queries, heads, value_size).swapaxes(1, 2)
        else:
            result = y = room.empty(shape)
        steps = np.array([[s // 4 for s in x.strides[:3]] for x in (q, k, v, y)], np.int64)
        mask = inputs[3] if len(inputs) > 3 else None
        flat = result.reshape(-1)
        other, mask_steps = _mask_of(mask, (images, heads, queries, keys), flat, room)
        flags = (int(mask is not None), self._zero_nan)
        sizes = (heads, k.shape[1], queries, keys, size, value_size, *flags)
        parts = [room.plain(x) for x in inputs[:3]]
        arguments = (*parts, other, flat, sizes, steps, mask_steps, self._alpha)
        tasks = images * heads * -(-queries // attention.BLOCK)
        work = images * heads * queries * keys * (size + value_size) // LANES
        room.launch(attention.attention, arguments, tasks, work)
        return (result,)


@makes("QAttention", "sparsert")
def _make_qattention(node: Node) -> Step | str:
    steps = node.constants[3]
    return _QAttention(node, steps) if steps is not None else "its steps are not constant"


class _QAttention(StepWithoutWeights):
    """Attention of bytes, rounded after each of its steps."""

    kernel = f"qattention_i8_{LANES}"
    constants: Sequence[int] = (3,)

    def __init__(self, node: Node, steps: np.ndarray) -> None:
        self._heads, self._zeros = node.get("heads"), tuple(node.get("quant"))
        self._to_bytes = node.get("to") == PACKED_BYTES
        with np.errstate(divide="ignore"):
            inverse = np.float32(1) / steps[:, 1]
        self._steps = np.insert(steps.astype(np.float32), 2, inverse, axis=1)

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        q, k, v, *rest = inputs
        images, planes, queries = q.shape
        value_planes, keys = v.shape[1:]
        heads, mask = self._heads, rest[0] if rest else None
        if k.shape != (images, planes, keys) or planes % heads or value_planes % heads:
            raise ValueError(f"Q {q.shape}, K {k.shape} and V {v.shape} do not fit")
        planes_of_y = value_planes if self._to_bytes else 4 * value_planes
        y = room.empty((images, planes_of_y, queries), np.uint32 if self._to_bytes else np.float32)
        flat = as_floats(y)
        other, mask_steps = _mask_of(mask, (images, heads, queries, keys), flat, room)
        flags = (int(mask is not None), int(self._to_bytes))
        sizes = (heads, planes // heads, value_planes // heads, queries, keys, *flags)
        parts = (room.plain(q), room.plain(k), room.plain(v).view(np.uint8))
        arguments = (*parts, other, flat, sizes, self._zeros, self._steps, mask_steps)
        work = images * queries * keys * (planes + value_planes) // LANES
        room.launch(attention.qattention, arguments, images * heads, work)
        return (y,)
