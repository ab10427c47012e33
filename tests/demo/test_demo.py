"""The demo end to end, quickly; and the README's snippets and the examples on its files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
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

HAS_KERAS = find_spec("keras") is not None
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
    stems = ["digits-cnn", "digits-cnn-pruned", "digits-cnn-pruned-90"]
    if HAS_KERAS:
        stems += ["digits-cnn-keras", "digits-cnn-keras-pruned"]
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("onnx", "sprt")} | {
        "report.md",
        "report.html",
    }


def test_it_prints_the_two_tables(folder):
    """From PyTorch and from Keras."""
    text = (folder / "output.txt").read_text()
    report = (folder / "sparsert-demo" / "report.md").read_text()
    for part in (
        "Table 1: accuracy",
        "Table 2: parameters and run time",
        "Table 1: accuracy, from Keras" if HAS_KERAS else "Keras is not installed",
        "File and memory",
        "what pruning gained",
    ):
        assert part in text
        assert part in report
    for part in ("sparsert demo --seed 0 --epochs 1 --quick", "Machine: ", "Date: "):
        assert part in report
    for name in ("onnxruntime, dense", "torch, dense", "sparsert, 50 % pruned"):
        assert text.count(name) >= (3 if HAS_KERAS and not name.startswith("torch") else 2)


def test_the_files_hold_what_the_tables_say(folder):
    files = folder / "sparsert-demo"
    text = (folder / "output.txt").read_text()
    stems = {"digits-cnn": 0, "digits-cnn-pruned": 0.5}
    if HAS_KERAS:
        stems |= {"digits-cnn-keras": 0, "digits-cnn-keras-pruned": 0.5}
    for stem, sparsity in stems.items():
        model = sparsert.load(files / f"{stem}.sprt", threads=1)
        records = model.explain().records
        weights = sum(r["weights"] for r in records)
        assert sum(r["nonzeros"] for r in records) == weights - round(sparsity * weights)
        shape = (3, 28, 28, 1) if "keras" in stem else (3, 1, 28, 28)
        assert model(np.zeros(shape, np.float32)).shape == (3, 10)
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


def test_without_keras_the_demo_says_so(monkeypatch):
    from sparsert import demo_keras

    monkeypatch.setattr(demo_keras, "find_spec", lambda _name: None)
    assert "Keras is not installed" in demo_keras.find_problem()


DOCUMENTS = ("README.md", "docs/quantization.md", "docs/pruning.md")
# Each snippet with names of its own; in one process, as importing torch takes longer than they do.
RUN_SNIPPETS = """
import re, sys
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        snippets = re.findall(r"```python\\n(.*?)```", file.read(), flags=re.DOTALL)
    for number, snippet in enumerate(snippets, 1):
        if "import sparsert" in snippet:
            exec(compile(snippet, f"{path}, snippet {number}", "exec"), {"__name__": "snippet"})
            print(f"{path}: ran {number}")
"""
RUN_EXAMPLES = """
import runpy, sys
for words in sys.argv[1:]:
    print(f"<<< {words}")
    sys.argv[:] = words.split()
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_snippets_of_documents_run(folder):
    result = run_python(["-c", RUN_SNIPPETS, *(ROOT / name for name in DOCUMENTS)], folder)
    assert result.returncode == 0, result.stderr
    for name in DOCUMENTS:
        assert result.stdout.count(f"{name}: ran") >= 2


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
    examples = {
        "replace_onnxruntime.py": [model],
        "prune_and_run.py": [],
        "embed_sentences.py": [],
    }
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(examples)
    commands = [
        " ".join(map(str, [ROOT / "examples" / name, *arguments]))
        for name, arguments in examples.items()
    ]
    result = run_python(["-c", RUN_EXAMPLES, *commands], folder)
    assert result.returncode == 0, result.stderr
    outputs = result.stdout.split("<<< ")[1:]
    assert len(outputs) == len(examples)
    assert all(output.count("\n") > 1 for output in outputs)
