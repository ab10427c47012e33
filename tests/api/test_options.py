"""Every option of the public functions, of a wrong type or out of range: it is named, and why."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsert
from sparsert.option_checks import OptionChecks, is_count, is_number

NAN, INFINITE = float("nan"), float("inf")
NO_NUMBERS = ("a", None, [1], True, 1j)
NO_FLAGS = ("yes", 2, None, [])
NO_FUNCTIONS = ("a", 1)
NO_NAMES = (1, None, [1], b"conv", {"a": 1})
NO_COUNTS = (0, -1, 1.5, "2", True, [1], NAN)
NO_TUNE = ("yes", 2, None, [])
NO_SEEDS = (-1, 0.5, "a", None, True)

X = np.ones((2, 3), np.float32)


def proto() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "options",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def module() -> Any:
    torch = pytest.importorskip("torch")
    return torch.nn.Sequential(torch.nn.Linear(8, 8))


def _quantize(**options: Any) -> Any:
    return sparsert.quantize(proto(), X, **options)


def _prune(**options: Any) -> Any:
    given = (
        {} if {"sparsity", "threshold", "relative_threshold"} & {*options} else {"sparsity": 0.5}
    )
    return sparsert.prune(module(), **given, **options)


def _convert(**options: Any) -> Any:
    return sparsert.convert(proto(), **{"path": "never-written.sprt", **options})


FUNCTIONS = {
    "quantize": _quantize,
    "prune": _prune,
    "forecast": lambda **options: sparsert.forecast(proto(), **options),
    "convert": _convert,
    "load": lambda **options: sparsert.load(proto(), **options),
    "report": lambda **options: sparsert.report(proto(), **options),
}
# Function and option -> values that it refuses.
WRONG: dict[tuple[str, str], tuple[Any, ...]] = {
    ("quantize", "dynamic"): NO_FLAGS,
    ("quantize", "method"): ("guess", 1, None, [], {}),
    ("quantize", "percentile"): (50, 101, NAN, -INFINITE, *NO_NUMBERS),
    ("quantize", "activation"): ("u4", 8, None, []),
    ("quantize", "per_channel"): NO_FLAGS,
    ("quantize", "reduce_range"): NO_FLAGS,
    ("quantize", "bias_correction"): NO_FLAGS,
    ("quantize", "op_types"): (1, [1], ["Softmax"], "Softmax", b"Conv"),
    ("quantize", "exclude"): NO_NAMES,
    ("quantize", "evaluate"): NO_FUNCTIONS,
    ("quantize", "max_drop"): (-1, NAN, INFINITE, "a", [1]),
    ("quantize", "min_sqnr"): (NAN, INFINITE, "a", [1], True),
    ("quantize", "min_speedup"): (0, -1, NAN, INFINITE, "a", [1], True),
    ("quantize", "batch_size"): NO_COUNTS,
    ("quantize", "path"): (1, [], b"a.onnx"),
    ("quantize", "on_progress"): NO_FUNCTIONS,
    ("prune", "method"): ("guess", 1, None, [], {}),
    ("prune", "sparsity"): (1, -0.1, NAN, "a", [0.5], {"0": "a"}, {"0": 1}),
    ("prune", "threshold"): (-1, NAN, INFINITE, "a", [1]),
    ("prune", "relative_threshold"): (-1, NAN, INFINITE, "a", [1]),
    ("prune", "scope"): ("model", 1, None, []),
    ("prune", "pattern"): ("3x3", 4, [], "0:0"),
    ("prune", "exclude"): NO_NAMES,
    ("prune", "loss"): NO_FUNCTIONS,
    ("prune", "reconstruct"): ("yes", 2, []),
    ("prune", "seed"): NO_SEEDS,
    ("forecast", "sparsity"): (1, -0.1, NAN, "a", None, True, [], [0.5, 2], {"a": 1}),
    ("forecast", "pattern"): ("2:4", 1, None, [], [4]),
    ("forecast", "dtype"): ("int4", 8, None, [], [4]),
    ("forecast", "exclude"): NO_NAMES,
    ("forecast", "all_layers"): NO_FLAGS,
    ("forecast", "threads"): NO_COUNTS,
    ("forecast", "isa"): (1, [], b"avx2"),
    ("forecast", "tune"): NO_TUNE,
    ("forecast", "seed"): NO_SEEDS,
    ("forecast", "seconds"): (0, -1, NAN, INFINITE, *NO_NUMBERS),
    ("forecast", "runs"): (6, 0, -1, 7.5, "a", True),
    ("forecast", "on_progress"): NO_FUNCTIONS,
    ("convert", "path"): (1, None, [], b"a.sprt"),
    ("convert", "weights"): ("f8", 16, None, []),
    ("convert", "metadata"): (1, "a", [1], {"a": {1}}, {"a": NAN}, {"a": b"b"}),
    ("load", "backend"): ("cuda", 1, [], {}),
    ("load", "threads"): (*NO_COUNTS, 1025, 10**30),
    ("load", "isa"): (1, [], b"avx2"),
    ("load", "tune"): NO_TUNE,
    ("load", "strict"): NO_FLAGS,
    ("load", "level"): (1, [], "fast"),
    ("load", "keep_levels"): NO_FLAGS,
    ("report", "evaluate"): NO_FUNCTIONS,
    ("report", "against"): ("tensorrt", 1, None, [1]),
    ("report", "threads"): (*NO_COUNTS, None),
    ("report", "seconds"): (0, -1, NAN, INFINITE, *NO_NUMBERS),
    ("report", "tune"): NO_TUNE,
    ("report", "seed"): NO_SEEDS,
    ("report", "path"): (1, "report.pdf", [], b"a.html"),
    ("report", "on_progress"): NO_FUNCTIONS,
}
CASES = [(f, name, value) for (f, name), values in WRONG.items() for value in values]


@pytest.mark.parametrize(("function", "name", "value"), CASES)
def test_wrong_option(function: str, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"\b{name.removesuffix('s')}") as caught:
        FUNCTIONS[function](**{name: value})
    assert re.search("expected|needs|there is no|not a function", str(caught.value))


def test_all_that_is_wrong_is_listed() -> None:
    with pytest.raises(ValueError, match="4 problems") as caught:
        _quantize(method=1, percentile="a", batch_size=None, per_channel="no")
    for name in ("method is 1", "percentile is 'a'", "batch_size is None", "per_channel is 'no'"):
        assert name in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    options = {"percentile": np.float32(99), "batch_size": np.int64(2), "per_channel": np.True_}
    assert _quantize(**options).report.layers
    assert sparsert.load(proto(), threads=np.int64(1))(X).shape == (2, 3)
    assert is_number(np.float64(1))
    assert is_count(np.uint8(3), 3)
    assert not is_number(np.True_)


def test_one_name_is_one_name() -> None:
    checks = OptionChecks("function")
    assert checks.names("exclude", "conv") == ("conv",)
    assert checks.names("exclude", (name for name in ("a", "b"))) == ("a", "b")
    assert checks.problems == []
    report = sparsert.prune(module(), sparsity={"0": 0.5}, exclude=())
    assert report.layers
