"""Calling a model: names, orders, torch tensors, strides and byte orders, and wrong feeds."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

import sparsert
from sparsert.errors import ShapeError
from tests.api.models import expected, image, small_cnn, small_cnn_file, two_in_two_out
from tests.suite.harness import EXACT, SUM, assert_close, build

P, Q = image(2, 4), image(2, 4, seed=1)

BACKENDS = ("native", "numpy")


@pytest.fixture(params=BACKENDS)
def cnn(request: pytest.FixtureRequest) -> sparsert.Model:
    return sparsert.load(small_cnn_file(), backend=request.param)


@pytest.fixture(params=BACKENDS)
def pair(request: pytest.FixtureRequest) -> sparsert.Model:
    return sparsert.load(two_in_two_out(), backend=request.param)


def test_inputs_and_outputs(cnn: sparsert.Model, pair: sparsert.Model) -> None:
    assert [(s.name, s.shape, s.dtype) for s in cnn.inputs] == [
        ("x", ("n", 3, "h", "w"), np.dtype(np.float32))
    ]
    (y,) = cnn.outputs
    assert y.name == "y"
    assert y.dtype == np.float32
    assert y.shape is not None
    assert y.shape[1] == 10
    assert [s.name for s in pair.inputs] == ["p", "q"]
    assert [s.name for s in pair.outputs] == ["r", "s"]
    assert "x" in repr(cnn)


def test_ways_to_call(pair: sparsert.Model) -> None:
    r, s = np.maximum(P, 0), P + Q
    for outputs in (
        pair(P, Q),
        pair({"p": P, "q": Q}),
        pair(p=P, q=Q),
        pair(P, q=Q),
        pair({"q": Q}, p=P),
    ):
        assert isinstance(outputs, tuple)
        assert_close(outputs[0], r, EXACT)
        assert_close(outputs[1], s, EXACT)


def test_run_has_the_signature_of_onnxruntime(pair: sparsert.Model) -> None:
    feeds = {"p": P, "q": Q}
    r, s = np.maximum(P, 0), P + Q
    everything = pair.run(None, feeds)
    assert isinstance(everything, list)
    assert_close(everything[0], r, EXACT)
    assert_close(everything[1], s, EXACT)
    (only,) = pair.run(["s"], feeds)
    assert_close(only, s, EXACT)
    turned = pair.run(["s", "r", "s"], feeds)
    assert len(turned) == 3
    assert_close(turned[0], s, EXACT)
    assert_close(turned[1], r, EXACT)
    assert [y.tolist() for y in pair.run([], feeds)] == [r.tolist(), s.tolist()]
    for again in (
        pair.run(output_names=None, input_feed=feeds),
        pair.run(None, feeds, None),
        pair.run(None, input_feed=feeds, run_options=None),
        pair.run(None, feeds=feeds),
    ):
        assert [y.tolist() for y in again] == [r.tolist(), s.tolist()]
    with pytest.raises(ShapeError, match=r"'t'.*'r', 's'"):
        pair.run(["t"], feeds)


@pytest.mark.parametrize("has_run", [False, True])
def test_what_run_refuses(cnn: sparsert.Model, has_run: bool) -> None:
    """The same before and after the first run, which leaves a plan that runs again."""
    x = image(1, 3, 8, 8)
    if has_run:
        cnn(x)
    for feeds in (x, None, [x], "text"):
        with pytest.raises(ShapeError, match=r"a dict of arrays by input name.*'x'"):
            cnn.run(None, feeds)
    with pytest.raises(ShapeError, match=r"'y', expected None or a list of names.*'y'"):
        cnn.run("y", {"x": x})
    with pytest.raises(ShapeError, match="3, expected None or a list"):
        cnn.run(3, {"x": x})
    with pytest.raises(ValueError, match=r"run_options is \{\}, expected None"):
        cnn.run(None, {"x": x}, {})


@pytest.mark.filterwarnings("ignore:.*fallback")
def test_inputs_and_outputs_as_onnxruntime_has_them() -> None:
    kinds = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "UINT64", "BOOL", "STRING")
    inputs = {f"x{i}": (TensorProto.DataType.Value(k), ["n", 3]) for i, k in enumerate(kinds)}
    outputs = [f"y{i}" for i in range(len(kinds))]
    proto = build([f"y{i} = Identity(x{i})" for i in range(len(kinds))], inputs, outputs=outputs)
    model = sparsert.load(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for found, wanted in (
        (model.get_inputs(), session.get_inputs()),
        (model.get_outputs(), session.get_outputs()),
    ):
        assert [(a.name, a.type, a.shape) for a in found] == [
            (a.name, a.type, a.shape) for a in wanted
        ]


@pytest.mark.filterwarnings("ignore:.*fallback")
@pytest.mark.parametrize("backend", [*BACKENDS, "numba"])
def test_strings(backend: str) -> None:
    model = sparsert.load(
        build(
            ["y = Identity(x)", "z = Relu(p)"],
            {"x": (TensorProto.STRING, ["n"]), "p": ["n"]},
            outputs=("y", "z"),
        ),
        backend=backend,
    )
    words = ["a", "größer"]
    p = np.array([-1, 1], np.float32)
    for x in (np.array(words), np.array(words, object), words):
        y, z = model(x, p)
        assert y.tolist() == words
        assert z.tolist() == [0, 1]
    y, z = model(words, torch.from_numpy(p))
    assert isinstance(y, np.ndarray)
    assert isinstance(z, torch.Tensor)
    with pytest.raises(ShapeError, match="'x' is float32, expected strings"):
        model(p, p)


@pytest.mark.filterwarnings("ignore:.*fallback")
@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("backend", [*BACKENDS, "numba"])
def test_constant_strings(backend: str, opset: int, caplog: pytest.LogCaptureFixture) -> None:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": {opset}]>
        g (float[n] x) => (float[n] y, string[n] t, string[2] s, string[2] labels)
        <string[2] labels = {{"a", "größer"}}>
        {{ y = Relu(x) i = Cast<to = 7>(x) t = Gather(labels, i) s = Identity(labels) }}"""
    )
    model = sparsert.load(proto, backend=backend)
    assert "Shape inference failed" not in caplog.text
    y, *strings = model(np.array([1, 0], np.float32))
    assert y.tolist() == [1, 0]
    assert [s.tolist() for s in strings] == [["größer", "a"], ["a", "größer"], ["a", "größer"]]


