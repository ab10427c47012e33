"""int8 networks give each image the same bytes in any batch, on any number of threads and ISA."""

from __future__ import annotations

import numpy as np
import pytest
from onnxruntime.quantization import QuantFormat, QuantType

import sparsert
from tests.passes.quantised_models import Net, feeds_of, quantised
from tests.suite.harness import ISAS

BATCHES = (1, 2, 4, 7, 16)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_batches_change_no_byte(name: str, threads: int, isa: str) -> None:
    proto = quantised(name, QuantFormat.QDQ, QuantType.QUInt8, per_channel=True)
    (shape,) = (
        [d.dim_value or 16 for d in i.type.tensor_type.shape.dim] for i in proto.graph.input
    )
    (feeds,) = feeds_of(shape, 1)
    x = feeds["x"]
    one = sparsert.load(proto, threads=1, isa=isa, tune=False, strict=True)
    want = np.concatenate([one(x[n : n + 1]) for n in range(len(x))])
    model = sparsert.load(proto, threads=threads, isa=isa, tune=True, strict=True)
    for batch in BATCHES:
        assert np.array_equal(model(x[:batch]), want[:batch]), batch


def encoder(tokens: int, width: int) -> Net:
    """Products with norms between them, over enough tokens to be shared by threads."""
    net = Net([1, tokens, width], 5)
    y = "x"
    for _ in range(2):
        h = net.add("Relu", net.linear(y, width, 2 * width))
        h = net.add("Add", net.linear(h, 2 * width, width), y)
        gain = net.constant(np.linspace(0.5, 2, width, dtype=np.float32))
        bias = net.constant(np.linspace(-1, 1, width, dtype=np.float32))
        y = net.add("LayerNormalization", h, gain, bias, axis=-1)
    net.outputs = (y,)  # type: ignore[attr-defined]
    return net


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tokens", [33, 96, 128])
def test_norms_shared_by_threads(tokens: int, isa: str) -> None:
    net = encoder(tokens, 320)
    proto = net.model(*net.outputs)  # type: ignore[attr-defined]
    x = np.random.default_rng(tokens).standard_normal((1, tokens, 320)).astype(np.float32)
    x[:, ::5, 0] = x[:, ::5, 160] = 1e6  # far from the others' mean
    found = [
        sparsert.load(proto, threads=threads, isa=isa, tune=False, strict=True)(x)
        for threads in (1, 2, 3)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4, atol=1e-4)
