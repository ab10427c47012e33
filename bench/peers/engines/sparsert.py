"""sparsert itself, from a .sprt file or an ONNX file; SPARSERT_ISA forces an instruction set."""

from __future__ import annotations

from typing import Any

import sparsert
from bench.peers.engines import Array, Feeds


class Engine:
    """A loaded model."""

    version = sparsert.__version__

    def __init__(self, path: str, threads: int) -> None:
        self.model = sparsert.load(path, threads=threads)

    def run(self, feeds: Feeds) -> list[Array]:
        """Computes the outputs."""
        return self.model.run(None, feeds)

    def memory(self) -> dict[str, int]:
        """Packed weights and activations; the model's file is not among them."""
        # The numbers behind the line on memory in explain().
        backend: Any = self.model._backend
        facts = backend.memory()
        return {"weight_bytes": facts["packed_bytes"], "arena_bytes": facts["arena_bytes"]}