@pytest.mark.filterwarnings("ignore:.*fallback")
@pytest.mark.parametrize("backend", [*BACKENDS, "numba"])
def test_bfloat16(backend: str) -> None:
    module = torch.nn.Linear(4, 3).bfloat16()
    x = torch.from_numpy(P).bfloat16()
    model = sparsert.load(module, example_inputs=x, backend=backend)
    y = model(x.requires_grad_())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, module(x).detach(), rtol=2e-2, atol=2e-2)
    found = model.run(None, {model.inputs[0].name: x})[0]
    assert found.astype(np.float32).tolist() == y.float().tolist()
    with pytest.raises(ShapeError, match=r"astype\(ml_dtypes.bfloat16\)"):
        model(P)


def test_an_input_with_an_initializer_is_a_constant() -> None:
    proto = build(["y = Add(x, b)"], {"x": (3,)}, {"b": np.ones(3, np.float32)})
    proto.graph.input.add(name="b", type=proto.graph.input[0].type)
    model = sparsert.load(proto)
    x = np.zeros(3, np.float32)
    assert model(x).tolist() == [1, 1, 1]
    with pytest.raises(ShapeError, match=r"no input 'b'.*one with an initializer is a constant"):
        model.run(None, {"x": x, "b": x})


def test_results_are_owned_by_the_caller(cnn: sparsert.Model) -> None:
    x = image(1, 3, 8, 8)
    first = cnn(x)
    kept = first.copy()
    cnn(x * 2)
    assert_close(first, kept, EXACT)
    first[:] = 0
    assert_close(cnn(x), kept, EXACT)


def test_inputs_stay_as_they_are(cnn: sparsert.Model) -> None:
    x = image(2, 3, 8, 8)
    before = x.copy()
    x.setflags(write=False)
    cnn(x)
    assert_close(x, before, EXACT)


def test_an_input_handed_on_is_not_the_input_itself() -> None:
    model = sparsert.load(
        build(["y = Identity(x)", "z = Relu(x)"], {"x": (3,)}, outputs=("y", "z"))
    )
    x = np.array([1, -2, 3], np.float32)
    y, _ = model(x)
    y[:] = 7
    assert x.tolist() == [1, -2, 3]


