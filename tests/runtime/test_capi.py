"""The C library through cffi: the same numbers, tables and errors as the compiled extension."""

from __future__ import annotations

import gc
import os
import pickle
import re
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import sparsert
from sparsert import capi
from sparsert.capi_declarations import DECLARATIONS
from sparsert.errors import BackendError, ModelFormatError, ShapeError
from sparsert.runtime.native_backend import import_core
from tests.api.models import image, small_cnn_file, two_in_two_out, with_fallback
from tests.arm.write_cases import suite_cases
from tests.runtime.callers import expect_from_many_callers_and_a_fork
from tests.suite.harness import ISAS, build, i64

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("cffi")
pytestmark = pytest.mark.skipif(
    "SPARSERT_LIBRARY" not in os.environ, reason="libsparsert is not built: make build-all"
)


def pair(src: Any, **options: Any) -> tuple[sparsert.Model, sparsert.Model]:
    """The model in the extension, and in the C library."""
    options = {"tune": False, **options}  # the same kernels in both
    extension = sparsert.load(src, backend="native", **options)
    return extension, sparsert.load(src, backend="capi", **options)


def expect_same(models: tuple[sparsert.Model, sparsert.Model], *inputs: np.ndarray) -> None:
    """The same bits."""
    feeds = dict(zip([spec.name for spec in models[0].inputs], inputs, strict=True))
    want, got = (model.run(None, feeds) for model in models)
    for a, b in zip(want, got, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def test_declarations_are_those_of_the_header() -> None:
    header = (ROOT / "csrc" / "include" / "sparsert.h").read_text(encoding="utf-8")
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL).replace("\\\n", " ")
    header = re.sub(r"#ifdef __cplusplus.*?#endif", "", header, flags=re.DOTALL)
    lines = [line for line in header.splitlines() if not line.startswith("#")]
    lines += re.findall(r"^#define SRT_[A-Z_]+ \d+$", header, flags=re.MULTILINE)
    words = " ".join(lines).replace("SRT_API ", "").split()
    assert sorted(words) == sorted(DECLARATIONS.split())
    # In the same order, but for the macros.
    declared = [line for line in DECLARATIONS.splitlines() if not line.startswith("#")]
    assert " ".join(declared).split() == words[: len(" ".join(declared).split())]
    assert f"#define SRT_ABI_VERSION {capi.ABI_VERSION}" in DECLARATIONS


def test_cases_of_the_suite() -> None:
    for name, file, all_feeds, _ in suite_cases(every=32):
        extension, library = pair(file, threads=1)
        for feeds in all_feeds:
            want, got = (model.run(None, feeds) for model in (extension, library))
            assert [y.tobytes() for y in got] == [y.tobytes() for y in want], name


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_numbers(isa: str, threads: int) -> None:
    models = pair(small_cnn_file(), isa=isa, threads=threads)
    assert models[0].inputs == models[1].inputs
    assert models[0].outputs == models[1].outputs
    for shape in ((1, 3, 8, 8), (3, 3, 17, 5), (1, 3, 1, 1)):
        expect_same(models, image(*shape))
    tables = [model.explain() for model in models]
    assert tables[0].to_dict() == tables[1].to_dict()
    profiles = [model.profile(image(1, 3, 8, 8), runs=2).to_dict()["rows"] for model in models]
    names = [[(row["name"], row["kernel"]) for row in rows] for rows in profiles]
    assert names[0] == names[1]
    assert sum(row["time_ns"] for row in profiles[1]) > 0


def test_other_graphs() -> None:
    """Several inputs and outputs, integers, an input that gives a shape, a fallback in between."""
    expect_same(pair(two_in_two_out()), image(2, 4), image(2, 4, seed=1))
    reshape = build(
        ["h = Relu(x)", "y = Reshape(h, s)"],
        {"x": ["n", 6], "s": (TensorProto.INT64, ["r"])},
    )
    models = pair(reshape)
    for shape in (i64(2, -1), i64(3, 4), i64(-1)):
        expect_same(models, image(2, 6), shape)
    with pytest.raises(ShapeError):
        models[1](image(2, 6), i64(5, 5))
    with pytest.warns(UserWarning, match="Shrink"):
        models = pair(with_fallback())
    expect_same(models, image(2, 3, 8, 8))


