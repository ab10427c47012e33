"""The command line: every command on real files, its exit codes and its messages."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import sparsert
from bench.models import build_model
from sparsert import cli_feeds
from sparsert.cli_commands import sparsert as command
from tests.suite.harness import build

COMMANDS = [
    *("demo", "convert", "inspect", "run", "bench", "forecast"),
    *("prune", "prune-until", "quantize", "report"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model of fixed shapes as .onnx and .sprt, and one with a symbolic batch and two inputs."""
    folder = tmp_path_factory.mktemp("models")
    model, _ = build_model("small_cnn", 0.9)
    onnx.save(model, folder / "m.onnx")
    sparsert.convert(folder / "m.onnx", folder / "m.sprt", metadata={"by": "test"})
    shape = ["batch", 4]
    two = build(["c = Add(a, b)"], {"a": shape, "b": shape}, outputs=["c"])
    onnx.save(two, folder / "two.onnx")
    return folder


@pytest.fixture
def call():
    """Runs the command with arguments; checks the exit code; returns the result."""

    def run(*arguments, code=0):
        result = CliRunner().invoke(command, [str(a) for a in arguments], prog_name="sparsert")
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_help_ends_with_an_example(call, name):
    text = call(*filter(None, [name]), "--help").output
    section = text[text.index("Example:") :].splitlines()[1:]
    assert section
    assert all(line.strip().startswith(f"$ sparsert {name}".rstrip()) for line in section)


def test_the_commands(call):
    assert set(command.commands) == set(COMMANDS)
    assert sparsert.__version__ in call("--version").output


@pytest.fixture
def labels(tmp_path):
    """A model that names its answers."""
    proto = build(["i = ArgMax<axis=1, keepdims=0>(x)", "y = Gather(names, i)"], {"x": ["n", 3]})
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    proto.graph.initializer.append(
        helper.make_tensor("names", TensorProto.STRING, [3], ["a", "b", "größer"])
    )
    onnx.save(proto, tmp_path / "labels.onnx")
    return tmp_path / "labels.onnx"


def test_outputs_of_strings(call, labels, tmp_path):
    np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
    out = tmp_path / "out.npz"
    for target in (out, tmp_path / "folder"):
        result = call("run", labels, "--input", tmp_path / "x.npy", "--output", target)
        assert "object" in result.stdout
    with np.load(out, allow_pickle=False) as arrays:
        assert arrays["y"].tolist() == ["a", "b", "größer"]
    saved = np.load(tmp_path / "folder" / "y.npy", allow_pickle=False)
    assert saved.tolist() == ["a", "b", "größer"]
    assert "0.0e+00" in call("bench", labels, "--against", "onnxruntime", "--runs", 7).stdout


def test_inputs_of_strings(call, tmp_path):
    path = tmp_path / "text.onnx"
    onnx.save(build(["y = Identity(x)"], {"x": (TensorProto.STRING, ["n"])}), path)
    for arguments in (["run", path, "--random"], ["bench", path]):
        assert "'x' is of strings" in call(*arguments, code=2).stderr
    np.save(tmp_path / "x.npy", np.array(["a", "b"]))
    assert "object" in call("run", path, "--input", tmp_path / "x.npy").stdout


def test_unknown_commands_and_options_are_usage_errors(call, files):
    call("fly", code=2)
    call("convert", "only-one", code=2)
    call("convert", files / "m.onnx", files / "x.sprt", "--weights", "i4", code=2)
    call("run", files / "m.sprt", "--threads", "0", code=2)


@pytest.mark.parametrize("arguments", [["inspect"], ["run", "--random"], ["bench"], ["forecast"]])
def test_errors_are_one_line_without_a_traceback(call, tmp_path, arguments):
    result = call(*arguments, tmp_path / "none.sprt", code=1)
    assert result.stdout == ""
    assert result.stderr == f"sparsert: {tmp_path}/none.sprt: No such file or directory\n"


def test_a_broken_file(call, tmp_path):
    (tmp_path / "x.sprt").write_bytes(b"\x89SPRT\r\n\x1a short")
    result = call("inspect", tmp_path / "x.sprt", code=1)
    assert "x.sprt" in result.stderr
    assert "Traceback" not in result.output


def test_convert_says_what_it_wrote(call, files, tmp_path):
    out = tmp_path / "m.sprt"
    text = call("convert", files / "m.onnx", out).stdout
    assert "csr/u8" in text
    assert "of the source" in text
    small = json.loads(call("convert", files / "m.onnx", out, "--weights", "f16", "--json").stdout)
    assert small["bytes_out"] == out.stat().st_size < (files / "m.sprt").stat().st_size
    assert small["bytes_in"] == (files / "m.onnx").stat().st_size
    assert small["ratio"] == small["bytes_out"] / small["bytes_in"]
    assert {row["values"] for row in small["rows"]} == {"f16", "f32"}
    assert "| encoding |" in call("convert", files / "m.onnx", out, "--markdown").stdout


