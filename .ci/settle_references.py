"""Makes the object of the static library for 64-bit ARM smaller, and its code no other.

What a relocatable object refers to within itself stays open, 24 bytes for each reference, until a
program is linked, and so do the names. Here code and constants become one section that begins with
a page, wherever it will lie: then the distance between two places in it is known, and calls and
addresses are written into the instructions. Functions of others are called by way of one branch
each. What is left are these, and what refers to other sections; of the names those of srt_*.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import struct
from pathlib import Path

PAGE = 4096
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
RELOCATABLE, AARCH64 = 1, 183
PROGBITS, SYMTAB, STRTAB, RELA, NOBITS = 1, 2, 3, 4, 8
WRITE, ALLOCATED, STRINGS = 1, 2, 0x20
LOCAL, GLOBAL, SECTION_SYMBOL = 0, 1, 3

# Relocations (ELF for the Arm 64-bit Architecture): branches by the bits and the place of their
# distance in instructions, and by the size of what they access those that want the lower 12 bits of
# an address.
BRANCH, CALL = 282, 283
BRANCHES = {BRANCH: (26, 0), CALL: (26, 0), 280: (19, 5), 279: (14, 5)}
BRANCH_INSTRUCTION = 0x14000000
ADDRESS_PAGE = 275
LOW_12_BITS = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}
# Entries of a table of addresses belong to a symbol.
TABLE_OF_ADDRESSES = {311, 312}


@dataclasses.dataclass
class Section:
    """One of an object's, without its relocations."""

    name: str
    kind: int
    flags: int
    alignment: int
    entry: int
    size: int
    data: bytearray
    relocations: list[tuple[int, int, int, int]]  # offset, type, symbol, addend


@dataclasses.dataclass
class Symbol:
    """`section` is an index, or none (0), or one of those that stand for no section."""

    name: str
    info: int
    other: int
    section: int
    value: int
    size: int

    @property
    def is_local(self) -> bool:
        """Only this object knows it."""
        return self.info >> 4 == LOCAL


def text_at(table: bytes, offset: int) -> str:
    """A name."""
    return table[offset : table.index(b"\0", offset)].decode()


def read_object(data: bytes) -> tuple[bytes, dict[int, Section], list[Symbol]]:
    """The file's header, its sections by their index, its symbols.

    Raises:
        ValueError: it is no relocatable object for 64-bit ARM.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no object of 64 bits, little-endian")
    header = HEADER.unpack_from(data)
    if (header[1], header[2]) != (RELOCATABLE, AARCH64):
        raise ValueError("no relocatable object for 64-bit ARM")
    rows = [SECTION.unpack_from(data, header[6] + i * SECTION.size) for i in range(header[12])]
    contents = [b"" if row[1] == NOBITS else data[row[4] : row[4] + row[5]] for row in rows]
    sections: dict[int, Section] = {}
    symbols: list[Symbol] = []
    for i, (name, kind, flags, _, _, size, link, _, alignment, entry) in enumerate(rows):
        if kind == SYMTAB:
            for row in SYMBOL.iter_unpack(contents[i]):
                symbols.append(Symbol(text_at(contents[link], row[0]), *row[1:]))
        elif kind not in (0, STRTAB, RELA):
            name = text_at(contents[header[13]], name)
            content = bytearray(contents[i])
            sections[i] = Section(name, kind, flags, alignment, entry, size, content, [])
    for i, row in enumerate(rows):
        if row[1] == RELA:
            for offset, info, addend in RELOCATION.iter_unpack(contents[i]):
                found = (offset, info & 0xFFFFFFFF, info >> 32, addend)
                sections[row[7]].relocations.append(found)
    return data[: HEADER.size], sections, symbols


class Moved:
    """Where a section's bytes lie once it is behind another one, equal strings only once."""

    def __init__(self, into: Section, section: Section) -> None:
        into.data += bytes(-len(into.data) % section.alignment)
        self._starts, self._places = [0], [len(into.data)]
        if section.flags & STRINGS and section.entry == section.alignment == 1:
            self._starts, self._places = [], []
            places: dict[bytes, int] = {}
            start = 0
            while start < len(section.data):
                end = section.data.index(0, start) + 1
                text = bytes(section.data[start:end])
                if text not in places:
                    places[text] = len(into.data)
                    into.data += text
                self._starts.append(start)
                self._places.append(places[text])
                start = end
        else:
            into.data += section.data
        into.size = len(into.data)

    def place(self, offset: int) -> int:
        """Of the byte that was at `offset`."""
        i = bisect.bisect_right(self._starts, offset) - 1
        return self._places[i] + offset - self._starts[i]


