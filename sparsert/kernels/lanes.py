"""Vectors of floats for Numba: tiles that stay in registers, as wide as this machine's.

Numba keeps small arrays in memory. A Tile is a value instead, some vectors side by side, so LLVM
keeps it in registers; the functions below are all that can be done with one. Written once, they
compile to what the machine has: 16, 8 or 4 floats in a vector.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_cast
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, register_model

from sparsert.kernels.compiling import config, maker


def _lanes() -> int:
    features = config.CPU_FEATURES
    if features is None:
        features = "" if config.CPU_NAME == "generic" else llvm.get_host_cpu_features().flatten()
    if "+avx512f" in features:
        return 16
    return 8 if "+avx" in features else 4


# Floats in a vector.
LANES = _lanes()
_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)


def intrinsic(function: Any) -> Any:
    """Makes a function of what writes its LLVM code."""
    return numba_intrinsic(function)


class TileType(types.Type):
    """Some vectors of floats side by side."""

    def __init__(self, vectors: int) -> None:
        self.vectors = vectors
        super().__init__(name=f"Tile({vectors}x{LANES})")


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: TileType) -> None:
        super().__init__(manager, kind, ir.ArrayType(_VECTOR, kind.vectors))


@lower_cast(TileType, TileType)
def _same(context: Any, builder: Any, source: Any, target: Any, value: Any) -> Any:
    return value


def splat(builder: Any, value: Any, kind: Any = _VECTOR) -> Any:
    """A vector with a value in each lane."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _INT(0))
    places = ir.Constant(ir.VectorType(_INT, kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), places)


def vectors_of(builder: Any, tile: Any) -> list[Any]:
    """The vectors of a tile, of floats or integers."""
    return [builder.extract_value(tile, i) for i in range(tile.type.count)]


def tile_of(builder: Any, vectors: list[Any]) -> Any:
    """A tile of some vectors."""
    tile = ir.Constant(ir.ArrayType(vectors[0].type, len(vectors)), ir.Undefined)
    for i, vector in enumerate(vectors):
        tile = builder.insert_value(tile, vector, i)
    return tile


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [at])


def _vector_pointer(builder: Any, pointer: Any, index: int) -> Any:
    there = builder.gep(pointer, [ir.IntType(64)(index * LANES)])
    return builder.bitcast(there, ir.PointerType(_VECTOR))


def _load(builder: Any, pointer: Any, index: int) -> Any:
    return builder.load(_vector_pointer(builder, pointer, index), align=4)


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    name = f"llvm.fmuladd.v{LANES}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _first(builder: Any, count: Any, index: int) -> Any:
    """The mask of those lanes of vector `index` that are among the first `count` of a tile."""
    kind = ir.VectorType(_INT, LANES)
    lanes = ir.Constant(kind, [index * LANES + i for i in range(LANES)])
    return builder.icmp_signed("<", lanes, splat(builder, builder.trunc(count, _INT), kind))


def _masked(builder: Any, name: str, kind: Any) -> Any:
    name = f"llvm.masked.{name}.v{LANES}f32.p0"
    return cgutils.get_or_insert_function(builder.module, kind, name)


_ALIGN = _INT(4)


@intrinsic
def item(typing: Any, array: Any, at: Any) -> Any:
    """Returns array[at]; unlike that, does not ask whether `at` is negative."""
    is_integer = isinstance(array.dtype, types.Integer) and array.dtype != types.int64
    kind = types.intp if is_integer else array.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(context, builder, array, args[0], args[1]))
        return builder.sext(value, ir.IntType(64)) if is_integer else value

    return kind(array, types.intp), generate


@intrinsic
def zeros(typing: Any, count: Any) -> Any:
    """Returns a tile of `count` (a literal) vectors of zeros."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    kind = TileType(count.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(ir.ArrayType(_VECTOR, kind.vectors), None)

    return kind(count), generate


@intrinsic
def add_product(typing: Any, tile: Any, factor: Any, array: Any, at: Any) -> Any:
    """Returns tile + factor * array[at:]; reads whole vectors."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[2], args[3])
        factor = splat(builder, args[1])
        sums = [
            _fused(builder, factor, _load(builder, pointer, i), old)
            for i, old in enumerate(vectors_of(builder, args[0]))
        ]
        return tile_of(builder, sums)

    return tile(tile, types.float32, array, types.intp), generate


