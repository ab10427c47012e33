"""Models with ops that are not native: strict, warnings, hybrid results, what they cannot do."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

import sparsert
from sparsert.errors import BackendError, UnsupportedOpError
from tests.api.models import expected, image, small_cnn, with_fallback
from tests.suite.harness import ISAS, SUM, assert_close, build, make_session, random_weights

X = image(2, 3, 8, 8)


def load_quietly(model: onnx.ModelProto, **options: object) -> sparsert.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sparsert.load(model, **options)  # type: ignore[arg-type]


def test_native_models_load_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sparsert.load(small_cnn())


def test_the_warning_names_the_op_and_the_way_out() -> None:
    with pytest.warns(UserWarning, match="Shrink") as caught:
        model = sparsert.load(with_fallback())
    (warning,) = [w for w in caught if "Shrink" in str(w.message)]
    assert "strict=True" in str(warning.message)
    assert warning.filename == __file__
    assert_close(model(X), expected(with_fallback, X)[0], SUM)


def test_strict_lists_all_ops_that_are_not_native() -> None:
    model = build(
        ["a = Shrink<lambd=-1.0>(x)", "b = NonZero(a)", "y = Det(a)"],
        {"x": (2, 3, 4, 4)},
        outputs=("b", "y"),
    )
    with pytest.raises(UnsupportedOpError) as caught:
        sparsert.load(model, strict=True)
    for op in ("Shrink", "NonZero", "Det"):
        assert op in str(caught.value)


@pytest.mark.parametrize("isa", ISAS)
def test_hybrid_on_every_isa(isa: str) -> None:
    model = load_quietly(with_fallback(), isa=isa, threads=1)
    assert_close(model(X), expected(with_fallback, X)[0], SUM)


def test_numpy_backend_runs_ops_that_are_not_native() -> None:
    proto = build(
        ["a = Conv(x, w)", "b = Shrink<lambd=-1.0>(a)", "y = Conv(b, w)"],
        {"x": ["n", 3, 5, 5]},
        {"w": random_weights(3, 3, 1, 1, sparsity=0.5)},
    )
    x = image(2, 3, 5, 5)
    model = sparsert.load(proto, backend="numpy")
    assert_close(model(x), make_session(proto).run(None, {"x": x})[0], SUM)


@pytest.mark.parametrize("where", ["first", "last", "only", "twice", "beside"])
def test_places_of_the_fallback(where: str) -> None:
    nodes = {
        "first": ["a = Shrink<lambd=-1.0>(x)", "b = Conv(a, w)", "y = Relu(b)"],
        "last": ["a = Conv(x, w)", "b = Relu(a)", "y = Shrink<lambd=-1.0>(b)"],
        "only": ["y = Shrink<lambd=-1.0>(x)"],
        "twice": [
            "a = Shrink<lambd=-1.0>(x)",
            "b = Conv(a, w)",
            "c = Shrink<lambd=-1.0>(b)",
            "y = Add(c, b)",
        ],
        "beside": [
            "a = Shrink<lambd=-1.0>(x)",
            "b = Conv(x, w)",
            "c = Conv(a, w)",
            "y = Concat<axis=1>(b, c, a)",
        ],
    }[where]
    constants = {} if where == "only" else {"w": random_weights(3, 3, 1, 1, sparsity=0.5)}
    proto = build(nodes, {"x": ["n", 3, "h", "w_"]}, constants)
    model = load_quietly(proto)
    for shape in ((1, 3, 4, 5), (2, 3, 7, 7)):
        x = image(*shape)
        assert_close(model(x), make_session(proto).run(None, {"x": x})[0], SUM)


def test_shape_arithmetic_across_the_cut() -> None:
    proto = build(
        [
            "s = Shape(x)",
            "b = Gather(s, zero)",
            "u = Unsqueeze(b, z)",
            "t = Concat<axis=0>(u, m)",
            "a = Shrink<lambd=-1.0>(x)",
            "f = Reshape(a, t)",
            "y = Gemm<transB=1>(f, w)",
        ],
        {"x": ["n", 3, 4, 4]},
        {
            "zero": np.array(0),
            "z": np.array([0]),
            "m": np.array([-1]),
            "w": random_weights(5, 48, sparsity=0.5),
        },
    )
    model = load_quietly(proto)
    for n in (1, 4):
        x = image(n, 3, 4, 4)
        assert_close(model(x), make_session(proto).run(None, {"x": x})[0], SUM)


def test_run_time_weights() -> None:
    proto = build(["c = Conv(x, w)", "y = Relu(c)"], {"x": (1, 3, "h", 6), "w": (4, 3, 3, 3)})
    with pytest.raises(UnsupportedOpError, match="not constant"):
        sparsert.load(proto, strict=True)
    feeds = {"x": image(1, 3, 6, 6), "w": image(4, 3, 3, 3)}
    model = load_quietly(proto)
    expected = make_session(proto).run(None, feeds)[0]
    assert_close(model.run(None, feeds)[0], expected, SUM)
    sized = build(["c = Conv(x, w)", "y = Relu(c)"], {"x": (1, 3, 6, 6), "w": (4, 3, 3, 3)})
    assert_close(sparsert.load(sized, strict=True).run(None, feeds)[0], expected, SUM)


def test_tables() -> None:
    model = load_quietly(with_fallback())
    text = str(model.explain())
    assert "fallback" in text
    assert "Shrink" in text
    assert "spmm" in text
    rows = model.profile({"x": X}, runs=2).rows
    assert len(rows) == 3


def test_what_a_hybrid_cannot_do(tmp_path: Path) -> None:
    model = load_quietly(with_fallback())
    path = tmp_path / "model.sprt"
    with pytest.raises(UnsupportedOpError, match="fallback"):
        model.save(path)
    with pytest.raises(UnsupportedOpError, match="Shrink"):
        sparsert.convert(with_fallback(), path)
    with pytest.raises(UnsupportedOpError):
        pickle.dumps(model)
    assert not path.exists()


def test_copies_share_what_has_no_file() -> None:
    model = load_quietly(with_fallback())
    want = expected(with_fallback, X)[0]
    for copied in (copy.copy(model), copy.deepcopy(model), copy.deepcopy([model])[0]):
        assert_close(copied(X), want, SUM)
    native = sparsert.load(small_cnn())
    copied = copy.deepcopy(native)
    assert copied is not native
    assert_close(copied(X), native(X), SUM)


def test_an_op_that_nothing_can_run() -> None:
    proto = build(["y = Relu(x)"], {"x": (2, 3)})
    proto.graph.node[0].op_type = "Frobnicate"
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.add(domain="com.example", version=1)
    with pytest.raises(UnsupportedOpError, match="Frobnicate"):
        load_quietly(proto)
    with pytest.raises(UnsupportedOpError, match="Frobnicate"):
        sparsert.load(proto, strict=True)


WINDOW = {"w": np.ones((4, 3, 3, 3), np.float32)}


def test_explain_before_a_run_asks_for_one_where_sizes_are_open() -> None:
    model = sparsert.load(build(["y = Conv(x, w)"], {"x": (1, 3, "h", "k")}, WINDOW), tune=False)
    with pytest.raises(BackendError, match="run it first"):
        model.explain()
    model(image(1, 3, 8, 8))
    assert [row["op"] for row in model.explain().records] == ["Conv"]


def test_explain_before_a_run_says_which_part_asks_for_one() -> None:
    nodes = ["d = Det(m)", "s = Mul(x, d)", "y = Conv(s, w)"]
    model = load_quietly(build(nodes, {"x": (1, 3, "h", "k"), "m": (2, 2)}, WINDOW), tune=False)
    assert [row["op"] for row in model.explain().records] == ["fallback", "native"]
    assert "run it first" in str(model.explain())
    model.run(None, {"x": image(1, 3, 8, 8), "m": np.eye(2, dtype=np.float32)})
    assert "Conv" in [row["op"] for row in model.explain().records]
