"""Vectors of integers for Numba, beside those of floats in lanes.py: sums of products of bytes.

An element of a packed tensor is a u32: the bytes of four successive channels. Four signed weights
lie in an i32 the same way, and a dot product of the two adds to one lane of 32 bits, exactly: with
the instruction for it (VNNI) where there is one, by products of 16 bits on other x86 with AVX2, and
byte by byte elsewhere. Loads and stores are those of lanes.py: `ints` and `floats` say what the
bits of a tile are.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_cast
from numba.extending import models, register_model

from sparsert.kernels.compiling import config
from sparsert.kernels.lanes import (
    LANES,
    TileType,
    gather,
    intrinsic,
    splat,
    tile_of,
    vectors_of,
)

_INT = ir.IntType(32)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(_INT, LANES)
_PAIRS = ir.VectorType(ir.IntType(16), 2 * LANES)
_BYTES = ir.VectorType(ir.IntType(8), 4 * LANES)


def _dot_kind() -> str:
    """Which instructions add products of bytes here: vnni, madd or plain."""
    features = config.CPU_FEATURES
    if features is None:
        features = "" if config.CPU_NAME == "generic" else llvm.get_host_cpu_features().flatten()
    known = set(features.split(","))
    if LANES == 16:
        if "+avx512vnni" in known:
            return "vnni"
        return "madd" if "+avx512bw" in known else "plain"
    if LANES == 8 and "+avx2" in known:
        return "vnni" if {"+avx512vnni", "+avx512vl"} <= known or "+avxvnni" in known else "madd"
    return "plain"


DOT = _dot_kind()


class IntTileType(types.Type):
    """Some vectors of i32 side by side."""

    def __init__(self, vectors: int) -> None:
        self.vectors = vectors
        super().__init__(name=f"IntTile({vectors}x{LANES})")


@register_model(IntTileType)
class _IntTileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: IntTileType) -> None:
        super().__init__(manager, kind, ir.ArrayType(_INTS, kind.vectors))


@lower_cast(IntTileType, IntTileType)
def _same(context: Any, builder: Any, source: Any, target: Any, value: Any) -> Any:
    return value


def _constant(value: int, kind: Any = _INTS) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _load(context: Any, builder: Any, kind: Any, array: Any, at: Any, index: int) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    there = builder.gep(data, [builder.add(at, at.type(index * LANES))])
    return builder.load(builder.bitcast(there, ir.PointerType(_INTS)), align=4)


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _dot(builder: Any, acc: Any, x: Any, w: Any) -> Any:
    """Returns acc plus the sum of the products of each lane's unsigned and signed bytes."""
    if DOT == "vnni":
        return _call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * LANES}", _INTS, acc, x, w)
    if DOT == "madd":
        name = "llvm.x86.avx512.pmaddw.d.512" if LANES == 16 else "llvm.x86.avx2.pmadd.wd"
        pairs, factors = builder.bitcast(x, _PAIRS), builder.bitcast(w, _PAIRS)
        eight = _constant(8, _PAIRS)
        even = builder.ashr(builder.shl(factors, eight), eight)
        low = _call(builder, name, _INTS, builder.and_(pairs, _constant(255, _PAIRS)), even)
        odd = builder.ashr(factors, eight)
        high = _call(builder, name, _INTS, builder.lshr(pairs, eight), odd)
        return builder.add(acc, builder.add(low, high))
    for i in range(4):
        part = builder.and_(builder.lshr(x, _constant(8 * i)), _constant(255))
        factor = builder.ashr(builder.shl(w, _constant(24 - 8 * i)), _constant(24))
        acc = builder.add(acc, builder.mul(part, factor))
    return acc


@intrinsic
def no_sums(typing: Any, count: Any) -> Any:
    """Returns a tile of `count` (a literal) vectors of zeros."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    kind = IntTileType(count.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(ir.ArrayType(_INTS, kind.vectors), None)

    return kind(count), generate


@intrinsic
def add_dot(typing: Any, tile: Any, weights: Any, array: Any, at: Any) -> Any:
    """Returns tile + weights . array[at:], four bytes a lane; reads whole vectors."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = splat(builder, args[1], _INTS)
        sums = [
            _dot(builder, old, _load(context, builder, array, args[2], args[3], i), w)
            for i, old in enumerate(vectors_of(builder, args[0]))
        ]
        return tile_of(builder, sums)

    return tile(tile, types.int32, array, types.intp), generate


@intrinsic
def add_dot_of(typing: Any, tile: Any, weights: Any, other: Any) -> Any:
    """Returns tile + weights . other, four bytes a lane; `other` is a tile of integers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = splat(builder, args[1], _INTS)
        pairs = zip(vectors_of(builder, args[0]), vectors_of(builder, args[2]), strict=True)
        return tile_of(builder, [_dot(builder, old, x, w) for old, x in pairs])

    return tile(tile, types.int32, other), generate


@intrinsic
def add_dots(typing: Any, tile: Any, values: Any, p: Any, array: Any, at: Any) -> Any:
    """Returns tile + values[p:] . array[at:], lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums = []
        for i, old in enumerate(vectors_of(builder, args[0])):
            w = _load(context, builder, values, args[1], args[2], i)
            x = _load(context, builder, array, args[3], args[4], i)
            sums.append(_dot(builder, old, x, w))
        return tile_of(builder, sums)

    return tile(tile, values, types.intp, array, types.intp), generate


