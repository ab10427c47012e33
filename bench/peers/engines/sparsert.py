"""sparsert itself, from a .sprt file or an ONNX file; SPARSERT_ISA forces an instruction set."""

from __future__ import annotations

import sparsert
from bench.peers.engines import Array


class Engine:
    """A loaded model."""

    version = sparsert.__version__

    def __init__(self, path: str, threads: int) -> None:
        self.model = sparsert.load(path, threads=threads)

    def run(self, x: Array) -> Array:
        """Computes the output."""
        return self.model.run(None, {"input": x})[0]
