"""Files with levels: each is the model converted alone, and one switches between them."""

from __future__ import annotations

import os
import pickle
import threading

import numpy as np
import onnx
import pytest

import sparsert
from sparsert.errors import LevelError, ModelFormatError
from tests.suite.harness import ISAS, build, random_weights

SHARES = {"accurate": 0.5, "balanced": 0.8, "fast": 0.9}
X = np.random.default_rng(5).standard_normal((3, 1, 8, 8)).astype(np.float32)


def network(level: str) -> onnx.ModelProto:
    """A CNN for the digits with SHARES of its weights zero, and biases of its own."""

    def weights(*shape: int, seed: int) -> np.ndarray:
        array = random_weights(*shape, sparsity=0.0, seed=seed)
        order = np.abs(array).ravel().argsort().argsort().reshape(shape)
        return np.where(order >= SHARES[level] * array.size, array, 0).astype(np.float32)

    bias = random_weights(32, seed=list(SHARES).index(level))
    return build(
        [
            "a = Conv<pads=[1,1,1,1]>(x, w1, b1)",
            "b = Relu(a)",
            "c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b)",
            "d = Conv<pads=[1,1,1,1]>(c, w2)",
            "e = Relu(d)",
            "f = Conv<pads=[1,1,1,1]>(e, same)",
            "g = Flatten(f)",
            "y = Gemm<transB=1>(g, w3)",
        ],
        {"x": ["n", 1, 8, 8]},
        {
            "w1": weights(32, 1, 3, 3, seed=10),
            "b1": bias,
            "w2": weights(64, 32, 3, 3, seed=11),
            "same": random_weights(16, 64, 3, 3, sparsity=0.7, seed=12),
            "w3": weights(10, 256, seed=13),
        },
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The file with levels as "", and each model converted alone."""
    folder = tmp_path_factory.mktemp("levels")
    sources = {name: network(name) for name in ("fast", "accurate", "balanced")}
    paths = {name: str(folder / f"{name or 'levels'}.sprt") for name in ("", *sources)}
    sparsert.convert(sources, paths[""])
    for name, source in sources.items():
        sparsert.convert(source, paths[name])
    return paths


@pytest.mark.parametrize(
    ("backend", "isa"),
    [
        *(("native", isa) for isa in ISAS),
        ("numpy", None),
        pytest.param(
            "capi",
            None,
            marks=pytest.mark.skipif(
                "SPARSERT_LIBRARY" not in os.environ, reason="libsparsert is not built"
            ),
        ),
    ],
)
def test_each_level_is_the_model_alone(files, backend, isa) -> None:
    options = {"backend": backend, "isa": isa, "tune": False, "threads": 1}
    model = sparsert.load(files[""], **options)
    assert model.level == "accurate"
    assert [level.name for level in model.levels] == list(SHARES)
    for name in ("fast", "accurate", "balanced", "fast"):
        model.level = name
        assert model.level == name
        alone = sparsert.load(files[name], **options)
        assert alone.level is None
        assert alone.levels == []
        np.testing.assert_array_equal(model(X), alone(X))
        other = sparsert.load(files[""], level=name, **options)
        np.testing.assert_array_equal(other(X), alone(X))
    with pytest.raises(LevelError, match="no level 'slow'; its levels: 'accurate', 'balanced'"):
        model.level = "slow"
    with pytest.raises(LevelError, match="no level 'fast'; its levels: none"):
        sparsert.load(files["fast"], level="fast", **options)
    assert model.level == "fast"


def test_file_and_memory(files) -> None:
    size = {name: os.stat(path).st_size for name, path in files.items()}
    assert size[""] <= 1.1 * size["accurate"] + 1024
    model = sparsert.load(files[""], tune=False)
    model(X)
    packed = [level.packed_bytes for level in model.levels]
    assert packed[0] > 0
    assert packed[1:] == [0, 0]  # until they are used
    zeros = [level.sparsity for level in model.levels]
    assert zeros == sorted(zeros)
    assert sum(level.file_bytes for level in model.levels) < size[""]
    both = sparsert.load(files[""], tune=False)
    one = sparsert.load(files[""], tune=False, keep_levels=False)
    for each in (both, one):
        each(X)
        each.level = "fast"
        each(X)
    assert [level.packed_bytes > 0 for level in both.levels] == [True, False, True]
    assert [level.packed_bytes > 0 for level in one.levels] == [False, False, True]
    one.level = "accurate"
    np.testing.assert_array_equal(one(X), sparsert.load(files["accurate"], tune=False)(X))
    again = pickle.loads(pickle.dumps(both))
    assert again.level == "fast"
    np.testing.assert_array_equal(again(X), both(X))
    assert any("level 'fast'; the file also has accurate" in note for note in both.explain().notes)
    assert (
        sparsert.load(files["fast"]).explain().to_dict()["rows"][0]["nonzeros"]
        == (both.explain().to_dict()["rows"][0]["nonzeros"])
    )


@pytest.mark.parametrize("keep_levels", [True, False])
def test_switching_while_other_threads_run(files, keep_levels) -> None:
    model = sparsert.load(files[""], tune=False, threads=2, keep_levels=keep_levels)
    want = {name: sparsert.load(files[name], tune=False)(X) for name in SHARES}
    wrong: list[float] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            y = model(X)
            error = min(float(np.abs(y - other).max()) for other in want.values())
            if error > 1e-5:
                wrong.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        for name in SHARES:
            model.level = name
            np.testing.assert_allclose(model(X), want[name], atol=1e-5)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    model(X[:1])  # another plan
    model.level = "accurate"
    np.testing.assert_allclose(model(X[:1]), want["accurate"][:1], atol=1e-5)


def test_tuning_of_each_level_is_kept_apart(files, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SPARSERT_CACHE_DIR", str(tmp_path))
    for name in SHARES:
        model = sparsert.load(files[""], level=name, tune=True)
        model(X)
    assert len(list((tmp_path / "tuning").iterdir())) == len(SHARES)


def test_other_sources_and_errors(files, tmp_path) -> None:
    """Levels of .sprt files; an ONNX file has none; a level converted again; a forecast."""
    path = tmp_path / "m.sprt"
    sparsert.convert({"a": files["balanced"], "b": network("fast")}, path, weights="f16")
    assert [level.name for level in sparsert.load(path).levels] == ["a", "b"]
    sparsert.convert(files[""], tmp_path / "first.sprt")
    first, alone = (open(p, "rb").read() for p in (tmp_path / "first.sprt", files["accurate"]))
    assert first == alone
    forecast = sparsert.forecast(files[""], sparsity=0.9, pattern="unstructured", runs=7)
    assert "90" in str(forecast)
    with pytest.raises(ValueError, match="levels are for"):
        sparsert.convert({"a": files["balanced"], "b": files["fast"]}, tmp_path / "m.onnx")
    with pytest.raises(LevelError):
        sparsert.load(network("fast"), level="fast")
    with pytest.raises(ModelFormatError, match="w1"):
        sparsert.convert({"a": network("fast"), "b": shifted()}, path)
    assert [level.name for level in sparsert.load(path).levels] == ["a", "b"]


def shifted() -> onnx.ModelProto:
    """The level "fast" with other zeros in w1."""
    model = network("fast")
    for tensor in model.graph.initializer:
        if tensor.name == "w1":
            array = np.roll(onnx.numpy_helper.to_array(tensor), 1, 3)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.copy(), "w1"))
    return model
