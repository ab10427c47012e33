"""Mixed precision: which layers stay in float, by accuracy and by SQNR."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import onnx
import pytest

import sparsert
from tests.suite.harness import build, make_session

CLASSES = 5
X = np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32)


@functools.cache
def fragile() -> onnx.ModelProto:
    """Four linear layers; one weight per channel of the third is huge and meets a zero input."""
    rng = np.random.default_rng(0)
    sizes = (16, 24, 24, 24, CLASSES)
    weights = {
        f"w{i}": (rng.standard_normal((m, k)) / k**0.5).astype(np.float32)
        for i, (k, m) in enumerate(itertools.pairwise(sizes), 1)
    }
    weights["w2"][0] = 0
    weights["w3"][:, 0] = 3000
    return build(
        [
            "a = Gemm<transB=1>(x, w1)",
            "b = Relu(a)",
            "c = Gemm<transB=1>(b, w2)",
            "d = Relu(c)",
            "e = Gemm<transB=1>(d, w3)",
            "f = Relu(e)",
            "y = Gemm<transB=1>(f, w4)",
        ],
        {"x": ["n", 16]},
        weights,
    )


@functools.cache
def answers() -> np.ndarray:
    return make_session(fragile()).run(None, {"x": X})[0].argmax(1)


def agreement(model: sparsert.Model) -> float:
    """The share of samples of the float model's class."""
    return float((model.run(None, {"x": X})[0].argmax(1) == answers()).mean())


def precisions(report) -> str:
    return "".join("i" if layer.precision == "int8" else "f" for layer in report.layers)


def test_everything_in_integers_is_bad_here():
    result = sparsert.quantize(fragile(), X)
    assert agreement(sparsert.load(result.model, tune=False)) < 0.7
    assert result.report.layers[2].sqnr < 5
    assert all(layer.sqnr > 25 for i, layer in enumerate(result.report.layers) if i != 2)


def test_the_worst_layer_stays_in_float():
    calls = []

    def evaluate(model):
        calls.append(agreement(model))
        return calls[-1]

    model, report = sparsert.quantize(fragile(), X, evaluate=evaluate, max_drop=0.05)
    assert precisions(report) == "iifi"
    assert report.layers[2].why.startswith("number 1 by the error")
    assert max(report.layers, key=lambda layer: layer.output_error) is report.layers[2]
    assert calls[0] == report.accuracy_float == 1.0
    assert calls[1] < 0.7  # all in integers
    assert report.accuracy >= 0.95
    assert report.accuracy == agreement(sparsert.load(model, tune=False))
    assert len(calls) <= 2 + 2
    assert "lost" in str(report)
    assert report.to_dict()["accuracy"] == report.accuracy
    int8 = {t.name for t in model.graph.initializer if t.name.endswith("_int8")}
    assert int8 == {"w1_int8", "w2_int8", "w4_int8"}


def test_nothing_stays_in_float_without_need():
    _, report = sparsert.quantize(fragile(), X, evaluate=agreement, max_drop=1.0)
    assert precisions(report) == "iiii"
    assert report.layers[0].output_error is None


def test_a_drop_that_nothing_meets_leaves_the_model_in_float():
    def evaluate(model):
        exact = make_session(fragile()).run(None, {"x": X})[0]
        return -float(np.abs(model.run(None, {"x": X})[0] - exact).max() > 1e-3)

    with pytest.warns(UserWarning, match="no layer can be quantised within max_drop=0"):
        model, report = sparsert.quantize(fragile(), X, evaluate=evaluate, max_drop=0.0)
    assert precisions(report) == "ffff"
    assert report.accuracy == report.accuracy_float == 0
    assert not [node for node in model.graph.node if "Linear" in node.op_type]


@pytest.mark.parametrize("needed", range(4))
def test_as_few_layers_as_it_takes(monkeypatch, needed):
    """The search over a model whose accuracy falls as soon as too few layers are in float."""
    from sparsert.quantize import selection

    asked = []

    def build_model(integer):
        asked.append(integer)
        return integer

    errors = {"p": 0.1, "q": 0.4, "r": 0.2, "s": 0.3}
    monkeypatch.setattr(selection, "_rank", lambda *_: errors)
    monkeypatch.setattr(
        selection, "accuracy_of", lambda model, _: 1.0 if len(model) <= 4 - needed else 0.5
    )
    choice = selection.choose_by_accuracy([*errors], build_model, [], float, 0.1, lambda _: None)
    assert list(choice.kept_float) == ["q", "s", "r", "p"][:needed]
    assert choice.accuracy == 1.0
    assert len(asked) <= 2 + 2


def test_least_sqnr():
    _, report = sparsert.quantize(fragile(), X, min_sqnr=20)
    assert precisions(report) == "iifi"
    assert report.layers[2].why == "SQNR below 20 dB"
    _, report = sparsert.quantize(fragile(), X, min_sqnr=200)
    assert precisions(report) == "ffff"


def test_layers_that_gain_no_time_stay_in_float(monkeypatch):
    """By times that are made up: two layers lose in integers, the whole model gains by one."""
    from sparsert.quantize import speed

    floats = {"p": 10e3, "q": 10e3, "r": 10e3, "s": 10e3}
    integers = {"p": 5e3, "q": 12e3, "r": 30e3, "s": 9e3}
    raced = []

    def speedup(mixed, best, feed):
        raced.append(mixed)
        return 1.1 if mixed == {"p", "q", "s"} else 0.9

    monkeypatch.setattr(speed, "_load", frozenset)
    monkeypatch.setattr(speed, "_layer_times", lambda m, _: integers if m else floats)
    monkeypatch.setattr(speed, "_speedup", speedup)
    assert speed.choose_by_speed([*floats], set, {}, 1.0) == {"r": "int8 30 us, float 10 us"}
    assert raced == [{"p", "s"}, {"p", "q", "s"}]
    # "s" is 1.1 times as fast.
    raced.clear()
    speed.choose_by_speed([*floats], set, {}, 1.2)
    assert raced[0] == {"p"}


def test_explain_says_why_a_layer_is_in_float(tmp_path, monkeypatch):
    from sparsert.quantize import pipeline

    asked = {}

    def choose(names, build, feed, least):
        asked.update(names=names, least=least, samples=len(feed["x"]))
        return {names[1]: "int8 2 us, float 1 us"}

    monkeypatch.setattr(pipeline, "choose_by_speed", choose)
    model, report = sparsert.quantize(
        fragile(), X, min_speedup=1.5, evaluate=agreement, max_drop=0.05
    )
    assert precisions(report) == "iffi"
    assert report.layers[1].why == "int8 2 us, float 1 us"
    assert len(asked["names"]) == 3 and asked["least"] == 1.5 and asked["samples"] == 16
    sparsert.convert(model, tmp_path / "m.sprt")
    loaded = sparsert.load(tmp_path / "m.sprt", tune=False)
    assert report.accuracy == agreement(loaded)
    loaded.run(None, {"x": X})
    said = {n["name"]: n["reason"] for n in loaded.explain().records if n["weights"]}
    kept = [layer.name for layer in report.layers if layer.precision == "f32"]
    for layer in report.layers:
        assert ("quantize left it in float" in said[layer.name]) == (layer.name in kept)
    assert "float: int8 2 us, float 1 us" in said[kept[0]]


def test_times_are_measured():
    _, report = sparsert.quantize(fragile(), X, min_speedup=999.0)
    assert all(layer.precision == "int8" or " us, float " in layer.why for layer in report.layers)
