"""Builds tests/cpp/reader_test.cc with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("base/platform.cc", "graph/graph.cc", "modelfile/*.cc", "formats/*.cc")


@functools.cache
def build() -> Path:
    """Returns the path of the driver, or skips the test where there is no compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    sources = [path for pattern in LAYERS for path in sorted((ROOT / "csrc").glob(pattern))]
    sources.append(ROOT / "tests" / "cpp" / "reader_test.cc")
    driver = Path(tempfile.mkdtemp(prefix="sparsert-")) / "reader_test"
    flags = ["-std=c++17", "-O1", "-fno-exceptions", "-fno-rtti", "-Wall", "-Wextra", "-Werror"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [compiler, *flags, *checks, f"-I{ROOT / 'csrc'}", *map(str, sources)]
    subprocess.run([*command, "-o", str(driver)], check=True)
    return driver


def run(*arguments: str | Path | int) -> list[str]:
    """Runs the driver and returns the lines that it prints."""
    command = [str(build()), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout.splitlines()
