"""Every compute format on real layer shapes: convolutions as one-layer models, one thread.

Each case forces one format (SPARSERT_FORMAT) and instruction set, checks the result against NumPy's
reference backend once, and records dense-equivalent GFLOP/s: FLOPs of the dense layer over time.
`make bench` runs it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.models.network import LayerShape, prune_by_magnitude
from bench.shapes import layer_shapes

sparsert = pytest.importorskip("sparsert")

ISAS = ["avx2", "avx512", "neon"]
FORMATS = ["dense", "dense8", "csr", "csr2", "pat4", "bsr4", "bsr8"]
SPARSITIES = [0.0, 0.8, 0.9]


def picked_shapes() -> list[LayerShape]:
    """One layer of each kind of ResNet-50: stem, 1x1 and 3x3 at every plane size, strided."""
    kinds: dict[tuple[int, ...], LayerShape] = {}
    for layer in layer_shapes("resnet50"):
        if layer.height > 1:
            kinds.setdefault((layer.kernel, layer.stride, layer.out_height), layer)
    return list(kinds.values())


def describe(layer: LayerShape) -> str:
    """A short id: channels in and out, kernel, stride, output plane."""
    return (
        f"{layer.in_channels}x{layer.out_channels}-k{layer.kernel}s{layer.stride}"
        f"-{layer.out_height}x{layer.out_width}"
    )


def one_layer(layer: LayerShape, sparsity: float) -> onnx.ModelProto:
    """Returns a model of the convolution, bias and relu alone."""
    rng = np.random.default_rng(7)
    shape = (layer.out_channels, layer.in_channels // layer.groups, layer.kernel, layer.kernel)
    weights = rng.standard_normal(shape, dtype=np.float32) / np.sqrt(np.prod(shape[1:]))
    weights = prune_by_magnitude(weights.astype(np.float32), sparsity)
    bias = rng.standard_normal(layer.out_channels, dtype=np.float32)
    pads = [layer.pad] * 4
    nodes = [
        helper.make_node(
            "Conv",
            ["x", "w", "b"],
            ["c"],
            strides=[layer.stride] * 2,
            pads=pads,
            group=layer.groups,
        ),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    x = [layer.batch, layer.in_channels, layer.height, layer.width]
    y = [layer.batch, layer.out_channels, layer.out_height, layer.out_width]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


CASES = list(itertools.product(picked_shapes(), SPARSITIES, FORMATS, ISAS))


@pytest.mark.parametrize(
    ("layer", "sparsity", "format_name", "isa"),
    CASES,
    ids=[f"{describe(la)}-{s:.0%}-{f}-{i}" for la, s, f, i in CASES],
)
def test_layer(
    layer: LayerShape,
    sparsity: float,
    format_name: str,
    isa: str,
    benchmark: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPARSERT_FORMAT", format_name)
    proto = one_layer(layer, sparsity)
    try:
        model = sparsert.load(proto, threads=1, isa=isa, tune=False)
    except sparsert.errors.BackendError as error:
        pytest.skip(str(error))
    x = np.random.default_rng(1).standard_normal(
        (layer.batch, layer.in_channels, layer.height, layer.width), dtype=np.float32
    )
    expected = sparsert.load(proto, backend="numpy")(x)
    assert np.abs(model(x) - expected).max() <= 1e-4 * np.abs(expected).max()
    (row,) = (r for r in model.explain().to_dict()["rows"] if r["weights"])
    benchmark.group = f"{describe(layer)} {sparsity:.0%} zeros {isa}"
    benchmark.pedantic(model.run, (None, {"x": x}), rounds=7, warmup_rounds=2)
    gflops = 2e-9 * layer.macs / benchmark.stats.stats.median
    benchmark.extra_info.update(kernel=row["kernel"], dense_equivalent_gflops=round(gflops, 1))
