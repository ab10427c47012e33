"""save() and convert(): what they write, atomically; explain() and profile()."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import sparsert
from sparsert.errors import ModelFormatError, SparsertError, UnsupportedOpError
from tests.api.models import expected, image, small_cnn, small_cnn_file, with_fallback
from tests.suite.harness import SUM, assert_close, build, random_weights

X = image(2, 3, 9, 7)


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_save_and_load(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "model.sprt"
    model = sparsert.load(small_cnn(), backend=backend)
    model.save(path)
    assert path.read_bytes() == small_cnn_file()
    assert_close(sparsert.load(path)(X), expected(small_cnn, X)[0], SUM)
    loaded = sparsert.load(path)
    loaded.save(path)  # onto the file that it is mapped from
    assert_close(loaded(X), expected(small_cnn, X)[0], SUM)
    assert_close(sparsert.load(path)(X), expected(small_cnn, X)[0], SUM)


@pytest.mark.parametrize("source", ["path", "bytes", "proto", "sprt", "module"])
def test_convert_from_every_source(tmp_path: Path, source: str) -> None:
    path = tmp_path / "out.sprt"
    options: dict[str, object] = {}
    want = expected(small_cnn, X)[0]
    if source == "path":
        onnx.save(small_cnn(), tmp_path / "in.onnx")
        src: object = tmp_path / "in.onnx"
    elif source == "module":
        src = torch.nn.Conv2d(3, 4, 3).eval()
        options["example_inputs"] = (torch.from_numpy(X),)
        with torch.no_grad():
            want = src(torch.from_numpy(X)).numpy()
    else:
        src = {
            "bytes": small_cnn().SerializeToString(),
            "proto": small_cnn(),
            "sprt": small_cnn_file(),
        }[source]
    sparsert.convert(src, path, **options)  # type: ignore[arg-type]
    assert_close(sparsert.load(path)(X), want, SUM)


def test_half_precision_weights(tmp_path: Path) -> None:
    proto = build(
        ["y = Conv(x, w)"], {"x": (1, 64, 4, 4)}, {"w": random_weights(64, 64, 3, 3, sparsity=0.9)}
    )
    sizes = {}
    x = image(1, 64, 4, 4)
    for weights in ("f32", "f16"):
        path = tmp_path / f"{weights}.sprt"
        sparsert.convert(proto, path, weights=weights)
        sizes[weights] = path.stat().st_size
        np.testing.assert_allclose(sparsert.load(path)(x), sparsert.load(proto)(x), atol=2e-3)
    assert sizes["f16"] < 0.75 * sizes["f32"]
    assert sizes["f32"] < 0.2 * len(proto.SerializeToString())
    with pytest.raises(ValueError, match="f8"):
        sparsert.convert(proto, tmp_path / "x.sprt", weights="f8")


def test_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.sprt"
    sparsert.convert(small_cnn(), path, metadata={"author": "Ä", "epochs": 3})
    from sparsert.modelfile import read

    metadata = read(path).metadata
    if isinstance(metadata, str | bytes):
        metadata = json.loads(metadata)
    assert metadata["author"] == "Ä"
    assert metadata["epochs"] == 3


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (with_fallback, UnsupportedOpError),
        (lambda: b"not a model", ModelFormatError),
        (lambda: "/nonexistent/model.onnx", ModelFormatError),
        (lambda: small_cnn_file()[:-5], ModelFormatError),
    ],
)
def test_a_failed_conversion_keeps_the_old_file(tmp_path: Path, bad: object, error: type) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(small_cnn_file())
    with pytest.raises(error):
        sparsert.convert(bad(), path)  # type: ignore[operator]
    assert path.read_bytes() == small_cnn_file()
    assert os.listdir(tmp_path) == ["model.sprt"]


def test_metadata_that_is_no_json_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(small_cnn_file())
    with pytest.raises((TypeError, ValueError, SparsertError)):
        sparsert.convert(small_cnn(), path, metadata={"x": object()})
    assert path.read_bytes() == small_cnn_file()
    assert os.listdir(tmp_path) == ["model.sprt"]


def test_saving_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        sparsert.load(small_cnn_file()).save(tmp_path / "nowhere" / "model.sprt")
    with pytest.raises(OSError, match="nowhere"):
        sparsert.convert(small_cnn(), tmp_path / "nowhere" / "model.sprt")


def test_a_loaded_model_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(small_cnn_file())
    model = sparsert.load(path)
    path.unlink()
    assert_close(model(X), expected(small_cnn, X)[0], SUM)


def test_replacing_the_file_does_not_touch_the_loaded_model(tmp_path: Path) -> None:
    path = tmp_path / "model.sprt"
    path.write_bytes(small_cnn_file())
    model = sparsert.load(path)
    sparsert.convert(build(["y = Relu(x)"], {"x": (2, 3)}), path)
    assert_close(model(X), expected(small_cnn, X)[0], SUM)
    assert sparsert.load(path)(image(2, 3)).shape == (2, 3)


def test_explain_accounts_for_every_layer() -> None:
    model = sparsert.load(small_cnn())
    table = model.explain()
    rows = table.to_dict()["rows"]
    assert len(rows) == len(table.rows)
    for row in rows:
        assert row["name"]
        assert row["op"]
        assert row["reason"], row
    convolutions = [row for row in rows if row["weights"]]
    assert len(convolutions) == 4
    for row in convolutions:
        assert row["nonzeros"] <= row["weights"]
        assert row["storage_format"]
        assert row["storage_bytes"] > 0
        assert row["compute_format"]
        assert row["kernel"]
    w3 = next(row for row in convolutions if row["weights"] == 64)
    assert w3["nonzeros"] == np.count_nonzero(random_weights(8, 8, 1, 1, sparsity=0.8))
    text = str(table)
    assert "isa" in text
    assert "% of" in text
    markdown = table.to_markdown()
    assert markdown.count("\n|") >= len(rows) + 1
    json.dumps(table.to_dict())


def test_profile_times_every_layer() -> None:
    model = sparsert.load(small_cnn(), threads=1)
    for feeds in (None, X, {"x": X}, torch.from_numpy(X)):
        table = model.profile(feeds, runs=2)
        rows = table.to_dict()["rows"]
        assert len(rows) == len(model.explain().rows)
        assert sum(row["time_ns"] for row in rows) > 0
    assert "ms" in str(table)
    with pytest.raises(ValueError, match="runs"):
        model.profile(runs=0)
