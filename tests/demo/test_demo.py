"""The demo end to end, quickly; and the README's snippets and the examples on its files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import sparsert
from sparsert import demo
from sparsert.cli_commands import sparsert as command
from sparsert.errors import BackendError

for package in demo.NEEDED:
    pytest.importorskip(package)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `sparsert demo --quick` leaves; its output is in output.txt."""
    top = tmp_path_factory.mktemp("demo")
    result = CliRunner().invoke(command, ["demo", "--quick", "--output", f"{top}/sparsert-demo"])
    assert result.exit_code == 0, result.output
    (top / "output.txt").write_text(result.stdout)
    return top


def run_python(arguments, cwd):
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_leaves_models_and_a_report(folder):
    names = {path.name for path in (folder / "sparsert-demo").iterdir()}
    stems = ("digits-cnn", "digits-cnn-pruned", "digits-cnn-pruned-90")
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("onnx", "sprt")} | {
        "report.md",
        "report.html",
    }


def test_it_prints_the_two_tables(folder):
    text = (folder / "output.txt").read_text()
    report = (folder / "sparsert-demo" / "report.md").read_text()
    for part in (
        "Table 1: accuracy",
        "Table 2: parameters and run time",
        "File and memory",
        "what pruning gained",
    ):
        assert part in text
        assert part in report
    for part in ("sparsert demo --seed 0 --epochs 1 --quick", "Machine: ", "Date: "):
        assert part in report
    for name in ("onnxruntime, dense", "torch, dense", "sparsert, 50 % pruned"):
        assert text.count(name) >= 2


def test_the_files_hold_what_the_tables_say(folder):
    files = folder / "sparsert-demo"
    text = (folder / "output.txt").read_text()
    for stem, sparsity in (("digits-cnn", 0), ("digits-cnn-pruned", 0.5)):
        model = sparsert.load(files / f"{stem}.sprt", threads=1)
        records = model.explain().records
        weights = sum(r["weights"] for r in records)
        assert sum(r["nonzeros"] for r in records) == weights - round(sparsity * weights)
        assert model(np.zeros((3, 1, 28, 28), np.float32)).shape == (3, 10)
    parameters = 121_930
    assert f"{parameters:,}" in text
    assert f"{parameters - 121_760 // 2:,}" in text
    small = (files / "digits-cnn-pruned-90.sprt").stat().st_size
    assert small < 0.15 * (files / "digits-cnn.onnx").stat().st_size


def test_the_digits_are_real_and_the_split_is_fixed():
    first, again, other = demo.load_digits(0), demo.load_digits(0), demo.load_digits(1)
    assert first.train_x.shape == (1347, 1, 28, 28)
    assert first.test_x.shape == (450, 1, 28, 28)
    assert first.test_x.dtype == np.float32
    assert first.test_y.dtype == np.int64
    assert first.train_x.min() >= 0
    assert first.train_x.max() <= 1
    np.testing.assert_array_equal(first.test_x, again.test_x)
    assert (first.test_y != other.test_y).any()


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "NEEDED", ("torch", "no_such_package"))
    with pytest.raises(BackendError, match=r"needs no_such_package; pip install .sparsert\[demo\]"):
        demo.run_demo(tmp_path)


@pytest.mark.parametrize("document", ["README.md", "docs/quantization.md"])
def test_the_snippets_of_documents_run(folder, document):
    text = (ROOT / document).read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(snippets) >= 2
    for snippet in snippets:
        result = run_python(["-c", snippet], folder)
        assert result.returncode == 0, result.stderr


def test_the_commands_of_the_readme_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in re.findall(r"^(sparsert .*)$", readme, flags=re.MULTILINE):
        words = line.split()
        if words[1] not in command.commands:
            continue
        known = {o for p in command.commands[words[1]].params for o in p.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_the_examples_run(folder):
    model = folder / "sparsert-demo" / "digits-cnn-pruned.onnx"
    arguments = {
        "replace_onnxruntime.py": [model],
        "prune_and_run.py": [],
        "embed_sentences.py": [],
    }
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert {path.name for path in examples} == set(arguments)
    for path in examples:
        result = run_python([path, *arguments[path.name]], folder)
        assert result.returncode == 0, result.stderr
        assert result.stdout
