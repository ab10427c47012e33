"""64-bit ARM under emulation: counts, and cycles that models of cores predict.

`make cross` builds the library first. --check compares the counts of a few small models with
bench/arm/expected_counts.json; --update writes that file. Without either, the tables of docs/arm.md
are made, which --publish puts there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata

from bench.arm import cycles, emulate, gate, report
from bench.layers import publish
from sparsert.report.machine import describe_machine

DOCUMENT = emulate.ROOT / "docs" / "arm.md"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare counts; 1: they differ")
    parser.add_argument("--update", action="store_true", help="count what is expected anew")
    parser.add_argument("--publish", action="store_true", help="put the tables into docs/arm.md")
    parser.add_argument("--only", choices=("networks", "loops"), help="one of the tables")
    parser.add_argument("--networks", nargs="+", default=report.NETWORKS, metavar="NAME")
    args = parser.parse_args()
    counting = args.check or args.update
    missing = emulate.missing_tools()
    if not counting and args.only != "networks":
        missing += cycles.missing_tools()
    if missing:
        sys.exit(f"bench.arm needs {', '.join(missing)}: see make arm-report")
    if args.update:
        gate.update()
    if args.check:
        lines = gate.check()
        print("\n".join(lines) or "instructions on ARM: as expected")
        sys.exit(1 if lines else 0)
    if counting:
        return
    tools = emulate.build_tools(with_names=True)
    if args.only != "loops":
        counts = report.network_table(tools, args.networks)
        _show("arm-networks", f"{counts.to_markdown()}\n\n{_facts()}", args.publish)
    if args.only != "networks":
        loops = report.projection_table(tools)
        models = f"{_version('llvm-mca-19')}, OSACA {_osaca_version()}"
        _show("arm-loops", f"{loops.to_markdown()}\n\n{_facts()} {models}.", args.publish)


def _show(mark: str, text: str, put: bool) -> None:
    print(text)
    if put:
        publish(DOCUMENT, mark, text)


def _facts() -> str:
    date = datetime.now(timezone.utc).date().isoformat()
    emulator = _version(emulate.EMULATOR)
    return (
        f"{date}, emulated on {describe_machine().cpu}: GCC {gate.compiler_version()}, {emulator}."
    )


def _version(program: str) -> str:
    """The line of a program's --version that names it."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    lines = [line.strip() for line in done.stdout.splitlines() if "version" in line]
    return lines[0]


def _osaca_version() -> str:
    (found,) = metadata.distributions(name="osaca", path=[str(cycles.OSACA)])
    return found.version


if __name__ == "__main__":
    main()
