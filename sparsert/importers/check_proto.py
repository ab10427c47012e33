"""Checks an ONNX graph and collects every problem: names, order, cycles, operators, types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sparsert.errors import ModelFormatError, UnsupportedOpError, describe_problems

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 7
_ONNX_DOMAINS = ("", "ai.onnx")


def check_proto(proto: onnx.ModelProto, label: str, problems: list[str]) -> None:
    """Raises if `proto` cannot be run, after looking for every problem.

    Args:
        proto: the model; its large weights may be external stubs.
        label: the file's name, for messages.
        problems: those already found.

    Raises:
        ModelFormatError: something is wrong with the file or the graph.
        UnsupportedOpError: all is well but for operators that ONNX does not define.
    """
    problems = list(problems)
    unknown_ops: list[str] = []
    try:
        opset = _check_opset(proto, problems)
        functions = {(f.domain, f.name) for f in proto.functions}
        _check_graph(proto.graph, set(), opset, functions, problems, unknown_ops)
    except TypeError as error:  # protobuf hands text that is not UTF-8 out as bytes
        problems.append(f"corrupt: a name is not UTF-8 text ({error})".split("\n", 1)[0])
    for what, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value")
            if kind not in (None, "tensor_type"):
                unknown_ops.append(
                    f"graph {what} '{value.name}' is no tensor ({kind.removesuffix('_type')})"
                )
    if not proto.graph.output:
        problems.append("the graph has no outputs")
    if not problems and not unknown_ops:
        _check_types(proto, problems)
    if problems:
        raise ModelFormatError(describe_problems(label, problems + unknown_ops))
    if unknown_ops:
        raise UnsupportedOpError(describe_problems(label, unknown_ops))


def _check_opset(proto: onnx.ModelProto, problems: list[str]) -> int | None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    versions = {o.version for o in proto.opset_import if o.domain in _ONNX_DOMAINS}
    if len(versions) > 1:
        problems.append(f"several versions of the ONNX opset are imported: {sorted(versions)}")
        return None
    if not versions:
        if any(node.domain in _ONNX_DOMAINS for node in proto.graph.node):
            problems.append("no ONNX opset is imported, so its operators have no version")
        return None
    opset = versions.pop()
    if not OLDEST_OPSET <= opset <= newest:
        problems.append(
            f"ONNX opset {opset} is not supported: expected {OLDEST_OPSET} to {newest} "
            "(a newer onnx package may know it)"
        )
        return None
    return opset


def _check_graph(
    graph: onnx.GraphProto,
    outer: set[str],
    opset: int | None,
    functions: set[tuple[str, str]],
    problems: list[str],
    unknown_ops: list[str],
) -> None:
    produced: dict[str, str] = {}
    known = set(outer)
    for value in graph.input:
        if value.name in produced:
            problems.append(f"graph input '{value.name}' is declared twice")
        produced[value.name] = "graph input"
    initializers: set[str] = set()
    for tensor in graph.initializer:
        if not tensor.name:
            problems.append("an initializer has no name")
        elif tensor.name in initializers:
            problems.append(f"initializer '{tensor.name}' is defined twice")
        initializers.add(tensor.name)
        produced[tensor.name] = "initializer"
    sparse_names = [sparse.values.name for sparse in graph.sparse_initializer]
    if sparse_names:
        problems.append(
            f"sparse_initializer is not supported in a subgraph ({_listed(sparse_names)}); "
            "store these weights as dense initializers"
        )
    # They are defined all the same: their users are in order.
    produced.update(dict.fromkeys(sparse_names, "sparse initializer"))
    for index, node in enumerate(graph.node):
        for name in node.output:
            if name and name in produced:
                problems.append(
                    f"{_describe(node, index)}: its output '{name}' is already defined "
                    f"({produced[name]})"
                )
            elif name:
                produced[name] = f"output of {_describe(node, index)}"
    known |= set(produced)
    for index, node in enumerate(graph.node):
        for name in node.input:
            if name and name not in known:
                problems.append(f"{_describe(node, index)}: its input '{name}' is defined nowhere")
        _check_operator(node, index, opset, functions, problems, unknown_ops)
        for attribute in node.attribute:
            subgraphs = [attribute.g] if attribute.HasField("g") else []
            for subgraph in [*subgraphs, *attribute.graphs]:
                _check_graph(subgraph, known, opset, functions, problems, unknown_ops)
    for value in graph.output:
        if value.name not in known:
            problems.append(f"graph output '{value.name}' is produced by no node")
    cycle = _find_cycle(graph)
    if cycle:
        problems.append(f"the graph is cyclic: {' -> '.join(cycle)}")


def _find_cycle(graph: onnx.GraphProto) -> list[str]:
    """Returns the names of the nodes of one cycle, first one repeated at the end, or []."""
    producer = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    sources = [
        sorted({producer[name] for name in node.input if name in producer}) for node in graph.node
    ]
    state = [0] * len(sources)  # 0 new, 1 on the stack, 2 done
    for root in range(len(sources)):
        if state[root]:
            continue
        stack: list[tuple[int, int]] = [(root, 0)]
        state[root] = 1
        while stack:
            node, position = stack.pop()
            if position == len(sources[node]):
                state[node] = 2
                continue
            stack.append((node, position + 1))
            source = sources[node][position]
            if state[source] == 1:
                path = [entry for entry, _ in stack]
                loop = path[path.index(source) :]
                order = [loop[0], *reversed(loop[1:]), loop[0]]
                return [_describe(graph.node[i], i) for i in order]
            if state[source] == 0:
                state[source] = 1
                stack.append((source, 0))
    return []


def _check_operator(
    node: onnx.NodeProto,
    index: int,
    opset: int | None,
    functions: set[tuple[str, str]],
    problems: list[str],
    unknown_ops: list[str],
) -> None:
    import onnx

    if opset is None or node.domain not in _ONNX_DOMAINS:
        return
    if (node.domain, node.op_type) in functions:
        return
    where = _describe(node, index)
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        unknown_ops.append(f"{where}: ONNX opset {opset} has no operator '{node.op_type}'")
        return
    _check_count(where, "input", len(node.input), schema.min_input, schema.max_input, problems)
    _check_count(where, "output", len(node.output), schema.min_output, schema.max_output, problems)
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, spec in schema.attributes.items():
        if spec.required and name not in given:
            problems.append(f"{where}: its attribute '{name}' is missing")
        elif name in given:
            found = onnx.AttributeProto.AttributeType.Name(given[name].type)
            expected = str(spec.type).rsplit(".", 1)[-1]
            if found not in ("UNDEFINED", expected):
                problems.append(f"{where}: its attribute '{name}' is {found}; expected {expected}")


def _check_count(
    where: str, what: str, found: int, least: int, most: int, problems: list[str]
) -> None:
    if not least <= found <= most:
        expected = str(least) if least == most else f"{least} to {most}"
        problems.append(f"{where}: it has {found} {what}s; expected {expected}")


def _listed(names: list[str]) -> str:
    """Returns the names, quoted; only the first few of many."""
    shown = ", ".join(f"'{name}'" for name in names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _describe(node: onnx.NodeProto, index: int) -> str:
    return f"node '{node.name or f'#{index}'}' ({node.op_type})"


def _check_types(proto: onnx.ModelProto, problems: list[str]) -> None:
    """Lets ONNX infer every type and shape from inputs and weights, and keeps its complaints."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    nodes = _sorted_nodes(proto.graph)
    del bare.graph.node[:]
    bare.graph.node.extend(nodes)
    # What is declared inside the graph is only a hint: a wrong one does not stop a model.
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    inferred, problem = _infer(bare)
    if inferred is None:
        lines = re.split(r"\n|(?=\(op_type:)", problem)
        found = [line.strip() for line in lines if "op_type:" in line] or [problem.strip()]
        problems.extend(f"types or shapes contradict each other: {line}" for line in found)
        return
    _check_channels(inferred.graph, nodes, problems)


