"""Cuts a model into native and other parts; runs the latter with onnxruntime or in NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparsert.errors import BackendError, UnsupportedOpError
from sparsert.runtime.native_backend import usable_cores

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


# Number of complex128 in onnx.TensorProto.DataType; bfloat16, 8-bit floats and others follow.
_LAST_COMMON_TYPE = 15

# What a segment is, by its number modulo _KINDS.
_NATIVE, _FALLBACK, _CUSTOM = range(3)
_KINDS = 3


class _Record(Protocol):
    """What `segment` needs of a report's record: of a node that is not native."""

    @property
    def node(self) -> str: ...

    @property
    def is_custom(self) -> bool: ...


@dataclasses.dataclass
class Segment:
    """A part of a canonical graph that runs in one engine.

    `model` is self-contained: the cut edges are its inputs and outputs, by their names in the
    whole graph, with dtype and (symbolic) shape; its initializers share their tensors with the
    whole model.
    """

    is_native: bool
    model: ir.Model
    inputs: list[str]
    outputs: list[str]
    is_custom: bool = False  # its nodes, but for shape arithmetic, have registered kernels


def segment(model: ir.Model, report: Iterable[_Record]) -> list[Segment]:
    """Cuts a canonical graph into native segments, fallbacks and those of registered kernels.

    Values that follow from shapes and constants are computed inside each segment that uses them,
    so that they are known there at plan time.

    Args:
        model: a canonical model; it is not changed.
        report: the nodes that are not native, as from passes.native_report.

    Returns:
        Segments in an order in which they can run; each is as large as a greedy grouping makes
        it. One native segment if the report is empty.
    """
    graph = model.graph
    kinds = {record.node: _CUSTOM if record.is_custom else _FALLBACK for record in report}
    shape_nodes = _shape_nodes(graph, kinds)
    levels = _levels(graph, kinds, shape_nodes)
    groups: dict[int, list[ir.Node]] = {}
    for node, level in levels.items():
        groups.setdefault(level, []).append(node)
    if not groups:
        groups[0] = []
    last = max(groups)
    position = {node: index for index, node in enumerate(graph)}
    # Outputs that no group produces (shapes) come from the last segment.
    extra = [v for v in graph.outputs if v.producer() in shape_nodes]
    segments = []
    for level in sorted(groups):
        wanted = extra if level == last else []
        nodes = _with_shape_nodes(groups[level], wanted, shape_nodes)
        nodes.sort(key=lambda node: position[node])
        segments.append((level % _KINDS, nodes, set(groups[level])))
    return _build_segments(model, segments, extra)


def _shape_nodes(graph: ir.Graph, names: Container[str]) -> set[ir.Node]:
    """Returns the native nodes whose values follow from shapes and constants alone."""
    found: set[ir.Node] = set()
    for node in graph:
        if node.name in names or node.domain != "":
            continue
        if node.op_type in ("Shape", "Size"):
            found.add(node)
        elif all(
            v is None or v.is_initializer() or v.producer() in found for v in node.inputs
        ) and not _is_weighty(node):
            found.add(node)
    return found


def _is_weighty(node: ir.Node) -> bool:
    return any(
        v is not None and v.const_value is not None and v.const_value.size > 4096
        for v in node.inputs
    )


def _levels(
    graph: ir.Graph, kinds: Mapping[str, int], shape_nodes: set[ir.Node]
) -> dict[ir.Node, int]:
    """Returns each node's segment, whose number says its kind."""
    levels: dict[ir.Node, int] = {}
    roots: dict[ir.Node, int] = {}  # the level at which a shape node's tensors are there
    for node in graph:
        level = 0
        for value in _inputs_of(node):
            producer = value.producer()
            if producer is not None:
                level = max(level, levels.get(producer, roots.get(producer, 0)))
        if node in shape_nodes:
            roots[node] = level
            continue
        levels[node] = level + (kinds.get(node.name or "", _NATIVE) - level) % _KINDS
    return levels


def _inputs_of(node: ir.Node) -> list[ir.Value]:
    """Returns a node's inputs and what its subgraphs take from outside, without repeats."""
    found: dict[ir.Value, None] = {v: None for v in node.inputs if v is not None}
    for attribute in node.attributes.values():
        graphs: list[Any] = []
        if attribute.type.name == "GRAPH":
            graphs = [attribute.as_graph()]
        elif attribute.type.name == "GRAPHS":
            graphs = list(attribute.as_graphs())
        for subgraph in graphs:
            own: set[ir.Value] = {*subgraph.inputs, *subgraph.initializers.values()}
            for inner in subgraph:
                own.update(inner.outputs)
            for inner in subgraph:
                found.update({v: None for v in _inputs_of(inner) if v not in own})
            found.update({v: None for v in subgraph.outputs if v not in own})
    return list(found)


def _with_shape_nodes(
    nodes: list[ir.Node], wanted: list[ir.Value], shape_nodes: set[ir.Node]
) -> list[ir.Node]:
    """Returns `nodes` and the shape nodes that they and the wanted values depend on."""
    result: dict[ir.Node, None] = dict.fromkeys(nodes)
    pending = [v for node in nodes for v in _inputs_of(node)] + wanted
    while pending:
        producer = pending.pop().producer()
        if producer in shape_nodes and producer not in result and producer is not None:
            result[producer] = None
            pending.extend(_inputs_of(producer))
    return list(result)


