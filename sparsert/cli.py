"""Entry of the command sparsert; cli_commands.py, which needs click and rich, has the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves: 0 ok, 1 an error that is explained, 2 wrong usage.

    Args:
        arguments: without the program's name; None: those of this process.
    """
    try:
        from sparsert.cli_commands import sparsert
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("click", "rich"):
            raise
        print(
            f'sparsert: the command needs click and rich ({error}); pip install "sparsert[cli]"',
            file=sys.stderr,
        )
        sys.exit(1)
    sparsert(None if arguments is None else list(arguments), prog_name="sparsert")
