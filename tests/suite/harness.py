"""Builds tiny ONNX graphs, runs them on every engine and compares with onnxruntime."""

from __future__ import annotations

import dataclasses
import functools
import os
import zlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import sparsert
from sparsert.errors import BackendError, SparsertError
from sparsert.runtime.native_backend import available_isas

OPSET = 21
KNOWN_ISAS = ("scalar", "avx2", "avx512", "avx512vnni", "amx", "neon", "neondot")


def _isas() -> list[str]:
    try:
        return available_isas()
    except BackendError:
        return []


ISAS = _isas()
# Instruction sets that add products of bytes, or, amx, a few of floats: others run as on these.
_OF_FLOATS = {"avx512vnni": "avx512", "amx": "avx512", "neondot": "neon"}
ISAS_OF_FLOATS = [isa for isa in ISAS if isa not in _OF_FLOATS]
ABSENT_ISAS = [isa for isa in KNOWN_ISAS if isa not in ISAS]

# Names of the native kernels that ran, for the report.
reached: set[str] = set()


@dataclasses.dataclass(frozen=True)
class Engine:
    """One way to run a model."""

    name: str
    options: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return self.name

    @property
    def is_native(self) -> bool:
        """Whether it runs the C++ core."""
        return "backend" not in dict(self.options)


def runs_on(kernel: str, isa: str) -> bool:
    """Whether a kernel of floats is one of the instruction set's."""
    return kernel.endswith((f"_{isa}", f"_{_OF_FLOATS.get(isa, isa)}"))


def _engine(name: str, **options: Any) -> Engine:
    return Engine(name, tuple(options.items()))


# Operators that Numba has no kernels for run there as on numpy: most of their cases are left out,
# unless SPARSERT_TEST_NUMBA is set.
NUMBA = [_engine("numba", backend="numba", threads=2)] if find_spec("numba") else []

# The best instruction set also runs with two threads and with every candidate kernel measured.
ENGINES = [
    _engine("numpy", backend="numpy"),
    *(NUMBA if os.environ.get("SPARSERT_TEST_NUMBA") else []),
    *(_engine(isa, isa=isa, threads=1, tune=False) for isa in ISAS_OF_FLOATS),
    *(_engine(f"{isa}-2-threads-tuned", isa=isa, threads=2, tune=True) for isa in ISAS[-1:]),
]
ENGINES_WITH_NUMBA = list(dict.fromkeys([*ENGINES, *NUMBA]))

ENGINES_OF_BYTES = [
    *(_engine(isa, isa=isa, threads=1, tune=False) for isa in ISAS if isa in _OF_FLOATS),
    *ENGINES_WITH_NUMBA,
]


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """|got - want| <= relative * |want| + absolute * max(1, largest |want|)."""

    relative: float
    absolute: float