def _infer(proto: onnx.ModelProto) -> tuple[onnx.ModelProto | None, str]:
    """Returns the model with inferred shapes and "", or None and the complaint."""
    import onnx

    try:
        # Propagating values would let a Slice, Range or ConstantOfShape fill any memory.
        inferred = onnx.shape_inference.infer_shapes(
            proto, check_type=True, strict_mode=True, data_prop=False
        )
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        return None, str(error)
    return inferred, ""


def _sorted_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Returns the nodes of an acyclic graph, each after those that it takes from."""
    producer = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    done: dict[int, None] = {}
    for root in range(len(graph.node)):
        stack = [root]
        while stack:
            index = stack[-1]
            waiting = [
                producer[name]
                for name in _all_inputs(graph.node[index])
                if name in producer and producer[name] not in done and producer[name] != index
            ]
            if waiting and index not in done:
                stack.extend(waiting)
            else:
                done.setdefault(index)
                stack.pop()
    return [graph.node[index] for index in done]


def _all_inputs(node: onnx.NodeProto) -> list[str]:
    """Returns the names that a node and its subgraphs use."""
    names = list(node.input)
    for attribute in node.attribute:
        subgraphs = [attribute.g] if attribute.HasField("g") else []
        for subgraph in [*subgraphs, *attribute.graphs]:
            for inner in subgraph.node:
                names.extend(_all_inputs(inner))
            names.extend(value.name for value in subgraph.output)
    return names


def _check_channels(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], problems: list[str]
) -> None:
    """Compares convolutions' channels with their weights', which onnx's inference does not."""
    shapes: dict[str, list[int | None]] = {t.name: list(t.dims) for t in graph.initializer}
    for value in [*graph.input, *graph.value_info]:
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = [
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in value.type.tensor_type.shape.dim
            ]
    for index, node in enumerate(nodes):
        if node.op_type not in ("Conv", "ConvTranspose") or node.domain not in _ONNX_DOMAINS:
            continue
        x, weight = shapes.get(node.input[0], []), shapes.get(node.input[1], [])
        if len(x) < 3 or len(weight) < 3:
            continue
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        channels, found = x[1], weight[1] if node.op_type == "Conv" else weight[0]
        if channels is None or found is None:
            continue
        expected = found * group if node.op_type == "Conv" else found
        if len(x) != len(weight) or channels != expected:
            problems.append(
                f"{_describe(node, index)}: its input '{node.input[0]}' {x} does not fit its "
                f"weights '{node.input[1]}' {weight} in {group} groups"
            )