def settled(word: int, kind: int, place: int, target: int) -> int | None:
    """The instruction at `place` with what it wants of `target`; None: it wants something else."""

    def put(bits: int, at: int, value: int) -> int:
        mask = (1 << bits) - 1
        return word & ~(mask << at) | (value & mask) << at

    if kind in BRANCHES:
        bits, at = BRANCHES[kind]
        distance = (target - place) // 4
        return put(bits, at, distance) if -(1 << bits) <= 2 * distance < 1 << bits else None
    if kind == ADDRESS_PAGE:
        pages = target // PAGE - place // PAGE
        word = put(2, 29, pages)
        return put(19, 5, pages >> 2)
    if kind in LOW_12_BITS:
        return put(12, 10, (target % PAGE) >> LOW_12_BITS[kind])
    return None


def share_branches(code: Section, symbols: list[Symbol]) -> None:
    """Lets all calls of a function of others go to one branch to it, behind the code."""
    shared: dict[int, int] = {}
    relocations = []
    for offset, kind, number, addend in code.relocations:
        symbol = symbols[number]
        is_others = symbol.section == 0 and symbol.info >> 4 == GLOBAL
        if kind not in (BRANCH, CALL) or not is_others or addend != 0:
            relocations.append((offset, kind, number, addend))
            continue
        if number not in shared:
            shared[number] = len(code.data)
            relocations.append((shared[number], BRANCH, number, 0))
            code.data += struct.pack("<I", BRANCH_INSTRUCTION)
        (word,) = struct.unpack_from("<I", code.data, offset)
        instruction = settled(word, kind, offset, shared[number])
        assert instruction is not None
        struct.pack_into("<I", code.data, offset, instruction)
    code.relocations = relocations
    code.size = len(code.data)


def settle(sections: dict[int, Section], symbols: list[Symbol]) -> list[Symbol]:
    """Moves constants behind the code and settles its references to itself; the symbols wanted."""
    (code,) = (i for i, section in sections.items() if section.name == ".text")
    text = sections[code]
    begin = len(text.data)
    share_branches(text, symbols)
    if len(text.data) > begin:
        symbols.append(Symbol("$x", 0, 0, code, begin, 0))
    code_bytes = len(text.data)
    text.alignment = PAGE
    moved: dict[int, Moved] = {}
    for i, section in list(sections.items()):
        constant = section.kind == PROGBITS and section.flags & (WRITE | ALLOCATED) == ALLOCATED
        if constant and i != code and not section.relocations:
            moved[i] = Moved(text, section)
            del sections[i]

    def place(section: int, offset: int) -> tuple[int, int]:
        return (code, moved[section].place(offset)) if section in moved else (section, offset)

    wanted = [Symbol("", 0, 0, 0, 0, 0)]
    wanted += [Symbol("", SECTION_SYMBOL, 0, i, 0, 0) for i in sections]
    # Which bytes are instructions and which are not; of constants this is said once.
    kind = ""
    for symbol in sorted(symbols, key=lambda symbol: symbol.value):
        if symbol.section == code and symbol.name in ("$x", "$d") and symbol.name != kind:
            kind = symbol.name
            wanted.append(symbol)
    if len(text.data) > code_bytes and kind != "$d":
        wanted.append(Symbol("$d", 0, 0, code, code_bytes, 0))
    index_of: dict[int, int] = {}  # of a symbol before, among those wanted
    kept: list[tuple[Section, list[tuple[int, int, int, int]]]] = []
    for i, section in sections.items():
        relocations = []
        for offset, kind_of, number, addend in section.relocations:
            symbol = symbols[number]
            known = symbol.is_local and 0 < symbol.section < 0xFF00
            if known and kind_of not in TABLE_OF_ADDRESSES:
                target_section, target = place(symbol.section, symbol.value + addend)
                if (i, target_section) == (code, code):
                    (word,) = struct.unpack_from("<I", text.data, offset)
                    instruction = settled(word, kind_of, offset, target)
                    if instruction is not None:
                        struct.pack_into("<I", text.data, offset, instruction)
                        continue
                section_symbol = 1 + list(sections).index(target_section)
                relocations.append((offset, kind_of, -section_symbol, target))
            else:
                index_of[number] = 0
                relocations.append((offset, kind_of, number, addend))
        kept.append((section, relocations))
    others = [i for i, symbol in enumerate(symbols) if i in index_of or is_exported(symbol)]
    for i in sorted(others, key=lambda i: not symbols[i].is_local):
        symbol = symbols[i]
        if 0 < symbol.section < 0xFF00:
            symbol.section, symbol.value = place(symbol.section, symbol.value)
        index_of[i] = len(wanted)
        wanted.append(symbol)
    for section, relocations in kept:
        section.relocations = [
            (offset, kind_of, -number if number < 0 else index_of[number], addend)
            for offset, kind_of, number, addend in sorted(relocations)
        ]
    return wanted


