"""sparsert's Numba backend, from a .sprt file."""

from __future__ import annotations

import sparsert
from bench.peers.engines.sparsert import Engine as NativeEngine
from sparsert.runtime.numba_backend import import_kernels

import_kernels()


class Engine(NativeEngine):
    """A loaded model."""

    def __init__(self, path: str, threads: int) -> None:
        self.model = sparsert.load(path, backend="numba", threads=threads)
