"""Shapes of a run that contradict each other or ask for more memory than there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import sparsert
from sparsert.errors import BackendError, ShapeError
from tests.suite.harness import build, i64

I64 = TensorProto.INT64

# Name -> (nodes, inputs, feeds that ask for terabytes).
HUGE = {
    "Expand": (["h = Expand(x, s)", "y = Relu(h)"], {"s": (I64, [2])}, {"s": i64(1 << 36, 3)}),
    "Tile": (["h = Tile(x, s)", "y = Relu(h)"], {"s": (I64, [2])}, {"s": i64(1 << 30, 1 << 8)}),
    "ConstantOfShape": (
        ["h = ConstantOfShape(s)", "y = Add(h, x)"],
        {"s": (I64, [3])},
        {"s": i64(1 << 37, 1, 3)},
    ),
    "Range": (
        ["h = Range(a, b, c)", "k = Cast<to=1>(h)", "r = ReduceSum(x)", "y = Add(k, r)"],
        {"a": (I64, []), "b": (I64, []), "c": (I64, [])},
        {"a": np.array(0), "b": np.array(1 << 39), "c": np.array(1)},
    ),
    "Resize": (
        ["k = Unsqueeze(x, z)", "h = Resize(k, , , s)", "y = Relu(h)"],
        {"s": (I64, [4])},
        {"s": i64(1, 1, 1 << 20, 1 << 18)},
    ),
    "Pad": (["h = Pad(x, s)", "y = Relu(h)"], {"s": (I64, [4])}, {"s": i64(0, 0, 1 << 37, 0)}),
    "OneHot": (
        ["k = Cast<to=7>(x)", "y = OneHot(k, s, v)"],
        {"s": (I64, [])},
        {"s": np.array(1 << 38)},
    ),
}
X = np.ones((1, 3), np.float32)


@pytest.mark.parametrize("name", HUGE)
def test_huge(name: str) -> None:
    """The error comes before anything is allocated and names the node that asks."""
    nodes, more, feeds = HUGE[name]
    constants = {"z": i64(0, 1), "v": np.array([0, 1], np.float32)}
    used = {k: v for k, v in constants.items() if any(k in text for text in nodes)}
    model = sparsert.load(build(nodes, {"x": (1, 3), **more}, used), threads=1, strict=True)
    with pytest.raises(BackendError, match=rf"\({name}\).*bytes, more than the limit"):
        model.run(None, {"x": X, **feeds})


@pytest.mark.parametrize(
    ("op", "value"), [("Expand", 1 << 62), ("Tile", 1 << 62), ("ConstantOfShape", 1 << 62)]
)
def test_overflow(op: str, value: int) -> None:
    """Sizes whose product does not fit into 64 bits."""
    inputs = {"x": (1, 3), "s": (I64, [2])}
    node = f"h = {op}(s)" if op == "ConstantOfShape" else f"h = {op}(x, s)"
    model = sparsert.load(build([node, "y = Add(h, x)"], inputs), threads=1, strict=True)
    with pytest.raises(ShapeError, match=op):
        model.run(None, {"x": X, "s": i64(value, 8)})
    with pytest.raises(ShapeError, match=op):
        model.run(None, {"x": X, "s": i64(-2, 8)})


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_more_than_the_system_gives(backend: str) -> None:
    """Backends that do not plan say what the system refused: here more than addresses reach."""
    nodes, inputs, _ = HUGE["ConstantOfShape"]
    model = sparsert.load(build(nodes, {"x": (1, 3), **inputs}), backend=backend)
    with pytest.raises(BackendError, match="not enough memory"):
        model.run(None, {"x": X, "s": i64(1 << 48, 1, 3)})


def test_limit_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = build(["a = Tile(x, s)", "y = Relu(a)"], {"x": (1, 3), "s": (I64, [2])})
    feeds = {"x": X, "s": i64(100, 1)}
    monkeypatch.setenv("SPARSERT_MEMORY_LIMIT", "1000")
    with pytest.raises(BackendError, match="limit of 1000"):
        sparsert.load(proto, threads=1).run(None, feeds)
    monkeypatch.setenv("SPARSERT_MEMORY_LIMIT", "100000")
    assert sparsert.load(proto, threads=1).run(None, feeds)[0].shape == (100, 3)
    monkeypatch.setenv("SPARSERT_MEMORY_LIMIT", "much")
    with pytest.raises(BackendError, match="much"):
        sparsert.load(proto, threads=1)


def test_large_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that fit one by one, but not together."""
    nodes = [f"h{i} = Softmax({'x' if i == 0 else f'h{i - 1}'})" for i in range(6)]
    total = ["y = Sum(h0, h1, h2, h3, h4, h5)"]
    monkeypatch.setenv("SPARSERT_MEMORY_LIMIT", str(3 * 4 * 1000))
    model = sparsert.load(build([*nodes, *total], {"x": ["n", 10]}), threads=1, strict=True)
    assert model(np.ones((10, 10), np.float32)).shape == (10, 10)
    with pytest.raises(BackendError, match="a run with these shapes needs"):
        model(np.ones((250, 10), np.float32))


CONTRADICTIONS = {
    "Add": (["y = Add(a, b)"], (2, 3), (2, 4)),
    "Mul": (["y = Mul(a, b)"], (2, 3), (5, 3)),
    "Concat": (["y = Concat<axis=1>(a, b)"], (2, 3), (3, 3)),
    "MatMul": (["y = MatMul(a, b)"], (2, 3), (4, 5)),
    "Where": (["c = Greater(a, z)", "y = Where(c, a, b)"], (2, 3), (2, 4)),
}


