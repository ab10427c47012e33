"""docs/kernels.md: its example runs as it stands, and so does the command that it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two files of the example, and the model that the second one loads."""
    text = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    kernels, script = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    path = tmp_path_factory.mktemp("documented")
    (path / "my_kernels.py").write_text(kernels, encoding="utf-8")
    save = 'onnx.save(model, "custom.onnx")\n'
    (path / "script.py").write_text(script + save, encoding="utf-8")
    return path


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example(folder: Path) -> None:
    shown = run(folder, "script.py")
    for name in ("threshold (numba)", "pairs (python)", "linear_by_rows (yours)"):
        assert name in shown
    line = ("-m", "sparsert", "run", "custom.onnx", "--random", "--strict")
    assert "y" in run(folder, *line, "--kernels-from", "my_kernels.py")


def test_the_table_of_kernels(folder: Path) -> None:
    make = (
        "import onnx; from tests.api.models import small_cnn; onnx.save(small_cnn(), 'small.onnx')"
    )
    run(folder, "-c", make)
    line = "-m sparsert bench small.onnx --kernels --kernels-from my_kernels.py".split()
    shown = run(folder, *line, "--dim", "h=6", "--dim", "w=5", "--batch", "2")
    rows = [row for row in shown.splitlines() if row.startswith(("Conv_", "Gemm_"))]
    assert len(rows) == 5
    assert "8x3x3x3 on 2x3x6x5" in rows[0]
    assert "spm" in rows[-1] and "linear_by_rows (yours)" in rows[-1]
    assert "WRONG" not in shown