def is_exported(symbol: Symbol) -> bool:
    """Others may refer to it."""
    return not symbol.is_local and symbol.section != 0


def write_object(header: bytes, sections: dict[int, Section], symbols: list[Symbol]) -> bytes:
    """The file."""
    index_of = {0: 0} | {old: 1 + i for i, old in enumerate(sections)}
    names = bytearray(b"\0")
    known = {"": 0}

    def name_of(text: str) -> int:
        if text not in known:
            known[text] = len(names)
            names.extend(text.encode() + b"\0")
        return known[text]

    out = bytearray(HEADER.size)
    rows = [bytes(SECTION.size)]
    table_index = 1 + len(sections)

    def add(name: str, section: Section, link: int = 0, info: int = 0) -> None:
        out.extend(bytes(-len(out) % min(max(section.alignment, 1), 16)))
        flags, size, alignment = section.flags, section.size, section.alignment
        place = (name_of(name), section.kind, flags, 0, len(out), size)
        rows.append(SECTION.pack(*place, link, info, alignment, section.entry))
        out.extend(section.data)

    for section in sections.values():
        add(section.name, section)
    table = bytearray()
    for symbol in symbols:
        at = index_of.get(symbol.section, symbol.section)
        row = (symbol.info, symbol.other, at, symbol.value, symbol.size)
        table += SYMBOL.pack(name_of(symbol.name), *row)
    locals_ = sum(symbol.is_local for symbol in symbols)
    symtab = Section(".symtab", SYMTAB, 0, 8, SYMBOL.size, len(table), table, [])
    add(".symtab", symtab, table_index + 1, locals_)
    relocated = [(old, section) for old, section in sections.items() if section.relocations]
    for name in (".strtab", *(".rela" + section.name for _, section in relocated)):
        name_of(name)
    add(".strtab", Section(".strtab", STRTAB, 0, 1, 0, len(names), names, []))
    for old, section in relocated:
        data = bytearray()
        for offset, kind, number, addend in section.relocations:
            data += RELOCATION.pack(offset, number << 32 | kind, addend)
        rela = Section("", RELA, 0x40, 8, RELOCATION.size, len(data), data, [])
        add(".rela" + section.name, rela, table_index, index_of[old])
    out.extend(bytes(-len(out) % 8))
    fields = list(HEADER.unpack(header))
    fields[6], fields[12], fields[13] = len(out), len(rows), table_index + 1
    out[: HEADER.size] = HEADER.pack(*fields)
    return bytes(out) + b"".join(rows)


def main() -> None:
    """Rewrites one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("object", type=Path)
    args = parser.parse_args()
    header, sections, symbols = read_object(args.object.read_bytes())
    wanted = settle(sections, symbols)
    args.object.write_bytes(write_object(header, sections, wanted))


if __name__ == "__main__":
    main()
