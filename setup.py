"""Builds the package: CMake compiles the extension sparsert.runtime._core.

SPARSERT_SKIP_EXTENSION=1 installs the Python files alone (the Makefile builds the extension itself,
to recompile only what changed).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import setuptools
from scikit_build_core.setuptools.build_cmake import BuildCMake
from scikit_build_core.setuptools.wrapper import setup

NEEDS_COMPILER = "sparsert needs a C++17 compiler (GCC 9 or Clang 10, or newer): {reason}\n{advice}"
ADVICE = (
    "Install one (Debian and Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: "
    "xcode-select --install) or set CXX to the one you have."
)
PROBE = "#include <optional>\nint main() { return std::optional<int>(0).value(); }\n"


def compiler_problem() -> str | None:
    """Says why no C++17 program can be compiled here; None when one can."""
    command = shlex.split(os.environ.get("CXX", ""))
    if not command:
        found = next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
        if found is None:
            return "none of c++, g++ and clang++ is on PATH, and CXX is not set."
        command = [found]
    elif shutil.which(command[0]) is None:
        return f"CXX is {command[0]!r}, which was not found."
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cc")
        source.write_text(PROBE)
        probe = [*command, "-std=c++17", "-c", str(source), "-o", str(source.with_suffix(".o"))]
        result = subprocess.run(probe, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return f"{command[0]} cannot compile a C++17 file:\n{result.stderr.strip()}"
    return None


class CheckedBuildCMake(BuildCMake):
    """The CMake build, after a check that says in one sentence what a machine lacks."""

    def run(self) -> None:
        """Builds, or ends with the reason why it cannot."""
        if sys.platform != "win32":
            reason = compiler_problem()
            if reason is not None:
                raise SystemExit(NEEDS_COMPILER.format(reason=reason, advice=ADVICE))
        super().run()


if os.environ.get("SPARSERT_SKIP_EXTENSION") == "1":
    setuptools.setup()
else:
    setup(cmake_source_dir=".", cmdclass={"build_cmake": CheckedBuildCMake})
