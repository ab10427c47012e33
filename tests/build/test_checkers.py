"""Every checker of .ci passes a clean tree and names the place of a seeded violation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {
    "csrc/base/status.h": "// Errors as values.\n#pragma once\n",
    "csrc/kernels/spmm/x86_avx2.cc": '// spmm over AVX2.\n#include "simd/vec_avx2.h"\n',
    "sparsert/__init__.py": '"""The package."""\n\nimport numpy\n',
    "sparsert/runtime/__init__.py": '"""Runs models."""\n\nfrom sparsert.runtime import _core\n',
    "sparsert/passes/__init__.py": '"""Passes."""\n\nimport onnx_ir\n',
}


def run_checker(name: str, root: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for path, text in {**CLEAN, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    command = [sys.executable, str(ROOT / ".ci" / f"check_{name}.py"), "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["layout", "dependencies", "paths"])
def test_clean_tree_passes(name: str, tmp_path: Path) -> None:
    result = run_checker(name, tmp_path, {})
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("ok\n")


VIOLATIONS = [
    # checker, path, text, line, part of the message
    ("layout", "src/a.cc", "// A.\n", 1, "src is not an entry of the top level"),
    ("layout", "csrc/engine/a.cc", "// A.\n", 1, "csrc/ holds only the folders"),
    ("layout", "csrc/include/other.h", "// A.\n", 1, "only public header"),
    ("layout", "sparsert/engine/__init__.py", '"""A."""\n', 1, "holds only the packages"),
    ("layout", "sparsert/formats/csr.py", '"""A."""\n', 1, "needs an __init__.py"),
    ("layout", "csrc/kernels/spmm/haswell.cc", "int a;\n", 1, "says what it is for"),
    ("layout", "csrc/kernels/spmm/x86_haswell.cc", "// A.\n", 1, "an ISA's file is one of"),
    ("layout", "csrc/kernels/spmm/avx2/x86_avx2.cc", "// A.\n", 1, "no deeper"),
    ("layout", "csrc/kernels/spmm/table.inc", "// A.\n", 1, "is kernels.inc"),
    ("layout", "csrc/kernels/spmm/x86_avx2.h", "// A.\n", 1, "headers are not of one ISA"),
    ("layout", "csrc/base/ThreadPool.cc", "// A.\n", 1, "snake_case"),
    ("layout", "csrc/base/long.cc", "// A.\n" + "int a;\n" * 600, 601, "more than 600"),
    ("layout", "tests/cpp/kernels.cc", "// A.\n", 1, "*_test.cc"),
    (
        "layout",
        "docs/naming.md",
        "\n## Kernels\n\n| folder |\n|---|\n| spmm | x |\n",
        1,
        "spmm is not",
    ),
    ("layout", "tests/data/model.onnx", "x", 1, "binary and generated files"),
    ("dependencies", "csrc/kernels/a.h", '\n#include "graph/graph.h"\n', 2, "must not include"),
    ("dependencies", "csrc/base/a.h", '#include "simd/vec_avx2.h"\n', 1, "must not include"),
    ("dependencies", "csrc/graph/a.h", '#include "plan/plan.h"\n', 1, "must not include"),
    ("dependencies", "csrc/base/a.h", '#include "status.h"\n', 1, "write the path"),
    ("dependencies", "csrc/kernels/x/scalar.cc", '#include "simd/vec_avx2.h"\n', 1, "files only"),
    ("dependencies", "csrc/plan/a.cc", "#include <immintrin.h>\n", 1, "ISA files"),
    ("dependencies", "csrc/plan/a.cc", "#include <vector>\n", 1, "does not use <vector>"),
    ("dependencies", "csrc/runtime/a.cc", "#include <thread>\n", 1, "behind csrc/base/"),
    ("dependencies", "sparsert/a.py", "\nfrom sparsert.runtime import _core\n", 2, "imports _core"),
    (
        "dependencies",
        "sparsert/passes/a.py",
        "from ..importers import x\n",
        1,
        "not import importers",
    ),
    ("dependencies", "sparsert/prune/a.py", "import sparsert.formats\n", 1, "not import formats"),
    ("dependencies", "sparsert/api.py", "\nimport onnx\n", 2, "import it where it is used"),
    ("dependencies", "sparsert/api.py", "from sparsert import passes\n", 3, "onnx_ir is imported"),
    ("dependencies", "sparsert/cli.py", "try:\n    import rich\nexcept E:\n    pass\n", 2, "rich"),
    ("paths", "docs/a.md", "See /" + "work/x.\n", 1, "a folder of one machine"),
    ("paths", "Makefile", "\npip install --" + "index-url x\n", 2, "a package registry"),
]


@pytest.mark.parametrize(
    ("name", "path", "text", "line", "message"), VIOLATIONS, ids=lambda v: str(v)[:40]
)
def test_violation_is_named(
    name: str, path: str, text: str, line: int, message: str, tmp_path: Path
) -> None:
    result = run_checker(name, tmp_path, {path: text})
    assert result.returncode == 1, result.stdout + result.stderr
    findings = [f for f in result.stdout.splitlines() if message in f]
    assert findings, result.stdout
    assert f":{line}: " in findings[0]


def test_lazy_and_typing_imports_are_allowed(tmp_path: Path) -> None:
    text = (
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import onnx\n\n"
        "def load():\n    import torch\n"
    )
    result = run_checker("dependencies", tmp_path, {"sparsert/api.py": text})
    assert result.returncode == 0, result.stdout


CXX = shutil.which("c++") or shutil.which("g++")
ISA_SOURCES = {
    # Namespaced functions, variables and local statics are what an ISA file may define.
    "clean": (
        "namespace sparsert::avx2 { int Add(int a) { static int n = a; return n; } int x; }",
        "",
    ),
    "row": ("namespace sparsert { void add_f32_avx2(int*) {} }", ""),
    "weak row": (
        "namespace sparsert { __attribute__((weak)) void add_f32_avx2(int*) {} }",
        "add_f32_avx2",
    ),
    "row of another": ("namespace sparsert { void add_f32_avx512(int*) {} }", "add_f32_avx512"),
    "weak": (
        "template <class T> __attribute__((noinline)) T Twice(T a) { return a + a; }\n"
        "namespace sparsert::avx2 { int Add(int a) { return Twice(a); } }",
        "Twice",
    ),
    "other": ("namespace sparsert { int Add(int a) { return a; } }", "3AddEi"),
    "mixed": ("namespace sparsert::avx512 { int Add(int a) { return a; } }", "avx512"),
}


@pytest.mark.skipif(CXX is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("case", list(ISA_SOURCES))
def test_isa_objects(case: str, tmp_path: Path) -> None:
    text, symbol = ISA_SOURCES[case]
    source = tmp_path / "x86_avx2.cc"
    source.write_text(text + "\n")
    target = tmp_path / "x86_avx2.cc.o"
    subprocess.run([str(CXX), "-std=c++17", "-O1", "-c", source, "-o", target], check=True)
    command = [sys.executable, str(ROOT / ".ci" / "check_isa_objects.py"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == (1 if symbol else 0), result.stdout + result.stderr
    assert symbol in result.stdout


def test_isa_objects_must_be_there(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / ".ci" / "check_isa_objects.py"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "build first" in result.stdout


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("#include <string.h>\nvoid* srt_a(void* p) { return memset(p, 0, 9); }\n", "--bare", ""),
        ("#include <stdlib.h>\nvoid* srt_a(void) { return malloc(9); }\n", "", "wants malloc"),
        ("#include <stdlib.h>\nvoid srt_a(void* p) { free(p); }\n", "", ""),
        ("#include <stdlib.h>\nvoid srt_a(void* p) { free(p); }\n", "--bare", "wants free"),
        ("int other;\n", "", "defines other"),
        ("const char srt_a[2048] = {1};\n", "--kib=1", " KiB, more than 1"),
    ],
)
def test_archive(text: str, options: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(text)
    subprocess.run(["cc", "-c", "-fno-builtin", "a.c"], cwd=tmp_path, check=True)
    subprocess.run(["ar", "rc", "a.a", "a.o"], cwd=tmp_path, check=True)
    command = [sys.executable, str(ROOT / ".ci" / "check_archive.py"), "a.a", *options.split()]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == (1 if message else 0), result.stdout + result.stderr
    assert message in result.stdout
