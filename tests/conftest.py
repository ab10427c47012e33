"""What every Python test shares: the engines of the suite, and a report of what ran."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

import sparsert
from tests.suite import harness

_cache_folder = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the tests, and the processes that they start, away from the user's tuning cache."""
    config.stash[_cache_folder] = tempfile.TemporaryDirectory(prefix="sparsert-tests-")
    os.environ["SPARSERT_CACHE_DIR"] = config.stash[_cache_folder].name
    os.environ.pop("SPARSERT_CACHE", None)
    # What Numba compiled stays, for compiling takes longer than the tests of it.
    package = Path(sparsert.__file__).resolve().parent
    os.environ.setdefault("NUMBA_CACHE_DIR", str(package.parent / "build" / "numba"))
    _find_library()


def _find_library() -> None:
    """Names the C library of the build that the package is of, if there is one."""
    package = Path(sparsert.__file__).resolve().parent
    for build in (package.parents[1], package.parent / "build" / "dev"):
        if (build / "libsparsert.so").exists():
            os.environ.setdefault("SPARSERT_LIBRARY", str(build / "libsparsert.so"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Deletes that cache."""
    config.stash[_cache_folder].cleanup()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hands what a worker of pytest-xdist reached to the process that started it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["reached"] = sorted(harness.reached)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collects what a worker reached."""
    harness.reached.update(getattr(node, "workeroutput", {}).get("reached", []))


def pytest_report_header() -> list[str]:
    """Names the instruction sets of this machine."""
    ran = ", ".join(harness.ISAS) or "none (no compiled extension)"
    absent = ", ".join(harness.ABSENT_ISAS) or "none"
    return [f"sparsert: instruction sets that run here: {ran}; absent, not tested: {absent}"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints which instruction sets and kernels the suite reached."""
    if not harness.reached:
        return
    terminalreporter.section("kernels that the suite reached")
    for isa in harness.ISAS:
        names = sorted(name for name in harness.reached if name.endswith(f"_{isa}"))
        terminalreporter.write_line(f"{isa}: {len(names)}: {' '.join(names)}")
    for isa in harness.ABSENT_ISAS:
        terminalreporter.write_line(f"{isa}: absent on this machine")


@pytest.fixture(params=harness.ENGINES, ids=str)
def engine(request: pytest.FixtureRequest) -> harness.Engine:
    """Each engine in turn: the NumPy interpreter, then every instruction set."""
    return request.param
