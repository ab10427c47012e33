"""Cycles of a loop as models of ARM cores predict them: llvm-mca, OSACA, and issue rules.

Each takes the instructions of one round and returns the cycles that it lasts when it goes round for
long, every access is found in the first cache and no branch is mispredicted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.arm.emulate import TOOLS

MCA = "llvm-mca-19"
_ROUNDS = 300
# A folder of its own: OSACA is a tool, under a licence that does not fit a dependency.
OSACA = TOOLS / "osaca"


def _without_branches(body: Sequence[str]) -> list[str]:
    """A loop's straight code: its branches are predicted, and their targets mean nothing here."""
    return [
        re.sub(r" <.*", "", i) for i in body if not re.match(r"(bl?r?|ret|b\.\w+|cbn?z|tbn?z)\b", i)
    ]


def llvm_mca(cpu: str) -> Callable[[Sequence[str]], float]:
    """The model of a core that LLVM schedules with; `cpu` as for -mcpu."""

    def cycles(body: Sequence[str]) -> float:
        command = [MCA, "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", f"-iterations={_ROUNDS}"]
        command += ["-all-stats=0", "-instruction-info=0", "-resource-pressure=0"]
        code = "\n".join(_without_branches(body))
        done = subprocess.run(command, input=code, capture_output=True, text=True)
        total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
        if total is None:
            raise RuntimeError(f"{MCA} failed: {done.stderr.strip()[:500]}")
        return int(total[1]) / _ROUNDS

    return cycles


def osaca(arch: str) -> Callable[[Sequence[str]], float]:
    """OSACA's model of a core: the busiest port, or the longest chain from round to round.

    Loads that its tables do not know use no port there; they are added to those that loads of
    vectors use.
    """

    def cycles(body: Sequence[str]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "loop.s"
            path.write_text("\n".join(_without_branches(body)) + "\n", encoding="utf-8")
            command = [sys.executable, "-m", "osaca", "--arch", arch, "--ignore-unknown", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, env=_osaca_path())
        return _read_osaca(done.stdout + done.stderr)

    return cycles


def _read_osaca(text: str) -> float:
    """The bound of a report of OSACA: see osaca()."""
    pressure: list[float] = []
    load_ports: set[int] = set()
    unknown = 0
    chain = None
    for line in text.splitlines():
        row = re.match(r"\s*\d+ \|(.*)\|\|.*\|\s*(X?) +(\S.*)$", line)
        if row:
            cells = [[float(n) for n in cell.split()] for cell in row[1].split("|")]
            ports = [sum(cell) for cell in cells]
            pressure = [a + b for a, b in zip(pressure or [0.0] * len(ports), ports, strict=True)]
            if re.fullmatch(r"ld(p|u?r) q[^]]*\]", row[3].strip()):
                load_ports |= {i for i, used in enumerate(ports) if used}
            unknown += bool(row[2]) and row[3].startswith("ld")
        elif pressure and chain is None and re.fullmatch(r"[\d. ]+", line) and line.strip():
            chain = float(line.split()[-1])
    if chain is None or not load_ports:
        raise RuntimeError(f"osaca failed: {text.strip()[:500]}")
    loads = max(pressure[i] for i in load_ports) + unknown / len(load_ports)
    return max(*pressure, loads, chain)


def _osaca_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(OSACA)}


def in_order(body: Sequence[str]) -> float:
    """Cortex-A53 and A55, by the rules of ncnn's notes on dual issue and of SLOTHY's model.

    Two instructions a cycle at most. A vector of 128 bits takes both halves of the vector unit: one
    multiply-add a cycle, with a scalar instruction beside it. A load of 128 bits takes two cycles,
    of a narrower vector one (A53's rule; A55 hides it), and nothing is issued beside it. A lower
    bound: results are assumed to be ready when needed.
    """
    vector = loading = other = 0
    for text in body:
        if re.match(r"(ldn?p|stn?p) q", text):
            loading += 4
        elif re.match(r"(ldu?r|stu?r) q|(ld|st)1r? \{v\d+\.(4s|16b|8h|2d)", text):
            loading += 2
        elif re.match(r"(ldn?p|ldu?r|stn?p|stu?r) [sdhb]\d|(ld|st)1", text):
            loading += 1
        elif re.search(r"\bv\d+\.(4s|16b|8h|2d|4h|2s|8b)", text):
            vector += 1
        else:
            other += 1
    return vector + loading + float(max(0, other - vector))


def missing_tools() -> list[str]:
    """What has to be installed first, or nothing."""
    missing = [MCA] if shutil.which(MCA) is None else []
    return missing if (OSACA / "osaca").is_dir() else [*missing, "osaca"]


# What the tables show, and by which model.
MODELS: dict[str, Callable[[Sequence[str]], float]] = {
    "A72, llvm-mca": llvm_mca("cortex-a72"),
    "A72, OSACA": osaca("a72"),
    "N1, llvm-mca": llvm_mca("neoverse-n1"),
    "N1, OSACA": osaca("n1"),
    "A53/A55, issue rules": in_order,
}
