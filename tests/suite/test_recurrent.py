"""LSTM, GRU and RNN on every engine: cells, directions, layouts, states, lengths, sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import sparsert
from sparsert.errors import SparsertError, UnsupportedOpError
from tests.compat import coverage
from tests.suite.harness import (
    ENGINES,
    ENGINES_WITH_NUMBA,
    FUNCTION,
    Engine,
    assert_close,
    build,
    make_session,
    random_weights,
)

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
WIDTH = 5


def layer(
    op: str,
    hidden: int,
    *,
    sparsity: float = 0.0,
    bias: bool = True,
    states: bool = False,
    lengths: bool = False,
    peephole: bool = False,
    outputs: str = "Y Y_h Y_c",
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one layer on x, and where asked for on h0, c0 and lengths."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[op] * hidden
    first = attributes.get("layout", 0)
    constants = {
        "w": random_weights(directions, rows, WIDTH, sparsity=sparsity, scale=0.7),
        "r": random_weights(directions, rows, hidden, sparsity=sparsity, scale=0.5 / hidden**0.5),
    }
    if bias:
        constants["b"] = random_weights(directions, 2 * rows, scale=0.3)
    if peephole:
        constants["p"] = random_weights(directions, 3 * hidden, scale=0.5)
    dims = ["n", directions, hidden] if first else [directions, "n", hidden]
    inputs: dict[str, tuple[int, list]] = {
        "x": (TensorProto.FLOAT, ["n", "t", WIDTH] if first else ["t", "n", WIDTH])
    }
    if lengths:
        inputs["lengths"] = (TensorProto.INT32, ["n"])
    if states:
        inputs["h0"] = (TensorProto.FLOAT, dims)
        if op == "LSTM":
            inputs["c0"] = (TensorProto.FLOAT, dims)
    there = {*inputs, *constants}
    names = ["x", "w", "r", "b", "lengths", "h0", *(["c0", "p"] if op == "LSTM" else [])]
    results = ["Y", "Y_h", *(["Y_c"] if op == "LSTM" else [])]
    wanted = [name for name in results if name in outputs.split()]
    node = helper.make_node(
        op,
        [name if name in there else "" for name in names],
        [name if name in wanted else "" for name in results],
        name="layer",
        hidden_size=hidden,
        **attributes,
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def feeds_of(model: onnx.ModelProto, steps: int, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(steps + 10 * batch)
    feeds = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        sizes = {"n": batch, "t": steps}
        shape = [sizes[d.dim_param] if d.dim_param else d.dim_value for d in dims]
        if value.name == "lengths":
            feeds[value.name] = rng.integers(0, steps + 1, shape).astype(np.int32)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    return feeds


# Options of a layer, by name, for each operator.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_bias": {"bias": False},
    "reverse": {"direction": "reverse"},
    "both": {"direction": "bidirectional", "states": True},
    "states": {"states": True},
    "lengths": {"lengths": True, "states": True},
    "lengths_reverse": {"lengths": True, "direction": "reverse"},
    "lengths_both": {"lengths": True, "direction": "bidirectional", "states": True},
    "only_y": {"outputs": "Y"},
    "only_last": {"outputs": "Y_h"},
}
# Every function of ONNX that has parameters, the given ones and the defaults.
PARAMETERS: dict[str, dict[str, Any]] = {
    "leaky": {"activations": ["LeakyRelu"], "activation_alpha": [0.3]},
    "leaky_default": {"activations": ["LeakyRelu"]},
    "thresholded": {"activations": ["ThresholdedRelu"], "activation_alpha": [0.2]},
    "thresholded_default": {"activations": ["ThresholdedRelu"]},
    "scaled_tanh_default": {"activations": ["ScaledTanh"]},
    "affine_default": {"activations": ["Affine"]},
    "scaled_tanh": {
        "activations": ["ScaledTanh"],
        "activation_alpha": [1.7],
        "activation_beta": [0.6],
    },
    "hard_sigmoid": {
        "activations": ["HardSigmoid"],
        "activation_alpha": [0.3],
        "activation_beta": [0.4],
    },
    "hard_sigmoid_default": {"activations": ["HardSigmoid"]},
    "elu": {"activations": ["Elu"], "activation_alpha": [0.7]},
    "elu_default": {"activations": ["Elu"]},
    "affine": {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]},
    "softsign": {"activations": ["Softsign"]},
    "softplus": {"activations": ["Softplus"]},
}
MORE: dict[str, dict[str, dict[str, Any]]] = {
    "LSTM": {
        "peephole": {"peephole": True, "states": True},
        "peephole_both": {"peephole": True, "direction": "bidirectional"},
        "functions": {"activations": ["Softsign", "Relu", "Tanh"]},
        "functions_both": {
            "activations": ["Sigmoid", "Tanh", "Softsign", "Sigmoid", "Softplus", "Tanh"],
            "direction": "bidirectional",
        },
        "only_cell": {"outputs": "Y_c"},
        "clip": {"clip": 0.3},
        "coupled": {"input_forget": 1, "states": True},
        "coupled_peephole": {"input_forget": 1, "peephole": True, "lengths": True},
        "parameters": {
            "activations": ["HardSigmoid", "LeakyRelu", "ScaledTanh"],
            "activation_alpha": [0.3, 0.1, 1.2],
            "activation_beta": [0.45, 0.8],
        },
        "parameters_both": {
            "activations": ["HardSigmoid", "Tanh", "Elu", "Sigmoid", "Affine", "ThresholdedRelu"],
            "activation_alpha": [0.3, 0.6, 0.5, 0.1],
            "activation_beta": [0.4, 0.2],
            "direction": "bidirectional",
        },
    },
    "GRU": {
        "after": {"linear_before_reset": 1},
        "after_no_bias": {"linear_before_reset": 1, "bias": False},
        "after_both": {"linear_before_reset": 1, "direction": "bidirectional", "states": True},
        "after_lengths": {"linear_before_reset": 1, "lengths": True},
        "functions": {"activations": ["Sigmoid", "Softsign"]},
        "clip": {"clip": 0.3},
        "after_clip": {"clip": 0.3, "linear_before_reset": 1},
        "parameters": {
            "activations": ["HardSigmoid", "Elu"],
            "activation_alpha": [0.3, 0.5],
            "activation_beta": [0.45],
        },
        "after_parameters": {
            "activations": ["HardSigmoid", "LeakyRelu"],
            "linear_before_reset": 1,
        },
    },
    "RNN": {
        **PARAMETERS,
        "relu": {"activations": ["Relu"]},
        "two": {"activations": ["Relu", "Sigmoid"], "direction": "bidirectional"},
        "clip": {"clip": 0.3},
    },
}
CASES = [
    pytest.param(op, options, id=f"{op}-{name}")
    for op in GATES
    for name, options in (VARIANTS | MORE[op]).items()
]
SIZES = [(1, 1), (5, 3), (4, 1)]
# Whole vectors of sequences, and a few more; more than one group.
WIDE_SIZES = [(3, 16), (4, 21), (2, 131)]


def compare(model: onnx.ModelProto, engine: Engine, runs: list[dict[str, np.ndarray]]) -> None:
    session = make_session(model)
    loaded = sparsert.load(model, strict=True, **dict(engine.options))
    for feeds in runs:
        found = loaded.run(None, feeds)
        wanted = session.run(None, feeds)
        for value, got, want in zip(model.graph.output, found, wanted, strict=True):
            shapes = {name: array.shape for name, array in feeds.items()}
            assert_close(got, want, FUNCTION, f"{value.name} of {shapes}")


@pytest.mark.parametrize("engine", ENGINES_WITH_NUMBA, ids=str)
@pytest.mark.parametrize(("op", "options"), CASES)
def test_variants(op: str, options: dict[str, Any], engine: Engine) -> None:
    model = layer(op, 7, sparsity=0.4, **options)
    compare(model, engine, [feeds_of(model, *size) for size in SIZES])


@pytest.mark.parametrize("engine", ENGINES_WITH_NUMBA, ids=str)
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("options", ["plain", "lengths_both", "states"])
@pytest.mark.parametrize("op", list(GATES))
def test_batches(op: str, options: str, sparsity: float, engine: Engine) -> None:
    variants = [VARIANTS[options]]
    if op == "GRU":
        variants.append(variants[0] | {"linear_before_reset": 1})
    for variant in variants:
        model = layer(op, 19, sparsity=sparsity, **variant)
        compare(model, engine, [feeds_of(model, *size) for size in WIDE_SIZES])


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("batch", [2, 70])
def test_between_other_layers(batch: int, engine: Engine) -> None:
    """Inputs and outputs that other layers would have in another layout."""
    model = build(
        [
            "a = LayerNormalization(x, scale)",
            "b = LSTM<hidden_size=8>(a, w0, r0)",
            "c = Squeeze(b, one)",
            'd = GRU<hidden_size=6, direction="bidirectional">(c, w1, r1)',
            "e = Transpose<perm=[0, 2, 1, 3]>(d)",
            "f = Reshape(e, shape)",
            "g = MatMul(f, w2)",
            "y = Add(g, c)",
        ],
        {"x": [3, batch, 20]},
        {
            "scale": random_weights(20, scale=1.0),
            "w0": random_weights(1, 32, 20),
            "r0": random_weights(1, 32, 8, seed=1),
            "one": np.array([1]),
            "w1": random_weights(2, 18, 8, seed=2),
            "r1": random_weights(2, 18, 6, seed=3),
            "shape": np.array([0, 0, -1]),
            "w2": random_weights(12, 8, seed=4),
        },
    )
    x = np.random.default_rng(batch).standard_normal((3, batch, 20)).astype(np.float32)
    compare(model, engine, [{"x": x}])


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("sparsity", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("hidden", [1, 16, 33])
@pytest.mark.parametrize("op", list(GATES))
def test_sizes(op: str, hidden: int, sparsity: float, engine: Engine) -> None:
    model = layer(op, hidden, sparsity=sparsity, states=True)
    compare(model, engine, [feeds_of(model, *size) for size in SIZES])
    if op == "GRU":
        model = layer(op, hidden, sparsity=sparsity, states=True, linear_before_reset=1)
        compare(model, engine, [feeds_of(model, *size) for size in SIZES])


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op", list(GATES))
def test_batch_first(op: str, direction: str, engine: Engine) -> None:
    """Layout 1, which onnxruntime does not run, against layout 0."""
    turned = layer(op, 7, layout=1, states=True, direction=direction)
    plain = layer(op, 7, states=True, direction=direction)
    feeds = feeds_of(turned, 5, 3)
    wanted = make_session(plain).run(
        None, {name: array.swapaxes(0, 1).copy() for name, array in feeds.items()}
    )
    found = sparsert.load(turned, strict=True, **dict(engine.options)).run(None, feeds)
    assert_close(found[0], wanted[0].transpose(2, 0, 1, 3), FUNCTION, "Y")
    for got, want in zip(found[1:], wanted[1:], strict=True):
        assert_close(got, want.swapaxes(0, 1), FUNCTION, "state")


@pytest.mark.parametrize("op", list(GATES))
def test_saved_files_give_the_same(op: str, tmp_path) -> None:
    model = layer(op, 33, sparsity=0.9, direction="bidirectional", lengths=True, states=True)
    feeds = feeds_of(model, 5, 3)
    loaded = sparsert.load(model, strict=True)
    loaded.save(tmp_path / "m.sprt")
    for got, want in zip(
        sparsert.load(tmp_path / "m.sprt").run(None, feeds), loaded.run(None, feeds), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_says_how_it_runs() -> None:
    model = sparsert.load(layer("LSTM", 64, sparsity=0.9), strict=True, threads=1)
    model.run(None, feeds_of(layer("LSTM", 64), 5, 1))
    rows = [row for row in model.explain().to_dict()["rows"] if row["op"] == "Recurrent"]
    assert len(rows) == 1
    assert rows[0]["kernel"].startswith("recurrent_f32_")
    assert "one sequence after the other" in rows[0]["reason"]
    model.run(None, feeds_of(layer("LSTM", 64), 5, 20))
    rows = [row for row in model.explain().to_dict()["rows"] if row["op"] == "Recurrent"]
    assert "20 sequences side by side" in rows[0]["reason"]
    formats = {each["format"] for each in rows[0]["candidates"]}
    assert "dense" in formats
    assert {"csr", "csr2", "csr4"} & formats
    (row,) = [row for row in model.explain().to_dict()["rows"] if row["op"] == "Linear"]
    assert "5 steps at a time, by the Recurrent behind it" in row["reason"]
    model.run(None, feeds_of(layer("LSTM", 64), 5, 8))
    rows = [row for row in model.explain().to_dict()["rows"] if row["op"] == "Recurrent"]
    formats = {each["format"] for each in rows[0]["candidates"]}
    assert {"sell", "dense"} <= formats
    assert {"csr", "csr2", "csr4"} & formats  # one that the plan before this keeps will do


@pytest.mark.parametrize(("batch", "sparsity"), [(1, 0.9), (20, 0.0), (20, 0.9)])
@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_candidates_are_measured(op: str, batch: int, sparsity: float) -> None:
    source = layer(op, 64, sparsity=sparsity)
    model = sparsert.load(source, strict=True, tune=True)
    model.run(None, feeds_of(source, 5, batch))
    (row,) = [row for row in model.explain().to_dict()["rows"] if row["op"] == "Recurrent"]
    measured = [each for each in row["candidates"] if each["measured_ns"] > 0]
    assert len(measured) > 1
    assert measured[0]["measured_ns"] == min(each["measured_ns"] for each in measured)


def test_says_what_is_not_native() -> None:
    with pytest.raises(UnsupportedOpError, match="activation 'foo'"):
        sparsert.load(layer("LSTM", 7, activations=["Foo", "Tanh", "Tanh"]), strict=True)


@pytest.mark.parametrize("op", list(GATES))
def test_weights_of_run_time_fall_back(op: str) -> None:
    model = layer(op, 7, states=True)
    weights = next(each for each in model.graph.initializer if each.name == "r")
    model.graph.input.append(
        helper.make_tensor_value_info("r", TensorProto.FLOAT, list(weights.dims))
    )
    array = onnx.numpy_helper.to_array(weights)
    model.graph.initializer.remove(weights)
    with pytest.raises(UnsupportedOpError, match="its weights are not constant"):
        sparsert.load(model, strict=True)
    feeds = feeds_of(model, 5, 3) | {"r": array}
    with pytest.warns(UserWarning, match=op):
        found = sparsert.load(model).run(None, feeds)
    wanted = make_session(model).run(None, feeds)
    for got, want in zip(found, wanted, strict=True):
        assert_close(got, want, FUNCTION)


def test_quantised_weights_fall_back() -> None:
    """What onnxruntime's quantize_dynamic makes of an LSTM, between native layers."""
    hidden = 7
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {
        "first": random_weights(WIDTH, WIDTH),
        "w": rng.integers(-127, 128, (1, WIDTH, 4 * hidden)).astype(np.int8),
        "r": rng.integers(-127, 128, (1, hidden, 4 * hidden)).astype(np.int8),
        "b": random_weights(1, 8 * hidden, scale=0.3),
        "scale": np.full(1, 0.005, np.float32),
        "zero": np.zeros(1, np.int8),
        "last": random_weights(hidden, 3),
    }
    names = ["h", "w", "r", "b", "", "", "", "", "scale", "zero", "scale", "zero"]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node(
            "DynamicQuantizeLSTM",
            names,
            ["all", "state"],
            name="quantised",
            domain="com.microsoft",
            hidden_size=hidden,
        ),
        helper.make_node("MatMul", ["state", "last"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", "n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(UnsupportedOpError, match="DynamicQuantizeLSTM"):
        sparsert.load(model, strict=True)
    with pytest.warns(UserWarning, match="DynamicQuantizeLSTM"):
        loaded = sparsert.load(model, threads=1)
    for steps, batch in ((6, 1), (4, 3)):
        feeds = {"x": rng.standard_normal((steps, batch, WIDTH)).astype(np.float32)}
        want = make_session(model).run(None, feeds)[0]
        # A sum that differs in its last digit may round to another byte.
        np.testing.assert_allclose(loaded.run(None, feeds)[0], want, atol=0.02)
    assert [row["op"] for row in loaded.explain().to_dict()["rows"]].count("Linear") == 2


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("batch", [3, 20])
@pytest.mark.parametrize("op", list(GATES))
def test_lengths_of_zero(op: str, batch: int, engine: Engine) -> None:
    model = layer(op, 7, lengths=True, states=True, direction="bidirectional")
    feeds = feeds_of(model, 5, batch)
    feeds["lengths"][:] = 0
    loaded = sparsert.load(model, strict=True, **dict(engine.options))
    for got in loaded.run(None, feeds):
        assert not got.any()
    feeds["lengths"][::2] = 5
    compare(model, engine, [feeds])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("h0", (1, 2, 7)),
        ("c0", (1, 3, 6)),
        ("lengths", (2,)),
        ("x", (0, 3, 5)),
        ("x", (5, 0, 5)),
    ],
)
def test_wrong_shapes_are_errors(name: str, shape: tuple[int, ...]) -> None:
    model = layer("LSTM", 7, states=True, lengths=True)
    feeds = feeds_of(model, 5, 3)
    feeds[name] = np.zeros(shape, feeds[name].dtype)
    with pytest.raises(SparsertError):
        sparsert.load(model, strict=True).run(None, feeds)


NODE_CASES = [
    case
    for case in coverage.node_cases()
    if case.model is not None and case.model.graph.node[0].op_type in GATES
]


@pytest.mark.parametrize("case", NODE_CASES, ids=lambda case: case.name)
def test_cases_of_onnx_with_constant_weights(case: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    given, wanted = case.data_sets[0]
    graph = model.graph
    feeds = dict(zip([value.name for value in graph.input], given, strict=True))
    weights = {name for i, name in enumerate(graph.node[0].input) if i in (1, 2, 3, 7) and name}
    kept = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend(
        onnx.numpy_helper.from_array(feeds.pop(name), name) for name in sorted(weights)
    )
    found = sparsert.load(model, strict=True).run(None, feeds)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-6)