@intrinsic
def multiply_add(typing: Any, tile: Any, a: Any, a_at: Any, b: Any, b_at: Any) -> Any:
    """Returns tile + a[a_at:] * b[b_at:], lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        left = _pointer(context, builder, a, args[1], args[2])
        right = _pointer(context, builder, b, args[3], args[4])
        sums = [
            _fused(builder, _load(builder, left, i), _load(builder, right, i), old)
            for i, old in enumerate(vectors_of(builder, args[0]))
        ]
        return tile_of(builder, sums)

    return tile(tile, a, types.intp, b, types.intp), generate


@intrinsic
def load(typing: Any, like: Any, array: Any, at: Any) -> Any:
    """Returns array[at:] as a tile of the size of `like`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[1], args[2])
        return tile_of(builder, [_load(builder, pointer, i) for i in range(like.vectors)])

    return like(like, array, types.intp), generate


@intrinsic
def load_within(typing: Any, like: Any, array: Any, at: Any, low: Any, high: Any, fill: Any) -> Any:
    """Returns array[at + i] for each i from `low` to `high` of a tile's elements, else `fill`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[1], args[2])
        kind = ir.FunctionType(_VECTOR, [ir.PointerType(_VECTOR), _INT, _MASK, _VECTOR])
        function = _masked(builder, "load", kind)
        other = splat(builder, args[5])
        vectors = []
        for i in range(like.vectors):
            before, until = (_first(builder, bound, i) for bound in args[3:5])
            mask = builder.and_(builder.not_(before), until)
            there = _vector_pointer(builder, pointer, i)
            vectors.append(builder.call(function, [there, _ALIGN, mask, other]))
        return tile_of(builder, vectors)

    return like(like, array, types.intp, types.intp, types.intp, types.float32), generate


@intrinsic
def evens(typing: Any, tile: Any) -> Any:
    """Returns every second element of a tile of two vectors, as a tile of one."""
    kind = TileType(1)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        low, high = vectors_of(builder, args[0])
        lanes = ir.Constant(ir.VectorType(_INT, LANES), [2 * i for i in range(LANES)])
        return tile_of(builder, [builder.shuffle_vector(low, high, lanes)])

    return kind(tile), generate


@intrinsic
def load_first(typing: Any, like: Any, array: Any, at: Any, count: Any) -> Any:
    """Returns the first `count` of array[at:] and zeros; touches no more of the array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[1], args[2])
        kind = ir.FunctionType(_VECTOR, [ir.PointerType(_VECTOR), _INT, _MASK, _VECTOR])
        function = _masked(builder, "load", kind)
        zero = ir.Constant(_VECTOR, None)
        vectors = []
        for i in range(like.vectors):
            there = _vector_pointer(builder, pointer, i)
            mask = _first(builder, args[3], i)
            vectors.append(builder.call(function, [there, _ALIGN, mask, zero]))
        return tile_of(builder, vectors)

    return like(like, array, types.intp, types.intp), generate


@intrinsic
def store(typing: Any, tile: Any, array: Any, at: Any) -> Any:
    """Writes a tile to array[at:]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[1], args[2])
        for i, vector in enumerate(vectors_of(builder, args[0])):
            builder.store(vector, _vector_pointer(builder, pointer, i), align=4)
        return context.get_dummy_value()

    return types.void(tile, array, types.intp), generate


@intrinsic
def store_first(typing: Any, tile: Any, array: Any, at: Any, count: Any) -> Any:
    """Writes the first `count` elements of a tile to array[at:]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[1], args[2])
        kind = ir.FunctionType(ir.VoidType(), [_VECTOR, ir.PointerType(_VECTOR), _INT, _MASK])
        function = _masked(builder, "store", kind)
        for i, vector in enumerate(vectors_of(builder, args[0])):
            there = _vector_pointer(builder, pointer, i)
            builder.call(function, [vector, there, _ALIGN, _first(builder, args[3], i)])
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp), generate


