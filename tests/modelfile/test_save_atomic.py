"""A failed save leaves the old file; a good one replaces it whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sparsert.modelfile import save_atomic


def test_new_file_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "model.sprt"
    save_atomic(path, b"first")
    assert path.read_bytes() == b"first"
    save_atomic(str(path), [b"sec", memoryview(b"ond"), np.frombuffer(b"!", np.uint8)])
    assert path.read_bytes() == b"second!"
    save_atomic(path, np.arange(3, dtype=np.uint16))
    assert path.read_bytes() == b"\0\0\1\0\2\0"
    assert os.listdir(tmp_path) == ["model.sprt"]


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(b"old")

    def chunks() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        save_atomic(path, chunks())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.sprt"]


def test_failed_replacement_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        save_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.sprt"]


def test_missing_directory(tmp_path: Path) -> None:
    path = tmp_path / "none" / "model.sprt"
    with pytest.raises(FileNotFoundError) as caught:
        save_atomic(path, b"data")
    assert caught.value.filename == str(path)
    with pytest.raises(OSError, match="directory") as caught_other:
        save_atomic(tmp_path, b"data")
    assert str(caught_other.value).endswith(f": '{tmp_path}'")


def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link = tmp_path / "link.sprt"
    link.symlink_to(path)
    save_atomic(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    umask = os.umask(0o022)
    try:
        save_atomic(tmp_path / "fresh.sprt", b"new")
    finally:
        os.umask(umask)
    assert (tmp_path / "fresh.sprt").stat().st_mode & 0o777 == 0o644
