"""Runs models under qemu-aarch64 and counts what they execute."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.arm.instructions import Effect, effect_of

ROOT = Path(__file__).resolve().parents[2]
# Where `make cross` builds, and what this package adds.
CROSS = ROOT / "build" / "aarch64"
TOOLS = CROSS / "bench"
COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64"
# The processor that is emulated unless another one is named: NEON with products of bytes.
CPU = "cortex-a76"


@dataclasses.dataclass(frozen=True)
class Block:
    """Straight code, entered at its first instruction.

    Attributes:
        address: of the first instruction.
        instructions: how many there are.
        executions: how often it ran.
    """

    address: int
    instructions: int
    executions: int


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a region executed.

    Attributes:
        instructions: all of them.
        loads: instructions that read memory.
        stores: those that write it.
        load_bytes: what they read, from caches or beyond.
        store_bytes: what they write.
        multiply_adds: vector instructions that multiply and add.
    """

    instructions: int
    loads: int
    stores: int
    load_bytes: int
    store_bytes: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a model.

    Attributes:
        counts: of the run alone, without load and planning.
        blocks: where they come from.
        facts: what the program says: arena_bytes, weight_bytes, layers.
    """

    counts: Counts
    blocks: tuple[Block, ...]
    facts: dict[str, Any]


class Program:
    """A statically linked program, whose code lies where its file says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        (table,) = struct.unpack_from("<Q", data, 32)
        size, number = struct.unpack_from("<HH", data, 54)
        self._segments = []
        for i in range(number):
            kind, _, offset, address, _, length = struct.unpack_from(
                "<IIQQQQ", data, table + i * size
            )
            if kind == 1:  # PT_LOAD
                self._segments.append((address, data[offset : offset + length]))

    def words(self, address: int, count: int) -> Sequence[int]:
        """Instructions.

        Raises:
            ValueError: the address is not the program's.
        """
        for start, data in self._segments:
            if start <= address and address + 4 * count <= start + len(data):
                return struct.unpack_from(f"<{count}I", data, address - start)
        raise ValueError(f"{self.path.name} has no code at {address:#x}")

    @functools.cached_property
    def _functions(self) -> list[tuple[int, str]]:
        """(address, name), by address."""
        tool = COMPILER.removesuffix("gcc") + "nm"
        rows = [line.split() for line in _output([tool, self.path]).splitlines()]
        return sorted((int(row[0], 16), row[2]) for row in rows if row[1] in "tTwW")

    def symbol(self, name: str) -> int:
        """The address of a function."""
        (address,) = (address for address, function in self._functions if function == name)
        return address

    def function_starts(self) -> list[int]:
        """The addresses of all functions, rising."""
        return [address for address, _ in self._functions]


def missing_tools() -> list[str]:
    """What has to be installed first, or nothing."""
    return [tool for tool in (COMPILER, EMULATOR, "cc") if shutil.which(tool) is None]


def build_tools(*, with_names: bool = False) -> tuple[Program, Path]:
    """Builds the program that runs models, and the plug-in that counts.

    Args:
        with_names: link the library whose functions have names instead of the one that users link.

    Raises:
        FileNotFoundError: the library is not built: run `make cross`.
    """
    library = CROSS / ("libsparsert_core.a" if with_names else "libsparsert.a")
    if not library.exists():
        raise FileNotFoundError(f"{library.relative_to(ROOT)} is missing: run make cross")
    here = Path(__file__).parent
    TOOLS.mkdir(exist_ok=True)
    plugin, program = TOOLS / "count_blocks.so", TOOLS / "run_model"
    source = here / "count_blocks.c"
    _output(["cc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", plugin, source])
    sources: list[str | Path] = [
        f"-I{ROOT / 'csrc' / 'include'}",
        here / "run_model.c",
        library,
        "-pthread",
        "-lm",
    ]
    _output([COMPILER, "-O2", "-static", "-o", program, *sources])
    return Program(program), plugin


def run_model(
    tools: tuple[Program, Path],
    model: Path,
    *,
    isa: str = "",
    batch: int = 1,
    compute_format: str = "",
    cpu: str = CPU,
) -> Run:
    """Runs a .sprt file once and counts.

    Args:
        tools: of build_tools().
        model: the file.
        isa: forces an instruction set.
        batch: size of symbolic dimensions.
        compute_format: forces a compute format, as SPARSERT_FORMAT does.
        cpu: what qemu emulates.
    """
    program, plugin = tools
    marks = [f"{name}={program.symbol(f'region_{name}'):#x}" for name in ("begin", "end")]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "blocks"
        command = [EMULATOR, "-cpu", cpu, "-plugin", ",".join([str(plugin), *marks])]
        command += ["-d", "plugin", "-D", str(out), str(program.path), str(model), isa, str(batch)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SPARSERT_")}
        if compute_format:
            environment["SPARSERT_FORMAT"] = compute_format
        facts = json.loads(_output(command, environment))
        blocks = [Block(*map(int, line.split())) for line in out.read_text().splitlines()]
    blocks.sort(key=lambda block: (block.address, block.instructions))
    return Run(count(program, blocks), tuple(blocks), facts)


def count(program: Program, blocks: Sequence[Block]) -> Counts:
    """Adds up what the instructions of the blocks do."""
    total = [0] * len(Effect._fields)
    instructions = 0
    for block in blocks:
        instructions += block.instructions * block.executions
        for word in program.words(block.address, block.instructions):
            for i, number in enumerate(effect_of(word)):
                total[i] += number * block.executions
    loads, stores, load_bytes, store_bytes, multiply_adds = total
    return Counts(instructions, loads, stores, load_bytes, store_bytes, multiply_adds)


def _output(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr.strip()}")
    return done.stdout
