"""Checks who includes and imports whom, in C++ and in Python."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import PurePosixPath

from checker import Checker, leave, open_tree

# ---- C++ ----------------------------------------------------------------------------------------
# Folder of csrc/ -> the folders whose headers it may include.
MAY_INCLUDE = {
    "include": set(),
    "base": set(),
    "simd": {"base"},
    "kernels": {"base", "simd"},
    "graph": {"base"},
    "formats": {"base", "graph"},
    "modelfile": {"base", "graph", "formats"},
    "plan": {"base", "graph", "formats", "modelfile", "kernels"},
    "runtime": {"base", "graph", "formats", "modelfile", "kernels", "plan"},
    "capi": {"base", "graph", "formats", "modelfile", "kernels", "plan", "runtime", "include"},
    "python": {
        *("base", "graph", "formats", "modelfile", "kernels", "plan", "runtime", "include", "capi"),
    },
}
VECTOR_HEADERS = {
    "simd/vec_scalar.h": ("scalar",),
    "simd/vec_avx2.h": ("x86_avx2",),
    "simd/vec_avx512.h": ("x86_avx512", "x86_avx512vnni", "x86_amx"),
    "simd/vec_neon.h": ("arm_neon", "arm_neondot"),
}
INTRINSICS = {"immintrin.h", "x86intrin.h", "emmintrin.h", "arm_neon.h", "arm_acle.h"}
# What the core does not use: it throws nothing, prints nothing, and allocates from its caller.
NOT_IN_CORE = {
    *("iostream", "fstream", "sstream", "ostream", "istream", "iomanip", "string", "vector", "map"),
    *("set", "unordered_map", "unordered_set", "list", "deque", "memory", "functional", "regex"),
    *("stdexcept", "exception", "typeinfo", "any", "locale", "filesystem", "future", "random"),
}
# Threads, files and memory maps are the platform's business.
PLATFORM = {
    "thread",
    "mutex",
    "condition_variable",
    "pthread.h",
    "sys/mman.h",
    "unistd.h",
    "sched.h",
}
PLATFORM_FOLDERS = {"base", "python"}
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')


def check_includes(tree: Checker, path: str) -> None:
    """The includes of one C++ file of csrc/."""
    layer = PurePosixPath(path).parts[1]
    stem = PurePosixPath(path).stem
    allowed = MAY_INCLUDE.get(layer, set()) | {layer}
    for number, line in enumerate(tree.read(path).splitlines(), 1):
        match = INCLUDE.match(line)
        if match is None:
            continue
        quote, name = match.groups()
        if quote == '"':
            target = "include" if name == "sparsert.h" else name.split("/")[0]
            if "/" not in name and target != "include":
                tree.report(path, number, f'write the path from csrc/, not "{name}"')
            elif target not in allowed:
                tree.report(path, number, f"{layer}/ must not include {target}/ ({name})")
            owners = VECTOR_HEADERS.get(name)
            if owners is not None and stem not in owners and layer != "simd":
                tree.report(path, number, f"{name} is for {', '.join(owners)} files only")
        elif name in INTRINSICS and layer != "simd" and not re.match(r"(x86|arm)_", stem):
            tree.report(path, number, f"<{name}> is for csrc/simd/ and ISA files")
        elif name in NOT_IN_CORE and layer != "python":
            tree.report(path, number, f"the core does not use <{name}>")
        elif name in PLATFORM and layer not in PLATFORM_FOLDERS:
            tree.report(path, number, f"<{name}> belongs behind csrc/base/")


# ---- Python -------------------------------------------------------------------------------------
APART = {"importers", "passes", "formats", "prune"}
# `import sparsert`, running a .sprt file, and what both import eagerly, need these alone.
LEAN_PACKAGES = {"numpy", "sparsert"} | set(sys.stdlib_module_names)
LEAN_ROOTS = ("sparsert", "sparsert.api", "sparsert.runtime", "sparsert.errors", "sparsert.cli")


def module_name(path: str) -> str:
    """sparsert/passes/__init__.py -> sparsert.passes."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.stmt, package: str) -> list[str]:
    """Full names that an import statement may load, for a module in `package`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parents = package.split(".")
        parents = parents[: len(parents) - node.level + 1]
        base = ".".join([*parents, base] if base else parents)
    return [base] + [f"{base}.{alias.name}" for alias in node.names]


def is_type_checking(node: ast.stmt) -> bool:
    """Whether this is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def eager_statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements that run when a module is imported, those in try, if, with and class included."""
    found: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(node):
            continue
        found.append(node)
        for field in ("body", "orelse", "finalbody"):
            found += eager_statements(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            found += eager_statements(handler.body)
    return found


def check_python(tree: Checker) -> None:
    """Imports of the package sparsert."""
    modules: dict[str, tuple[str, ast.Module]] = {}
    for path in tree.under("sparsert", ".py"):
        try:
            modules[module_name(path)] = (path, ast.parse(tree.read(path)))
        except SyntaxError as error:
            tree.report(path, error.lineno or 1, "does not parse")
    eager: dict[str, list[tuple[int, str]]] = {}
    for name, (path, module) in modules.items():
        package = name if path.endswith("__init__.py") else name.rpartition(".")[0]
        layer = name.split(".")[1] if "." in name else ""
        for node in ast.walk(module):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            for target in imported(node, package):
                parts = target.split(".")
                if "_core" in parts and parts[0] == "sparsert" and layer != "runtime":
                    tree.report(path, node.lineno, "only sparsert/runtime/ imports _core")
                if layer in APART and parts[0] == "sparsert" and len(parts) > 1:
                    if parts[1] in APART - {layer}:
                        message = f"{layer} must not import {parts[1]}"
                        tree.report(path, node.lineno, message)
        eager[name] = [
            (node.lineno, target)
            for node in eager_statements(module.body)
            for target in imported(node, package)
        ]
    check_lean(tree, modules, eager)


def check_lean(
    tree: Checker,
    modules: dict[str, tuple[str, ast.Module]],
    eager: dict[str, list[tuple[int, str]]],
) -> None:
    """Modules loaded by `import sparsert` import nothing but NumPy and the standard library."""
    reached: set[str] = set()
    waiting = [root for root in LEAN_ROOTS if root in modules]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        for line, target in eager[name]:
            if target.split(".")[0] not in LEAN_PACKAGES:
                message = f"{target} is imported whenever sparsert is: import it where it is used"
                if not any(target.startswith(f"{t}.") for n, t in eager[name] if n == line):
                    tree.report(modules[name][0], line, message)
            parts = target.split(".")
            prefixes = (".".join(parts[: i + 1]) for i in range(len(parts)))
            waiting += [p for p in prefixes if p in modules]


def main() -> None:
    """Checks csrc/ and sparsert/."""
    tree = open_tree(__doc__)
    for path in tree.under("csrc", ".h", ".cc", ".inc"):
        check_includes(tree, path)
    check_python(tree)
    tree.findings = list(dict.fromkeys(tree.findings))
    leave(tree.finish("dependencies"))


if __name__ == "__main__":
    main()