def test_torch_in_torch_out(cnn: sparsert.Model, pair: sparsert.Model) -> None:
    x = image(2, 3, 8, 8)
    want = expected(small_cnn, x)[0]
    found = cnn(torch.from_numpy(x))
    assert isinstance(found, torch.Tensor)
    assert_close(found.numpy(), want, SUM)
    outputs = pair(torch.from_numpy(P), q=Q)
    assert all(isinstance(y, torch.Tensor) for y in outputs)
    assert all(
        isinstance(y, np.ndarray) for y in pair.run(None, {"p": torch.from_numpy(P), "q": Q})
    )


def test_torch_tensors_of_any_layout(cnn: sparsert.Model) -> None:
    x = image(2, 3, 8, 9)
    want = expected(small_cnn, x)[0]
    tensor = torch.from_numpy(x)
    assert_close(cnn(tensor.to(memory_format=torch.channels_last)).numpy(), want, SUM)
    assert_close(cnn(tensor.clone().requires_grad_()).numpy(), want, SUM)
    assert_close(cnn(torch.nn.Parameter(tensor)).numpy(), want, SUM)


def test_strides_and_byte_orders(cnn: sparsert.Model) -> None:
    x = image(2, 3, 8, 10)
    want = expected(small_cnn, x)[0]
    wide = np.zeros((2, 3, 8, 20), np.float32)
    wide[..., ::2] = x
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[:] = x
    variants = {
        "fortran": np.asfortranarray(x),
        "strided": wide[..., ::2],
        "reversed": np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1],
        "transposed": np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "big endian": x.astype(">f4"),
        "big endian, fortran": np.asfortranarray(x.astype(">f4")),
        "unaligned": unaligned,
    }
    for label, array in variants.items():
        assert_close(cnn(array), want, SUM, label)


def test_broadcast_view_as_input(cnn: sparsert.Model) -> None:
    one = image(1, 3, 8, 8)
    want = expected(small_cnn, np.repeat(one, 3, axis=0))[0]
    assert_close(cnn(np.broadcast_to(one, (3, 3, 8, 8))), want, SUM)


def test_shapes_that_come_again(cnn: sparsert.Model) -> None:
    feeds = [image(2, 3, 8, 8), image(1, 3, 9, 8), image(2, 3, 8, 8) + 1]
    wanted = [expected(small_cnn, x)[0] for x in feeds]
    for at in (0, 0, 2, 1, 1, 0, 2):
        assert_close(cnn(feeds[at]), wanted[at], SUM)
        assert_close(cnn.run(None, {cnn.inputs[0].name: feeds[at]})[0], wanted[at], SUM)


def test_the_last_plan_runs_again_only_for_what_fits() -> None:
    model = sparsert.load(two_in_two_out())
    again = model._run_again
    assert again({"p": P, "q": Q}) is None  # no plan yet
    wanted = model.run(None, {"p": P, "q": Q})
    found = again({"p": P, "q": Q})
    assert found is not None
    assert [y.tolist() for y in found] == [y.tolist() for y in wanted]
    assert found[0] is not again({"p": P, "q": Q})[0]

    class Sub(np.ndarray):
        pass

    unaligned = np.zeros(P.nbytes + 1, np.uint8)[1:].view(P.dtype).reshape(P.shape)
    misfits = [
        *(P.astype(np.float64), P.astype(">f4"), P[:1], P[:, :3], P[0], P[None], P[:0], unaligned),
        *(np.asfortranarray(P), P.view(Sub), P.tolist(), None, "text"),
    ]
    for p in misfits:
        assert again({"p": p, "q": Q}) is None
    for feeds in ({"p": P}, {"p": P, "q": Q, "z": P}, {"p": P, "z": Q}, {}, P, [P, Q], None):
        assert again(feeds) is None
    assert again({"p": P, "q": Q}) is not None


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, ["'p'", "'q'", "missing"]),
        ({"p": P}, ["'q'", "missing"]),
        ({"p": P, "q": Q, "z": P}, ["'z'", "'p'", "'q'"]),
        ({"p": P.astype(np.float64), "q": Q}, ["'p'", "float64", "float32"]),
        ({"p": P.astype(np.int32), "q": Q}, ["'p'", "int32", "float32"]),
        ({"p": P[0], "q": Q}, ["'p'", "[4]", "[n, 4]"]),
        ({"p": P[:, :3], "q": Q}, ["'p'", "[2, 3]", "[n, 4]"]),
        ({"p": P, "q": Q[:1]}, ["'q'", "[1, 4]", "'p'"]),
        ({"p": P[:0], "q": Q[:0]}, ["'p'", "size 0"]),
        ({"p": None, "q": Q}, ["'p'"]),
        ({"p": "text", "q": Q}, ["'p'"]),
        ({"p": [[1.0, 2.0], [3.0]], "q": Q}, ["'p'"]),
        ({"p": P[0], "q": Q.astype(np.int8)}, ["'p'", "'q'", "int8"]),
    ],
)
def test_wrong_feeds(pair: sparsert.Model, feeds: dict, words: list[str]) -> None:
    pair.run(None, {"p": P, "q": Q})
    with pytest.raises(ShapeError) as caught:
        pair.run(None, feeds)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    with pytest.raises(ShapeError):
        pair(**feeds)


