"""Runs tests/cpp/reader_test.cc, which reads files for the tests of the reader."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest

import sparsert

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def program() -> Path:
    """Returns the program of the build that the package is of; make asan has it with sanitizers."""
    package = Path(sparsert.__file__).resolve().parent
    for build in (package.parents[1], ROOT / "build" / "dev"):
        if (build / "reader_test").exists():
            return build / "reader_test"
    pytest.skip("reader_test is not compiled: make build-all")


def run(*arguments: str | Path | int) -> list[str]:
    """Runs the driver and returns the lines that it prints."""
    command = [str(program()), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout.splitlines()
