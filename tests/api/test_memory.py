"""Memory that loading takes: a model of dense weights is in it hardly more than once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import sparsert

SIZE = 3000
WEIGHT_BYTES = 2 * SIZE * SIZE * 4

# Prints the growth of the peak of resident memory over load and runs, and the outputs.
PROGRAM = """
import json, sys
import numpy as np
import sparsert
from sparsert.report.serve import resident_bytes
if sys.argv[1].endswith(".onnx"):
    import onnx, onnx_ir, onnxscript
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = resident_bytes("VmRSS")
model = sparsert.load(sys.argv[1], threads=1)
feeds = [np.ones((batch, int(sys.argv[2])), np.float32) for batch in (1, 3)]
outputs = [model(x).sum(1).tolist() for x in feeds]
print(json.dumps([resident_bytes("VmHWM") - before, outputs]))
"""


def _save_network(path: Path) -> np.ndarray:
    """Two dense matrices, the second over a batch of any size; returns row sums of one output."""
    rng = np.random.default_rng(3)
    weights = [rng.standard_normal((SIZE, SIZE), dtype=np.float32) / SIZE**0.5 for _ in range(2)]
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w0"], ["h"], transB=1),
        onnx.helper.make_node("Gemm", ["h", "w1"], ["y"], transB=1),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", SIZE])
        for name in ("x", "y")
    ]
    constants = [onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = onnx.helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    hidden = weights[0].astype(np.float64).sum(1)
    return np.asarray((weights[1].astype(np.float64) @ hidden).sum())


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peaks of memory"
)
@pytest.mark.parametrize(("suffix", "most"), [(".sprt", 3.2), (".onnx", 3.8)])
def test_weights_are_not_copied_again_and_again(tmp_path: Path, suffix: str, most: float) -> None:
    path = tmp_path / "network.onnx"
    want = _save_network(path)
    if suffix == ".sprt":
        sparsert.convert(path, tmp_path / "network.sprt")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path.with_suffix(suffix)), str(SIZE)],
        capture_output=True,
        text=True,
        check=True,
    )
    growth, outputs = json.loads(run.stdout)
    for sums in outputs:
        np.testing.assert_allclose(sums, float(want), rtol=1e-3, atol=1e-2)
    assert growth < most * WEIGHT_BYTES
