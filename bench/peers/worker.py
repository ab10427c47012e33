"""One engine in one process; answers commands of the coordinator, one JSON object a line.

Uses NumPy and the standard library alone, for it also runs in DeepSparse's environment.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sparsert.report import serve
else:
    # By its path: an import would bring the rest of sparsert into every engine's process.
    path = Path(__file__).resolve().parents[2] / "sparsert" / "report" / "serve.py"
    spec = importlib.util.spec_from_file_location("serve", path)
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)


class Worker(serve.Worker):
    """The commands: load, check, burst, describe."""

    def load(self, engine: str, path: str, threads: int, feeds: str) -> dict[str, Any]:
        """Imports the engine, then loads the model; the import counts neither time nor memory."""
        module = importlib.import_module(f"bench.peers.engines.{engine}")
        with np.load(feeds) as arrays:
            self.feeds = [dict(arrays)]

        def load() -> None:
            self.engine = module.Engine(path, threads)

        return {"load_seconds": self.time_load(load), "version": self.engine.version}

    def check(self, out: str) -> dict[str, Any]:
        """Runs once and writes the outputs."""
        start = time.perf_counter()
        outputs = self.engine.run(self.feeds[0])
        seconds = time.perf_counter() - start
        np.savez(out, *outputs)
        return {"first_run_seconds": seconds}

    def describe(self) -> dict[str, Any]:
        """Memory as the system and, where it can, the engine tell; the engine's own notes."""
        memory = getattr(self.engine, "memory", dict)
        return {**super().describe(), **memory(), "note": getattr(self.engine, "note", "")}


if __name__ == "__main__":
    serve.serve(Worker())