def test_convert_to_onnx(call, files, tmp_path):
    out = tmp_path / "sparse.onnx"
    text = call("convert", files / "m.onnx", out).stdout
    assert "sparse" in text
    assert "of the source" in text
    found = json.loads(call("convert", files / "m.onnx", out, "--json").stdout)
    assert found["bytes_out"] == out.stat().st_size < (files / "m.onnx").stat().st_size
    assert {row["encoding"] for row in found["rows"]} == {"dense", "sparse"}
    refused = call("convert", files / "m.onnx", out, "--weights", "f16", code=2)
    assert "--weights f16 is for .sprt files" in refused.stderr
    call("convert", files / "m.sprt", out, code=1)


def test_convert_leaves_the_old_file_when_it_fails(call, files, tmp_path):
    out = tmp_path / "m.sprt"
    out.write_bytes(b"old")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    call("convert", tmp_path / "bad.onnx", out, code=1)
    assert out.read_bytes() == b"old"
    call("convert", files / "m.onnx", tmp_path / "no" / "such.sprt", code=1)


def test_inspect(call, files):
    text = call("inspect", files / "m.sprt").stdout
    for part in ("[1, 1, 28, 28]", "how each layer runs", "conv2.weight", '{"by": "test"}'):
        assert part in text
    facts = json.loads(call("inspect", files / "m.sprt", "--json", "--isa", "scalar").stdout)
    rows = facts["layers"]["rows"]
    assert {record["isa"] for record in rows if record["kernel"]} == {"scalar"}
    assert facts["metadata"] == {"by": "test"}
    assert facts["version"] == "1.0"
    assert facts["storage"]["rows"]
    assert "storage" not in json.loads(call("inspect", files / "m.onnx", "--json").stdout)
    assert "|---" in call("inspect", files / "m.onnx", "--markdown").stdout


def test_inspect_shows_candidates(call, files):
    text = call("inspect", files / "m.sprt").stdout
    assert " candidates " in text
    assert "us on one thread" in text
    layers = json.loads(call("inspect", files / "m.sprt", "--json").stdout)["layers"]["rows"]
    assert all(c["predicted_ns"] > 0 for layer in layers for c in layer["candidates"])
    assert sum(len(layer["candidates"]) > 1 for layer in layers) >= 3


def test_inspect_shows_the_kernels_of_load(call, files):
    kernels = {
        choice: [
            (layer["kernel"], [c["measured_ns"] > 0 for c in layer["candidates"]])
            for layer in json.loads(call("inspect", files / "m.sprt", "--json", *options).stdout)[
                "layers"
            ]["rows"]
        ]
        for choice, options in (("", ()), ("on", ("--tune", "on")), ("off", ("--tune", "off")))
    }
    assert not any(any(measured) for _, measured in kernels["off"])
    assert any(any(measured) for _, measured in kernels["on"])
    loaded = sparsert.load(files / "m.sprt").explain().records
    assert [kernel for kernel, _ in kernels[""]] == [layer["kernel"] for layer in loaded]


def test_inspect_where_inputs_tell_the_shapes(call, tmp_path):
    path = tmp_path / "r.onnx"
    proto = build(["y = Reshape(x, s)"], {"x": ["n"], "s": (TensorProto.INT64, (2,))})
    onnx.save(proto, path)
    sparsert.convert(path, tmp_path / "r.sprt")
    text = call("inspect", tmp_path / "r.sprt").stdout
    for part in ("int64", "depends on the values of 's'", "--input", "how the weights are stored"):
        assert part in text
    np.save(tmp_path / "s.npy", np.array([2, 3]))
    options = ("--input", f"s={tmp_path}/s.npy", "--dim", "n=6")
    assert "2x3" in call("inspect", tmp_path / "r.sprt", *options).stdout


def test_inspect_of_a_size(call, files):
    rows = json.loads(call("inspect", files / "two.onnx", "--dim", "batch=7", "--json").stdout)
    assert rows["layers"]["rows"][0]["output_shape"] == [7, 4]
    assert "such dimension" in call("inspect", files / "two.onnx", "--dim", "k=7", code=2).stderr


