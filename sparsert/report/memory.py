"""Resident memory of this process, where Linux tells it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def resident_bytes() -> int | None:
    """Returns the resident memory now; None where the system does not tell."""
    return _status("VmRSS")


def peak_bytes() -> int | None:
    """Returns the peak of resident memory since the start or the last reset_peak()."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Makes the peak start again from the memory of now, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(field: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key == field:
            return int(rest.split()[0]) * 1024
    return None
