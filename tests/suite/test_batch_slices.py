"""Large batches run some images at a time: right answers, one slice's memory, and only where right.

Whether a batch was cut shows in the arena: it then has the size of a slice, for each thread.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import sparsert
from tests.suite.harness import ISAS_OF_FLOATS, NETWORK, assert_close, build, random_weights

SIDE = 96  # 16 channels of 96 x 96 in f32 are 0.6 MB an image
IMAGE_BYTES = 16 * SIDE * SIDE * 4


def conv_weights():
    return {"w": random_weights(16, 3, 3, 3, sparsity=0.8), "v": random_weights(16, 16, 1, 1)}


def features(*tail: str) -> list[str]:
    """Nodes: two convolutions named h, [N, 16, SIDE, SIDE], then `tail`."""
    return ["g = Conv<pads=[1,1,1,1]>(x, w)", "r = Relu(g)", "h = Conv(r, v)", *tail]


def run(proto, batch, threads):
    """The native answer beside ONNX Runtime's, and the bytes of the arena."""
    x = np.random.default_rng(batch).standard_normal((batch, 3, SIDE, SIDE), dtype=np.float32)
    model = sparsert.load(proto, threads=threads, strict=True)
    found = model.run(None, {"x": x})
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    for have, want in zip(found, wanted, strict=True):
        assert_close(have, want, NETWORK)
    model.profile({"x": x}, runs=1)
    return model._backend.memory()["arena_bytes"]


SEPARABLE = {
    "activations": ["y = Relu(h)"],
    "head": ["p = GlobalAveragePool(h)", "f = Flatten(p)", "y = MatMul(f, m)"],
    "residual": ["y = Add(h, r)"],
    "constant operand": ["y = Mul(h, c)"],
    "constant of rank 4": ["y = Mul(h, d)"],
    "channels": ["y = Concat<axis=1>(h, r)"],
    "inner axes": ["t = Transpose<perm=[0,2,3,1]>(h)", "y = Softmax<axis=-1>(t)"],
    "reduction": ["y = ReduceMean<keepdims=0>(h, inner)"],
    "shape arithmetic": ["s = Shape<start=0, end=1>(x)", "q = Concat<axis=0>(s, rest)"]
    + ["y = Reshape(h, q)"],
}
MIXED = {
    "over images": ["y = ReduceMean<keepdims=1>(h, outer)"],
    "images in order": ["t = Transpose<perm=[1,0,2,3]>(h)", "y = Relu(t)"],
    "joined": ["y = Concat<axis=0>(h, r)"],
    "one of them": ["y = Slice(h, one, two, outer)"],
    "softmax": ["y = Softmax<axis=0>(h)"],
    "gathered": ["y = Gather<axis=0>(h, one)"],
}
CONSTANTS = {
    "m": random_weights(16, 10),
    "c": random_weights(16, 1, 1, scale=1.0),
    "d": random_weights(1, 16, 1, 1, scale=1.0),
    "inner": np.array([2, 3]),
    "outer": np.array([0]),
    "rest": np.array([16, -1]),
    "one": np.array([1]),
    "two": np.array([2]),
}


def network(tail: list[str], batch: int | str = "N"):
    names = set(" ".join(tail).replace("(", " ").replace(")", " ").replace(",", " ").split())
    constants = {k: v for k, v in CONSTANTS.items() if k in names}
    return build(features(*tail), {"x": [batch, 3, SIDE, SIDE]}, conv_weights() | constants)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", SEPARABLE)
def test_large_batches_need_the_memory_of_a_slice(name, threads):
    proto = network(SEPARABLE[name])
    arena = run(proto, 12, threads)
    assert arena < 12 * IMAGE_BYTES  # `r` alone would have that


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", MIXED)
def test_graphs_that_mix_images_are_not_cut(name, threads):
    arena = run(network(MIXED[name]), 12, threads)
    assert arena >= 12 * IMAGE_BYTES


@pytest.mark.parametrize("batch", [1, 2, 7, 13, 30])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_size_of_batch(batch, threads):
    run(network(SEPARABLE["head"]), batch, threads)


def test_a_fixed_batch_is_cut_too():
    assert run(network(SEPARABLE["head"], batch=12), 12, 1) < 12 * IMAGE_BYTES


def test_a_graph_that_names_its_batch_is_not_cut():
    proto = build(
        features("y = Reshape(h, q)"),
        {"x": [12, 3, SIDE, SIDE]},
        conv_weights() | {"q": np.array([12, 16, -1])},
    )
    assert run(proto, 12, 1) >= 12 * IMAGE_BYTES


def test_several_inputs_and_outputs():
    proto = build(
        features("z = Conv(b, v)", "y = Add(h, z)", "u = GlobalMaxPool(y)"),
        {"x": ["N", 3, SIDE, SIDE], "b": ["N", 16, SIDE, SIDE]},
        conv_weights(),
        outputs=["y", "u"],
    )
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((8, 3, SIDE, SIDE), dtype=np.float32),
        "b": rng.standard_normal((8, 16, SIDE, SIDE), dtype=np.float32),
    }
    found = sparsert.load(proto, threads=2).run(None, feeds)
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    for have, want in zip(found, wanted, strict=True):
        assert_close(have, want, NETWORK)


def test_an_output_that_nothing_uses():
    # ONNX Runtime 1.32 crashes on an absent first output: NumPy is the reference.
    nodes = ["h = Relu(x)", '"", y = Split<axis=1, num_outputs=2>(h)']
    proto = build(nodes, {"x": ["N", 16, SIDE, SIDE]})
    x = np.random.default_rng(0).standard_normal((12, 16, SIDE, SIDE), dtype=np.float32)
    model = sparsert.load(proto, threads=1, strict=True)
    np.testing.assert_array_equal(model(x), np.maximum(x[:, 8:], 0.0))


