"""Runs a part of a model whose nodes have registered kernels."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.kernels.custom_ops import find_custom_op
from sparsert.runtime.fallback import Segment, build_part
from sparsert.runtime.numpy_backend import NumpyBackend
from sparsert.runtime.table import Table
from sparsert.runtime.types import EXPLAIN_COLUMNS

if TYPE_CHECKING:
    import onnx_ir as ir

_Values = dict[str, np.ndarray]


class CustomSegment:
    """Calls the kernel of each node in turn; shape arithmetic between them runs in NumPy.

    Args:
        part: a segment with is_custom.

    Raises:
        UnsupportedOpError: a kernel does not take a node's inputs or attributes.

    Attributes:
        layers: (name, operator, kernel) of each node.
    """

    def __init__(self, part: Segment) -> None:
        self._outputs = part.outputs
        graph = part.model.graph
        self._constants = {
            name: np.asarray(value.const_value.numpy())
            for name, value in graph.initializers.items()
            if value.const_value is not None
        }
        self.layers: list[tuple[str, str, str]] = []
        self._steps: list[Callable[[_Values], Mapping[str, np.ndarray]]] = []
        for node in graph:
            op = find_custom_op(node.domain, node.op_type)
            if op is None:
                self.layers.append((node.name or "", node.op_type, "numpy"))
                self._steps.append(_in_numpy(part.model, node))
            else:
                label = f"{op.domain}::{op.op_type}"
                self.layers.append((node.name or "", label, op.kernel))
                self._steps.append(_in_kernel(node, op))

    def run(
        self, feeds: Mapping[str, np.ndarray], seconds: list[float] | None = None
    ) -> dict[str, np.ndarray]:
        """Computes the segment's outputs from its inputs, both by name.

        Args:
            feeds: the inputs.
            seconds: gets the time of each node.

        Raises:
            BackendError: a kernel failed, or returned what it should not.
        """
        values: _Values = {**self._constants, **feeds}
        for step in self._steps:
            begin = time.perf_counter()
            values.update(step(values))
            if seconds is not None:
                seconds.append(time.perf_counter() - begin)
        return {name: values[name] for name in self._outputs}

    def explain(self) -> Table:
        """Says which kernel runs each node."""
        why = "registered with sparsert.kernels.custom_op"
        rows, records = [], []
        for name, op, kernel in self.layers:
            reason = "shape arithmetic" if kernel == "numpy" else why
            rows.append((name, op, *[""] * 6, kernel, "", reason))
            records.append({"name": name, "op": op, "kernel": kernel, "reason": reason})
        return Table("", EXPLAIN_COLUMNS, rows, records=records)


def _in_kernel(node: ir.Node, op: Any) -> Callable[[_Values], Mapping[str, np.ndarray]]:
    import onnx_ir as ir

    call = op.bind(ir.to_proto(node))
    inputs = [None if value is None else value.name for value in node.inputs]
    outputs = [value.name or "" for value in node.outputs]

    def step(values: _Values) -> Mapping[str, np.ndarray]:
        results = call.run([None if name is None else values[name] for name in inputs])
        return dict(zip(outputs, results, strict=True))

    return step


def _in_numpy(model: ir.Model, node: ir.Node) -> Callable[[_Values], Mapping[str, np.ndarray]]:
    """Runs a node of shape arithmetic: its constants are in the segment, too."""
    used = dict.fromkeys(value for value in node.inputs if value is not None)
    constants = [value for value in used if value.is_initializer()]
    inputs = [value for value in used if not value.is_initializer()]
    engine = NumpyBackend(build_part(model, [node], inputs, list(node.outputs), constants, 0))
    names = [value.name or "" for value in inputs]
    return lambda values: engine.run({name: values[name] for name in names})
