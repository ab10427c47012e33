"""The innermost loops of what a run executed, with how often each went round."""

from __future__ import annotations

import bisect
import dataclasses
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.arm.emulate import Block, Program
from bench.arm.instructions import effect_of

OBJDUMP = "aarch64-linux-gnu-objdump"
# A loop is not longer than this: no kernel of ours is, and less text need be looked at.
_MAX_LENGTH = 400
_BRANCH = re.compile(r"(?:b|b\.\w+|cbn?z|tbn?z)\s.*?\b([0-9a-f]+) <")


@dataclasses.dataclass(frozen=True)
class Loop:
    """An innermost loop that multiplies and adds vectors.

    Attributes:
        function: that it is part of, as the compiler's symbol reads.
        body: its instructions in assembler, the branch back included.
        rounds: how often it went round.
        multiply_adds: vector multiply-adds of one round.
    """

    function: str
    body: tuple[str, ...]
    rounds: int
    multiply_adds: int


def hot_loops(program: Program, blocks: Sequence[Block]) -> list[Loop]:
    """Returns the loops with vector multiply-adds, the one with most of them first."""
    loops: list[Loop] = []
    executions = _executions(blocks)
    for function, code in _multiplying_functions(program, blocks):
        at = {address: i for i, (address, _) in enumerate(code)}
        spans = set()
        for i, (address, text) in enumerate(code):
            branch = _BRANCH.match(text)
            if branch is None:
                continue
            begin = at.get(int(branch[1], 16), i + 1)
            # A branch that is seldom taken back leads from code beside the loop into it.
            often = begin <= i and 2 * executions[address] > executions[code[begin][0]] > 0
            if often and i < begin + _MAX_LENGTH:
                spans.add((begin, i))
        for begin, end in sorted(spans):
            if any((b, e) != (begin, end) and begin <= b and e <= end for b, e in spans):
                continue
            rounds = executions[code[begin][0]]
            body = [text for at_, text in code[begin : end + 1] if 2 * executions[at_] > rounds]
            multiply_adds = sum(map(is_multiply_add, body))
            if multiply_adds:
                loops.append(Loop(function, tuple(body), rounds, multiply_adds))
    return sorted(loops, key=lambda loop: -loop.rounds * loop.multiply_adds)


def is_multiply_add(text: str) -> bool:
    """Whether it is a vector multiply-add, or sums of products of four bytes."""
    return re.match(r"(fml[as]|[su]{1,2}dot) v", text) is not None


def _executions(blocks: Sequence[Block]) -> Counter[int]:
    """How often each instruction ran, by address."""
    executions: Counter[int] = Counter()
    for block in blocks:
        for i in range(block.instructions):
            executions[block.address + 4 * i] += block.executions
    return executions


def _multiplying_functions(
    program: Program, blocks: Sequence[Block]
) -> list[tuple[str, list[tuple[int, str]]]]:
    """(name, [(address, instruction)]) of the functions that ran multiply-adds."""
    starts = program.function_starts()
    spans = set()
    for block in blocks:
        words = program.words(block.address, block.instructions)
        if any(effect_of(word).multiply_adds for word in words):
            at = bisect.bisect_right(starts, block.address)
            spans.add((starts[at - 1], starts[at] if at < len(starts) else block.address + 4096))
    return [_disassemble(program.path, *span) for span in sorted(spans)]


def _disassemble(path: Path, begin: int, end: int) -> tuple[str, list[tuple[int, str]]]:
    command = [OBJDUMP, "-d", "-C", "--no-show-raw-insn", f"--start-address={begin:#x}"]
    command += [f"--stop-address={end:#x}", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name, code = "", []
    for line in text.splitlines():
        heading = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        instruction = re.match(r"\s+([0-9a-f]+):\s+(.*)$", line)
        if heading:
            name = name or heading[1]
        elif instruction:
            words = re.sub(r"\s+", " ", instruction[2].split("//")[0]).strip()
            code.append((int(instruction[1], 16), words))
    return name, code