def test_a_batch_of_as_many_images_as_a_weight_has_rows_is_cut():
    assert run(network(SEPARABLE["head"]), 16, 1) < 16 * IMAGE_BYTES


# --- two stages: the last layers, with many weights and small planes, take more images at a time

HEAVY = {
    "w": random_weights(16, 3, 3, 3),
    "v": random_weights(16, 16, 1, 1),
    "k": random_weights(160, 16, 3, 3),
    "l": random_weights(160, 160, 3, 3, sparsity=0.5),
    "m": random_weights(160, 1000, sparsity=0.3),
}
SMALL = ["p = MaxPool<kernel_shape=[16,16], strides=[16,16]>(h)", "q = Conv<pads=[1,1,1,1]>(p, k)"]
CLASSES = ["e = GlobalAveragePool(d)", "f = Flatten(e)", "y = MatMul(f, m)"]
TAILS = {
    "plain": ["d = Conv<pads=[1,1,1,1]>(q, l)", *CLASSES],
    "residual": ["a = Conv<pads=[1,1,1,1]>(q, l)", "b = Add(a, q)", "d = Relu(b)", *CLASSES],
    "shape arithmetic": ["d = Conv<pads=[1,1,1,1]>(q, l)", "e = GlobalAveragePool(d)"]
    + ["s = Shape<start=0, end=1>(x)", "j = Concat<axis=0>(s, rest)", "f = Reshape(e, j)"]
    + ["y = MatMul(f, m)"],
    "concatenated": ["a = Conv<pads=[1,1,1,1]>(q, l)", "c = Concat<axis=1>(a, q)"]
    + ["d = Slice(c, first, end, axis)", *CLASSES],
}
# Outputs besides y: of the first stage, of what it passes on, of the second.
OUTPUTS = {
    "alone": [],
    "early": ["r"],
    "between": ["q"],
    "late": ["d", "e"],
    "all": ["d", "q", "h"],
}


def heavy(tail: str, outputs: str = "alone"):
    nodes = features(*SMALL, *TAILS[tail])
    text = " ".join(nodes)
    more = {"rest": np.array([160]), "axis": np.array([1])}
    more |= {"first": np.array([0]), "end": np.array([160])}
    constants = HEAVY | {k: v for k, v in more.items() if k in text}
    inputs = {"x": ["N", 3, SIDE, SIDE]}
    return build(nodes, inputs, constants, outputs=["y", *OUTPUTS[outputs]])


def two_stages(model: sparsert.Model) -> bool:
    return any("images at a time" in row["reason"] for row in model.explain().records)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("tail", TAILS)
def test_the_last_layers_take_more_images(tail, threads):
    proto = heavy(tail)
    x = np.random.default_rng(1).standard_normal((12, 3, SIDE, SIDE), dtype=np.float32)
    model = sparsert.load(proto, threads=threads, strict=True)
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    assert_close(model.run(None, {"x": x})[0], wanted[0], NETWORK)
    assert two_stages(model)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_outputs_of_both_stages(outputs, threads):
    proto = heavy("residual", outputs)
    x = np.random.default_rng(1).standard_normal((8, 3, SIDE, SIDE), dtype=np.float32)
    model = sparsert.load(proto, threads=threads, strict=True)
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    for have, want in zip(model.run(None, {"x": x}), wanted, strict=True):
        assert_close(have, want, NETWORK)
    assert two_stages(model)


@pytest.mark.parametrize("isa", ISAS_OF_FLOATS)
@pytest.mark.parametrize("batch", [1, 2, 7, 13, 30, 64])
def test_any_batch_in_two_stages(batch, isa, monkeypatch):
    monkeypatch.setenv("SPARSERT_ISA", isa)
    proto = heavy("plain")
    x = np.random.default_rng(batch).standard_normal((batch, 3, SIDE, SIDE), dtype=np.float32)
    model = sparsert.load(proto, threads=1, strict=True)
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    assert_close(model(x), wanted[0], NETWORK)
    assert two_stages(model) == (batch > 1)


def test_steps_of_both_stages_are_timed():
    model = sparsert.load(heavy("plain"), threads=1, strict=True)
    x = np.ones((8, 3, SIDE, SIDE), np.float32)
    times = {row["name"]: row["time_ns"] for row in model.profile({"x": x}, runs=2).records}
    assert all(ns > 0 for name, ns in times.items() if "Conv" in name or "MatMul" in name), times


def test_choices_of_both_stages_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSERT_CACHE_DIR", str(tmp_path))
    x = np.ones((8, 3, SIDE, SIDE), np.float32)
    first, again = (sparsert.load(heavy("plain"), threads=1, tune=True) for _ in range(2))
    for model in (first, again):
        model(x)
    measured = [[row["measured_ns"] for row in m.explain().records] for m in (first, again)]
    assert measured[0] == measured[1]
    assert sum(ns > 0 for ns in measured[0]) >= 3


def test_large_batches_pass_on_no_more_than_some_memory():
    proto = heavy("plain")
    model = sparsert.load(proto, threads=1, strict=True)
    x = np.ones((2000, 3, SIDE, SIDE), np.float32)
    assert model(x).shape == (2000, 1000)
    model.profile({"x": x}, runs=1)
    assert model._backend.memory()["arena_bytes"] < 64 << 20


def test_a_small_limit_of_memory_keeps_slices(monkeypatch):
    monkeypatch.setenv("SPARSERT_MEMORY_LIMIT", str(12 << 20))
    x = np.random.default_rng(0).standard_normal((64, 3, SIDE, SIDE), dtype=np.float32)
    proto = heavy("plain")
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    model = sparsert.load(proto, threads=1, strict=True)
    assert_close(model(x), wanted[0], NETWORK)
