"""The Numba backend: the steps of a canonical graph, by Numba's kernels where there are some."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.errors import BackendError, SparsertError
from sparsert.runtime.graph_backend import WithoutLevels, specs_of
from sparsert.runtime.native_backend import DENSE_FORMATS, usable_cores
from sparsert.runtime.numba_room import Crew, Room
from sparsert.runtime.numpy_backend import reason_of
from sparsert.runtime.table import Table, format_bytes
from sparsert.runtime.types import EXPLAIN_COLUMNS

if TYPE_CHECKING:
    import onnx_ir as ir

    from sparsert.runtime.numba_ops import Step


def import_kernels() -> None:
    """Imports Numba and what makes steps of its kernels.

    Raises:
        BackendError: Numba is not installed.
    """
    try:
        from sparsert.runtime.numba_ops import load_makers

        load_makers()
    except ImportError as error:
        raise BackendError(
            f'backend="numba" needs the package numba ({error}): pip install "sparsert[numba]"'
        ) from error


@dataclasses.dataclass
class _Node:
    """A node of the graph, and what runs it: a step of kernels, or NumPy."""

    name: str
    op: str
    inputs: list[str]
    outputs: list[str]
    step: Step | None
    reason: str  # why there is no step
    numpy: Any  # onnx's object that runs it
    needs_context: bool
    dead: list[str]  # values that nothing uses after it
    shape: tuple[int, ...]  # of the first output, when it ran last


class NumbaBackend(WithoutLevels):
    """Runs a canonical graph with kernels that Numba compiles. Safe to call from many threads.

    Args:
        model: a canonical model; it is not changed.
        label: names the model in messages.
        threads: for one run; None: as many cores as this process may use.
        tune: False takes a user's kernels without measuring whether they are faster.

    Raises:
        BackendError: Numba is not installed.
        UnsupportedOpError: an operator is known neither to onnx nor to sparsert.
    """

    def __init__(
        self, model: ir.Model, label: str, threads: int | None = None, tune: bool | str = "auto"
    ) -> None:
        import_kernels()
        from sparsert.runtime.numba_user import plan_step
        from sparsert.runtime.numpy_backend import make_evaluator, split_weights

        self._label = label
        self.threads = threads or usable_cores()
        self._crew = Crew(self.threads)
        self._rooms: list[Room] = []
        self.inputs = specs_of(model.graph.inputs)
        self.outputs = specs_of(model.graph.outputs)
        self._nodes: list[_Node] = []
        proto, weights = split_weights(model)
        evaluator = make_evaluator(proto)
        used = {spec.name for spec in self.outputs}
        for node, operation in zip(model.graph, evaluator.rt_nodes_, strict=True):
            step = plan_step(node, tune)
            made, reason = (None, step) if isinstance(step, str) else (step, "")
            inputs = list(operation.input)
            if made is not None:
                inputs = [n for i, n in enumerate(inputs) if i not in made.constants]
            used.update(inputs)
            entry = _Node(
                node.name or "",
                node.op_type,
                inputs,
                list(operation.output),
                made,
                reason,
                operation,
                operation.need_context(),
                [],
                (),
            )
            self._nodes.append(entry)
        # What kernels compute is new.
        self._made = {n for node in self._nodes if node.step is not None for n in node.outputs}
        constants = {**evaluator.rt_inits_, **weights}
        if any(node.needs_context for node in self._nodes):
            used.update(constants)  # a subgraph may use any of them
        else:
            self._find_dead()
        self._constants = {name: x for name, x in constants.items() if name in used}

    def _find_dead(self) -> None:
        kept = {spec.name for spec in self.outputs}
        for node in reversed(self._nodes):
            names = dict.fromkeys([*node.inputs, *node.outputs])
            node.dead = [name for name in names if name and name not in kept]
            kept.update(names)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs from checked feeds."""
        return self._run(feeds, None)

    def _run(
        self, feeds: Mapping[str, np.ndarray], seconds: list[float] | None
    ) -> dict[str, np.ndarray]:
        room = self._rooms.pop() if self._rooms else Room(self._crew)
        values: dict[str, Any] = {"": None, **self._constants, **feeds}
        begin = 0.0
        for node in self._nodes:
            if seconds is not None:
                begin = time.perf_counter()
            inputs = [values[name] for name in node.inputs]
            try:
                if node.step is not None:
                    results = node.step.run(inputs, room)
                elif node.needs_context:
                    results = node.numpy.run(*inputs, context=values)
                else:
                    results = node.numpy.run(*inputs)
            except SparsertError:
                raise
            except Exception as error:
                raise BackendError(
                    f"{self._label}: node '{node.name}' ({node.op}) failed: {reason_of(error)}"
                ) from error
            if seconds is not None:
                seconds.append(time.perf_counter() - begin)
            for name, value in zip(node.outputs, results, strict=False):
                values[name] = value
            node.shape = getattr(results[0], "shape", ())
            del inputs, results
            for name in node.dead:
                values.pop(name, None)
        self._rooms.append(room)
        return {spec.name: self._owned(spec.name, values, feeds) for spec in self.outputs}

    def _owned(
        self, name: str, values: Mapping[str, Any], feeds: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Returns an output, copied where it may be a view of feeds or constants."""
        y = np.asarray(values[name])
        if name not in self._made or any(np.may_share_memory(y, x) for x in feeds.values()):
            return np.array(y)
        return y

    def explain(self) -> Table:
        """Says how each layer runs and why; shapes are those of the last run."""
        records = [_record(node) for node in self._nodes]
        rows = [
            (
                r["name"],
                r["op"],
                "x".join(map(str, r["output_shape"])),
                f"{100 * (1 - r['nonzeros'] / r['weights']):.1f} %" if r["weights"] else "",
                "",
                "",
                r["compute_format"],
                format_bytes(r["packed_bytes"]) if r["packed_bytes"] else "",
                r["kernel"],
                "",
                r["reason"],
            )
            for r in records
        ]
        memory = self.memory()
        with_weights = [r for r in records if r["weights"]]
        sparse = sum(r["compute_format"] not in DENSE_FORMATS for r in with_weights)
        notes = [
            f"{self.threads} thread(s); {sparse} of {len(with_weights)} layers with weights run "
            f"sparse; {sum(r['step'] for r in records)} of {len(records)} layers run in Numba's "
            "kernels, the others in NumPy",
            f"memory: packed weights {format_bytes(memory['packed_bytes'])}, arena "
            f"{format_bytes(memory['arena_bytes'])}",
        ]
        title = f"{self._label}: how each layer runs"
        return Table(title, EXPLAIN_COLUMNS, rows, notes, records=records)

    def memory(self) -> dict[str, int]:
        """Bytes of the packed weights, and of the memory of the runs so far."""
        steps = [node.step for node in self._nodes if node.step is not None]
        return {
            "packed_bytes": sum(step.packed_bytes for step in steps),
            "arena_bytes": sum(room.nbytes for room in self._rooms),
        }

    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 10) -> Table:
        """Times each layer: medians over `runs` runs after one to warm up."""
        timings: list[list[float]] = []
        for _ in range(runs + 1):
            seconds: list[float] = []
            self._run(feeds, seconds)
            timings.append(seconds)
        times = [median(run) for run in zip(*timings[1:], strict=True)]
        total = sum(times)
        rows, records = [], []
        for node, seconds_of_node in zip(self._nodes, times, strict=True):
            record = _record(node)
            share = 100 * seconds_of_node / total if total else 0.0
            shape = "x".join(map(str, record["output_shape"]))
            rows.append((node.name, node.op, shape, record["kernel"], seconds_of_node * 1e6, share))
            records.append({**record, "time_ns": seconds_of_node * 1e9})
        notes = [f"total {total * 1e3:.3f} ms, {self.threads} thread(s)"]
        title = f"{self._label}: median of {runs} runs"
        columns = ["layer", "op", "output", "kernel", "us", "%"]
        return Table(title, columns, rows, notes, records=records)


def _record(node: _Node) -> dict[str, Any]:
    step = node.step
    return {
        "name": node.name,
        "op": node.op,
        "output_shape": list(node.shape),
        "step": step is not None,
        "weights": step.weights if step else 0,
        "nonzeros": step.nonzeros if step else 0,
        "compute_format": step.format if step else "",
        "packed_bytes": step.packed_bytes if step else 0,
        "kernel": step.kernel if step else "numpy",
        "reason": step.why if step else node.reason,
    }
