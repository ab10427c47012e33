"""ARM without an emulator: decoding, issue rules, reports of OSACA, gate, the library's object."""

from __future__ import annotations

import copy
import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from bench.arm import cycles, gate
from bench.arm.instructions import effect_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("word", "effect"),
    [
        (0x3DC00000, (1, 0, 16, 0, 0)),  # ldr q0, [x0]
        (0x3CE26820, (1, 0, 16, 0, 0)),  # ldr q0, [x1, x2]
        (0xAD408400, (1, 0, 32, 0, 0)),  # ldp q0, q1, [x0, #16]
        (0x78402420, (1, 0, 2, 0, 0)),  # ldrh w0, [x1], #2
        (0xB9800020, (1, 0, 4, 0, 0)),  # ldrsw x0, [x1]
        (0xBD401C23, (1, 0, 4, 0, 0)),  # ldr s3, [x1, #28]
        (0x58000000, (1, 0, 8, 0, 0)),  # ldr x0, .
        (0x4D40C800, (1, 0, 4, 0, 0)),  # ld1r {v0.4s}, [x0]
        (0x0D409000, (1, 0, 4, 0, 0)),  # ld1 {v0.s}[1], [x0]
        (0x4C40A800, (1, 0, 32, 0, 0)),  # ld1 {v0.4s, v1.4s}, [x0]
        (0xBD000000, (0, 1, 0, 4, 0)),  # str s0, [x0]
        (0xA9BF7BFD, (0, 1, 0, 16, 0)),  # stp x29, x30, [sp, #-16]!
        (0xF9800000, (0, 0, 0, 0, 0)),  # prfm pldl1keep, [x0]
        (0x4F821020, (0, 0, 0, 0, 1)),  # fmla v0.4s, v1.4s, v2.s[0]
        (0x4EA2CC20, (0, 0, 0, 0, 1)),  # fmls v0.4s, v1.4s, v2.4s
        (0x6E829420, (0, 0, 0, 0, 1)),  # udot v0.4s, v1.16b, v2.16b
        (0x6E22DC20, (0, 0, 0, 0, 0)),  # fmul v0.4s, v1.4s, v2.4s
        (0x91000400, (0, 0, 0, 0, 0)),  # add x0, x0, #1
    ],
)
def test_effects(word: int, effect: tuple[int, ...]) -> None:
    assert tuple(effect_of(word)) == effect


def test_issue_rules() -> None:
    body = ["ldrh w2, [x3], #2", "ldp q1, q2, [x1]", "ldr q3, [x1, #32]", "ldr s0, [x4]"]
    body += ["fmla v4.4s, v1.4s, v0.s[0]", "cmp x1, x2", "b.ne 40 <loop>"]
    # Three loads of 128 bits and a narrow one; a multiply-add, and two more of three scalars.
    assert cycles.in_order(body) == 3 * 2 + 1 + 1 + 2


def test_report_of_osaca() -> None:
    report = """
     |  0   |  1   |  2   - 2DV  ||  CP  | LCD  |
----------------------------------------------
   1 |      | 1.00 |             ||  4.0 |      |   ldr q1, [x1, x2]
   2 |      |      |             ||      |      | X ldrh w8, [x19, #2]
   3 | 1.00 |      | 0.50   0.25 ||  7.0 |  7.0 |   fmla v0.4s, v1.4s, v2.s[0]

       1.00   1.00   0.50   0.25    11.0    1.0
"""
    assert cycles._read_osaca(report) == 2.0  # both loads on port 1
    assert cycles._read_osaca(report.replace("11.0    1.0", "11.0    7.0")) == 7.0
    with pytest.raises(RuntimeError, match="no such file"):
        cycles._read_osaca("no such file")


def test_gate() -> None:
    expected = json.loads(gate.EXPECTED.read_text(encoding="utf-8"))["counts"]
    assert set(expected) == {f"{subject}, {isa}" for subject, isa in gate.SUBJECTS}
    found = copy.deepcopy(expected)
    name = next(iter(found))
    found[name]["loads"] = round(1.019 * found[name]["loads"])
    assert gate.differences(expected, found) == []
    found[name]["loads"] = round(1.021 * expected[name]["loads"])
    found[name]["instructions"] //= 2
    (fewer, more) = gate.differences(expected, found)
    assert "instructions" in fewer and "(-50.0 %)" in fewer
    assert "loads" in more and "(+2.1 %)" in more
    assert gate.differences(expected, {name: expected[name]})


def test_references_within_an_object_are_settled(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("settle", ROOT / ".ci" / "settle_references.py")
    assert spec is not None and spec.loader is not None
    settle = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = settle  # dataclasses look there
    spec.loader.exec_module(settle)
    section, symbol = settle.Section, settle.Symbol
    call, jump, page, low = 0x94000000, 0x14000000, 0x90000000, 0x91000000
    code = bytearray(struct.pack("<1030I", call, page, low, call, jump, call, *[0xD503201F] * 1024))
    strings = bytearray(b"one\0two\0one\0")
    sections = {
        1: section(".text", 1, 6, 16, 0, len(code), code, []),
        2: section(".rodata.str1.1", 1, 0x32, 1, 1, len(strings), strings, []),
        3: section(".data", 1, 3, 8, 0, 8, bytearray(8), []),
    }
    symbols = [
        symbol("", 0, 0, 0, 0, 0),
        symbol("", 3, 0, 2, 0, 0),  # the section of strings
        symbol("inner", 2, 0, 1, 4096, 8),
        symbol("$x", 0, 0, 1, 0, 0),
        symbol("memcpy", 0x10, 0, 0, 0, 0),
        symbol("srt_run", 0x12, 0, 1, 8, 8),
    ]
    sections[1].relocations += [
        (0, settle.CALL, 2, 0),
        (4, settle.ADDRESS_PAGE, 1, 9),  # "ne" of the second "one"
        (8, 277, 1, 9),
        *((12, settle.CALL, 4, 0), (16, settle.BRANCH, 4, 0), (20, settle.CALL, 5, 0)),
    ]
    sections[3].relocations.append((0, 257, 1, 4))  # an address of "two"
    header = bytearray(64)
    settle.HEADER.pack_into(
        header, 0, b"\x7fELF\x02\x01\x01", 1, 183, 1, *[0] * 4, 64, 0, 0, 64, 0, 0
    )
    file = tmp_path / "one.o"
    file.write_bytes(settle.write_object(bytes(header), sections, symbols))
    subprocess.run([sys.executable, ROOT / ".ci" / "settle_references.py", file], check=True)

    _, after, names = settle.read_object(file.read_bytes())
    (text, data) = (s for s in after.values() if s.data)
    words = struct.unpack_from("<1031I", text.data)
    assert text.alignment == 4096
    assert words[0] == call | 1024
    assert words[1] == page | 1 << 29  # the next page
    place = (words[2] >> 10 & 0xFFF) + 4096
    assert bytes(text.data[place - 1 :]) == b"one\0two\0"
    branch = 1030 * 4
    assert [words[3], words[4]] == [call | (branch - 12) // 4, jump | (branch - 16) // 4]
    assert [(o, k, names[n].name) for o, k, n, _ in text.relocations] == [
        (20, settle.CALL, "srt_run"),
        (branch, settle.BRANCH, "memcpy"),
    ]
    assert [(o, k, a) for o, k, _, a in data.relocations] == [(0, 257, place - 1 + 4)]
    assert names[data.relocations[0][2]].section == min(after)
    assert {s.name for s in names} == {"", "$x", "$d", "memcpy", "srt_run"}
