"""load(): every source, every option, and the errors for what is wrong with either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import sparsert
from sparsert.errors import (
    BackendError,
    ModelFormatError,
    SparsertError,
    UnsupportedOpError,
)
from tests.api.models import expected, image, small_cnn, small_cnn_file
from tests.suite.harness import ABSENT_ISAS, ISAS, SUM, assert_close, runs_on

X = image(2, 3, 9, 7)


def assert_right(model: sparsert.Model) -> None:
    assert_close(model(X), expected(small_cnn, X)[0], SUM)


def test_native_engines_ran() -> None:
    assert ISAS, "the compiled extension is missing: the suite has tested the interpreter alone"
    assert ISAS[0] == "scalar"


@pytest.mark.parametrize("as_path", [str, Path])
def test_onnx_file(tmp_path: Path, as_path: type) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(small_cnn(), path)
    assert_right(sparsert.load(as_path(path)))


@pytest.mark.parametrize("name", ["model.sprt", "model.bin", "model.onnx"])
def test_sprt_file_under_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(small_cnn_file())
    assert_right(sparsert.load(path))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(kind: type) -> None:
    assert_right(sparsert.load(kind(small_cnn_file())))
    assert_right(sparsert.load(kind(small_cnn().SerializeToString())))


def test_unaligned_bytes() -> None:
    data = bytearray(64) + small_cnn_file()
    for offset in (1, 7, 63):
        shifted = bytearray(offset) + small_cnn_file()
        assert_right(sparsert.load(memoryview(shifted)[offset:]))
    assert_right(sparsert.load(memoryview(data)[64:]))


def test_model_proto() -> None:
    before = small_cnn().SerializeToString()
    assert_right(sparsert.load(small_cnn()))
    assert small_cnn().SerializeToString() == before


def test_torch_module() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    ).eval()
    x = torch.randn(2, 3, 9, 7)
    model = sparsert.load(net, example_inputs=x, strict=True)
    with torch.no_grad():
        want = net(x)
    found = model(x)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)


def test_torch_module_without_inputs_says_what_is_missing() -> None:
    with pytest.raises((SparsertError, ValueError), match="example_inputs"):
        sparsert.load(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_backends_agree(backend: str) -> None:
    assert_right(sparsert.load(small_cnn(), backend=backend))
    assert_right(sparsert.load(small_cnn_file(), backend=backend))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tune", [True, False, "auto"])
def test_forced_isa_and_tuning(isa: str, tune: bool | str) -> None:
    model = sparsert.load(small_cnn_file(), isa=isa, tune=tune)
    assert_right(model)
    kernels = [row["kernel"] for row in model.explain().to_dict()["rows"]]
    convolutions = [k for k in kernels if k.startswith(("spmm", "dwconv", "spmv"))]
    assert len(convolutions) == 4
    assert all(runs_on(kernel, isa) for kernel in convolutions), convolutions


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_isa_is_for_native_kernels(backend: str) -> None:
    with pytest.raises(BackendError, match="isa='scalar' is for native kernels"):
        sparsert.load(small_cnn_file(), backend=backend, isa="scalar")


@pytest.mark.parametrize("isa", [*ABSENT_ISAS, "sse9"])
def test_absent_isa(isa: str) -> None:
    with pytest.raises(BackendError, match=isa):
        sparsert.load(small_cnn_file(), isa=isa)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("isa", ISAS)
def test_isa_from_the_environment(tmp_path: Path, isa: str) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(small_cnn_file())
    code = f"import sparsert; print(sparsert.load({str(path)!r}).explain().notes[0])"
    result = run_python(code, SPARSERT_ISA=isa)
    assert result.returncode == 0, result.stderr
    assert f"isa {isa}," in result.stdout


def test_the_argument_beats_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(small_cnn_file())
    code = f"import sparsert; print(sparsert.load({str(path)!r}, isa='scalar').explain().notes[0])"
    result = run_python(code, SPARSERT_ISA=ISAS[-1])
    assert "isa scalar," in result.stdout, result.stderr


def test_absent_isa_in_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(small_cnn_file())
    result = run_python(f"import sparsert; sparsert.load({str(path)!r})", SPARSERT_ISA="sse9")
    assert result.returncode != 0
    assert "BackendError" in result.stderr
    assert "sse9" in result.stderr


@pytest.mark.parametrize(
    "options",
    [{"backend": "cuda"}, {"threads": 0}, {"threads": -1}, {"threads": 1.5}, {"tune": "maybe"}],
    ids=str,
)
def test_options_out_of_range(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        sparsert.load(small_cnn_file(), **options)


@pytest.mark.parametrize("name", ["no.onnx", "no.sprt", "no"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFormatError, match=name):
        sparsert.load(tmp_path / name)


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="directory"):
        sparsert.load(tmp_path)


@pytest.mark.parametrize("name", ["empty.onnx", "empty.sprt"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(ModelFormatError, match=name):
        sparsert.load(path)


@pytest.mark.parametrize(
    "source", [None, 42, 1.5, [1], {"a": 1}, object()], ids=lambda source: type(source).__name__
)
def test_wrong_type_of_source(source: object) -> None:
    with pytest.raises((ModelFormatError, TypeError)) as caught:
        sparsert.load(source)
    assert type(source).__name__ in str(caught.value)


@pytest.mark.parametrize("backend", ["native", "numpy"])
@pytest.mark.parametrize("keep", [0.999, 0.9, 0.5, 0.1, 0.01])
def test_truncated_sprt(tmp_path: Path, backend: str, keep: float) -> None:
    path = tmp_path / "cut.sprt"
    path.write_bytes(small_cnn_file()[: int(keep * len(small_cnn_file()))])
    with pytest.raises(ModelFormatError, match="truncated") as caught:
        sparsert.load(path, backend=backend)
    assert "cut.sprt" in str(caught.value)
    with pytest.raises(ModelFormatError, match=r"cut\.sprt"):
        sparsert.convert(path, tmp_path / "again.sprt")


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_corrupt_sprt(backend: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        data = bytearray(small_cnn_file())
        at = int(rng.integers(len(data)))
        data[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(SparsertError):
            sparsert.load(bytes(data), backend=backend)


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_future_version(backend: str) -> None:
    data = bytearray(small_cnn_file())
    data[8] = 2
    with pytest.raises(ModelFormatError, match="version"):
        sparsert.load(bytes(data), backend=backend)


@pytest.mark.parametrize(
    "data", [b"hello", b"\x00" * 300, b"PK\x03\x04" + b"x" * 100, b"\x89SPRT\r\n\x1a"], ids=repr
)
def test_not_a_model(data: bytes) -> None:
    with pytest.raises(ModelFormatError):
        sparsert.load(data)


def test_truncated_onnx(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    data = small_cnn().SerializeToString()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelFormatError, match=r"cut\.onnx"):
        sparsert.load(path)


def test_missing_extension_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(small_cnn_file())
    code = (
        "import sys; sys.modules['sparsert.runtime._core'] = None\n"
        "import sparsert\n"
        f"sparsert.load({str(path)!r}, backend='native')"
    )
    result = run_python(code)
    assert "BackendError" in result.stderr
    assert "compiled extension" in result.stderr
    assert "numba" in result.stderr


SLIM = """
import sys
class Block:
    allowed = set(sys.stdlib_module_names) | {{"numpy", "sparsert", "tests", "__main__"}}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in self.allowed:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
