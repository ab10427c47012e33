"""The command quantize."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import sparsert
from bench.models import build_model
from sparsert.cli_commands import sparsert as command
from tests.suite.harness import build

X = np.random.default_rng(0).standard_normal((6, 1, 28, 28)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A pruned CNN that takes one image, a model of two inputs, and calibration data."""
    folder = tmp_path_factory.mktemp("models")
    onnx.save(build_model("small_cnn", 0.9)[0], folder / "m.onnx")
    shape = ["batch", 4]
    weight = np.eye(4, dtype=np.float32)
    two = build(
        ["p = MatMul(a, w)", "q = MatMul(b, w)", "c = Add(p, q)"],
        {"a": shape, "b": shape},
        {"w": weight},
        outputs=["c"],
    )
    onnx.save(two, folder / "two.onnx")
    np.save(folder / "x.npy", X)
    np.savez(folder / "x.npz", input=X)
    np.save(folder / "a.npy", X.reshape(-1, 4))
    return folder


@pytest.fixture
def call(files, tmp_path):
    """Runs sparsert quantize FILE ... -o OUTPUT; checks the exit code; returns the result."""

    def run(file, *arguments, output=tmp_path / "out.onnx", code=0):
        given = ["quantize", files / file, *arguments, "-o", output]
        result = CliRunner().invoke(command, [str(a) for a in given], prog_name="sparsert")
        assert result.exit_code == code, result.output
        return result

    return run


def test_without_data(call, files, tmp_path):
    text = call("two.onnx", "--dynamic", output=tmp_path / "out.sprt").stdout
    assert "2 of 2 layers in integers" in text
    ops = [row["op"] for row in sparsert.load(tmp_path / "out.sprt").explain().to_dict()["rows"]]
    assert ops.count("QConvDynamic") == 2
    assert "(or --dynamic)" in call("two.onnx", code=2).output
    given = ["--dynamic", "--labels", files / "x.npy"]
    assert "--labels needs --data" in call("two.onnx", *given, code=2).output


def test_it_writes_a_model_and_says_what_it_did(call, files, tmp_path):
    text = call("m.onnx", "--data", files / "x.npz").stdout
    for part in ("conv1.weight", "int8", "SQNR dB", "4 of 4 layers", "wrote", "KiB"):
        assert part in text
    expected = sparsert.load(files / "m.onnx", tune=False)(X[:1])
    got = sparsert.load(tmp_path / "out.onnx", tune=False)(X[:1])
    assert 0 < np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)


@pytest.mark.parametrize("suffix", ["onnx", "sprt"])
def test_files_of_both_kinds(call, files, tmp_path, suffix):
    out = tmp_path / f"q.{suffix}"
    facts = json.loads(call("m.onnx", "--data", files / "x.npy", "--json", output=out).stdout)
    assert facts["bytes_out"] == out.stat().st_size
    assert facts["bytes_in"] == (files / "m.onnx").stat().st_size
    assert [row["precision"] for row in facts["rows"]] == ["int8"] * 4
    assert facts["samples"] == 6
    assert sparsert.load(out, tune=False)(X[:1]).shape == (1, 10)


def test_options_reach_the_quantisation(call, files):
    data = ("--data", files / "x.npy", "--samples", 2, "--json")
    facts = json.loads(
        call(
            *("m.onnx", *data, "--method", "percentile", "--percentile", 99, "--activation", "s8"),
            *("--per-tensor", "--reduce-range", "--bias-correction", "--exclude", "dense2"),
            *("--op-types", "Conv, Gemm", "--min-sqnr", "3"),
        ).stdout
    )
    assert (facts["method"], facts["activation"], facts["samples"]) == ("percentile", "s8", 2)
    assert facts["other_nodes"] == []
    assert [row["precision"] for row in facts["rows"]] == ["int8", "int8", "int8", "f32"]
    assert "| SQNR dB |" in call("m.onnx", *data[:-1], "--markdown").stdout


def test_several_inputs(call, files):
    a = files / "a.npy"
    text = call("two.onnx", "--data", f"a={a}", "--data", f"b={a}", "--batch", 100).stdout
    assert "2 of 2 layers" in text


def test_bad_options(call, files, tmp_path):
    data = ("--data", files / "x.npy")
    assert "Missing option '--data'" in call("m.onnx", code=2).stderr
    assert "no such" in call("m.onnx", "--data", "none.npy", code=2).stderr.lower()
    assert "no layer 'fc9'" in call("m.onnx", *data, "--exclude", "fc9", code=2).stderr
    assert "'Softmax'" in call("m.onnx", *data, "--op-types", "Softmax", code=2).stderr
    assert "percentile is 7" in call("m.onnx", *data, "--percentile", 7, code=2).stderr
    assert "ends in .onnx" in call("m.onnx", *data, output=tmp_path / "q.bin", code=2).stderr
    assert "folder" in call("m.onnx", *data, output=tmp_path / "no" / "q.onnx", code=2).stderr
    two = call("m.onnx", *data, "--data", f"a={files / 'a.npy'}", code=2)
    assert "NAME=FILE.npy" in two.stderr
    named = call("m.onnx", "--data", f"input={files / 'x.npz'}", code=2)
    assert "holds the names itself" in named.stderr
    wrong = call("m.onnx", "--data", files / "a.npy", code=1)
    assert "feed 0" in wrong.stderr
    assert "Traceback" not in wrong.output
    assert not (tmp_path / "out.onnx").exists()
    assert "none.onnx" in call("none.onnx", *data, code=1).stderr


def test_an_accuracy_budget(call, files, tmp_path):
    answers = np.concatenate([sparsert.load(files / "m.onnx", tune=False)(x[None]) for x in X])
    np.save(tmp_path / "labels.npy", answers.argmax(1))
    given = ("--data", files / "x.npy", "--labels", tmp_path / "labels.npy")
    text = call("m.onnx", *given, "--max-drop", 1).stdout
    assert "accuracy 1.0000 in float" in text
    assert "zeros: " in text
    np.save(tmp_path / "labels.npy", np.zeros(6))
    assert "one integer per sample" in call("m.onnx", *given, code=2).output
    np.save(tmp_path / "labels.npy", np.zeros(5, int))
    assert "5 for 6 samples" in call("m.onnx", *given, code=2).output
    assert "needs --labels" in call("m.onnx", *given[:2], "--max-drop", 1, code=2).output
    assert "--max-drop 0.01" in CliRunner().invoke(command, ["quantize", "--help"]).output
