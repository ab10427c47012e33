"""OpenVINO, CPU device, float32 throughout, latency hint."""

from __future__ import annotations

import openvino as ov

from bench.peers.engines import Array, Feeds


class Engine:
    """A compiled model and one inference request."""

    version = ov.__version__.split("-")[0]

    def __init__(self, path: str, threads: int) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self.request = ov.Core().compile_model(path, "CPU", options).create_infer_request()

    def run(self, feeds: Feeds) -> list[Array]:
        """Computes the outputs; the results are the request's own memory."""
        self.request.infer(feeds, share_inputs=True)
        return [tensor.data for tensor in self.request.output_tensors]
