"""Times each layer with weights by itself: the native kernel against those in Numba."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.errors import BackendError
from sparsert.runtime.table import Table

if TYPE_CHECKING:
    import onnx_ir as ir

# Operators whose constants are weights, and which of their inputs that is.
_WEIGHTED = frozenset({"Conv", "Linear", "QConv", "QDepthwise", "QConvDynamic"})
# Runs of a native kernel and of one in Numba take turns.
_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class KernelTime:
    """One kernel on one layer.

    Attributes:
        layer: its name.
        shape: of its weights and its input.
        zeros: share of the weights that are zero.
        native: the native kernel.
        native_seconds: its time.
        kernel: the one in Numba.
        seconds: its time; 0 if there is none.
        problem: why there is none, or what is wrong with its result.
    """

    layer: str
    shape: str
    zeros: float
    native: str
    native_seconds: float
    kernel: str
    seconds: float
    problem: str = ""

    @property
    def ratio(self) -> float:
        """How many times as long the kernel in Numba takes."""
        return self.seconds / self.native_seconds if self.native_seconds else 0.0


def load_kernels(paths: Sequence[Path]) -> None:
    """Runs Python files that register operators and kernels.

    Raises:
        BackendError: a file is missing or failed.
    """
    for number, path in enumerate(paths):
        spec = importlib.util.spec_from_file_location(f"sparsert_kernels_{number}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise BackendError(f"{path}: expected a Python file that registers kernels")
        try:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        except Exception as error:
            raise BackendError(f"{path}: {type(error).__name__}: {error}") from error


def time_kernels(
    graph: ir.Model,
    feeds: Mapping[str, np.ndarray],
    label: str,
    threads: int = 1,
    isa: str | None = None,
) -> list[KernelTime]:
    """Times the layers of a canonical graph, each on the inputs that it has in the network.

    Args:
        graph: all its nodes are native.
        feeds: of the graph.
        label: names the model in messages.
        threads: of native kernels, and of sparsert's in Numba.
        isa: of native kernels.

    Raises:
        BackendError: Numba is not installed.
    """
    try:
        from sparsert.runtime.numba_room import Crew, Room
        from sparsert.runtime.numba_user import layer_steps, measure_step
    except ImportError as error:
        raise BackendError(
            f'kernels in Numba need the package numba ({error}): pip install "sparsert[numba]"'
        ) from error
    room = Room(Crew(threads))
    nodes = [n for n in graph.graph if n.domain == "sparsert" and n.op_type in _WEIGHTED]
    nodes = [n for n in nodes if n.inputs[1] is not None and n.inputs[1].is_initializer()]
    values = _inputs_of(graph, nodes, feeds, label, isa)
    results = []
    for node in nodes:
        layer = _Layer.of(graph, node, values, label, threads, isa)
        for step in layer_steps(node):
            if isinstance(step, str):
                results.append(layer.result("", 0.0, 0.0, step))
                continue
            pairs = []
            for _ in range(_ROUNDS):
                native = layer.native_seconds()
                pairs.append((native, measure_step(step, layer.arrays(step), room, 1)))
            native = median(pair[0] for pair in pairs)
            (y, *_) = step.run(layer.arrays(step), room)
            seconds = median(pair[1] for pair in pairs)
            results.append(layer.result(step.kernel, native, seconds, layer.difference(y)))
    return results


def kernel_table(results: Sequence[KernelTime], title: str) -> Table:
    """One row per layer and kernel in Numba."""
    rows = [
        (
            r.layer,
            r.shape,
            f"{100 * r.zeros:.1f} %",
            r.native,
            r.native_seconds * 1e6 if r.seconds else None,
            r.kernel or "none",
            r.seconds * 1e6 if r.seconds else None,
            f"{r.ratio:.2f}" if r.seconds else "",
            r.problem,
        )
        for r in results
    ]
    columns = ["layer", "shape", "zeros", "native kernel", "us", "numba kernel", "us", "ratio", ""]
    records = [{**dataclasses.asdict(r), "ratio": r.ratio} for r in results]
    notes = [
        "ratio: time in Numba over time of the native kernel; both warm, on the layer's own input"
    ]
    return Table(title, columns, rows, notes, records=records)


def _inputs_of(
    graph: ir.Model,
    nodes: Sequence[ir.Node],
    feeds: Mapping[str, np.ndarray],
    label: str,
    isa: str | None,
) -> dict[str, np.ndarray]:
    """Computes what the layers read, natively: those values become outputs of the graph."""
    from sparsert.modelfile import write_aligned
    from sparsert.runtime.native_backend import NativeBackend

    outputs = list(graph.graph.outputs)
    wanted = {v: None for node in nodes for v in node.inputs if v is not None}
    extra = [v for v in wanted if v.producer() is not None and v not in outputs]
    try:
        graph.graph.outputs.extend(extra)
        backend = NativeBackend(write_aligned(graph), label, isa=isa, tune=False)
    finally:
        graph.graph.outputs.clear()
        graph.graph.outputs.extend(outputs)
    return {**feeds, **backend.run(feeds)}


@dataclasses.dataclass
class _Layer:
    """A layer alone: its native model, and its inputs that are no constants."""

    name: str
    shape: str
    zeros: float
    inputs: list[np.ndarray | None]
    feeds: dict[str, np.ndarray]
    backend: Any
    native: str
    want: np.ndarray

    @staticmethod
    def of(
        graph: ir.Model,
        node: ir.Node,
        values: Mapping[str, np.ndarray],
        label: str,
        threads: int,
        isa: str | None,
    ) -> _Layer:
        from sparsert.modelfile import write_aligned
        from sparsert.runtime.fallback import build_part
        from sparsert.runtime.native_backend import NativeBackend

        used = dict.fromkeys(v for v in node.inputs if v is not None)
        constants = [v for v in used if v.is_initializer()]
        variables = [v for v in used if not v.is_initializer()]
        part = build_part(graph, [node], variables, list(node.outputs), constants, 0)
        backend = NativeBackend(write_aligned(part), label, threads, isa)
        feeds = {v.name or "": values[v.name or ""] for v in variables}
        (want, *_) = backend.run(feeds).values()
        weight = node.inputs[1]
        assert weight is not None and weight.const_value is not None
        array = weight.const_value.numpy()
        (row,) = [r for r in backend.explain().to_dict()["rows"] if r["weights"]]
        x = values[(node.inputs[0] or weight).name or ""]
        dims = ["x".join(map(str, shape)) for shape in (array.shape, x.shape)]
        return _Layer(
            node.name or "",
            f"{dims[0]} on {dims[1]}",
            1 - np.count_nonzero(array) / array.size if array.size else 0.0,
            [None if v is None else values.get(v.name or "") for v in node.inputs],
            feeds,
            backend,
            row["kernel"],
            want,
        )

    def arrays(self, step: Any) -> list[np.ndarray | None]:
        """The inputs that a step takes."""
        return [x for i, x in enumerate(self.inputs) if i not in step.constants]

    def native_seconds(self) -> float:
        """Times the native kernel once more."""
        rows = self.backend.profile(self.feeds, runs=3).to_dict()["rows"]
        return float(sum(row["time_ns"] for row in rows if row["weights"]) * 1e-9)

    def difference(self, y: np.ndarray) -> str:
        """Says what is wrong with a result; nothing if it is as the native one."""
        if y.shape != self.want.shape or y.dtype != self.want.dtype:
            return f"WRONG: {y.dtype}{list(y.shape)}"
        if y.dtype != np.float32:
            return "" if np.array_equal(y, self.want) else "WRONG: other bytes"
        most = float(np.abs(self.want).max(initial=1e-30))
        off = float(np.abs(y - self.want).max(initial=0)) / most
        return "" if off <= 1e-4 else f"WRONG: error {off:.2g}"

    def result(self, kernel: str, native: float, seconds: float, problem: str) -> KernelTime:
        """One row."""
        facts = (self.name, self.shape, self.zeros, self.native)
        return KernelTime(*facts, native, kernel, seconds, problem)