@intrinsic
def add_gathered_dots(typing: Any, tile: Any, values: Any, p: Any, array: Any, places: Any) -> Any:
    """Returns tile + values[p:] . array[places[p:]], lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[3]).data
        data = builder.bitcast(data, ir.PointerType(ir.FloatType()))
        sums = []
        for i, old in enumerate(vectors_of(builder, args[0])):
            w = _load(context, builder, values, args[1], args[2], i)
            index = _load(context, builder, places, args[4], args[2], i)
            x = builder.bitcast(gather(builder, data, index), _INTS)
            sums.append(_dot(builder, old, x, w))
        return tile_of(builder, sums)

    return tile(tile, values, types.intp, array, places), generate


@intrinsic
def sum_of(typing: Any, tile: Any) -> Any:
    """Returns the sum of all elements of a tile of integers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = vectors_of(builder, args[0])
        total = vectors[0]
        for vector in vectors[1:]:
            total = builder.add(total, vector)
        return _call(builder, f"llvm.vector.reduce.add.v{LANES}i32", _INT, total)

    return types.int32(tile), generate


@intrinsic
def ints(typing: Any, tile: Any) -> Any:
    """Returns the tile of integers that has the bits of a tile of floats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return tile_of(builder, [builder.bitcast(v, _INTS) for v in vectors_of(builder, args[0])])

    return IntTileType(tile.vectors)(tile), generate


@intrinsic
def floats(typing: Any, tile: Any) -> Any:
    """Returns the tile of floats that has the bits of a tile of integers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return tile_of(builder, [builder.bitcast(v, _FLOATS) for v in vectors_of(builder, args[0])])

    return TileType(tile.vectors)(tile), generate


@intrinsic
def to_floats(typing: Any, tile: Any) -> Any:
    """Returns integers as floats, rounded to the nearest."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return tile_of(builder, [builder.sitofp(v, _FLOATS) for v in vectors_of(builder, args[0])])

    return TileType(tile.vectors)(tile), generate


@intrinsic
def plus_int(typing: Any, tile: Any, value: Any) -> Any:
    """Returns a tile of integers plus a number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        other = splat(builder, args[1], _INTS)
        return tile_of(builder, [builder.add(v, other) for v in vectors_of(builder, args[0])])

    return tile(tile, types.int32), generate


@intrinsic
def rounded(typing: Any, tile: Any) -> Any:
    """Returns floats rounded to integers, halves to even."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = f"llvm.rint.v{LANES}f32"
        vectors = [_call(builder, name, _FLOATS, v) for v in vectors_of(builder, args[0])]
        return tile_of(builder, vectors)

    return tile(tile), generate


@intrinsic
def byte_of(typing: Any, tile: Any, place: Any) -> Any:
    """Returns byte `place` (0: the lowest) of each element of a tile of integers, as floats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shift = splat(builder, builder.mul(builder.trunc(args[1], _INT), _INT(8)), _INTS)
        parts = []
        for vector in vectors_of(builder, args[0]):
            byte = builder.and_(builder.lshr(vector, shift), _constant(255))
            parts.append(builder.sitofp(byte, _FLOATS))
        return tile_of(builder, parts)

    return TileType(tile.vectors)(tile, types.intp), generate


@intrinsic
def with_byte(typing: Any, tile: Any, levels: Any, place: Any) -> Any:
    """Returns a tile of integers with byte `place`, which was 0, set to floats from 0 to 255."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shift = splat(builder, builder.mul(builder.trunc(args[2], _INT), _INT(8)), _INTS)
        pairs = zip(vectors_of(builder, args[0]), vectors_of(builder, args[1]), strict=True)
        vectors = []
        for old, new in pairs:
            byte = builder.and_(builder.fptosi(new, _INTS), _constant(255))  # NaN may be anything
            vectors.append(builder.or_(old, builder.shl(byte, shift)))
        return tile_of(builder, vectors)

    return tile(tile, levels, types.intp), generate


@intrinsic
def larger_bytes(typing: Any, tile: Any, array: Any, at: Any) -> Any:
    """Returns the larger of the bytes of the tile and of array[at:]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = []
        for i, vector in enumerate(vectors_of(builder, args[0])):
            old = builder.bitcast(vector, _BYTES)
            new = _load(context, builder, array, args[1], args[2], i)
            new = builder.bitcast(new, _BYTES)
            larger = builder.select(builder.icmp_unsigned(">", old, new), old, new)
            vectors.append(builder.bitcast(larger, _INTS))
        return tile_of(builder, vectors)

    return tile(tile, array, types.intp), generate
