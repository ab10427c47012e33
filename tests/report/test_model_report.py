"""sparsert.report(): the rows, what is made up, the page in a real browser, bad input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import sparsert
from bench.models import build_model
from sparsert.cli_commands import sparsert as command
from sparsert.errors import ModelFormatError, ShapeError
from sparsert.report import FrontPoint
from sparsert.report.model_report import VARIANTS
from tests.suite.harness import build

pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
torch = pytest.importorskip("torch")

SECONDS = 0.05
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
# Measures the page once it is laid out; the answer is the document's title.
PROBE = """<script>addEventListener("load", () => {
  const sizes = what => [...document.querySelectorAll(what)].map(e => {
    const box = e.getBoundingClientRect(); return [box.width, box.height]; });
  document.title = "MEASURED" + JSON.stringify({
    tables: sizes("table"), plots: sizes("figure > svg"), texts: sizes("figure svg text"),
    overflow: document.documentElement.scrollWidth - innerWidth}) + "END"; });</script>"""


@pytest.fixture(scope="module")
def module_report(tmp_path_factory):
    """A report on a pruned torch module with everything that one can have."""
    torch.manual_seed(0)

    def network():
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(16 * 36, 10),
        ).eval()

    dense, sparse = network(), network()
    sparse.load_state_dict(dense.state_dict())
    pruning = sparsert.prune(sparse, sparsity=0.75)
    sparsert.prune.remove(sparse)
    x = torch.randn(32, 1, 8, 8)
    truth = dense(x).argmax(1).numpy()
    seen = []

    def evaluate(model):
        seen.append(model.run(None, {model.inputs[0].name: x.numpy()})[0])
        return float((model(x.numpy()).argmax(1) == truth).mean())

    options = {
        "example_inputs": x[:2],
        "dynamic_shapes": ({0: torch.export.Dim("batch")},),
    }
    levels = tmp_path_factory.mktemp("levels") / "m.sprt"
    sparsert.convert({"accurate": dense, "fast": sparse}, levels, **options)
    shares: list[float] = []
    report = sparsert.report(
        sparse,
        dense=dense,
        calibration_data=x.numpy(),
        feeds=x.numpy()[:1],
        evaluate=evaluate,
        pruning=pruning,
        front=[FrontPoint("a", 1e-5, 0.9, 1000), FrontPoint("b", 2e-5, 1.0, 2000, True)],
        seconds=SECONDS,
        command=["sparsert", "report", "<b>&"],
        levels=levels,
        on_progress=shares.append,
        **options,
    )
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert len(seen) == 16
    return report


def test_every_engine_runs_every_model(module_report):
    rows = {(r.engine, r.weights, r.dtype): r for r in module_report.rows}
    everywhere = {(e, *v) for e in ("sparsert", "onnxruntime", "numba") for v in VARIANTS}
    assert set(rows) == everywhere | {("torch", *v) for v in VARIANTS[:2]}
    for (engine, weights, dtype), row in rows.items():
        assert not row.result.error
        assert row.result.median > 0
        assert row.result.file_bytes > 0
        assert row.speedup > 0
        assert (row.error is None) == (engine == "onnxruntime")
        assert row.error is None or row.error < (1e-5 if dtype == "float32" else 0.05)
        assert row.accuracy == pytest.approx(1) or (weights, dtype) != ("dense", "float32")
        if weights == "sparse":
            assert row.parameters / row.nonzeros == pytest.approx(4, rel=0.02)
    reference = rows["onnxruntime", "dense", "float32"]
    assert module_report.reference is reference
    assert reference.speedup == 1
    accuracies = {r.accuracy for r in rows.values() if (r.weights, r.dtype) == VARIANTS[1]}
    assert len(accuracies) == 1
    assert accuracies != {1.0}
    files = [rows[("sparsert", *v)].result.file_bytes for v in VARIANTS]
    assert files[1] < 0.5 * files[0]
    assert files[3] < 0.7 * files[1]


def test_the_layers_are_those_of_the_sparse_model(module_report):
    layers = {layer.op: layer for layer in module_report.layers if layer.weights}
    assert layers["Conv"].zeros == 108
    assert layers["Linear"].sparsity == pytest.approx(0.75)
    assert set(layers["Conv"].us) == set(VARIANTS)


def test_the_levels_of_one_file(module_report):
    accurate, fast = module_report.levels
    assert (accurate.name, accurate.sparsity, accurate.accuracy) == ("accurate", 0, 1)
    assert fast.sparsity == pytest.approx(0.75)
    assert fast.accuracy == module_report.row("sparsert", "sparse", "float32").accuracy
    assert fast.file_bytes < accurate.file_bytes
    assert min(accurate.speedup, fast.speedup) > 0
    assert "accurate" in str(module_report.level_table)


def test_it_can_be_saved_in_every_form(module_report, tmp_path):
    for suffix in (".html", ".md", ".json"):
        module_report.save(tmp_path / f"r{suffix}")
    facts = json.loads((tmp_path / "r.json").read_text())
    assert len(facts["rows"]) == 14
    assert facts["front"][1]["is_chosen"]
    assert facts["pruning"]["zeros"] > 0
    text = (tmp_path / "r.md").read_text()
    for part in ("what pruning gained", "layers in sparsert", "Which weights went", "Machine: "):
        assert part in text
    with pytest.raises(ValueError, match=r"\.html, \.md, \.json"):
        module_report.save(tmp_path / "r.pdf")


def test_the_page_needs_nothing_from_elsewhere(module_report):
    page = module_report.to_html()
    assert "&lt;b&gt;&amp;" in page
    assert "<script" not in page
    loads = re.findall(r'(?:src|href)="([^"]+)"|url\(([^)]+)\)|@import', page)
    assert all((a or b).startswith("#") for a, b in loads)
    assert page.count("<svg") == 3
    assert page == module_report.to_html()


@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_a_browser_shows_the_page(module_report, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(module_report.to_html().replace("</body>", f"{PROBE}</body>"))
    run = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"),
            *(f"--user-data-dir={tmp_path}/profile", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    title = run.stdout[run.stdout.index("MEASURED") + len("MEASURED") :]
    seen = json.loads(title[: title.index("END")])
    assert len(seen["tables"]) == 5
    assert len(seen["plots"]) == 3
    assert all(width > 300 and height > 40 for width, height in seen["tables"] + seen["plots"])
    assert len(seen["texts"]) > 30
    assert seen["overflow"] <= 0


def test_what_is_not_given_is_made_and_said(tmp_path):
    model, _ = build_model("small_cnn", 0.9)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    target = tmp_path / "r.md"
    arguments = ["report", path, "--seconds", SECONDS, "--json", "-o", target]
    result = CliRunner().invoke(command, [*map(str, arguments), "--against", "none"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [(r["engine"], r["weights"], r["dtype"]) for r in facts["rows"]] == [
        ("sparsert", *v) for v in VARIANTS
    ]
    ratios = [r["parameters"] / r["nonzeros"] for r in facts["rows"]]
    assert ratios[0] < 1.1
    assert ratios[1] > 5
    notes = "\n".join(facts["notes"])
    assert "zeros filled by random values" in notes
    assert "dense int8 and sparse int8: quantised by the ranges of the feeds" in notes
    assert "zeros filled" in target.read_text()


def test_bad_input(tmp_path):
    relu = build(["y = Relu(x)"], {"x": [1, 4]}, outputs=["y"])
    with pytest.raises(ValueError, match=r"against is 'tvm'(.|\n)*threads is 0"):
        sparsert.report(relu, against="tvm", threads=0)
    with pytest.raises(ValueError, match=r"r\.pdf"):
        sparsert.report(relu, path=tmp_path / "r.pdf")
    with pytest.raises(ModelFormatError, match="no such file"):
        sparsert.report(tmp_path / "absent.onnx")
    (tmp_path / "m.sprt").write_bytes(b"")
    with pytest.raises(ModelFormatError, match="needs the ONNX file"):
        sparsert.report(tmp_path / "m.sprt")
    model, _ = build_model("small_cnn", 0.9)
    sparsert.convert(model, tmp_path / "plain.sprt")
    with pytest.raises(ModelFormatError, match="there are no levels"):
        sparsert.report(model, levels=tmp_path / "plain.sprt", against=())
    with pytest.raises(ShapeError, match=r"has shape \[3\]"):
        sparsert.report(model, feeds=np.zeros(3, np.float32))
    result = CliRunner().invoke(command, ["report", "m.onnx", "--labels", "y.npy"])
    assert result.exit_code == 2
    assert "--labels needs --data" in result.output
    result = CliRunner().invoke(command, ["report", "m.onnx", "-o", "nowhere/r.html"])
    assert "does not exist" in result.output


def test_errors_name_the_file_that_was_given(tmp_path):
    path = tmp_path / "given.onnx"
    onnx.save(build(["y = NonZero(x)"], {"x": (2, 3)}), path)
    with pytest.raises(sparsert.errors.UnsupportedOpError, match="NonZero") as caught:
        sparsert.report(path, seconds=SECONDS)
    assert str(caught.value).startswith("given.onnx (sparse-float32): node")