@pytest.mark.parametrize("op", CONTRADICTIONS)
def test_contradictions(op: str) -> None:
    """The error names the node and both shapes; other shapes still run."""
    nodes, a, b = CONTRADICTIONS[op]
    constants = {"z": np.array(0, np.float32)} if op == "Where" else {}
    proto = build(nodes, {"a": ["n", "m"], "b": ["k", "l"]}, constants)
    model = sparsert.load(proto, threads=1, strict=True)
    with pytest.raises(ShapeError) as caught:
        model(a=np.ones(a, np.float32), b=np.ones(b, np.float32))
    for part in (op, *(str(list(shape)).replace(" ", "") for shape in (a, b))):
        assert part in str(caught.value)
    assert model(a=np.ones((3, 3), np.float32), b=np.ones((3, 3), np.float32)).shape[0] == 3


@pytest.mark.parametrize(
    ("op", "values"),
    [
        ("Reshape", ([4, 2], [-1, 4], [0, 0, 0], [-1, -1], [-2, 3], [1 << 40, 1 << 40])),
        ("Expand", ([4, 3], [2, 2])),
    ],
)
def test_targets_that_do_not_fit(op: str, values: tuple[list[int], ...]) -> None:
    model = sparsert.load(
        build([f"h = {op}(x, s)", "y = Relu(h)"], {"x": (2, 3), "s": (I64, ["r"])}),
        threads=1,
        strict=True,
    )
    x = np.ones((2, 3), np.float32)
    for value in values:
        with pytest.raises(ShapeError, match=rf"{op}.*'x' \[2,3\]"):
            model(x=x, s=i64(*value))
    assert model(x=x, s=i64(*((3, 2) if op == "Reshape" else (4, 2, 3)))).size in (6, 24)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.float64, np.float16, np.bool_])
def test_large_fills(dtype: type) -> None:
    """Of more elements than the planner keeps as values."""
    node = onnx.helper.make_node(
        "ConstantOfShape", ["s"], ["y"], value=onnx.numpy_helper.from_array(np.array([3], dtype))
    )
    proto = build(["y = ConstantOfShape(s)"], {"s": (I64, [2])})
    proto.graph.node[0].CopyFrom(node)
    proto = onnx.shape_inference.infer_shapes(proto)
    proto.graph.output[0].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(
        np.dtype(dtype)
    )
    model = sparsert.load(proto, threads=1, strict=True)
    for shape in ((3, 5), (70, 90)):
        got = model(s=i64(*shape))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, np.full(shape, 3, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int32])
def test_large_ranges(dtype: type) -> None:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    proto = build(["y = Range(a, b, c)"], {name: (kind, []) for name in "abc"})
    model = sparsert.load(proto, threads=1, strict=True)
    for bounds in ((3, 30, 2), (-5, 20000, 3), (9000, -4, -1)):
        a, b, c = (np.array(bound, dtype) for bound in bounds)
        np.testing.assert_array_equal(model(a=a, b=b, c=c), np.arange(*bounds, dtype=dtype))


def test_decoded_constants_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant of hardly more than zeros is small in a file and large in memory."""
    w = np.zeros((1000, 1000), np.float32)
    w[3, 5] = 2
    proto = build(["y = GatherElements<axis=0>(w, i)"], {"i": (I64, [1, 8])}, {"w": w})
    path = tmp_path / "m.sprt"
    sparsert.convert(proto, path)
    feeds = {"i": np.full((1, 8), 3, np.int64)}
    monkeypatch.setenv("SPARSERT_MEMORY_LIMIT", "3000000")
    with pytest.raises(BackendError, match=r"GatherElements.*'w' has 4000000 bytes.*3000000"):
        sparsert.load(path, threads=1).run(None, feeds)
    monkeypatch.setenv("SPARSERT_MEMORY_LIMIT", "4000000")
    (y,) = sparsert.load(path, threads=1).run(None, feeds)
    assert y[0, 5] == 2


def test_plans_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which element each tap of a convolution reads may take more than the elements."""
    w = np.ones((1, 1, 5, 5), np.float32)
    proto = build(["y = Conv<strides=[3,3]>(x, w)"], {"x": (1, 1, 770, 770)}, {"w": w})
    model = sparsert.load(proto, threads=1, tune=False, strict=True)
    limit = model._backend.memory()["plan_bytes"] // 2  # type: ignore[attr-defined]
    assert limit > 4 * 256 * 256
    monkeypatch.setenv("SPARSERT_MEMORY_LIMIT", str(limit))
    with pytest.raises(
        BackendError, match=rf"\(Conv\): out of memory: tap table.* limit of {limit}"
    ):
        sparsert.load(proto, threads=1, tune=False, strict=True)


def test_a_large_batch_runs_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the whole batch would take at once is no reason to refuse it; its result is."""
    nodes = ["a = Conv<pads=[1,1,1,1]>(x, w)", "b = Relu(a)", "y = GlobalAveragePool(b)"]
    w = np.ones((16, 3, 3, 3), np.float32)
    proto = build(nodes, {"x": ["n", 3, 64, 64]}, {"w": w})
    monkeypatch.setenv("SPARSERT_MEMORY_LIMIT", str(8 << 20))
    model = sparsert.load(proto, threads=1, strict=True)
    x = np.ones((64, 3, 64, 64), np.float32)
    assert model(x).shape == (64, 16, 1, 1)
    monkeypatch.setenv("SPARSERT_MEMORY_LIMIT", str(1 << 20))
    with pytest.raises(BackendError, match="limit"):
        sparsert.load(proto, threads=1, strict=True)(x)
