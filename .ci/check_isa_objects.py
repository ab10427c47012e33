"""Checks that objects compiled with wide instructions define symbols of their own ISA only.

A function that two objects define (a template, an inline function) is kept once by the linker; if
the copy compiled for AVX-512 wins, an older CPU meets instructions that it lacks.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

# Object of x86_avx2.cc -> symbols in namespace sparsert::avx2.
OBJECT = re.compile(r"(?:x86|arm)_(\w+)\.cc\.o")
# Classes of symbols that other objects can see, in the output of nm; local ones are lower case.
VISIBLE = set("ABCDGRSTVWuvwi")


def allowed(kind: str, symbol: str, isa: str) -> bool:
    """Whether an ISA's object may define a symbol.

    It may if the mangled name is of namespace sparsert::<isa>, or is what the compiler keeps for
    such a name (a guard, a vtable), or is a row of a kernel table: a function sparsert::..._<isa>
    that no other object may define as well.
    """
    if re.match(rf"_Z(?:T[VTISW]|GV|GR|Z)*N[VK]*8sparsert{len(isa)}{isa}", symbol):
        return True
    row = re.match(r"_ZN8sparsert(\d+)", symbol)
    if row is None or kind != "T":
        return False
    start, length = row.end(), int(row.group(1))
    return symbol[start : start + length].endswith(f"_{isa}") and symbol[start + length] == "E"


def defined_symbols(path: Path, nm: str) -> list[tuple[str, str]]:
    """Kinds (of nm) and mangled names of what the object defines for others."""
    output = subprocess.run(
        [nm, "--defined-only", str(path)], capture_output=True, text=True, check=True
    ).stdout
    fields = (line.split() for line in output.splitlines())
    return [(f[1], f[2]) for f in fields if len(f) == 3 and f[1] in VISIBLE]


def main() -> None:
    """Checks the objects of a build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path, help="folder of the build")
    parser.add_argument("--nm", default="nm")
    args = parser.parse_args()
    findings = []
    objects = [p for p in sorted(args.build.rglob("*.o")) if OBJECT.fullmatch(p.name)]
    for path in objects:
        match = OBJECT.fullmatch(path.name)
        assert match is not None
        isa = match.group(1)
        for kind, symbol in defined_symbols(path, args.nm):
            if not allowed(kind, symbol, isa):
                where = f"{path.relative_to(args.build)}:1"
                findings.append(f"{where}: defines {symbol}, outside sparsert::{isa}")
    print("\n".join(findings) + ("\n" if findings else ""), end="")
    if not objects:
        findings.append("")
        print(f"{args.build}:1: no object of an ISA file is there: build first")
    print(f"ISA objects: {len(objects)} objects, {len(findings) or 'no'} violations")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
