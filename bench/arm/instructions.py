"""What a 64-bit ARM instruction does, from its 32 bits: bytes loaded and stored, multiply-adds."""

from __future__ import annotations

import functools
from typing import NamedTuple


class Effect(NamedTuple):
    """What one execution of an instruction adds to the counts.

    Attributes:
        loads: memory is read by it (0 or 1).
        stores: memory is written.
        load_bytes: how many bytes are read.
        store_bytes: how many are written.
        multiply_adds: vector multiply-adds of floats, and products of four bytes.
    """

    loads: int = 0
    stores: int = 0
    load_bytes: int = 0
    store_bytes: int = 0
    multiply_adds: int = 0


def _access(is_load: bool, size: int) -> Effect:
    return Effect(1, 0, size, 0) if is_load else Effect(0, 1, 0, size)


# Registers of LD1 to LD4 (multiple structures) by their opcode.
_REGISTERS = {0: 4, 2: 4, 4: 3, 6: 3, 7: 1, 8: 2, 10: 2}


@functools.cache
def effect_of(word: int) -> Effect:
    """Decodes the loads, stores and vector multiply-adds of the base and SIMD instruction sets."""
    if word & 0x0A000000 == 0x08000000:
        return _memory_effect(word)
    is_fmla = word & 0xBFA0FC00 == 0x0E20CC00 or word & 0xBF80F400 == 0x0F801000
    is_fmls = word & 0xBFA0FC00 == 0x0EA0CC00 or word & 0xBF80F400 == 0x0F805000
    is_dot = word & 0x9FE0FC00 == 0x0E809400 or word & 0x9FC0F400 == 0x0F80E000
    return Effect(multiply_adds=1) if is_fmla or is_fmls or is_dot else Effect()


def _memory_effect(word: int) -> Effect:
    size, is_vector, is_load = word >> 30, bool(word >> 26 & 1), bool(word >> 22 & 1)
    if word & 0x3B000000 == 0x18000000:  # literal
        if is_vector:
            return _access(True, 4 << size)
        return Effect() if size == 3 else _access(True, (4, 8, 4)[size])
    if word & 0x3A000000 == 0x28000000:  # pair
        return _access(is_load, 2 * ((4 << size) if is_vector else (4, 4, 8, 0)[size]))
    if word & 0x3A000000 == 0x38000000:  # one register
        kind = word >> 22 & 3
        if is_vector:
            return _access(bool(kind & 1), 1 << (size | (kind & 2) << 1))
        if size == 3 and kind == 2:
            return Effect()  # a prefetch
        return _access(kind != 0, 1 << size)
    if word & 0x3F000000 == 0x08000000:  # exclusive, acquire, release
        return _access(is_load, 1 << size)
    if word & 0xBF000000 == 0x0C000000:  # several structures
        registers = _REGISTERS.get(word >> 12 & 15, 0)
        return _access(is_load, registers * (16 if word >> 30 & 1 else 8))
    if word & 0xBF000000 == 0x0D000000:  # one structure
        opcode, element = word >> 13 & 7, word >> 10 & 3
        count = ((opcode & 1) << 1 | (word >> 21 & 1)) + 1
        scale = opcode >> 1
        width = (1, 2, 8 if element & 1 else 4, 1 << element)[scale]
        return _access(is_load, count * width)
    return Effect()
