"""What the options of the public functions have to be, and one message for all that are not."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from sparsert.errors import describe_problems

# As kMaxThreads in csrc/capi/capi.cc.
MAX_THREADS = 1024


def is_number(value: Any) -> bool:
    """Says whether it is a real number, NaN and infinities included."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_between(value: Any, low: float, high: float) -> bool:
    """Says whether it is a number more than `low` and less than `high`."""
    return is_number(value) and low < value < high


def is_count(value: Any, least: int = 0) -> bool:
    """Says whether it is an integer of at least `least`."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_one_of(value: Any, known: Collection[str]) -> bool:
    """Says whether it is one of these words."""
    return isinstance(value, str) and value in known


def is_flag(value: Any) -> bool:
    """Says whether it is True or False, or counts as such."""
    return type(value).__name__ in ("bool", "bool_") or (is_count(value) and value < 2)


def is_json(value: Any) -> bool:
    """Says whether JSON holds it; it has no NaN and no infinities."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


class OptionChecks:
    """Collects what is wrong with the options of a function.

    Attributes:
        problems: one line each.
    """

    def __init__(self, function: str) -> None:
        self.problems: list[str] = []
        self._function = function

    def require(self, is_right: bool, name: str, value: Any, expected: str) -> None:
        """Notes an option that is not what it has to be."""
        if not is_right:
            self.problems.append(f"{name} is {value!r}, expected {expected}")

    def word(self, name: str, value: Any, known: Collection[str]) -> None:
        """One of some words."""
        self.require(is_one_of(value, known), name, value, f"one of {', '.join(known)}")

    def flags(self, **values: Any) -> None:
        """True or False, or what counts as such."""
        for name, value in values.items():
            self.require(is_flag(value), name, value, "True or False")

    def names(self, name: str, value: Any) -> tuple[str, ...]:
        """One string or several; returns them, without what is none."""
        if isinstance(value, str):
            return (value,)
        found = tuple(value) if _is_list(value) else (value,)
        is_right = _is_list(value) and all(isinstance(entry, str) for entry in found)
        self.require(is_right, name, value, "strings")
        return tuple(entry for entry in found if isinstance(entry, str))

    def functions(self, **values: Any) -> None:
        """Functions, or None."""
        for name, value in values.items():
            self.require(value is None or callable(value), name, value, "a function or None")

    def path(self, name: str, value: Any) -> None:
        """The path of a file, or None."""
        is_right = value is None or isinstance(value, str | os.PathLike)
        self.require(is_right, name, value, "the path of a file")

    def threads(self, value: Any) -> None:
        """How many threads run."""
        is_right = value is None or (is_count(value, 1) and value <= MAX_THREADS)
        self.require(is_right, "threads", value, f"None or an integer from 1 to {MAX_THREADS}")

    def tune(self, value: Any) -> None:
        """What is tuned."""
        is_right = is_flag(value) or is_one_of(value, ("auto",))
        self.require(is_right, "tune", value, 'True, False or "auto"')

    def seed(self, value: Any) -> None:
        """Where random numbers start."""
        self.require(is_count(value), "seed", value, "an integer of at least 0")

    def refuse(self) -> None:
        """Raises a ValueError that lists the problems, if there are any."""
        if self.problems:
            raise ValueError(describe_problems(self._function, self.problems))


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | Mapping)
