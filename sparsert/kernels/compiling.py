"""How the kernels of this package are compiled, and where their machine code is kept."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import caching
from numba.core import config as numba_config

config: Any = numba_config  # its names are made at run time

# No checks of divisions, and the lock of the interpreter is free while a kernel runs.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_OUTLINE: dict[str, Any] = {**_OPTIONS, "_nrt": False}
_INNER: dict[str, Any] = {**_OUTLINE, "forceinline": True}


def inner(function: Callable[..., Any]) -> Any:
    """Compiles a function that kernels call; it becomes part of them.

    It must not make arrays: it does not count references to those that it is given, which would
    cost more than a short loop.
    """
    return numba.njit(**_INNER)(function)


def outline(function: Callable[..., Any]) -> Any:
    """Compiles a function that kernels call; it may stay a function of its own."""
    return numba.njit(**_OUTLINE)(function)


def maker(function: Callable[..., Any]) -> Any:
    """Compiles a function that kernels call to make an array."""
    return numba.njit(**_OPTIONS)(function)


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a kernel at its first call, and keeps the machine code on disk."""
    dispatcher = numba.njit(**_OPTIONS)(function)
    dispatcher._cache = _Cache(function)
    return dispatcher


def cache_folder() -> Path:
    """Returns where compiled kernels are kept: $NUMBA_CACHE_DIR, or the user's cache."""
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR) / "sparsert"
    shared = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    return root / "sparsert" / "numba"


@functools.lru_cache(maxsize=1)
def _sources() -> str:
    """A hash of every source of this package: a kernel calls functions of other files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Locator(caching._CacheLocator):
    """Keeps machine code outside the package, which may be read-only."""

    def __init__(self, function: Callable[..., Any], path: Path) -> None:
        self._line = function.__code__.co_firstlineno
        self._path = path

    def get_cache_path(self) -> str:
        return str(self._path)

    def get_source_stamp(self) -> str:
        return _sources()

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        # A folder per state of the sources: versions side by side do not overwrite each other.
        path = cache_folder() / _sources()[:16]
        try:
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        except OSError:
            path = Path(tempfile.mkdtemp(prefix="sparsert-numba-"))
        return cls(py_func, path)


class _CacheImpl(caching.CompileResultCacheImpl):
    _locator_classes: Any = (_Locator,)


class _Cache(caching.FunctionCache):
    _impl_class = _CacheImpl
