"""The tuning cache: kernel choices that earlier loads measured, kept on disk.

A file per model, machine, options and input shapes, named by a hash of them all. The core checks
what it is given, so a corrupt file costs a new measurement and nothing else; and so does a folder
that cannot be read or written. Files are replaced as a whole: any number of processes and threads
may share a folder.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

# The oldest files beyond these go when one is written.
MAX_FILES = 500
MAX_FOLDER_BYTES = 32 << 20
# A larger file is not one of ours.
MAX_FILE_BYTES = 1 << 20

_SUFFIX = ".tuning"
_OFF = ("0", "off", "false", "no")
# Of /proc/cpuinfo: what a processor is, not what it does just now.
_CPU_FACTS = {
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
}
# Enough of a .sprt file to know it by: its size, its checksum and where its sections lie.
_HEADER_BYTES = 256


def folder() -> Path | None:
    """Returns the cache's folder, which may not exist; None when the cache is switched off."""
    if os.environ.get("SPARSERT_CACHE", "").strip().lower() in _OFF:
        return None
    named = os.environ.get("SPARSERT_CACHE_DIR")
    if named:
        return Path(named) / "tuning"
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):
        return Path(shared) / "sparsert" / "tuning"
    home = os.path.expanduser("~")
    return Path(home) / ".cache" / "sparsert" / "tuning" if os.path.isabs(home) else None


def file_name(
    core: Any,
    file: Any,
    isa: str,
    threads: int,
    tune: bool | str,
    shapes: Sequence[tuple[int, ...] | bytes],
) -> str:
    """Names the cache file of a plan.

    Args:
        core: the compiled module.
        file: bytes of the .sprt file, as an array; the core has verified its checksum.
        isa: the instruction set in use.
        threads: of one run.
        tune: the option.
        shapes: of the inputs, then the values that the plan depends on.
    """
    facts = (
        ("core", core.__version__, core.abi_version, *_build_of(core.__file__)),
        ("machine", *machine_facts()),
        ("model", file.size, bytes(file[:_HEADER_BYTES]).hex()),
        ("options", isa, threads, str(tune), os.environ.get("SPARSERT_FORMAT", "")),
        ("shapes", *shapes),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:40] + _SUFFIX


@lru_cache(maxsize=1)
def machine_facts() -> tuple[str, ...]:
    """Returns what the processor is: model, features, sizes of its caches."""
    facts = [os.uname().machine] if hasattr(os, "uname") else []
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in text.split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _CPU_FACTS:
                facts.append(f"{name.strip()}={value.strip()}")
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with suppress(OSError):
            entries = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
            facts.append(" ".join(entries))
    return tuple(facts)


@lru_cache(maxsize=4)
def _build_of(extension: str) -> tuple[int, int]:
    """Tells builds of one version apart: size and time of the compiled module."""
    try:
        status = os.stat(extension)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def read(name: str) -> bytes:
    """Returns the file's bytes, unchecked; none when there is no such file."""
    where = folder()
    if where is None:
        return b""
    path = where / name
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        with suppress(OSError):
            os.utime(path)  # used now: the last to go
    except OSError:
        return b""
    return data if len(data) <= MAX_FILE_BYTES else b""


def write(name: str, data: bytes) -> None:
    """Puts the bytes in place of the file, if the folder can be written, and trims the folder."""
    where = folder()
    if where is None or len(data) > MAX_FILE_BYTES:
        return
    with suppress(OSError):
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=where, suffix=_SUFFIX)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(temporary, where / name)
        except OSError:
            os.unlink(temporary)
            raise
        _trim(where)


def _trim(where: Path) -> None:
    """Deletes the files that were not used for longest, until the rest keeps to the limits."""
    files = []
    with os.scandir(where) as entries:
        for entry in entries:
            with suppress(OSError):  # another process may have deleted it
                if entry.name.endswith(_SUFFIX) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    files.append((status.st_mtime_ns, status.st_size, entry.path))
    files.sort(reverse=True)
    total = 0
    for count, (_, size, path) in enumerate(files, 1):
        total += size
        if count > MAX_FILES or total > MAX_FOLDER_BYTES:
            with suppress(OSError):
                os.unlink(path)
