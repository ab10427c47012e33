"""The innermost loops of what a run executed, with how often each went round."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.arm.emulate import Block

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


def hot_loops(program: Path, blocks: Sequence[Block]) -> list[Loop]:
    """Returns the loops with vector multiply-adds, the one with most of them first."""
    loops: list[Loop] = []
    executions = _executions(blocks)
    for function, code in _functions(program, blocks):
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


def _functions(program: Path, blocks: Sequence[Block]) -> list[tuple[str, list[tuple[int, str]]]]:
    """The code around all blocks that were executed, function by function."""
    begin = min(block.address for block in blocks)
    end = max(block.address + 4 * block.instructions for block in blocks)
    command = [OBJDUMP, "-d", "-C", "--no-show-raw-insn", f"--start-address={begin:#x}"]
    command += [f"--stop-address={end + 4 * _MAX_LENGTH:#x}", str(program)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    functions: list[tuple[str, list[tuple[int, str]]]] = []
    for line in text.splitlines():
        heading = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        if heading:
            functions.append((heading[1], []))
            continue
        instruction = re.match(r"\s+([0-9a-f]+):\s+(.*)$", line)
        if instruction and functions:
            words = re.sub(r"\s+", " ", instruction[2].split("//")[0]).strip()
            functions[-1][1].append((int(instruction[1], 16), words))
    return functions
