"""The folder of the tuning cache: where it is, what is kept, and what may go wrong with it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsert.runtime import tuning_cache
from sparsert.runtime.native_backend import import_core

NAME = "a.tuning"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSERT_CACHE_DIR", str(tmp_path))
    return tmp_path / "tuning"


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_where_it_is(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuning_cache.folder() == cache
    monkeypatch.delenv("SPARSERT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tuning_cache.folder() == tmp_path / "xdg" / "sparsert" / "tuning"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unusable in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert tuning_cache.folder() == tmp_path / "home" / ".cache" / "sparsert" / "tuning"
    for value in ("0", "off", "False"):
        monkeypatch.setenv("SPARSERT_CACHE", value)
        assert tuning_cache.folder() is None
        tuning_cache.write(NAME, b"data")
        assert tuning_cache.read(NAME) == b""
    assert not (tmp_path / "home").exists()


def test_what_was_written_is_read(cache: Path) -> None:
    assert tuning_cache.read(NAME) == b""
    for data in (b"one", b"another"):
        tuning_cache.write(NAME, data)
        assert tuning_cache.read(NAME) == data
    assert files(cache) == [NAME]
    assert (cache / NAME).stat().st_mode & 0o77 == 0


def test_too_large_files_are_none_of_ours(cache: Path) -> None:
    large = bytes(tuning_cache.MAX_FILE_BYTES + 1)
    tuning_cache.write(NAME, large)
    assert not cache.exists()
    cache.mkdir()
    (cache / NAME).write_bytes(large)
    assert tuning_cache.read(NAME) == b""


@pytest.mark.parametrize("limit", ["MAX_FILES", "MAX_FOLDER_BYTES"])
def test_what_was_not_used_for_longest_goes(
    cache: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(tuning_cache, limit, {"MAX_FILES": 3, "MAX_FOLDER_BYTES": 35}[limit])
    for i in range(3):
        tuning_cache.write(f"{i}.tuning", bytes(10))
        os.utime(cache / f"{i}.tuning", (i, i))
    (cache / "foreign").write_bytes(bytes(100))
    assert tuning_cache.read("0.tuning")
    tuning_cache.write("3.tuning", bytes(10))
    assert files(cache) == ["0.tuning", "2.tuning", "3.tuning", "foreign"]


def test_a_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SPARSERT_CACHE_DIR", str(tmp_path / "file"))
    tuning_cache.write(NAME, b"data")
    assert tuning_cache.read(NAME) == b""
    monkeypatch.setenv("SPARSERT_CACHE_DIR", str(tmp_path))
    (tmp_path / "tuning" / NAME).mkdir(parents=True)  # in the way of the file
    tuning_cache.write(NAME, b"data")
    assert tuning_cache.read(NAME) == b""
    assert files(tmp_path / "tuning") == [NAME]


def test_many_writers(cache: Path) -> None:
    written = {bytes([i]) * 20000 for i in range(8)}
    with ThreadPoolExecutor(8) as pool:
        for data in list(written) * 10:
            pool.submit(tuning_cache.write, NAME, data)
            pool.submit(lambda: seen.add(tuning_cache.read(NAME)))
        seen: set[bytes] = set()
    assert seen <= written | {b""}
    assert files(cache) == [NAME]


def test_the_name_tells_all_conditions_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    core = import_core()
    file = np.arange(512, dtype=np.uint8)

    def name(change: int = 0, n: int = 1, **options: Any) -> str:
        changed = file.copy()
        changed[24] += change  # the checksum
        options = {"isa": "scalar", "threads": 1, "tune": "auto", **options}
        return tuning_cache.file_name(core, changed, shapes=[(n, 3), (2,)], **options)

    names = [name(), name(1), name(isa="avx2"), name(threads=2), name(tune=True), name(n=2)]
    monkeypatch.setenv("SPARSERT_FORMAT", "csr")
    names.append(name())
    monkeypatch.setattr(tuning_cache, "machine_facts", lambda: ("another",))
    names.append(name())
    assert len(set(names)) == len(names)
    assert name() == names[-1]
    file = file[:400]
    assert name() != names[-1]


def test_the_machine_is_described() -> None:
    facts = tuning_cache.machine_facts()
    assert facts == tuning_cache.machine_facts()
    if Path("/proc/cpuinfo").exists():
        assert any("flags=" in fact or "Features=" in fact for fact in facts)
        assert not any("MHz" in fact for fact in facts)