def _pairs(builder: Any, args: Any, value: Any) -> list[tuple[Any, Any]]:
    """The vectors of a tile, each with that of another tile or with a number in each lane."""
    first = vectors_of(builder, args[0])
    if isinstance(value, TileType):
        return list(zip(first, vectors_of(builder, args[1]), strict=True))
    return [(vector, splat(builder, args[1])) for vector in first]


def _tile_or_number(value: Any) -> Any:
    return value if isinstance(value, TileType) else types.float32


@intrinsic
def plus(typing: Any, tile: Any, value: Any) -> Any:
    """Returns tile + value; value is a number or a tile."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return tile_of(builder, [builder.fadd(a, b) for a, b in _pairs(builder, args, value)])

    return tile(tile, _tile_or_number(value)), generate


@intrinsic
def times(typing: Any, tile: Any, value: Any) -> Any:
    """Returns a tile of floats times a number, rounded on its own."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        other = splat(builder, args[1])
        return tile_of(builder, [builder.fmul(v, other) for v in vectors_of(builder, args[0])])

    return tile(tile, types.float32), generate


@intrinsic
def over(typing: Any, tile: Any, value: Any) -> Any:
    """Returns a tile of floats divided by another one, or by a number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return tile_of(builder, [builder.fdiv(a, b) for a, b in _pairs(builder, args, value)])

    return tile(tile, _tile_or_number(value)), generate


@intrinsic
def between(typing: Any, tile: Any, low: Any, high: Any) -> Any:
    """Returns the tile with what is below `low` or above `high` replaced by them; NaN stays."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        least, most = splat(builder, args[1]), splat(builder, args[2])
        vectors = []
        for vector in vectors_of(builder, args[0]):
            below = builder.fcmp_ordered("<", vector, least)
            vector = builder.select(below, least, vector)
            above = builder.fcmp_ordered(">", vector, most)
            vectors.append(builder.select(above, most, vector))
        return tile_of(builder, vectors)

    return tile(tile, types.float32, types.float32), generate