def test_run_saves_what_the_model_computes(call, files, tmp_path):
    x = np.random.default_rng(0).standard_normal((1, 1, 28, 28), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", input=x)
    expected = sparsert.load(files / "m.sprt", threads=1)(x)
    for value in (f"input={tmp_path}/x.npy", f"{tmp_path}/x.npy", f"{tmp_path}/x.npz"):
        out = tmp_path / "out.npz"
        text = call(
            *("run", files / "m.sprt", "--input", value, "--output", out),
            *("--threads", 1, "--isa", "scalar", "--tune", "off", "--strict"),
        ).stdout
        assert "1x10" in text
        with np.load(out) as arrays:
            np.testing.assert_allclose(arrays["output"], expected, rtol=1e-4, atol=1e-5)
    call("run", files / "m.sprt", "--input", tmp_path / "x.npy", "--output", tmp_path / "folder")
    saved = np.load(tmp_path / "folder" / "output.npy")
    np.testing.assert_allclose(saved, expected, rtol=1e-4, atol=1e-5)


def test_run_with_random_inputs_repeats(call, files, tmp_path):
    saved = []
    for seed, out in ((1, "a.npz"), (1, "b.npz"), (2, "c.npz")):
        call(
            *("run", files / "two.onnx", "--random", "--seed", seed, "--dim", "batch=3"),
            *("--backend", "numpy", "--output", tmp_path / out),
        )
        with np.load(tmp_path / out) as arrays:
            saved.append(arrays["c"])
    assert saved[0].shape == (3, 4)
    np.testing.assert_array_equal(saved[0], saved[1])
    assert (saved[0] != saved[2]).any()


def test_run_explains_bad_inputs(call, files, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 5, 5), np.float32))
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    m = files / "m.sprt"
    assert "input float32[1, 1, 28, 28]" in call("run", m, code=2).stderr
    assert "[1, 1, 5, 5]" in call("run", m, "--input", tmp_path / "x.npy", code=1).stderr
    assert "none.npy" in call("run", m, "--input", "none.npy", code=2).stderr
    assert "no such input" in call("run", m, "--input", "image=none.npy", code=2).stderr
    assert "allow_pickle" in call("run", m, "--input", tmp_path / "o.npy", code=2).stderr
    assert "--dim k=2" not in call("run", m, "--random", "--dim", "k=2", code=2).stdout
    assert "SYMBOL=SIZE" in call("run", m, "--random", "--dim", "k", code=2).stderr
    two = files / "two.onnx"
    assert "NAME=FILE" in call("run", two, "--input", tmp_path / "x.npy", code=2).stderr
    assert "'b' is missing" in call("run", two, "--input", f"a={tmp_path}/x.npy", code=1).stderr
    assert "not available" in call("run", m, "--random", "--isa", "mmx", code=1).stderr


def test_a_fallback_is_announced_and_strict_refuses_it(call, tmp_path):
    path = tmp_path / "h.onnx"
    onnx.save(build(["y = Shrink<lambd=-1.0>(x)"], {"x": [2, 3]}), path)
    result = call("run", path, "--random")
    assert "warning: " in result.stderr
    assert "Shrink" in result.stderr
    assert "Shrink" in call("run", path, "--random", "--strict", code=1).stderr
    assert "Shrink" in call("convert", path, tmp_path / "h.sprt", code=1).stderr


def test_bench_against_onnxruntime(call, files):
    pytest.importorskip("onnxruntime")
    options = ("--against", "onnxruntime", "--runs", 7, "--profile", "--json")
    facts = json.loads(call("bench", files / "m.onnx", *options).stdout)
    ort, ours = facts["bench"]["rows"]
    assert (ort["name"], ours["name"]) == ("onnxruntime", "sparsert")
    assert len(ort["seconds"]) == len(ours["seconds"]) == 7
    assert ours["max_relative_error"] < 1e-4
    assert ours["speedup"] > 0
    assert ours["packed_bytes"] > 0
    assert facts["machine"]["cpu"]
    assert len(facts["profile"]["rows"]) == 7


def test_bench_of_several_threads_and_a_batch(call, files):
    text = call("bench", files / "two.onnx", "--threads", "1,2", "--batch", 5, "--runs", 7).stdout
    assert "a[5, 4], b[5, 4]" in text
    assert "Versions: " in text
    assert [line.split()[:2] for line in text.splitlines() if line.startswith("sparsert  ")] == [
        ["sparsert", "1"],
        ["sparsert", "2"],
    ]


def test_bench_of_the_dense_and_the_quantised_model(call, files):
    m = files / "m.onnx"  # any file will do
    models = ("--dense", m, "--int8", files / "m.sprt", "--dense-int8", m)
    rows = json.loads(call("bench", m, *models, "--runs", 7, "--json").stdout)["bench"]["rows"]
    assert [row["name"] for row in rows] == [
        *("dense float32", "sparse float32", "dense int8", "sparse int8")
    ]
    assert rows[0]["speedup"] == 1 and rows[3]["max_relative_error"] < 1e-6
    text = call("bench", m, "--int8", m, "--runs", 7).stdout
    assert "x sparse float32" in text and "dense" not in text