# The tolerance families, the only ones.
EXACT = Tolerance(0.0, 0.0)  # data movement, comparisons, integers
ROUNDED = Tolerance(1e-6, 1e-6)  # a few f32 operations per element
FUNCTION = Tolerance(2e-5, 2e-6)  # exp, erf and the like by polynomials
SUM = Tolerance(1e-5, 3e-6)  # sums in another order
NETWORK = Tolerance(0.0, 1e-4)  # many layers: relative to the largest output


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: Tolerance, what: str = "") -> None:
    """Compares dtype, shape and values; NaN equals NaN, infinities equal their like."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype, f"{what}: dtype {got.dtype}, expected {want.dtype}"
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    finite = np.abs(want[np.isfinite(want)].astype(np.float64))
    scale = max(1.0, float(finite.max(initial=0.0)))
    np.testing.assert_allclose(
        got, want, rtol=tolerance.relative, atol=tolerance.absolute * scale, err_msg=what
    )


def random_weights(
    *shape: int, sparsity: float = 0.0, seed: int = 0, scale: float | None = None
) -> np.ndarray:
    """Random f32 weights with exact zeros, of about unit gain for a convolution."""
    rng = np.random.default_rng((seed, *shape))
    w = rng.standard_normal(shape)
    w *= scale if scale is not None else 1.0 / np.sqrt(max(1, w[0].size if w.ndim else 1))
    w[rng.random(shape) < sparsity] = 0.0
    return w.astype(np.float32)


def i64(*values: int) -> np.ndarray:
    """A shape, axes, starts, ... as an op takes them."""
    return np.array(values, np.int64)


def op_text(op: str, inputs: str, **attributes: object) -> str:
    """`Op<attribute=value, ...>(inputs)` in the text format of onnx.parser."""
    texts = [f'{k}="{v}"' if isinstance(v, str) else f"{k}={v}" for k, v in attributes.items()]
    return f"{op}<{', '.join(texts)}>({inputs})"


@dataclasses.dataclass
class Case:
    """A tiny graph.

    Attributes:
        name: unique.
        nodes: nodes in the text format of onnx.parser.
        inputs: shape by name, or (TensorProto type, shape).
        constants: initializers by name.
        outputs: names; "y" unless given.
        opset: of the default domain.
        tolerance: one of the families.
        sizes: values of the symbols, one run each.
        low, high: feeds are uniform in between; normal when low is None.
        feeds: fixed feeds instead.
        known_problem: why every engine fails it for now; it must fail then.
    """

    name: str
    nodes: Sequence[str]
    inputs: Mapping[str, Any]
    constants: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    outputs: Sequence[str] = ("y",)
    opset: int = OPSET
    tolerance: Tolerance = SUM
    sizes: Sequence[Mapping[str, int]] = ({},)
    low: float | None = None
    high: float = 1.0
    feeds: Mapping[str, np.ndarray] | None = None
    known_problem: str = ""

    def __str__(self) -> str:
        return self.name

    @functools.cached_property
    def proto(self) -> onnx.ModelProto:
        """The model."""
        return build(
            self.nodes, self.inputs, self.constants, outputs=self.outputs, opset=self.opset
        )

    @functools.cached_property
    def runs(self) -> list[tuple[dict[str, np.ndarray], list[np.ndarray]]]:
        """(feeds, onnxruntime's outputs) of each run."""
        session = make_session(self.proto)
        runs = []
        for number, sizes in enumerate(self.sizes):
            feeds = dict(self.feeds or self._random_feeds(sizes, number))
            runs.append((feeds, session.run(None, feeds)))
        return runs

    @functools.cached_property
    def numpy_model(self) -> sparsert.Model:
        """The model for the interpreter, read back from its own .sprt bytes; strict."""
        return sparsert.load(self.proto, backend="numpy", strict=True)

    @functools.cached_property
    def file(self) -> bytes:
        """The .sprt bytes."""
        return bytes(self.numpy_model._native_file())

    def load(self, engine: Engine) -> sparsert.Model:
        """Loads it on an engine."""
        if engine.name == "numpy":
            return self.numpy_model
        return sparsert.load(self.file, **dict(engine.options))

    def _random_feeds(self, sizes: Mapping[str, int], number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((zlib.crc32(self.name.encode()), number))
        feeds = {}
        for name, spec in self.inputs.items():
            dtype, shape = split_spec(spec)
            concrete = [sizes[d] if isinstance(d, str) else d for d in shape]
            kind = helper.tensor_dtype_to_np_dtype(dtype)
            if kind.kind == "b":
                feeds[name] = rng.random(concrete) < 0.5
            elif kind.kind in "iu":
                feeds[name] = rng.integers(0, 100, concrete).astype(kind)
            elif self.low is None:
                feeds[name] = rng.standard_normal(concrete).astype(kind)
            else:
                feeds[name] = rng.uniform(self.low, self.high, concrete).astype(kind)
        return feeds


def split_spec(spec: Any) -> tuple[int, list[int | str]]:
    """(TensorProto type, shape) of an input given as a shape or as both."""
    if len(spec) == 2 and isinstance(spec[1], list | tuple):
        return spec[0], list(spec[1])
    return TensorProto.FLOAT, list(spec)


def build(
    nodes: Sequence[str],
    inputs: Mapping[str, Any],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A model whose output types are inferred by onnx."""
    graph = helper.make_graph(
        [parser.parse_node(text) for text in nodes],
        "case",
        [helper.make_tensor_value_info(n, *split_spec(s)) for n, s in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    for i, made in enumerate(graph.node):
        made.name = made.name or f"{made.op_type}_{i}"
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(10, onnx.IR_VERSION)
    )
    inferred = onnx.shape_inference.infer_shapes(model)
    for i, value in enumerate(inferred.graph.output):
        if not value.type.HasField("tensor_type"):
            value = helper.make_tensor_value_info(value.name, TensorProto.FLOAT, None)
        model.graph.output[i].CopyFrom(value)
    return model


def make_session(model: onnx.ModelProto | bytes, threads: int = 1) -> Any:
    """An onnxruntime session without its graph fusions, which may change the numbers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def check(case: Case, engines: Sequence[Engine] = tuple(ENGINES)) -> None:
    """Runs a case on engines and compares all outputs with onnxruntime's; names all that fail."""
    failures = []
    for engine in engines:
        try:
            _check(case, engine)
        except (AssertionError, SparsertError) as error:
            failures.append(f"{engine}: {error}")
    if case.known_problem:
        assert len(failures) == len(engines), f"{case.name} works now: remove its known_problem"
        pytest.xfail(case.known_problem)
    assert not failures, "\n".join(failures)


def _check(case: Case, engine: Engine) -> None:
    model = case.load(engine)
    assert [spec.name for spec in model.outputs] == list(case.outputs)
    for feeds, wanted in case.runs:
        found = model.run(None, feeds)
        for name, got, want in zip(case.outputs, found, wanted, strict=True):
            shapes = {n: x.shape for n, x in feeds.items()}
            assert_close(got, want, case.tolerance, f"{case.name}, output {name}, {shapes}")
    if engine.is_native:
        isa = dict(engine.options)["isa"]
        for row in model.explain().to_dict()["rows"]:
            if row["kernel"]:
                reached.add(row["kernel"])
                lower = ISAS[: ISAS.index(isa) + 1] if isa in ISAS else []
                assert row["isa"] in lower, f"{row['kernel']} ran with isa={isa}"


def unique(cases: list[Case]) -> list[Case]:
    """The cases, after a check that no name stands for two."""
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"names used twice: {twice}"
    return cases