def test_wrong_calls(pair: sparsert.Model) -> None:
    with pytest.raises(ShapeError, match="3 arrays for 2 inputs"):
        pair(P, Q, P)
    with pytest.raises(ShapeError, match="twice"):
        pair(P, p=P, q=Q)


def test_shapes_that_the_graph_cannot_take() -> None:
    model = sparsert.load(
        build(
            ["y = Conv(x, w)"], {"x": ["n", 3, "h", "w_"]}, {"w": np.ones((2, 3, 5, 5), np.float32)}
        )
    )
    with pytest.raises(ShapeError, match="Conv"):
        model(image(1, 3, 4, 9))
    assert model(image(1, 3, 5, 5)).shape == (1, 2, 1, 1)
    adds = sparsert.load(build(["y = Add(a, b)"], {"a": ["n"], "b": ["m"]}))
    with pytest.raises(ShapeError, match="Add"):
        adds(np.ones(3, np.float32), np.ones(4, np.float32))


def test_static_shapes_that_contradict_fail_when_loading() -> None:
    model = build(["y = Conv(x, w)"], {"x": (1, 3, 4, 4)}, {"w": np.ones((2, 3, 3, 3), np.float32)})
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(sparsert.errors.SparsertError):
        sparsert.load(model)


def test_bool_and_integer_inputs() -> None:
    model = sparsert.load(
        build(
            ["f = Cast<to=1>(x)", "y = Mul(f, k)"],
            {"x": (TensorProto.UINT8, ["n", 3])},
            {"k": np.float32(0.5)},
        )
    )
    x = np.array([[0, 128, 255]], np.uint8)
    assert_close(model(x), x.astype(np.float32) / 2, EXACT)
    with pytest.raises(ShapeError, match="uint8"):
        model(x.astype(np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_and_double_models(backend: str) -> None:
    for kind, dtype in ((TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)):
        model = sparsert.load(
            build(
                ["c = MatMul(x, w)", "y = Relu(c)"],
                {"x": (kind, ["n", 4])},
                {"w": np.eye(4, dtype=dtype) * dtype(0.5)},
            ),
            backend=backend,
        )
        x = P.astype(dtype)
        y = model(x)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, np.maximum(x, 0) / 2, rtol=1e-3)


def test_a_model_without_inputs() -> None:
    model = sparsert.load(build(["y = Add(k, k)"], {}, {"k": np.ones(3, np.float32)}))
    assert_close(model(), np.full(3, 2, np.float32), EXACT)
    assert_close(model.run(None, {})[0], np.full(3, 2, np.float32), EXACT)


def test_scalar_input() -> None:
    model = sparsert.load(build(["y = Add(x, x)"], {"x": ()}))
    assert model(np.float32(2)).shape == ()
    assert model(np.array(2, np.float32)) == 4


def test_names_with_any_characters() -> None:
    proto = build(["y = Relu(x)"], {"x": ["n"]})
    renamed = onnx.ModelProto()
    renamed.CopyFrom(proto)
    renamed.graph.input[0].name = renamed.graph.node[0].input[0] = "Eingabe/ä:0"
    renamed.graph.output[0].name = renamed.graph.node[0].output[0] = "结果"
    model = sparsert.load(renamed)
    x = np.array([-1, 1], np.float32)
    assert_close(model.run(["结果"], {"Eingabe/ä:0": x})[0], np.maximum(x, 0), EXACT)