@intrinsic
def add_gathered(typing: Any, tile: Any, values: Any, at: Any, array: Any, places: Any) -> Any:
    """Returns tile + values[at:] * array[places[at:]], lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        factors = _pointer(context, builder, values, args[1], args[2])
        indices = _pointer(context, builder, places, args[4], args[2])
        data = context.make_array(array)(context, builder, args[3]).data
        integers = ir.VectorType(_INT, LANES)
        sums = []
        for i, old in enumerate(vectors_of(builder, args[0])):
            there = builder.gep(indices, [ir.IntType(64)(i * LANES)])
            there = builder.bitcast(there, ir.PointerType(integers))
            index = builder.load(there, align=4)
            vector = ir.Constant(_VECTOR, ir.Undefined)
            vector = gather(builder, data, index)
            sums.append(_fused(builder, _load(builder, factors, i), vector, old))
        return tile_of(builder, sums)

    return tile(tile, values, types.intp, array, places), generate


def gather(builder: Any, data: Any, index: Any) -> Any:
    """Loads data[index] of each lane; LLVM makes a gather of it where the machine has one."""
    pointers = ir.VectorType(ir.PointerType(_FLOAT), LANES)
    spread = ir.Constant(pointers, ir.Undefined)
    wide = builder.sext(index, ir.VectorType(ir.IntType(64), LANES))
    for i in range(LANES):
        there = builder.gep(data, [builder.extract_element(wide, _INT(i))])
        spread = builder.insert_element(spread, there, _INT(i))
    kind = ir.FunctionType(_VECTOR, [pointers, _INT, _MASK, _VECTOR])
    name = f"llvm.masked.gather.v{LANES}f32.v{LANES}p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    every = ir.Constant(_MASK, [1] * LANES)
    return builder.call(function, [spread, _ALIGN, every, ir.Constant(_VECTOR, None)])


@intrinsic
def add_fours(
    typing: Any, tile: Any, values: Any, at: Any, array: Any, places: Any, place: Any
) -> Any:
    """Returns tile + values[at:] * array[places[place:]], each place for four successive lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        factors = _pointer(context, builder, values, args[1], args[2])
        indices = _pointer(context, builder, places, args[4], args[5])
        data = context.make_array(array)(context, builder, args[3]).data
        spread = ir.Constant(_VECTOR, ir.Undefined)
        for i in range(LANES // 4):
            index = builder.load(builder.gep(indices, [_INT(i)]))
            element = builder.load(builder.gep(data, [builder.sext(index, ir.IntType(64))]))
            spread = builder.insert_element(spread, element, _INT(4 * i))
        lanes = ir.Constant(ir.VectorType(_INT, LANES), [i // 4 * 4 for i in range(LANES)])
        spread = builder.shuffle_vector(spread, ir.Constant(_VECTOR, ir.Undefined), lanes)
        (old,) = vectors_of(builder, args[0])
        return tile_of(builder, [_fused(builder, _load(builder, factors, 0), spread, old)])

    return tile(tile, values, types.intp, array, places, types.intp), generate


@intrinsic
def total(typing: Any, tile: Any) -> Any:
    """Returns the sum of all elements of a tile."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = vectors_of(builder, args[0])
        while len(vectors) > 1:
            pairs = [builder.fadd(a, b) for a, b in zip(vectors[::2], vectors[1::2], strict=False)]
            vectors = pairs + vectors[len(pairs) * 2 :]
        vector = vectors[0]
        width = LANES
        while width > 1:
            width //= 2
            halves = [
                ir.Constant(ir.VectorType(_INT, width), list(range(start, start + width)))
                for start in (0, width)
            ]
            low, high = (
                builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), places)
                for places in halves
            )
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, _INT(0))

    return types.float32(tile), generate


@intrinsic
def larger(typing: Any, tile: Any, array: Any, at: Any) -> Any:
    """Returns the larger of the tile and array[at:], lane by lane; NaN wins."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[1], args[2])
        vectors = []
        for i, old in enumerate(vectors_of(builder, args[0])):
            new = _load(builder, pointer, i)
            keep = builder.fcmp_unordered(">=", old, new)
            is_number = builder.fcmp_ordered("ord", new, new)
            kept = builder.select(keep, old, new)
            vectors.append(builder.select(is_number, kept, new))
        return tile_of(builder, vectors)

    return tile(tile, array, types.intp), generate


@intrinsic
def load_rows(typing: Any, like: Any, array: Any, at: Any, step: Any) -> Any:
    """Returns one vector of each of the rows that begin at array[at], array[at + step], ..."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[1], args[2])
        vectors = []
        for _ in range(like.vectors):
            vectors.append(_load(builder, pointer, 0))
            pointer = builder.gep(pointer, [args[3]])
        return tile_of(builder, vectors)

    return like(like, array, types.intp, types.intp), generate


@intrinsic
def store_rows(typing: Any, tile: Any, array: Any, at: Any, step: Any, rows: Any) -> Any:
    """Writes the first `rows` vectors of a tile to array[at:], array[at + step:], ..."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[1], args[2])
        for i, vector in enumerate(vectors_of(builder, args[0])):
            is_row = builder.icmp_signed("<", ir.IntType(64)(i), args[4])
            with builder.if_then(is_row):
                builder.store(vector, _vector_pointer(builder, pointer, 0), align=4)
            pointer = builder.gep(pointer, [args[3]])
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp, types.intp), generate


@intrinsic
def turned(typing: Any, tile: Any) -> Any:
    """Returns the transpose of a square tile: LANES vectors."""
    if tile.vectors != LANES:
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows = vectors_of(builder, args[0])
        step = 1
        while step < LANES:
            low = [i if not i & step else LANES + i - step for i in range(LANES)]
            high = [i + step if not i & step else LANES + i for i in range(LANES)]
            kind = ir.VectorType(_INT, LANES)
            for i in range(LANES):
                if not i & step:
                    a, b = rows[i], rows[i + step]
                    rows[i] = builder.shuffle_vector(a, b, ir.Constant(kind, low))
                    rows[i + step] = builder.shuffle_vector(a, b, ir.Constant(kind, high))
            step *= 2
        return tile_of(builder, rows)

    return tile(tile), generate


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Returns the number of the lowest bit that is set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@maker
def aligned(count: int) -> Any:
    """Returns a new array of floats that begins with a cache line."""
    array = np.empty(count + 16, np.float32)
    first = (-array.ctypes.data % 64) // 4
    return array[first : first + count]