def test_bench_explains_bad_options(call, files):
    m = files / "m.sprt"
    call("bench", m, "--threads", "1,x", code=2)
    call("bench", m, "--threads", "0", code=2)
    call("bench", m, "--runs", 3, code=2)
    assert "first dimension" in call("bench", m, "--batch", 4, code=2).stderr
    result = call("bench", m, "--against", "onnxruntime", code=2)
    assert "--against-file" in result.stderr


QUICK = ("--runs", 7, "--sparsity", "0.5,0.9", "--tune", "off")


def test_forecast(call, files):
    text = call("forecast", files / "m.sprt", *QUICK, "--layers").stdout
    patterns = [line.split()[0] for line in text.splitlines() if " KiB" in line]
    assert patterns == ["dense", *["unstructured"] * 2, *["4x1"] * 2]
    for part in ("input[1, 1, 28, 28]", "1 thread(s)", "(all other layers)", "Machine: "):
        assert part in text
    assert "(all other layers)" not in call("forecast", files / "m.onnx", *QUICK).stdout


def test_forecast_writes_files_or_prints_them(call, files, tmp_path):
    one = ("--runs", 7, "--sparsity", "0.8", "--pattern", "8x1", "--seed", 5)
    m = files / "m.sprt"
    targets = ("--json", tmp_path / "f.json", "--markdown", tmp_path / "f.md")
    text = call("forecast", m, *one, *targets).stdout
    assert "8x1" in text
    facts = json.loads((tmp_path / "f.json").read_text())
    assert [row["pattern"] for row in facts["rows"]] == ["dense", "8x1"]
    assert len(facts["layers"][0]["levels"]) == 2
    assert facts["machine"]["cpu"]
    assert "| pattern |" in (tmp_path / "f.md").read_text()
    assert [
        row["pattern"] for row in json.loads(call("forecast", m, *one, "--json").stdout)["rows"]
    ]
    assert call("forecast", m, *one, "--markdown").stdout.startswith("**")


def test_forecast_of_a_symbolic_batch(call, tmp_path):
    model, _ = build_model("small_cnn", 0.0)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, tmp_path / "n.onnx")
    for option in (("--batch", 3), ("--dim", "n=3")):
        assert (
            "input[3, 1, 28, 28]" in call("forecast", tmp_path / "n.onnx", *QUICK, *option).stdout
        )
    assert (
        "no such dimension" in call("forecast", tmp_path / "n.onnx", "--dim", "k=3", code=2).stderr
    )


def test_forecast_explains_bad_options(call, files, tmp_path):
    m = files / "m.sprt"
    for value in ("90", "0.5,x", "", "-0.1", "1", "nan"):
        assert "0.5,0.9" in call("forecast", m, "--sparsity", value, code=2).stderr
    for value in ("4x4", "", "2:4"):
        assert "unstructured, 2x1" in call("forecast", m, "--pattern", value, code=2).stderr
    assert "float32, int8" in call("forecast", m, "--dtype", "int4", code=2).stderr
    assert "'fc9'" in call("forecast", m, "--exclude", "fc9", code=2).stderr
    assert "folder" in call("forecast", m, "--json", tmp_path / "no" / "f.json", code=2).stderr
    assert "no weights to prune" in call("forecast", files / "two.onnx", code=2).stderr
    assert "first dimension" in call("forecast", m, "--batch", 4, code=2).stderr
    assert "not available" in call("forecast", m, "--isa", "mmx", code=1).stderr


def test_python_dash_m():
    result = subprocess.run(
        [sys.executable, "-m", "sparsert", "--version"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert sparsert.__version__ in result.stdout


@pytest.mark.parametrize("package", ["click", "rich"])
def test_a_missing_package_is_named(package):
    code = f"import sys; sys.modules[{package!r}] = None; from sparsert.cli import main; main([])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert 'pip install "sparsert[cli]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_importing_the_entry_needs_numpy_alone():
    code = "import sys, sparsert.cli; assert not {'click', 'rich', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_outputs_become_safe_file_names(tmp_path):
    arrays = {"../a": np.zeros(1), "b/c": np.ones(1), "b_c": np.ones(2), "": np.ones(3)}
    written = cli_feeds.write_outputs(tmp_path, arrays)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.rpartition("/")[2] for path in written
    )
    assert len(set(written)) == 4
    assert all(path.parent == tmp_path for path in map(type(tmp_path), written))
