"""Checks the static C library: its size, what it defines for others, and what it wants of them."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

# What C compilers and freestanding C libraries have: memory, text, mathematics, and the compiler's
# own arithmetic and atomics.
BARE = re.compile(
    r"mem(cpy|move|set|cmp|chr)|str(len|cmp|ncmp|cpy|ncpy|ncat|chr|str|spn|cspn)|v?snprintf|strtoll"
    r"|a?(cos|sin|tan)h?f|expf|logf|powf|fmodf|a?(cos|sin|tan)h?|exp|log|pow|fmod|sqrtf?|floorf?"
    r"|ceilf?|rintf?|nearbyintf?|roundf?|truncf?|ldexpf?|frexpf?|ll?(rint|round)f?|log2f?|exp2f?|erff?"
    r"|fmaf?|fmaxf?|fminf?|log1pf?|expm1f?"
    r"|__aeabi_\w+|__aarch64_(cas|ldadd|swp|ldset|ldclr)\w+|__atomic_\w+|__(u|s)?(div|mod|mul)\w*"
    r"|__(float|fix|pop|clz|ctz|gnu)\w*|_GLOBAL_OFFSET_TABLE_"
)
# And what csrc/base/ asks of POSIX.
POSIX = re.compile(
    r"pthread_\w+|sched_\w+|mmap|munmap|madvise|posix_memalign|free|clock_gettime|sysconf|open"
    r"|close|fstat|fopen|fclose|fgetc|fgets|getenv|getauxval|syscall|strerror|__errno_location"
)


def symbols(archive: Path, nm: str, *flags: str) -> set[str]:
    """Names in the output of nm."""
    output = subprocess.run(
        [nm, *flags, str(archive)], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[-1] for line in output.splitlines() if len(line.split()) > 1}


def loaded_bytes(archive: Path, size: str) -> int:
    """Code and data, without the headers and relocations: what a program that links it gets."""
    output = subprocess.run([size, str(archive)], capture_output=True, text=True, check=True).stdout
    return sum(int(line.split()[3]) for line in output.splitlines()[1:])


def main() -> None:
    """Checks one archive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="libsparsert.a")
    parser.add_argument("--tools", default="", help="before nm and size, as in aarch64-linux-gnu-")
    parser.add_argument("--kib", type=int, help="how large the file may be")
    parser.add_argument("--bare", action="store_true", help="of a build without operating system")
    args = parser.parse_args()
    findings = []
    defined = symbols(args.archive, args.tools + "nm", "-g", "--defined-only")
    wanted = symbols(args.archive, args.tools + "nm", "-u") - defined
    findings += [f"defines {name}" for name in sorted(defined) if not name.startswith("srt_")]
    for name in sorted(wanted):
        if not (BARE.fullmatch(name) or (not args.bare and POSIX.fullmatch(name))):
            findings.append(f"wants {name}")
    size = args.archive.stat().st_size
    if args.kib is not None and size > args.kib * 1024:
        findings.append(f"has {size / 1024:.1f} KiB, more than {args.kib}")
    for finding in findings:
        print(f"{args.archive}:1: {finding}")
    loaded = loaded_bytes(args.archive, args.tools + "size")
    print(f"{args.archive}: {size / 1024:.1f} KiB, {loaded / 1024:.1f} of them code and data")
    print(f"  of others it wants {', '.join(sorted(wanted))}")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
