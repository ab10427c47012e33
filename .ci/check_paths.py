"""Checks that no file names a machine's folders or a package registry's host."""

from __future__ import annotations

import re

from checker import leave, open_tree

# Each pattern is written so that it does not match itself.
PATTERNS = {
    "a folder of one machine": re.compile(
        r"(?<![\w.])/(?:[w]ork|[r]oot|[h]ome/\w+|[f]arm|[U]sers/\w+|tmp/[l]ab)(?:/|\b)"
    ),
    "a package registry": re.compile(
        r"[p]ypi\.org|[p]ythonhosted|[d]ownload\.pytorch|[r]egistry\.npmjs|[d]eb\.debian"
        r"|[p]roxy\.golang|--[e]xtra-index-url|--[i]ndex-url|--[f]ind-links"
    ),
}
TEXT = (
    *(".py", ".h", ".cc", ".c", ".inc", ".md", ".txt", ".toml", ".cmake", ".in", ".yml", ".yaml"),
    *("Makefile", "run", ".gitignore", ".clang-format", ".sh", ".json", ".cfg", ".ini"),
)


def main() -> None:
    """Checks every text file."""
    tree = open_tree(__doc__)
    for path in tree.files:
        if not path.endswith(TEXT):
            continue
        for number, line in enumerate(tree.read(path).splitlines(), 1):
            for what, pattern in PATTERNS.items():
                match = pattern.search(line)
                if match:
                    tree.report(path, number, f"names {what}: {match.group()}")
    leave(tree.finish("paths"))


if __name__ == "__main__":
    main()
