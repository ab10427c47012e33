"""The exceptions that sparsert raises."""

from __future__ import annotations

from collections.abc import Sequence


class SparsertError(Exception):
    """Base of every error that sparsert raises on purpose."""


class ModelFormatError(SparsertError, ValueError):
    """A model file or graph is missing, truncated, corrupt, ill-typed or not a model at all."""


class UnsupportedOpError(SparsertError, NotImplementedError):
    """A model uses an operator that nothing available here can run."""


class ShapeError(SparsertError, ValueError):
    """Shapes or dtypes contradict each other: in the graph, or between the graph and its feeds."""


class LevelError(SparsertError, ValueError):
    """A model has no level of that name, or no levels."""


class BackendError(SparsertError, RuntimeError):
    """A backend, kernel or instruction set is absent, or failed while running."""


def unknown_level(label: str, name: str, levels: Sequence[str]) -> LevelError:
    """Returns the error of a level that a model does not have."""
    known = ", ".join(map(repr, levels)) or "none"
    return LevelError(f"{label}: there is no level {name!r}; its levels: {known}")


def describe_problems(source: str, problems: Sequence[str]) -> str:
    """Returns one message that names the source and lists every problem found.

    Args:
        source: what the problems were found in, such as a file's path.
        problems: one line each; must not be empty.

    Returns:
        `source: problem` for one problem, else a heading and one `  - problem` line for each.
    """
    if len(problems) == 1:
        return f"{source}: {problems[0]}"
    lines = "\n".join(f"  - {problem}" for problem in problems)
    return f"{source}: {len(problems)} problems:\n{lines}"
