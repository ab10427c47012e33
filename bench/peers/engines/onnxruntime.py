"""ONNX Runtime, CPU provider, every graph optimisation."""

from __future__ import annotations

import onnxruntime as ort

from bench.peers.engines import Array, Feeds


class Engine:
    """A session with `threads` intra-op threads, nodes in sequence."""

    version = ort.__version__

    def __init__(self, path: str, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, feeds: Feeds) -> list[Array]:
        """Computes the outputs."""
        return self.session.run(None, feeds)