def _build_segments(
    model: ir.Model,
    segments: list[tuple[int, list[ir.Node], set[ir.Node]]],
    extra: list[ir.Value],
) -> list[Segment]:
    graph = model.graph
    user: dict[ir.Value, set[int]] = {}
    for index, (_, nodes, _) in enumerate(segments):
        for node in nodes:
            for value in _inputs_of(node):
                user.setdefault(value, set()).add(index)
    results = []
    for index, (kind, nodes, own) in enumerate(segments):
        inside = {value for node in nodes for value in node.outputs}
        inputs: dict[ir.Value, None] = {}
        weights: dict[ir.Value, None] = {}
        for node in nodes:
            for value in _inputs_of(node):
                if value.is_initializer():
                    weights[value] = None
                elif value not in inside:
                    inputs[value] = None
        outputs = []
        for node in nodes:
            for value in node.outputs:
                is_last = index == len(segments) - 1
                leaves = value.is_graph_output() and (node in own or (is_last and value in extra))
                if node in own and any(later > index for later in user.get(value, ())):
                    leaves = True
                if leaves:
                    outputs.append(value)
        if not segments[1:]:
            outputs = list(graph.outputs)
            inputs = dict.fromkeys(graph.inputs)
        part = build_part(model, nodes, list(inputs), outputs, list(weights), index)
        names = [v.name or "" for v in inputs], [v.name or "" for v in outputs]
        results.append(Segment(kind == _NATIVE, part, *names, is_custom=kind == _CUSTOM))
    return results


def build_part(
    model: ir.Model,
    nodes: list[ir.Node],
    inputs: list[ir.Value],
    outputs: list[ir.Value],
    weights: list[ir.Value],
    index: int,
) -> ir.Model:
    """Copies nodes into a model of their own; weights keep their tensors and are not copied."""
    import onnx
    import onnx_ir as ir

    boundary = {*inputs, *outputs}
    inner = [v for node in nodes for v in node.outputs if v not in boundary and v.name]
    missing = [v for v in inputs if v.type is None]
    if missing:
        raise UnsupportedOpError(
            "the fallback cannot take over at values of unknown type: "
            + ", ".join(f"'{v.name}' ({_maker(v)})" for v in missing)
            + "; install onnxruntime, which tells what its own operators compute, run a kernel of "
            "yours for the operator (sparsert.kernels.custom_op), or declare the type in the "
            "model's value_info"
        )
    proto = onnx.ModelProto(ir_version=model.ir_version)
    proto.graph.name = f"{model.graph.name or 'graph'}_{index}"
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.node.extend(ir.to_proto(node) for node in nodes)
    for target, values in (
        (proto.graph.input, [*inputs, *weights]),
        (proto.graph.output, outputs),
        (proto.graph.value_info, inner),
    ):
        target.extend(ir.serde.serialize_value(v) for v in values if v.type or v in boundary)
    part = ir.from_proto(proto)
    by_name = {value.name: value for value in part.graph.inputs}
    for weight in weights:
        value = by_name[weight.name]
        value.const_value = weight.const_value
    kept = list(part.graph.inputs)[: len(inputs)]
    part.graph.inputs.clear()
    part.graph.inputs.extend(kept)
    for weight in weights:
        part.graph.register_initializer(by_name[weight.name])
    return part


class FallbackSegment:
    """Runs one fallback segment with onnxruntime if it is installed, else in NumPy.

    Args:
        part: a segment that is not native.
        threads: for onnxruntime; None lets it choose.

    Raises:
        UnsupportedOpError: neither engine knows one of the operators.

    Attributes:
        engine: "onnxruntime" or "onnx reference".
    """

    def __init__(self, part: Segment, threads: int | None = None) -> None:
        self.inputs = part.inputs
        self.outputs = part.outputs
        self._session: Any = None
        self._backend: Any = None
        self.engine = "onnxruntime"
        problems = []
        uses_sparsert = any(node.domain == "sparsert" for node in part.model.graph)
        if not uses_sparsert and not _has_types_without_feeds(part.model.graph):
            try:
                self._session = _make_session(part.model, threads)
                return
            except ImportError:
                pass
            except Exception as error:  # onnxruntime raises types of its own
                problems.append(f"onnxruntime: {_first_line(error)}")
        from sparsert.runtime.numpy_backend import NumpyBackend

        self.engine = "onnx reference"
        try:
            self._backend = NumpyBackend(part.model)
        except UnsupportedOpError as error:
            problems.append(f"onnx reference: {_first_line(error)}")
            ops = sorted({_qualified(node) for node in part.model.graph})
            raise UnsupportedOpError(
                f"no engine can run the operators {', '.join(ops)} ({'; '.join(problems)})"
            ) from error

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes the segment's outputs from its inputs, both by name.

        Raises:
            BackendError: the engine failed.
        """
        if self._backend is not None:
            outputs: dict[str, np.ndarray] = self._backend.run(feeds)
            return outputs
        try:
            results = self._session.run(self.outputs, dict(feeds))
        except Exception as error:
            raise BackendError(f"onnxruntime failed: {_first_line(error)}") from error
        return dict(zip(self.outputs, results, strict=True))


def _make_session(model: ir.Model, threads: int | None) -> Any:
    import onnx_ir as ir
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or usable_cores()
    proto: onnx.ModelProto = ir.to_proto(model)
    for opset in [o for o in proto.opset_import if o.domain == "sparsert"]:
        proto.opset_import.remove(opset)
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _has_types_without_feeds(graph: ir.Graph) -> bool:
    """Says whether inputs or outputs are of types that onnxruntime does not exchange with NumPy."""
    return any(
        value.dtype is not None and int(value.dtype) > _LAST_COMMON_TYPE
        for value in (*graph.inputs, *graph.outputs)
    )


def _qualified(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _maker(value: ir.Value) -> str:
    producer = value.producer()
    return "graph input" if producer is None else f"made by {_qualified(producer)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
