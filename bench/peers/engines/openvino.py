"""OpenVINO, CPU device, float32 throughout, latency hint."""

from __future__ import annotations

import openvino as ov

from bench.peers.engines import Array


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

    def run(self, x: Array) -> Array:
        """Computes the output; the result is the request's own memory."""
        self.request.infer([x], share_inputs=True)
        return self.request.get_output_tensor(0).data
