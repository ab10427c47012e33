"""The benchmarks' own parts: models, layer shapes, and a race."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bench.models import (
    LINEAR,
    MODELS,
    UNSEEN,
    build_model,
    input_shape,
    make_feeds,
    quantised,
)
from bench.models.bert import TINY, build_bert, random_feeds
from bench.models.network import prune_by_magnitude
from bench.peers import __main__ as peers
from bench.peers import report
from bench.peers.race import Effort, Result, count_units, parse_entrant, run_heat
from bench.peers.report import speedups, summarise, to_markdown
from bench.shapes import layer_shapes

# Multiply-adds as published for 224x224 (28x28) images.
MACS = {
    "resnet50": 4.089e9,
    "mobilenet_v1": 0.569e9,
    "mobilenet_v2": 0.301e9,
    "small_cnn": 2.528e6,
    "densenet121": 2.834e9,
    "efficientnet_b0": 0.386e9,
}
# Weights of the linear layers, biases and tables aside.
WEIGHTS = {
    "mlp": 1024 * 4096 + 4096**2 + 4096 * 1000,
    "lstm": 2 * 4 * 512 * (512 + 512),
    "gru": 2 * 3 * 512 * (512 + 512),
    "bert_base_16": 12 * (4 * 768**2 + 2 * 768 * 3072) + 768**2,
}


@pytest.mark.parametrize("name", list(MACS))
def test_model_has_published_size(name: str) -> None:
    _, layers = build_model(name)
    assert sum(layer.macs for layer in layers) == pytest.approx(MACS[name], rel=2e-3)


@pytest.mark.parametrize("name", list(MACS))
def test_sparsity_is_exact_per_layer(name: str) -> None:
    model, layers = build_model(name, 0.8)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for layer in layers:
        w = weights[f"{layer.name}.weight"]
        assert np.count_nonzero(w) == w.size - round(layer.sparsity * w.size)
    stem, *rest = layers
    assert stem.sparsity == 0
    assert all(layer.sparsity == (0 if layer.groups > 1 else 0.8) for layer in rest)


def test_blocks_of_four_input_channels_go_together() -> None:
    model, layers = build_model("small_cnn", 0.75, pattern="1x4")
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for layer in layers[1:]:
        w = weights[f"{layer.name}.weight"]
        rows, channels = w.shape[:2]
        blocks = w.reshape(rows, channels // 4, 4, -1) != 0
        assert np.array_equal(blocks.any(axis=2), blocks.all(axis=2))
        assert np.mean(w == 0) == pytest.approx(0.75, abs=0.01)
    odd = prune_by_magnitude(np.arange(1, 19, dtype=np.float32).reshape(2, 3, 3), 0.5, (1, 2))
    assert np.array_equal(odd == 0, np.abs(odd) < 6)
    assert not odd[0, :2].any() and odd[1, 0].all()


@pytest.mark.parametrize("name", ["small_cnn", "audio_cnn"])
def test_blocks_of_four_rows_go_together(name: str) -> None:
    model, layers = build_model(name, 0.75, pattern="4x1")
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for layer in layers[1:]:
        w = weights[f"{layer.name}.weight"]
        whole = w[: len(w) // 4 * 4].reshape(len(w) // 4, 4, -1) != 0
        assert np.all(whole.any(axis=1) == whole.all(axis=1))
        assert np.mean(w == 0) == pytest.approx(0.75, abs=0.05)
        blocks = -(-len(w) // 4) * (w.size // len(w))
        assert np.count_nonzero(whole.any(axis=1)) <= blocks - round(0.75 * blocks)


@pytest.mark.parametrize("name", list(UNSEEN))
def test_unseen_networks_match_onnxruntime(name: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    sparsert = pytest.importorskip("sparsert")
    model, layers = build_model(name, 0.9)
    assert {layer.name for layer in layers} and all(layer.macs > 0 for layer in layers)
    x = np.random.default_rng(1).standard_normal(input_shape(name), dtype=np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": x})
    y = sparsert.load(model, strict=True, tune=False)(x)
    assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_linear_layers_are_pruned(name: str) -> None:
    model, layers = build_model(name, 0.75, batch=2)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    pruned = [weights[f"{layer.name}.weight"] for layer in layers]
    assert sum(w.size for w in pruned) == WEIGHTS[name]
    # Weights of the threshold's very magnitude all go.
    assert all(w.size // 4 - 4 < np.count_nonzero(w) <= w.size // 4 for w in pruned)
    rows = {"mlp": 2, "lstm": 2 * 100, "gru": 2 * 100, "bert_base_16": 2 * 16}[name]
    sizes = [layer.in_channels * layer.out_channels * rows for layer in layers]
    if name == "bert_base_16":
        sizes[-1] //= 16  # the pooler reads the first token alone
    assert [layer.macs for layer in layers] == sizes


@pytest.mark.parametrize("name", [*LINEAR, "bert_base_16"])
def test_linear_networks_match_onnxruntime(name: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    sparsert = pytest.importorskip("sparsert")
    model, _ = build_model(name, 0.9, batch=2)
    feeds = make_feeds(name, batch=2)
    assert [value.name for value in model.graph.input] == list(feeds)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = sparsert.load(model, strict=True, tune=False).run(None, feeds)
    for y, expected in zip(found, session.run(None, feeds), strict=True):
        assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max()
        assert 0.1 < np.sqrt(np.mean(expected**2)) < 10


def test_same_seed_gives_same_model() -> None:
    first, _ = build_model("small_cnn", 0.5, seed=3)
    again, _ = build_model("small_cnn", 0.5, seed=3)
    assert first == again


def test_pruning_keeps_the_largest_and_the_energy() -> None:
    weights = np.array([[0.1, -3.0], [2.0, -0.2]], np.float32)
    pruned = prune_by_magnitude(weights, 0.5)
    assert np.array_equal(pruned == 0, [[True, False], [False, True]])
    assert np.sum(pruned**2) == pytest.approx(np.sum(weights**2), rel=1e-6)


@pytest.mark.parametrize("name", ["small_cnn", "mobilenet_v1"])
@pytest.mark.parametrize("sparsity", [0.0, 0.95])
def test_activations_stay_near_one(name: str, sparsity: float) -> None:
    ort = pytest.importorskip("onnxruntime")
    model, _ = build_model(name, sparsity)
    for node in model.graph.node[:-1]:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
    x = np.random.default_rng(1).standard_normal(input_shape(name), dtype=np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for y in session.run(None, {"input": x}):
        assert 0.1 < np.sqrt(np.mean(y**2)) < 10
        assert not np.any((y != 0) & (np.abs(y) < 1e-30))


def test_batch_norm_nodes_and_folded_values_agree() -> None:
    ort = pytest.importorskip("onnxruntime")
    x = np.random.default_rng(1).standard_normal(input_shape("mobilenet_v2"), dtype=np.float32)
    outputs = []
    for with_bn in (False, True):
        model, _ = build_model("mobilenet_v2", 0.5, with_bn=with_bn)
        assert any(n.op_type == "BatchNormalization" for n in model.graph.node) == with_bn
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        outputs.append(session.run(None, {"input": x})[0])
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-4 * np.abs(outputs[0]).max()


def test_unknown_model_and_bad_sparsity() -> None:
    with pytest.raises(ValueError, match="unknown model 'alexnet'; there are: resnet50"):
        build_model("alexnet")
    with pytest.raises(ValueError, match="at least 0 and less than 1, got 90"):
        build_model("small_cnn", 90)
    with pytest.raises(ValueError, match="unknown pattern '3x3'; there are: unstructured"):
        build_model("small_cnn", 0.5, pattern="3x3")


def test_layer_shapes_are_distinct() -> None:
    shapes = layer_shapes("mobilenet_v1")
    assert len(shapes) < len(build_model("mobilenet_v1")[1])
    assert {(s.kernel, s.groups > 1) for s in shapes} == {(3, False), (3, True), (1, False)}


def test_entrants() -> None:
    assert parse_entrant("sparsert").suffix == ".sprt"
    assert parse_entrant("sparsert-onnx").suffix == ".onnx"
    assert parse_entrant("sparsert@avx2").isa == "avx2"
    assert parse_entrant("openvino@avx512vnni").module == "openvino"
    with pytest.raises(ValueError, match=r"openvino .also with @avx2, @avx512, @avx512vnni"):
        parse_entrant("openvino@amx")
    with pytest.raises(ValueError, match="unknown engine 'tvm'"):
        parse_entrant("tvm")


def made_up(engine: str, milliseconds: float) -> Result:
    seconds = [milliseconds / 1e3] * 7
    return Result(
        "m", 0.9, 1, 1, engine, "1.0", seconds=seconds, round_medians=seconds, max_error=0.0
    )


def test_ratios_and_table() -> None:
    heat = [made_up("onnxruntime", 10), made_up("openvino", 8), made_up("sparsert", 2)]
    heat.append(Result("m", 0.9, 1, 1, "torch", error="RuntimeError: no\nsuch luck"))
    assert speedups(heat, heat[2]) == (pytest.approx(5), pytest.approx(4), None)
    assert speedups(heat, heat[3]) == (None, None, None)
    table = to_markdown(summarise(heat), {"cores": 2}, ["command"])
    assert "| m | 90% | 1 | 1 | sparsert | 2.000 | 0% | 5.00 | 4.00 | 0.0e+00 |" in table
    assert "failed: RuntimeError: no such luck" in table


def int8_rows() -> list[dict[str, object]]:
    times = {"onnxruntime": 10.0, "openvino": 4.0, "openvino@avx512vnni": 6.0, "sparsert": 2.0}
    heat = [made_up(engine, ms) for engine, ms in times.items()]
    for result in heat:
        result.dtype, result.pattern, result.error_units, result.note = "int8", "1x4", 1.5, "a note"
    return summarise(heat)


def test_int8_has_a_table_and_a_summary_of_its_own() -> None:
    floats = summarise([made_up("onnxruntime", 10), made_up("sparsert", 5)])
    assert report.merge_rows(int8_rows(), floats) == floats + int8_rows()
    page = to_markdown(floats + int8_rows(), {"cores": 2}, ["command"])
    before, after = page.split("## int8")
    assert "| m | 90% | 1 | 1 | sparsert | 5.000 | 0% | 2.00 | 2.00 | 0.0e+00 |" in before
    assert "w/o AMX" in after and "1x4" not in before
    assert (
        "| m | 90% 1x4 | 1 | 1 | sparsert | 2.000 | 0% | 5.00 | 2.00 | 3.00 | 0.0e+00 | 1.5 |"
        in (after)
    )
    assert "- sparsert, m int8 at 90% 1x4 zeros: a note." in after
    summary = report.to_summary(floats + int8_rows(), {"cores": 2}, ["command"])
    assert "| m | 1 | 2.00 |" in summary.split("int8")[0]
    assert "| model | threads | 90% 1x4 zeros |" in summary.split("int8")[1]


def test_units_of_an_error() -> None:
    reference = [np.array([0.0, 5.1], np.float32), np.array([1.0, -1.55], np.float32)]
    outputs = [reference[0] + np.float32(0.04), reference[1] - np.float32(0.02)]
    assert count_units(outputs, reference, [0.01, None]) == pytest.approx(4, rel=1e-3)
    assert count_units(outputs, reference, [None, None]) == pytest.approx(2, rel=1e-3)
    assert count_units([outputs[0][:1]], reference[:1], [0.1]) == float("inf")


def test_levels_and_engines_of_int8() -> None:
    line = "--dtype int8 --sparsity 0 0.8 --pattern unstructured 1x4"
    args = peers.parse_arguments(line.split())
    assert args.engines == peers.INT8_ENGINES
    assert peers.levels_of(args) == [(0, "unstructured"), (0.8, "unstructured"), (0.8, "1x4")]
    assert peers.parse_arguments([]).engines == peers.ENGINES
    with pytest.raises(SystemExit):
        peers.parse_arguments(["--dtype", "int4"])


def test_published_races() -> None:
    races = peers.races(peers.parse_arguments("--published --rounds 8 --out there".split()))
    assert {race.dtype for race in races} == {"float32", "int8"}
    assert {model for race in races for model in race.models} == set(peers.ALL_MODELS)
    assert all(race.rounds == 8 and race.out == Path("there") for race in races)


def test_quantised_models_keep_their_zeros(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "small.onnx"
    quantised.quantise("small_cnn", 0.75, path, pattern="1x4")
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    integers = [w for w in weights.values() if w.dtype == np.int8 and w.ndim > 1]
    assert len(integers) == 4
    for w in integers[1:]:
        assert 0.74 < np.mean(w == 0) < 0.8
    (unit,) = quantised.output_units(path)
    assert unit is not None and 0 < unit < 0.5
    (tmp_path / "float.onnx").write_bytes(build_model("small_cnn")[0].SerializeToString())
    assert quantised.output_units(tmp_path / "float.onnx") == [None]
    quantised.quantise("small_cnn", 0.75, path, pattern="1x4", form="qoperator")
    types = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QLinearConv", "QLinearMatMul"} < types and not {"Gemm", "QGemm"} & types
    with pytest.raises(ValueError, match="quantises no layer of lstm"):
        quantised.quantise("lstm", 0.0, path)


def heat_of(model: str, ms: float) -> list[dict[str, object]]:
    return report.summarise(
        [
            Result(model, 0.9, 1, 1, "onnxruntime", seconds=[0.01] * 3, round_medians=[0.01] * 3),
            Result(model, 0.9, 1, 1, "deepsparse", seconds=[0.006] * 3, round_medians=[0.006] * 3),
            Result(model, 0.9, 1, 1, "sparsert", seconds=[ms / 1e3], round_medians=[ms / 1e3] * 3),
        ]
    )


def test_summary_has_a_line_per_model() -> None:
    rows = heat_of("a", 4.0) + heat_of("b", 5.0)
    summary = report.to_summary(rows, {"cores": 2}, ["first", "second"])
    assert "Command: `first`, then `second`." in summary
    assert "| a | 1 | 2.50 (1.50) |" in summary
    assert "| b | 1 | 2.00 (1.20) |" in summary


def test_heats_run_again_replace_the_earlier_ones() -> None:
    merged = report.merge_rows(heat_of("b", 2.0) + heat_of("c", 1.0), heat_of("a", 4.0))
    assert [row["model"] for row in merged] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    again = report.merge_rows(heat_of("a", 2.0), heat_of("a", 4.0) + heat_of("b", 5.0))
    assert [(row["model"], row["median_ms"]) for row in again[2::3]] == [("a", 2.0), ("b", 5.0)]


def test_publishing_changes_only_what_lies_between_the_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    plotted = tmp_path / "plot.png"
    plotted.write_bytes(b"png")
    (tmp_path / "docs").mkdir()
    begin, end = report.README_MARKS
    readme.write_text(f"above\n{begin}\nold\n{end}\nbelow\n", encoding="utf-8")
    report.publish(tmp_path, "summary\n", "# Race\n\ntable\n", plotted)
    assert readme.read_text(encoding="utf-8") == f"above\n{begin}\nsummary\n{end}\nbelow\n"
    assert "table" in (tmp_path / "docs" / "peers.md").read_text(encoding="utf-8")
    assert (tmp_path / "docs" / "peers.png").read_bytes() == b"png"
    readme.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks"):
        report.publish(tmp_path, "summary\n", "# Race\n\ntable\n", plotted)


def test_race_of_one_lap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    peers.main(
        "--models small_cnn --sparsity 0.9 --threads 1 --engines onnxruntime torch --rounds 7 "
        f"--burst 0.01 --out {tmp_path} --name lap".split()
    )
    assert "| small_cnn | 90% | 1 | 1 | onnxruntime |" in capsys.readouterr().out
    report = json.loads((tmp_path / "lap.json").read_text())
    fastest, other = report["results"]
    assert fastest["speedup_over_onnxruntime"] == 1
    assert fastest["peak_growth_bytes"] > 0
    assert other["error"] or other["max_error"] < 1e-4
    assert set(MODELS) >= {fastest["model"]}


def test_race_over_tokens(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, _ = build_bert(TINY, 0.9, shape=(2, 5))
    onnx.save(model, tmp_path / "tiny.onnx")
    pytest.importorskip("sparsert").convert(model, tmp_path / "tiny.sprt")
    files: dict[str, Path | str] = {s: tmp_path / f"tiny{s}" for s in (".onnx", ".sprt")}
    entrants = [parse_entrant(name) for name in ("onnxruntime", "torch", "sparsert")]
    dense, torch, own = run_heat(
        *("tiny", 0.9, 1, 2, random_feeds(TINY, 2, 5), files, entrants),
        *(Effort(rounds=7, burst_seconds=0.001), tmp_path, print),
    )
    assert dense.max_error == 0 and not dense.error and len(dense.round_medians) == 7
    assert "the torch engine has no" in torch.error and not torch.seconds
    assert own.max_error is not None and own.max_error < 1e-4 and not own.error
    assert own.batch == 2 and len(own.round_medians) == 7


def test_groups_of_models() -> None:
    args = peers.parse_arguments("--models small_cnn unseen linear gru".split())
    assert args.models == ["small_cnn", *UNSEEN, *LINEAR, "bert_base_16", "bert_base_128"]


def test_only_races_of_this_machine_and_day_are_merged(tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.json"
    machine = report.machine_facts() | {"cpu": "another"}
    content = {"commands": ["c"], "machine": machine, "results": []}
    earlier.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SystemExit, match="another machine or day"):
        peers.main(["--merge", str(earlier)])


def test_pruning_until_has_to_be_near_and_better_than_uniform() -> None:
    until = pytest.importorskip("bench.until")

    def record(network: str, speedup: float, score: float) -> dict[str, object]:
        return {"target": 2.0, "network": network, "speedup": speedup, "score": score}

    dense, uniform = record("sparsert, dense", 1.3, 0.99), record("uniform 4x1", 2.2, 0.95)
    mine = record(until.METHOD, 2.05, 0.96)
    assert until.find_problems([dense, uniform, mine]) == []
    (off,) = until.find_problems([dense, uniform, {**mine, "speedup": 1.9}])
    assert "+5.3 % off" in off
    (worse,) = until.find_problems([dense, mine, {**uniform, "score": 0.96}])
    assert "uniform 4x1 is as accurate" in worse
