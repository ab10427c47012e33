"""sparsert.forecast: zeros, sizes, tables, errors; times are only positive."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import sparsert
from sparsert.errors import BackendError, ModelFormatError, ShapeError, UnsupportedOpError
from sparsert.modelfile import read
from sparsert.report.pruned_file import PATTERNS, PrunedFile
from tests.api.models import small_cnn, two_in_two_out, with_fallback
from tests.suite.harness import build, random_weights

QUICK = {"runs": 7, "tune": False, "threads": 1}


@functools.cache
def every_layer(sparsity: float = 0.0, group: int = 18) -> onnx.ModelProto:
    """One layer of each kind, the first and the depthwise one left alone; symbolic batch.

    Groups of `group` channels; those of bytes are convolved as such from multiples of 4 on.
    """

    def weight(*shape: int, seed: int = 0) -> np.ndarray:
        return random_weights(*shape, sparsity=sparsity, seed=seed)

    return build(
        [
            "a = Conv<pads=[1,1,1,1]>(x, first)",
            "b = Relu(a)",
            "c = Conv<pads=[1,1,1,1], group=16>(b, depthwise)",
            "d = Conv(c, pointwise)",
            "e = Conv<group=2, pads=[1,1,1,1], strides=[2,2]>(d, grouped)",
            "f = ConvTranspose<strides=[2,2], group=2>(e, transposed)",
            "g = GlobalAveragePool(f)",
            "h = Flatten(g)",
            "y = Gemm<transB=1>(h, linear, bias)",
        ],
        {"x": ["n", 3, 12, 12]},
        {
            "first": weight(16, 3, 3, 3),
            "depthwise": weight(16, 1, 3, 3),
            "pointwise": weight(2 * group, 16, 1, 1),
            "grouped": weight(2 * group, group, 3, 3),
            "transposed": weight(2 * group, group // 2, 2, 2),
            "linear": weight(37, group),
            "bias": random_weights(37, scale=1.0),
        },
    )


PRUNED = ("pointwise", "grouped", "transposed", "linear")


@functools.cache
def every_layer_file() -> bytes:
    return bytes(sparsert.load(every_layer(), strict=True)._native_file())


def by_name(file: bytes) -> dict[str, np.ndarray]:
    return {t.name: t.decode() for t in read(file).tensors if t.data is not None}


@pytest.fixture(scope="module")
def forecast() -> sparsert.report.forecast.Forecast:
    return sparsert.forecast(
        every_layer(), sparsity=[0.5, 0.9], pattern=["unstructured", "4x1", "1x4"], **QUICK
    )


def test_rows(forecast):
    rows = forecast.to_dict()["rows"]
    assert [(row["pattern"], row["sparsity"]) for row in rows] == [
        ("dense", 0.0),
        *((p, s) for p in ("unstructured", "4x1", "1x4") for s in (0.5, 0.9)),
    ]
    dense = rows[0]
    assert dense["zeros"] == 0
    assert dense["speedup"] == dense["ideal_speedup"] == 1.0
    for row in rows:
        assert row["median"] > 0 and row["speedup"] > 0 and row["spread"] >= 0
        assert row["weights"] == dense["weights"]
        assert row["memory_bytes"] == row["packed_bytes"] + row["arena_bytes"]
        assert row["f16_bytes"] < row["file_bytes"]
        assert row["file_bytes"] <= dense["file_bytes"]
    for row in rows[1:]:
        assert len(row["seconds"]) == len(row["dense_seconds"]) == 7
    assert len(dense["seconds"]) == 7 * 6
    for low, high in zip(rows[1::2], rows[2::2], strict=True):
        assert low["zeros"] < high["zeros"]
        assert low["ideal_speedup"] < high["ideal_speedup"]
        assert low["file_bytes"] > high["file_bytes"]


def test_layers(forecast):
    layers = forecast.layers.to_dict()["rows"]
    assert [layer["op"] for layer in layers] == [
        *("Conv", "Conv", "Conv", "Conv", "ConvTranspose", "Linear", None)
    ]
    assert [layer["left_alone"] for layer in layers] == [
        *("first convolution", "depthwise", "", "", "", "", "")
    ]
    assert layers[3]["shape"] == [36, 18, 3, 3]
    assert layers[3]["output_shape"] == [1, 36, 6, 6]
    for layer in layers:
        assert len(layer["levels"]) == 7
        assert all(level["time_ns"] > 0 for level in layer["levels"])
    formats = {level["format"] for layer in layers for level in layer["levels"]}
    known = {"", "dense", "dense8", "winograd", "csr", "csr2", "csr4", "pat4", "bsr4", "bsr8"}
    known |= {"bsr16", "sell", "bits", "perm"}  # of single vectors
    assert formats <= known
    unpruned = ("dense", "winograd")
    assert all(level["format"].startswith(unpruned) for level in layers[0]["levels"])
    assert len(formats) > 3


def test_ideal_speedup_counts_multiply_adds(forecast):
    macs = {
        "first": (16 * 27 * 144, False),
        "depthwise": (16 * 9 * 144, False),
        "pointwise": (36 * 16 * 144, True),
        "grouped": (36 * 18 * 9 * 36, True),
        "transposed": (36 * 9 * 4 * 36, True),
        "linear": (37 * 18, True),
    }
    total = sum(count for count, _ in macs.values())
    left = sum(count * (0.5 if pruned else 1) for count, pruned in macs.values())
    assert forecast.levels[1].ideal_speedup == pytest.approx(total / left, rel=1e-3)


def test_text_and_markdown(forecast):
    text, markdown = str(forecast), forecast.to_markdown()
    assert repr(forecast) == text
    for part in ("x[1, 3, 12, 12]", "left alone: ", "first convolution", "Machine: "):
        assert part in text
        assert part in markdown
    assert len([line for line in text.splitlines() if line.startswith("4x1 ")]) == 2
    assert "| pattern |" in markdown and "| layer |" in markdown
    assert json.loads(json.dumps(forecast.to_dict()))["feeds"] == {"x": [1, 3, 12, 12]}


def test_all_but_times_is_reproducible(forecast):
    again = sparsert.forecast(
        every_layer_file(), sparsity=[0.5, 0.9], pattern=["unstructured", "4x1", "1x4"], **QUICK
    )

    def facts(found):
        rows = [
            {
                name: value
                for name, value in row.items()
                if name
                not in ("median", "dense_median", "spread", "speedup", "seconds", "dense_seconds")
            }
            for row in found.to_dict()["rows"]
        ]
        formats = [
            [(level["format"], level["kernel"]) for level in layer["levels"]]
            for layer in found.to_dict()["layers"]
        ]
        return rows, formats

    assert facts(again) == facts(forecast)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.77, 0.9])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_zeros_are_exact_and_sizes_are_those_of_a_conversion(pattern, sparsity, tmp_path):
    source = PrunedFile(every_layer_file(), "m", (), False, seed=3)
    file, f16_bytes = source.pruned(pattern, sparsity)
    before, after = by_name(every_layer_file()), by_name(file)
    rows, cols = PATTERNS[pattern]
    for name, values in after.items():
        if name not in PRUNED:
            np.testing.assert_array_equal(values, before[name])
            continue
        zeros = int((values == 0).sum())
        if rows * cols == 1:
            assert zeros == round(sparsity * values.size)
        else:
            assert abs(zeros - sparsity * values.size) <= rows * cols / 2
    # The same weights in the ONNX model, converted.
    proto = onnx.ModelProto()
    proto.CopyFrom(every_layer())
    for tensor in proto.graph.initializer:
        if tensor.name in PRUNED:
            tensor.CopyFrom(numpy_helper.from_array(after[tensor.name], tensor.name))
    for weights, size in (("f32", len(file)), ("f16", f16_bytes)):
        sparsert.convert(proto, tmp_path / "m.sprt", weights=weights)
        assert (tmp_path / "m.sprt").stat().st_size == size
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12), dtype=np.float32)
    assert np.isfinite(sparsert.load(bytes(file), threads=1, tune=False)(x)).all()


def test_blocks_are_whole_within_groups():
    source = PrunedFile(every_layer_file(), "m", (), False, seed=0)
    weight = by_name(source.pruned("4x1", 0.5)[0])["grouped"]
    for half in weight.reshape(2, 18, -1):
        for first in range(0, 18, 4):
            kept = half[first : first + 4] != 0
            assert (kept.all(axis=0) | ~kept.any(axis=0)).all()


def test_zeros_that_were_there_are_filled():
    pruned = sparsert.forecast(every_layer(0.9), sparsity=0.5, pattern="4x1", **QUICK)
    dense = sparsert.forecast(every_layer(), sparsity=0.5, pattern="4x1", **QUICK)
    # The layers that are left alone keep theirs.
    kept = [(w == 0).sum() for w in by_name(_file(every_layer(0.9))).values()][:2]
    assert pruned.levels[0].zeros == sum(kept) > 0
    assert pruned.levels[1].zeros == dense.levels[1].zeros + sum(kept)


def _file(model: onnx.ModelProto) -> bytes:
    return bytes(sparsert.load(model, strict=True)._native_file())


def test_weights_stored_as_f16_count_as_f32(tmp_path, forecast):
    sparsert.convert(every_layer(), tmp_path / "m.sprt", weights="f16")
    found = sparsert.forecast(tmp_path / "m.sprt", sparsity=0.5, pattern="4x1", **QUICK)
    assert found.levels[0].file_bytes == forecast.levels[0].file_bytes
    assert found.levels[0].f16_bytes == (tmp_path / "m.sprt").stat().st_size


def test_symbolic_dims_and_feeds():
    x = np.ones((2, 3, 20, 9), np.float32)
    options = {"sparsity": 0.8, "pattern": "unstructured", **QUICK}
    for feeds in (x, {"x": x}, lambda specs: {specs[0].name: x}):
        found = sparsert.forecast(small_cnn(), feeds=feeds, **options)
        assert found.to_dict()["feeds"] == {"x": [2, 3, 20, 9]}
    with pytest.raises(ShapeError, match="'x'"):
        sparsert.forecast(small_cnn(), feeds=x[0], **options)
    with pytest.raises(ShapeError, match="no input 'z'"):
        sparsert.forecast(small_cnn(), feeds={"x": x, "z": x}, **options)


def test_layers_that_are_left_alone():
    def reasons(**options):
        found = sparsert.forecast(every_layer(), sparsity=0.5, pattern="4x1", **options, **QUICK)
        return [layer.left_alone for layer in found.prunable]

    assert reasons(all_layers=True) == [""] * 6
    names = [layer.name for layer in PrunedFile(every_layer_file(), "m", (), True, 0).layers]
    assert reasons(exclude=[names[3], "linear"]) == [
        *("first convolution", "depthwise", "", "excluded", "", "excluded")
    ]
    with pytest.raises(ValueError, match=r"there is no layer 'fc9'.*" + names[5]):
        reasons(exclude="fc9")


def test_recurrent_layers():
    model = build(
        [
            "a = LSTM<hidden_size=8>(x, wl, rl)",
            "b = Squeeze(a, one)",
            "y = GRU<hidden_size=8>(b, wg, rg)",
        ],
        {"x": [5, 2, 12]},
        {
            "wl": random_weights(1, 32, 12),
            "rl": random_weights(1, 32, 8, seed=1),
            "one": np.array([1]),
            "wg": random_weights(1, 24, 8, seed=2),
            "rg": random_weights(1, 24, 8, seed=3),
        },
    )
    found = sparsert.forecast(model, sparsity=0.75, pattern="unstructured", **QUICK)
    assert [(layer.op, layer.shape) for layer in found.prunable] == [
        ("Linear", (32, 12)),
        ("Recurrent", (32, 8)),
        ("Linear", (24, 8)),
        ("Recurrent", (24, 8)),
    ]
    assert found.levels[1].zeros == 0.75 * found.levels[1].weights
    assert found.levels[1].ideal_speedup == pytest.approx(4, rel=0.01)


def test_a_weight_shared_with_a_layer_left_alone_stays():
    model = build(
        ["a = Conv(x, w)", "b = Conv(a, w)", "y = Conv(b, v)"],
        {"x": [1, 8, 4, 4]},
        {"w": random_weights(8, 8, 1, 1), "v": random_weights(8, 8, 1, 1, seed=1)},
    )
    found = sparsert.forecast(model, sparsity=0.5, pattern="unstructured", **QUICK)
    reasons = [layer.left_alone for layer in found.prunable]
    assert reasons[0] == "first convolution"
    assert reasons[1].startswith("shares its weight with")
    assert found.levels[1].zeros == 32


def test_progress():
    seen: list[float] = []
    sparsert.forecast(
        every_layer(), sparsity=[0.5, 0.9], pattern="4x1", on_progress=seen.append, **QUICK
    )
    assert seen == sorted(seen)
    assert 0 < seen[0] < 0.2
    assert seen[-1] == pytest.approx(1.0)


def test_seconds_decide_the_runs():
    found = sparsert.forecast(
        every_layer(), sparsity=0.5, pattern="4x1", seconds=1e-9, tune=False, threads=1
    )
    assert len(found.levels[1].seconds) == 9


def test_repeated_levels_count_once():
    found = sparsert.forecast(every_layer(), sparsity=[0.5, 0.5], pattern=["4x1", "4x1"], **QUICK)
    assert len(found.levels) == 2


@pytest.fixture(scope="module")
def quantised_file(tmp_path_factory) -> bytes:
    x = np.random.default_rng(0).standard_normal((4, 3, 12, 12), dtype=np.float32)
    path = tmp_path_factory.mktemp("int8") / "m.sprt"
    sparsert.quantize(every_layer(group=20), x, path=path)
    return path.read_bytes()


def test_int8_is_compared_with_the_dense_float_model():
    found = sparsert.forecast(
        every_layer(group=20), sparsity=0.5, pattern="1x4", dtype=["int8", "float32"], **QUICK
    )
    rows = found.to_dict()["rows"]
    assert [(row["dtype"], row["pattern"]) for row in rows] == [
        (dtype, pattern) for dtype in ("float32", "int8") for pattern in ("dense", "1x4")
    ]
    dense, sparse, dense_int8, sparse_int8 = rows
    assert dense_int8["file_bytes"] < dense["file_bytes"]
    assert sparse_int8["file_bytes"] < dense_int8["file_bytes"]
    assert dense_int8["weights"] == dense["weights"]
    assert sparse_int8["zeros"] == pytest.approx(sparse["zeros"], abs=20)
    assert dense_int8["ideal_speedup"] == pytest.approx(1, rel=0.01)
    assert sparse_int8["ideal_speedup"] == pytest.approx(sparse["ideal_speedup"], rel=0.01)
    assert all(row["speedup"] > 0 and len(row["dense_seconds"]) == 7 for row in rows[1:])
    layers = {layer["name"]: layer["levels"] for layer in found.layers.to_dict()["rows"]}
    assert all(len(levels) == 4 for levels in layers.values())
    kernels = [levels[3]["kernel"] for levels in layers.values()]
    assert any(kernel.startswith("qspmm") for kernel in kernels)
    assert any(kernel.startswith("spmm") for kernel in kernels)  # transposed
    assert "int8 1x4 50 %" in str(found.layers) and "dtype" in str(found)


def test_groups_of_int8_that_became_one(tmp_path):
    """The zeros where groups of 18 channels do not meet are neither weights nor filled."""
    x = np.random.default_rng(0).standard_normal((4, 3, 12, 12), dtype=np.float32)
    model, _ = sparsert.quantize(every_layer(group=18), x, path=tmp_path / "m.sprt")
    floats = PrunedFile(every_layer_file(), "m", (), False, seed=0)
    for like in ((), floats.layers):
        source = PrunedFile((tmp_path / "m.sprt").read_bytes(), "m", (), False, 0, like)
        (layer,) = (layer for layer in source.layers if layer.is_padded)
        assert (layer.groups, layer.shape) == (2, (36, 18, 3, 3))
        for file, left in ((source.dense, 1.0), (source.pruned("1x4", 0.5)[0], 0.5)):
            weight = read(file, "m").tensors[layer.tensor].decode()
            halves = weight.reshape(2, 18, 3, 3, 2, 18)
            assert not halves[0, ..., 1, :].any() and not halves[1, ..., 0, :].any()
            assert np.count_nonzero(weight) == pytest.approx(left * 36 * 18 * 9, rel=0.01)
    options = {"sparsity": 0.5, "pattern": "1x4", "dtype": "int8", **QUICK}
    dense, sparse = sparsert.forecast(model, **options).levels
    assert dense.weights == sum(math.prod(layer.shape) for layer in floats.layers)
    assert sparse.zeros == pytest.approx(dense.zeros + 0.5 * _pruned_weights(source), rel=0.01)


def _pruned_weights(source: PrunedFile) -> int:
    return sum(math.prod(layer.shape) for layer in source.layers if not layer.left_alone)


def test_blocks_of_int8_are_input_channels(quantised_file):
    source = PrunedFile(quantised_file, "m", (), False, seed=0)
    assert {layer.op for layer in source.layers if layer.is_int8} == {"QConv", "QDepthwise"}
    assert [layer.left_alone for layer in source.layers][:2] == ["first convolution", "depthwise"]
    file, _ = source.pruned("1x4", 0.5)
    tensors = read(file).tensors
    pruned = [layer for layer in source.layers if layer.is_int8 and not layer.left_alone]
    assert len(pruned) == 3
    for layer in pruned:
        weight = tensors[layer.tensor].decode()
        whole = weight.shape[-1] // 4 * 4
        blocks = weight[..., :whole].reshape(-1, 4) != 0
        assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()
        assert np.mean(weight == 0) == pytest.approx(0.5, abs=0.02)
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12), dtype=np.float32)
    assert np.isfinite(sparsert.load(bytes(file), threads=1, tune=False)(x)).all()


def test_what_is_quantised_has_an_int8_forecast_alone(quantised_file):
    options = {"sparsity": 0.9, "pattern": "1x4", **QUICK}
    found = sparsert.forecast(quantised_file, dtype="int8", **options)
    assert [level.label for level in found.levels] == ["int8 dense", "int8 1x4 90 %"]
    with pytest.raises(ValueError, match='quantised already: give dtype="int8"'):
        sparsert.forecast(quantised_file, **options)
    with pytest.raises(ValueError, match="not quantised here; give the ONNX model"):
        sparsert.forecast(every_layer_file(), dtype="int8", **options)
    alone = sparsert.forecast(every_layer(group=20), dtype="int8", exclude="linear", **options)
    assert [level.dtype for level in alone.levels] == ["int8", "int8"]
    assert "excluded" in [layer.left_alone for layer in alone.prunable]


BAD = [
    ({"dtype": "int4"}, "dtype is 'int4', expected one of float32, int8"),
    ({"dtype": []}, "dtype is empty"),
    ({"sparsity": []}, "sparsity is empty"),
    ({"pattern": ()}, "pattern is empty"),
    ({"sparsity": 90}, "sparsity is 90, expected at least 0 and less than 1"),
    ({"sparsity": [0.5, 1.0]}, "sparsity is 1.0"),
    ({"sparsity": -0.1}, "sparsity is -0.1"),
    ({"sparsity": float("nan")}, "sparsity is nan"),
    ({"sparsity": ["half"]}, "sparsity is 'half'"),
    ({"pattern": "2:4"}, "pattern is '2:4', expected one of unstructured, 2x1"),
    ({"pattern": ["4x4", "channel"]}, r"(?s)'4x4'.*'channel'"),
    ({"runs": 3}, "runs is 3"),
    ({"seconds": 0}, "seconds is 0"),
    ({"threads": 0}, "threads is 0"),
    ({"tune": "yes"}, "tune is 'yes'"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=str)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        sparsert.forecast("none.onnx", **options)


def test_models_that_cannot_be_forecast(tmp_path):
    with pytest.raises(ValueError, match="no weights to prune"):
        sparsert.forecast(two_in_two_out())
    first = build(["y = Conv(x, w)"], {"x": [1, 8, 4, 4]}, {"w": random_weights(8, 8, 1, 1)})
    with pytest.raises(ValueError, match=r"first convolution.*all_layers=True"):
        sparsert.forecast(first)
    assert sparsert.forecast(first, sparsity=0.5, all_layers=True, **QUICK).levels[1].zeros == 32
    with pytest.raises(UnsupportedOpError, match="Shrink"):
        sparsert.forecast(with_fallback())
    with pytest.raises(ModelFormatError, match=r"none\.onnx"):
        sparsert.forecast(tmp_path / "none.onnx")
    (tmp_path / "bad.sprt").write_bytes(every_layer_file()[:-9])
    with pytest.raises(ModelFormatError, match=r"bad\.sprt"):
        sparsert.forecast(tmp_path / "bad.sprt")
    with pytest.raises(BackendError, match="mmx"):
        sparsert.forecast(every_layer(group=20), isa="mmx")


def test_a_sprt_file_needs_numpy_alone(tmp_path):
    path = tmp_path / "m.sprt"
    path.write_bytes(every_layer_file())
    code = (
        "import sys, sparsert\n"
        f"f = sparsert.forecast({str(path)!r}, sparsity=0.9, runs=7, tune=False, threads=1)\n"
        "print(f, f.layers)\n"
        "assert not {'torch', 'onnx', 'onnx_ir', 'click', 'rich'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_torch_modules_run_with_their_example_inputs():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)
    ).eval()
    found = sparsert.forecast(
        module,
        sparsity=0.5,
        pattern="4x1",
        exclude=["2"],
        example_inputs=torch.zeros(3, 16),
        dynamic_shapes=({0: torch.export.Dim("n")},),
        **QUICK,
    )
    assert list(found.feeds.values()) == [(3, 16)]
    assert [layer.left_alone for layer in found.prunable] == ["", "excluded"]
    assert found.levels[1].zeros == 256
