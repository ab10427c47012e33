"""setup.py says what a machine without a compiler lacks; `import sparsert` needs NumPy alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build_extension(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the build command with an environment in which it cannot get far."""
    kept = {
        k: v for k, v in os.environ.items() if k not in ("CC", "CXX", "SPARSERT_SKIP_EXTENSION")
    }
    command = [sys.executable, "setup.py", "build_cmake", "--build-lib", str(tmp_path / "lib")]
    command += ["--build-temp", str(tmp_path / "temp")]
    return subprocess.run(
        command, cwd=ROOT, env={**kept, **env}, capture_output=True, text=True, check=False
    )


def test_no_compiler(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core")
    (tmp_path / "bin").mkdir()
    result = build_extension(tmp_path, PATH=str(tmp_path / "bin"))
    assert result.returncode != 0
    assert "sparsert needs a C++17 compiler" in result.stderr
    assert "none of c++, g++ and clang++ is on PATH" in result.stderr
    assert "apt-get install g++" in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_cxx_is_named(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core")
    result = build_extension(tmp_path, CXX="no-such-compiler")
    assert result.returncode != 0
    assert "CXX is 'no-such-compiler', which was not found" in result.stderr


def test_old_compiler_is_named(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core")
    old = tmp_path / "oldc++"
    old.write_text("#!/bin/sh\necho 'unrecognized option -std=c++17' >&2\nexit 1\n")
    old.chmod(0o755)
    result = build_extension(tmp_path, CXX=str(old))
    assert result.returncode != 0
    assert "cannot compile a C++17 file" in result.stderr
    assert "unrecognized option -std=c++17" in result.stderr


LEAN_IMPORT = """
import sys
import numpy
before = set(sys.modules)
import sparsert
loaded = {name.split(".")[0] for name in set(sys.modules) - before}
extra = sorted(loaded - {"numpy", "sparsert"} - set(sys.stdlib_module_names))
# An editable installation adds its finder.
print([name for name in extra if not name.startswith("__editable__")])
"""


def test_import_needs_numpy_alone() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LEAN_IMPORT], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
