"""DeepSparse 1.8, the last release; runs in its own virtual environment."""

from __future__ import annotations

import os

os.environ["NM_DISABLE_ANALYTICS"] = "True"

import deepsparse

from bench.peers.engines import Array, Feeds


class Engine:
    """A model compiled for the batch size of the file and `threads` cores."""

    version = deepsparse.__version__

    def __init__(self, path: str, threads: int) -> None:
        # None keeps the batch size of the file.
        self.engine = deepsparse.Engine(path, batch_size=None, num_cores=threads)
        share = self.engine.fraction_of_supported_ops
        self.note = f"{100 * share:.0f} % of the operators run in its own kernels"

    def run(self, feeds: Feeds) -> list[Array]:
        """Computes the outputs."""
        return self.engine.run(list(feeds.values()), val_inp=False)
