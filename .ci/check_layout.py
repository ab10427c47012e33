"""Checks where files are, how they are named, how long they are and how they begin."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from checker import Checker, leave, open_tree

TOP_LEVEL = {
    *("csrc", "sparsert", "tests", "bench", "docs", "examples", ".ci"),
    *("setup.py", "CMakeLists.txt", "README.md", "pyproject.toml", "Makefile", "LICENSE"),
    *("MANIFEST.in", ".gitignore", ".clang-format", "CHANGELOG.md", "CONTRIBUTING.md"),
}
CORE_FOLDERS = {
    *("include", "base", "simd", "formats", "kernels", "modelfile", "graph", "plan", "runtime"),
    *("capi", "python"),
}
PACKAGES = {
    *("importers", "passes", "formats", "modelfile", "runtime", "kernels", "prune", "quantize"),
    *("compat", "report"),
}
# Instruction sets by file name; one is enough to know how a file is compiled.
ISA_FILES = {
    *("scalar", "x86_avx2", "x86_avx512", "x86_avx512vnni", "x86_amx", "arm_neon", "arm_neondot"),
}
MAX_LINES = 600
# Path -> why it may be longer.
LONG_FILES: dict[str, str] = {}
SOURCES = (".h", ".cc", ".c", ".inc", ".py")
BINARIES = (".so", ".o", ".a", ".onnx", ".sprt", ".pyc", ".whl", ".pt", ".npy", ".npz")
SNAKE = re.compile(r"[a-z0-9_]+")


def check_place(tree: Checker, path: str) -> None:
    """The folder is one of the layout's."""
    parts = PurePosixPath(path).parts
    if parts[0] not in TOP_LEVEL:
        tree.report(path, 1, f"{parts[0]} is not an entry of the top level")
    if parts[0] == "csrc" and (len(parts) < 3 or parts[1] not in CORE_FOLDERS):
        tree.report(path, 1, f"csrc/ holds only the folders {', '.join(sorted(CORE_FOLDERS))}")
    if parts[0] == "csrc" and path.endswith(SOURCES) and not path.endswith((".h", ".cc", ".inc")):
        tree.report(path, 1, "csrc/ holds .h, .cc and .inc files")
    if parts[:2] == ("csrc", "include") and parts[2:] != ("sparsert.h",):
        tree.report(path, 1, "sparsert.h is the only public header")
    if parts[0] == "sparsert" and len(parts) > 2 and parts[1] not in PACKAGES:
        tree.report(path, 1, f"sparsert/ holds only the packages {', '.join(sorted(PACKAGES))}")
    if path.endswith(BINARIES):
        tree.report(path, 1, "binary and generated files stay out of the repository")


def check_kernel(tree: Checker, path: str) -> None:
    """Per-ISA files and the table of an operation are named alike in every csrc/kernels folder."""
    parts = PurePosixPath(path).parts
    if parts[:2] != ("csrc", "kernels") or len(parts) < 4:
        return
    stem, suffix = parts[-1].rsplit(".", 1)
    if len(parts) != 4:
        tree.report(path, 1, "kernels are in csrc/kernels/<op>/, no deeper")
    if suffix == "inc" and stem != "kernels":
        tree.report(path, 1, "the table of kernels is kernels.inc")
    of_isa = re.match(r"(x86|arm|scalar|avx|sse|neon)", stem) is not None
    if suffix == "cc" and of_isa and stem not in ISA_FILES:
        tree.report(path, 1, f"an ISA's file is one of {', '.join(sorted(ISA_FILES))} (.cc)")
    if suffix == "h" and of_isa:
        tree.report(path, 1, "headers are not of one ISA: write over Vec, or in csrc/simd/")


def check_families(tree: Checker) -> None:
    """The folders of csrc/kernels are those of the table in docs/naming.md."""
    page = "docs/naming.md"
    if page not in tree.files:
        return
    table = tree.read(page).partition("\n## Kernels\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", table, re.MULTILINE)[1:]
    listed = {name for row in rows for name in row.split(", ")}
    folders = {PurePosixPath(f).parts[2] for f in tree.files if f.endswith("/kernels.inc")}
    for name in sorted(listed ^ folders):
        where = "has no row" if name in folders else "is not a folder of csrc/kernels"
        tree.report(page, 1, f"{name} {where}")


def check_name(tree: Checker, path: str) -> None:
    """Sources are in snake_case; tests are named as their runners expect."""
    parts = PurePosixPath(path).parts
    name = parts[-1]
    if not name.endswith(SOURCES):
        return
    stem = name.rsplit(".", 1)[0]
    if not SNAKE.fullmatch(stem):
        tree.report(path, 1, "source files are named in snake_case")
    if parts[:2] == ("tests", "cpp") and name.endswith(".cc") and not name.endswith("_test.cc"):
        tree.report(path, 1, "C++ tests are named *_test.cc")


def check_text(tree: Checker, path: str) -> None:
    """Sources begin with their purpose and stay readable in one sitting."""
    if not path.endswith(SOURCES):
        return
    lines = tree.read(path).splitlines()
    if len(lines) > MAX_LINES and path not in LONG_FILES:
        tree.report(path, len(lines), f"{len(lines)} lines; more than {MAX_LINES} need a reason")
    first = next((line for line in lines if line.strip() and not line.startswith("#!")), "")
    starts = ('"""', "#", 'r"""') if path.endswith(".py") else ("//", "/*")
    if lines and not first.startswith(starts):
        tree.report(path, 1, "a source file begins with a line that says what it is for")
    if not lines and path.endswith(".py") and path.startswith("sparsert/"):
        tree.report(path, 1, "a source file begins with a line that says what it is for")


def main() -> None:
    """Checks every file."""
    tree = open_tree(__doc__)
    for path in tree.files:
        for check in (check_place, check_kernel, check_name, check_text):
            check(tree, path)
    folders = {str(PurePosixPath(f).parent) for f in tree.under("sparsert", ".py")}
    for folder in sorted(folders):
        if f"{folder}/__init__.py" not in tree.files:
            tree.report(folder, 1, "a package needs an __init__.py")
    check_families(tree)
    for path in LONG_FILES:
        if path not in tree.files and tree.root.joinpath(".git").exists():
            tree.report(".ci/check_layout.py", 1, f"LONG_FILES names {path}, which is not there")
    leave(tree.finish("layout"))


if __name__ == "__main__":
    main()
