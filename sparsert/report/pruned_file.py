"""A model's file with random zeros in its layers: what a forecast measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsert.errors import ModelFormatError
from sparsert.formats import F32, I8
from sparsert.formats.layout import BLOCK_SHAPES
from sparsert.modelfile import ModelFile, NodeInfo, read, replace_weights
from sparsert.modelfile.tables import ALIGNMENT
from sparsert.modelfile.writer import BYTE_OPS, WEIGHTED_OPS, has_candidate
from sparsert.prune.random_zeros import fill_zeros, random_zeros
from sparsert.runtime.native_backend import aligned_bytes

Weights = NDArray[Any]
Bytes = NDArray[np.uint8]

# Pattern -> rows and columns of a block of the weight matrix.
PATTERNS: dict[str, tuple[int, int]] = {
    "unstructured": (1, 1),
    **{f"{rows}x{cols}": (rows, cols) for rows, cols in BLOCK_SHAPES if rows * cols > 1},
}


@dataclass(frozen=True)
class PrunableLayer:
    """A layer with a matrix of weights.

    Attributes:
        name: of its node.
        op: Conv, ConvTranspose, Linear or Recurrent (what multiplies the state); in int8
            QConv, also of a linear layer, or QDepthwise.
        node: index in the file.
        tensor: index of its weight in the file.
        shape: of the weight, in ONNX's order; of a Recurrent with two, of both below each other.
        groups: of a convolution.
        strides: of a convolution.
        left_alone: why it is not pruned; "" if it is.
        also: index of the second weight of a Recurrent, which is pruned alike.
        is_padded: the file has one group, with zeros where `groups` do not meet; they are no
            weights, and shape does not count them.
    """

    name: str
    op: str
    node: int
    tensor: int
    shape: tuple[int, ...]
    groups: int
    strides: tuple[int, ...]
    left_alone: str = ""
    also: int | None = None
    is_padded: bool = False

    @property
    def tensors(self) -> tuple[int, ...]:
        """Indices of all its weights."""
        return (self.tensor,) if self.also is None else (self.tensor, self.also)

    @property
    def is_int8(self) -> bool:
        """Whether the weight is i8, with the input channels last."""
        return self.op in BYTE_OPS


class PrunedFile:
    """Makes files of one model at several patterns and sparsities, in f32, or i8 as it is.

    Args:
        file: the bytes of a .sprt file (any buffer).
        label: what messages call it.
        exclude: layers to leave alone, by the name of the node or of the weight.
        all_layers: prune the first convolution and depthwise convolutions too.
        seed: of the places of the zeros.
        like: layers of the float model that this one was quantised from: what is left alone there,
            by name, is left alone here.

    Attributes:
        layers: every layer with a matrix of weights, in the order of the graph.
        dense: the file at 0 %; zeros that the pruned layers had are filled.

    Raises:
        ModelFormatError: the file is invalid.
        ValueError: there is no such layer, or none is left to prune.
    """

    def __init__(
        self,
        file: Any,
        label: str,
        exclude: Sequence[str],
        all_layers: bool,
        seed: int,
        like: Sequence[PrunableLayer] = (),
    ) -> None:
        self._seed = seed
        content = read(file, label)
        self.layers = find_layers(content, label, exclude, all_layers, like)
        self._pruned = {
            tensor: layer
            for layer in reversed(self.layers)
            if not layer.left_alone
            for tensor in layer.tensors
        }
        filled = {}
        for index, layer in self._pruned.items():
            weight = _compact(_decode(content, index, label), layer)
            dense = fill_zeros(weight, np.random.default_rng((seed, index)))
            if dense is not weight:
                filled[index] = _padded(dense, layer)
        narrow = any(
            t.is_constant and t.dtype == F32 and t.value_dtype != F32 for t in content.tensors
        )
        if filled or narrow:
            self.dense = _join(replace_weights(file, content, filled))
        else:
            self.dense = aligned_bytes(file)
        self._content = read(self.dense, label)

    def f16_bytes(self) -> int:
        """Returns the size of the dense file with weights as f16."""
        return _size(replace_weights(self.dense, self._content, {}, "f16"))

    def pruned(self, pattern: str, sparsity: float) -> tuple[Bytes, int]:
        """Returns the file with zeros, and the bytes of the same with weights as f16.

        Args:
            pattern: a key of PATTERNS.
            sparsity: share of zeros in each pruned layer.
        """
        arrays = _Lazy(self._pruned, lambda index: self._prune(index, pattern, sparsity))
        f16_bytes = _size(replace_weights(self.dense, self._content, arrays, "f16"))
        return _join(replace_weights(self.dense, self._content, arrays)), f16_bytes

    def _prune(self, index: int, pattern: str, sparsity: float) -> Weights:
        layer = self._pruned[index]
        rows, cols = PATTERNS[pattern]
        weight = _compact(self._content.tensors[index].decode(), layer)
        generator = np.random.default_rng((self._seed, index, rows, cols))
        if layer.is_int8 and cols > 1:
            # Of the channels of one tap, as the kernels group them.
            flat = weight.reshape(-1, weight.shape[-1])
            zeros = random_zeros(flat, sparsity, generator, block=(1, cols)).reshape(weight.shape)
            return _padded(zeros, layer)
        zeros = random_zeros(
            weight,
            sparsity,
            generator,
            block=(rows, cols),
            groups=layer.groups,
            transposed=layer.op == "ConvTranspose",
        )
        return _padded(zeros, layer)


class _Lazy(Mapping[int, Weights]):
    """Makes each array when it is asked for, so that a large model's are not all in memory."""

    def __init__(self, keys: Collection[int], make: Callable[[int], Weights]) -> None:
        self._keys = keys
        self._make = make

    def __getitem__(self, key: int) -> Weights:
        if key not in self._keys:
            raise KeyError(key)
        return self._make(key)

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def find_layers(
    content: ModelFile,
    label: str,
    exclude: Sequence[str],
    all_layers: bool,
    like: Sequence[PrunableLayer] = (),
) -> list[PrunableLayer]:
    """Returns every layer with a matrix of weights; PrunedFile documents arguments and errors."""
    decided = {layer.name: layer.left_alone for layer in like}
    groups_of = {layer.name: layer.groups for layer in like}
    known: set[str] = set()
    found: list[PrunableLayer] = []
    has_convolution = False
    for number, node in enumerate(content.nodes):
        is_int8 = node.op in BYTE_OPS
        index = node.inputs[1] if is_int8 or node.op in WEIGHTED_OPS else None
        weight = None if index is None else content.tensors[index]
        if index is None or weight is None or not weight.is_constant:
            continue
        shape = tuple(dim for dim in weight.dims or () if isinstance(dim, int))
        if len(shape) < 2 or 0 in shape or weight.dtype != (I8 if is_int8 else F32):
            continue
        if is_int8:
            shape = (shape[0], shape[-1], *shape[1:-1])
        groups = _groups(node, shape)
        name = node.name or f"{node.op}_{number}"
        is_padded = False
        if is_int8 and groups == 1:
            known_groups = groups_of.get(name)
            groups = known_groups or _groups_of_blocks(_decode(content, index, label))
            is_padded = groups > 1
        if is_padded:
            shape = (shape[0], shape[1] // groups, *shape[2:])
        # In int8 a linear layer is a QConv of one tap.
        is_convolution = node.op == "Conv" or (is_int8 and groups * math.prod(shape[2:]) > 1)
        names = {name, weight.name, weight.name.removesuffix(".weight")}
        known.add(name)
        reason = ""
        if name in decided:
            reason = decided[name]
        elif names & set(exclude):
            reason = "excluded"
        elif not all_layers and is_convolution and not has_convolution:
            reason = "first convolution"
        elif not all_layers and is_convolution and groups > 1 and shape[1] == 1:
            reason = "depthwise"
        has_convolution |= is_convolution
        known |= names & set(exclude)
        strides = _ints(node, "strides")
        also = node.inputs[3] if has_candidate(node) else None
        if also is not None:
            dims = content.tensors[also].dims or (0,)
            shape = (shape[0] + int(dims[0]), *shape[1:])
        found.append(
            PrunableLayer(
                *(name, node.op, number, index, shape, groups, strides, reason, also, is_padded)
            )
        )
    unknown = sorted(set(exclude) - known)
    if unknown:
        layers = ", ".join(layer.name for layer in found) or "none"
        raise ValueError(
            f"{label}: there is no layer {', '.join(map(repr, unknown))}; layers with weights: "
            f"{layers}"
        )
    return _share(found, label)


def _groups_of_blocks(weight: Weights) -> int:
    """Returns how many groups i8 [M, kernel, C] has that share no channels; 1: it is a whole."""
    meets = weight.any(axis=tuple(range(1, weight.ndim - 1)))
    rows, channels = meets.shape
    if not meets.any():
        return 1
    for groups in range(math.gcd(rows, channels), 1, -1):
        if rows % groups or channels % groups:
            continue
        blocks = meets.reshape(groups, rows // groups, groups, channels // groups)
        if not (blocks.any(axis=(1, 3)) & ~np.eye(groups, dtype=bool)).any():
            return groups
    return 1


def _compact(weight: Weights, layer: PrunableLayer) -> Weights:
    """Returns [M, kernel, C / groups] of a padded layer's [M, kernel, C], others as they are."""
    if not layer.is_padded:
        return weight
    parts = np.split(weight, layer.groups)
    width = weight.shape[-1] // layer.groups
    return np.concatenate([p[..., i * width : (i + 1) * width] for i, p in enumerate(parts)])


def _padded(weight: Weights, layer: PrunableLayer) -> Weights:
    """Does the reverse."""
    if not layer.is_padded:
        return weight
    width = weight.shape[-1]
    result = np.zeros((*weight.shape[:-1], width * layer.groups), weight.dtype)
    for i, part in enumerate(np.split(weight, layer.groups)):
        rows = slice(i * len(part), (i + 1) * len(part))
        result[rows, ..., i * width : (i + 1) * width] = part
    return result


def is_quantised(file: Any, label: str) -> bool:
    """Whether a .sprt file has layers in int8."""
    return any(node.op in BYTE_OPS for node in read(file, label).nodes)


def _join(parts: Sequence[bytes | bytearray | memoryview]) -> Bytes:
    """Joins the parts of a file at an address that the core takes without a copy."""
    size = _size(parts)
    room = np.empty(size + ALIGNMENT, np.uint8)
    joined = room[-room.ctypes.data % ALIGNMENT :][:size]
    used = 0
    for part in parts:
        joined[used : used + len(part)] = np.frombuffer(part, np.uint8)
        used += len(part)
    return joined


def _size(parts: Sequence[bytes | bytearray | memoryview]) -> int:
    return sum(len(part) for part in parts)


def _share(layers: list[PrunableLayer], label: str) -> list[PrunableLayer]:
    """Leaves a weight alone that a layer left alone uses too; checks that any is left to prune."""
    kept = {layer.tensor: layer for layer in layers if layer.left_alone}
    shared = [
        layer
        if layer.left_alone or layer.tensor not in kept
        else replace(layer, left_alone=f"shares its weight with {kept[layer.tensor].name}")
        for layer in layers
    ]
    if not layers:
        raise ValueError(
            f"{label}: no weights to prune (no convolution, linear or recurrent layer with "
            "constant weights)"
        )
    if all(layer.left_alone for layer in shared):
        reasons = ", ".join(f"{layer.name} ({layer.left_alone})" for layer in shared)
        raise ValueError(
            f"{label}: no weights to prune: every layer is left alone: {reasons}; all_layers=True "
            "prunes first and depthwise convolutions too"
        )
    return shared


def _groups(node: NodeInfo, shape: tuple[int, ...]) -> int:
    """Returns the groups of a convolution; 1 where they contradict the weight."""
    groups = node.attrs.get("group", 1)
    return groups if isinstance(groups, int) and groups > 0 and shape[0] % groups == 0 else 1


def _ints(node: NodeInfo, name: str) -> tuple[int, ...]:
    values = node.attrs.get(name, ())
    return tuple(v for v in values if isinstance(v, int)) if isinstance(values, tuple) else ()


def _decode(content: ModelFile, index: int, label: str) -> Weights:
    try:
        return content.tensors[index].decode()
    except ModelFormatError as error:
        raise ModelFormatError(f"{label}: {error}") from None
