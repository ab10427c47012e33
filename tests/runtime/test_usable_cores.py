"""usable_cores(): one count for the default of threads= and for reports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import sparsert
from sparsert import errors
from sparsert.report import describe_machine
from sparsert.runtime import native_backend
from sparsert.runtime.native_backend import usable_cores
from tests.api.models import small_cnn_file

needs_masks = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system has no CPU masks"
)

# Prints the cores, and the threads of a model, of a process that may use one CPU of its mask.
ONE_CPU = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import sparsert
from sparsert.report import describe_machine
from sparsert.runtime.native_backend import usable_cores
note = sparsert.load(sys.argv[1], tune=False).explain().notes[0]
print(usable_cores(), describe_machine().cores, note)
"""


def test_threads_and_reports_use_the_same_count() -> None:
    cores = usable_cores()
    assert 1 <= cores <= (os.cpu_count() or 1)
    assert describe_machine().cores == cores
    note = sparsert.load(small_cnn_file(), tune=False).explain().notes[0]
    assert f", {cores} thread(s)" in note


@needs_masks
def test_a_mask_of_one_cpu(tmp_path) -> None:
    path = tmp_path / "m.sprt"
    path.write_bytes(small_cnn_file())
    command = [sys.executable, "-c", ONE_CPU, str(path)]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert words.startswith("1 1 ")
    assert ", 1 thread(s)" in words


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise errors.BackendError("no extension")

    monkeypatch.setattr(native_backend, "import_core", missing)
    want = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert usable_cores() == want
    assert describe_machine().cores == want
