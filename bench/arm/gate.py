"""Counts of a few small models, and whether they are still what they were."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path

from bench.arm.emulate import COMPILER, Counts, build_tools, run_model
from bench.arm.models import Subject, write_model

EXPECTED = Path(__file__).with_name("expected_counts.json")
# A count may differ by this share of what is expected.
TOLERANCE = 0.02

# Each with the instruction set that it is run on.
SUBJECTS = [
    (Subject("layer-128-14"), "neon"),
    (Subject("layer-128-14", 0.9), "neon"),
    (Subject("layer-128-14", 0.9, "4x1"), "neon"),
    (Subject("small_cnn", 0.9), "neon"),
    (Subject("small_cnn", 0.9, int8=True), "neondot"),
]


def compiler_version() -> str:
    """What the library was compiled with: another compiler gives other counts."""
    done = subprocess.run(
        [COMPILER, "-dumpfullversion"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def count_all() -> dict[str, dict[str, int]]:
    """The counts of every subject, by its name."""
    tools = build_tools()
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        for subject, isa in SUBJECTS:
            path = Path(folder) / "model.sprt"
            write_model(subject, path)
            run = run_model(tools, path, isa=isa)
            counts[f"{subject}, {isa}"] = dataclasses.asdict(run.counts)
    return counts


def update() -> None:
    """Writes what is counted now as what is expected."""
    facts = {"compiler": compiler_version(), "counts": count_all()}
    EXPECTED.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def check() -> list[str]:
    """What differs from what is expected, better counts too; a line each."""
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))
    if expected["compiler"] != compiler_version():
        print(
            f"nothing is compared: the counts are those of GCC {expected['compiler']}, this is "
            f"{compiler_version()}"
        )
        return []
    return differences(expected["counts"], count_all())


def differences(expected: dict[str, dict[str, int]], found: dict[str, dict[str, int]]) -> list[str]:
    """Counts that differ by more than TOLERANCE, and subjects that only one of them has."""
    lines = [f"{name}: counted on one side only" for name in sorted(expected.keys() ^ found.keys())]
    for name in sorted(expected.keys() & found.keys()):
        for field in dataclasses.fields(Counts):
            want, got = expected[name][field.name], found[name][field.name]
            if abs(got - want) > TOLERANCE * want:
                change = 100 * (got - want) / max(1, want)
                lines.append(f"{name}: {got} {field.name}, expected {want} ({change:+.1f} %)")
    return lines