import sparsert
import numpy as np
model = sparsert.load({path!r})
y = model(np.ones((1, 3, 8, 8), np.float32))
print(y.shape, model.explain().columns[0], len(model.profile(runs=1).rows) > 0)
model.save({saved!r})
import pickle
pickle.loads(pickle.dumps(model))
names = ("onnx", "onnx_ir", "onnxscript", "torch", "onnxruntime", "numba")
foreign = [name for name in names if name in sys.modules]
print("foreign:", foreign)
"""


def test_numpy_alone_runs_a_sprt_file(tmp_path: Path) -> None:
    path, saved = tmp_path / "model.sprt", tmp_path / "saved.sprt"
    path.write_bytes(small_cnn_file())
    result = run_python(SLIM.format(path=str(path), saved=str(saved)))
    assert result.returncode == 0, result.stderr
    assert result.stdout == "(1, 10) layer True\nforeign: []\n"
    assert saved.read_bytes() == small_cnn_file()


def test_numpy_alone_says_what_an_onnx_file_needs(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(small_cnn(), path)
    result = run_python(SLIM.format(path=str(path), saved=""))
    assert "BackendError" in result.stderr
    assert "pip install" in result.stderr


def test_strict_names_every_op() -> None:
    from tests.api.models import with_fallback

    with pytest.raises(UnsupportedOpError, match="Shrink"):
        sparsert.load(with_fallback(), strict=True)