def test_what_was_tuned_is_kept() -> None:
    models = [sparsert.load(small_cnn_file(), backend="capi", tune=True) for _ in range(2)]
    x = image(2, 3, 24, 24)
    for model in models:
        model(x)
    reasons = [[row["reason"] for row in m.explain().to_dict()["rows"]] for m in models]
    assert any("tuning cache" in reason for reason in reasons[1])
    assert not any("tuning cache" in reason for reason in reasons[0])


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    x = image(1, 3, 9, 9)
    want = sparsert.load(small_cnn_file(), tune=False)(x)
    monkeypatch.setitem(sys.modules, "sparsert.runtime._core", None)
    with pytest.raises(BackendError, match='backend="capi"'):
        sparsert.load(small_cnn_file(), backend="native")
    model = sparsert.load(small_cnn_file(), backend="capi", tune=False)
    assert model(x).tobytes() == want.tobytes()
    copy = pickle.loads(pickle.dumps(model))
    assert copy(x).tobytes() == want.tobytes()


def test_many_callers_and_a_fork() -> None:
    model = sparsert.load(small_cnn_file(), backend="capi", threads=2, tune=False)
    x = image(2, 3, 16, 16)
    want = model(x).tobytes()
    expect_from_many_callers_and_a_fork(model, x, want, runs=50)


def test_memory_is_given_back() -> None:
    freed = []
    core = import_core("capi")
    model = sparsert.load(small_cnn_file(), backend="capi", tune=False)
    model(image(1, 3, 8, 8))
    weakref.finalize(model._backend, freed.append, "backend")
    weakref.finalize(model._file, freed.append, "file")
    del model
    gc.collect()
    assert sorted(freed) == ["backend", "file"]
    assert core.Budget(3).cores == 3


def test_bad_input_is_the_same_error() -> None:
    file = small_cnn_file()
    flipped = bytearray(file)
    flipped[len(file) // 2] ^= 4
    for data in (file[:100], file[: len(file) // 2], file[:-1], bytes(flipped)):
        messages = []
        for backend in ("native", "capi"):
            with pytest.raises(ModelFormatError) as caught:
                sparsert.load(data, backend=backend)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
    with pytest.raises(BackendError, match="sse9"):
        sparsert.load(file, backend="capi", isa="sse9")
    gather = build(["y = Gather(t, x)"], {"x": (TensorProto.INT64, ["n"])}, {"t": image(5, 3)})
    for model in pair(gather):
        with pytest.raises(BackendError, match=r"index 5 .*\[-5, 5\)"):
            model(i64(1, 5))


def test_the_core_checks_what_python_hands_in() -> None:
    core = import_core("capi")
    file = sparsert.load(small_cnn_file(), backend="capi")._backend.file  # type: ignore[attr-defined]
    model = core.Model(file, 1, "", 0)
    plan = core.Plan(model, [(2, 3, 8, 8)], [np.dtype(np.float32)])
    x = image(2, 3, 8, 8)
    assert plan.run([x])[0].shape == (2, 10)
    for inputs, message in (
        ([], "0 inputs, the model has 1"),
        ([x, x], "2 inputs"),
        ([x[:1]], "'x' is 768 bytes, expected 1536"),
        ([x.astype(np.float64)], "'x' is 3072 bytes"),
    ):
        with pytest.raises(capi.NativeError, match=re.escape(message)):
            plan.run(inputs)
    wrong_dtype = core.Plan(model, [(2, 3, 8, 8)], [np.dtype(np.float64)])
    with pytest.raises(capi.NativeError, match="'y' is 160 bytes, expected 80"):
        wrong_dtype.run([x])
    with pytest.raises(capi.NativeError, match="2 shapes, the model has 1"):
        core.Plan(model, [(2, 3, 8, 8)] * 2, [np.dtype(np.float32)])
    with pytest.raises(capi.NativeError, match="more than 8 dimensions"):
        core.Plan(model, [(1,) * 9], [np.dtype(np.float32)])


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"none\.so.*c_api\.md"):
        capi.library("none.so")
    with pytest.raises(BackendError, match="is not the library of sparsert"):
        capi.library("libm.so.6")
    folder, name = os.path.split(os.environ["SPARSERT_LIBRARY"])
    monkeypatch.setattr(capi, "ABI_VERSION", capi.ABI_VERSION + 1)
    with pytest.raises(BackendError, match=rf"{name}: has ABI version"):
        capi.library(os.path.join(folder, ".", name))
    monkeypatch.setitem(sys.modules, "cffi", None)
    with pytest.raises(BackendError, match=r"sparsert\[capi\]"):
        capi.library("another.so")
