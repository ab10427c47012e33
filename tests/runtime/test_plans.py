"""Plans of a model with symbolic shapes: how many are kept, and what they share."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import sparsert

WIDTH = 512


def chain(layers: int, sparsity: float) -> bytes:
    """Linear layers over [batch, tokens, WIDTH]."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []
    for i in range(layers):
        w = rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) / WIDTH**0.5
        w[rng.random(w.shape) < sparsity] = 0
        constants.append(numpy_helper.from_array(w, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]))
    sizes = ["batch", "tokens", WIDTH]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, sizes)],
        constants,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def test_plans_share_packed_weights() -> None:
    for sparsity in (0.0, 0.9):
        model = sparsert.load(chain(2, sparsity), tune=False, threads=1)
        backend = model._backend
        sizes = []
        for tokens in [*range(16, 200, 3), 256, 384]:
            for batch in (1, 3):
                model.run(None, {"x0": np.ones((batch, tokens, WIDTH), np.float32)})
            sizes.append(backend.memory()["packed_bytes"])  # type: ignore[attr-defined]
            assert len(backend._plans) <= 16  # type: ignore[attr-defined]
        # Of 126 shapes, few want their weights in another format or in blocks of another depth.
        assert len(set(sizes)) <= 3
        assert sizes[-1] <= 3 * sizes[0]


def test_shared_weights_give_the_same_results() -> None:
    data = chain(3, 0.9)
    shared = sparsert.load(data, tune=False, threads=1)
    rng = np.random.default_rng(1)
    for tokens in (128, 17, 96, 64, 33, 1, 200):
        x = rng.standard_normal((1, tokens, WIDTH), dtype=np.float32)
        alone = sparsert.load(data, tune=False, threads=1)
        (got,), (want,) = (m.run(None, {"x0": x}) for m in (shared, alone))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
