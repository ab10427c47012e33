"""What the checkers share: the tree's files, findings as file:line, and the exit status."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


class Checker:
    """Collects findings about the tree under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.findings: list[str] = []
        self.files = sorted(_list_files(root))

    def report(self, path: str, line: int, message: str) -> None:
        """Notes a violation at a place."""
        self.findings.append(f"{path}:{line}: {message}")

    def read(self, path: str) -> str:
        """The text of a file of the tree."""
        return (self.root / path).read_text(encoding="utf-8", errors="replace")

    def under(self, folder: str, *suffixes: str) -> Iterator[str]:
        """Files of the tree below a folder, by suffix."""
        return (f for f in self.files if f.startswith(folder + "/") and f.endswith(suffixes))

    def finish(self, what: str) -> int:
        """Prints the findings; the exit status of the command."""
        for finding in self.findings:
            print(finding)
        state = f"{len(self.findings)} violations" if self.findings else "ok"
        print(f"{what}: {len(self.files)} files, {state}")
        return 1 if self.findings else 0


def _list_files(root: Path) -> list[str]:
    git = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard"]
    if (root / ".git").exists():
        listed = subprocess.run(git, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            return [f for f in listed.stdout.splitlines() if (root / f).is_file()]
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f == ".ci" or f[0] not in "._"]
        found += [str(Path(folder, name).relative_to(root)) for name in names]
    return found


def open_tree(description: str | None) -> Checker:
    """Reads the command line of a checker: --root, this repository by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    return Checker(parser.parse_args().root)


def leave(status: int) -> None:
    """Ends the command."""
    sys.stdout.flush()
    sys.exit(status)
