"""Which nodes of a float graph compute with integers, and which tensors share a scale."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from sparsert.passes.graph_tools import (
    attribute,
    constant,
    constant_scalar,
    has_single_use,
    input_at,
    is_f32,
    is_op,
    nodes_of,
    rank_of,
)

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Operators that compute anew from their inputs; their output has a range of its own.
ARITHMETIC = ("Add", "AveragePool", "GlobalAveragePool")
# The same, left in float unless they are asked for.
OPTIONAL = ("Mul", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "HardSigmoid")
# Operators whose outputs hold values of their inputs: inputs and outputs share a scale.
CARRYING = frozenset(
    "Relu Clip MaxPool Concat Reshape Flatten Transpose Squeeze Unsqueeze Slice Split Gather Pad "
    "DepthToSpace SpaceToDepth Resize Tile Expand".split()
)
DEFAULT_OP_TYPES = (*WEIGHTED, *ARITHMETIC, "MaxPool", "Concat")
OP_TYPES = (*DEFAULT_OP_TYPES, *OPTIONAL)
# Of models whose activations are quantised by each run.
DEFAULT_DYNAMIC_OP_TYPES = ("Gemm", "MatMul")
DYNAMIC_OP_TYPES = ("Conv", *DEFAULT_DYNAMIC_OP_TYPES)
_ALWAYS = CARRYING - {"MaxPool", "Concat"}


@dataclass
class Layer:
    """A node with weights, and what is computed right after it.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        bias: the Add of a MatMul's bias, if there is one.
        activation: the Relu or Clip that alone reads the layer's result, if there is one.
    """

    node: ir.Node
    bias: ir.Node | None = None
    activation: ir.Node | None = None

    @property
    def name(self) -> str:
        """The node's."""
        return self.node.name or ""

    @property
    def x(self) -> ir.Value:
        """The input that is not constant."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def weight(self) -> ir.Value:
        """The constant that is quantised per channel."""
        value = self.node.inputs[1]
        assert value is not None
        return value

    @property
    def sum(self) -> ir.Value:
        """What the layer computes, bias included, before the activation."""
        return (self.bias or self.node).outputs[0]

    @property
    def output(self) -> ir.Value:
        """What other nodes read."""
        return (self.activation or self.bias or self.node).outputs[0]

    @property
    def group(self) -> int:
        """Of a convolution; 1 for others."""
        return int(attribute(self.node, "group", 1))

    @property
    def channel_axis(self) -> int:
        """The axis of the weight along which it is quantised: that of output channels."""
        if self.node.op_type == "Gemm":
            return 0 if attribute(self.node, "transB", 0) else 1
        return 0 if self.node.op_type == "Conv" else 1


@dataclass
class Structure:
    """What is quantised when some layers are.

    Attributes:
        layers: those in integers, in the order of the graph.
        nodes: the other nodes in integers: arithmetic and carrying ones.
        tensors: what is quantised -> the tensor that stands for its group: one scale for all.
        made_here: those of `tensors` that nodes in integers compute.
    """

    layers: list[Layer]
    nodes: list[ir.Node] = field(default_factory=list)
    tensors: dict[ir.Value, ir.Value] = field(default_factory=dict)
    made_here: set[ir.Value] = field(default_factory=set)

    def readers(self) -> Iterator[tuple[ir.Node, int]]:
        """Yields where nodes in integers read a tensor: the node and the place of the input."""
        for layer in self.layers:
            yield layer.node, 0
        for node in self.nodes:
            for index in data_inputs(node):
                yield node, index


def find_layers(graph: ir.Graph, op_types: Collection[str]) -> list[Layer]:
    """Returns the layers of these types that can be quantised, in the order of the graph."""
    layers = []
    for node in nodes_of(graph):
        if is_op(node, *(op for op in WEIGHTED if op in op_types)) and _is_layer(node):
            layer = Layer(node)
            if node.op_type == "MatMul":
                layer.bias = _only_reader(node.outputs[0], _is_bias)
            layer.activation = _only_reader(layer.sum, _is_activation)
            layers.append(layer)
    return layers


def make_structure(
    graph: ir.Graph, layers: Iterable[Layer], op_types: Collection[str], exclude: Collection[str]
) -> Structure:
    """Decides what else computes in integers when these layers do.

    Another node does when all its data comes from nodes in integers and some node in integers
    reads its result: nothing is rounded that need not be.

    Args:
        graph: the float graph.
        layers: those in integers.
        op_types: types of nodes that may be.
        exclude: names of nodes that are not.
    """
    result = Structure(list(layers))
    taken = {part for layer in result.layers for part in (layer.node, layer.bias, layer.activation)}
    candidates: list[_Candidate] = []
    for node in nodes_of(graph):
        if node in taken or node.name in exclude or not _may_be_integer(node, op_types):
            continue
        activation = None
        if node.op_type not in CARRYING:
            activation = _only_reader(node.outputs[0], _is_activation)
            taken.add(activation)
        candidates.append(_Candidate(node, list((activation or node).outputs)))
    before = -1
    while before != len(candidates):
        before = len(candidates)
        candidates = _with_integer_inputs(candidates, result.layers)
        candidates = _with_integer_readers(candidates, result.layers)
    result.nodes = [candidate.node for candidate in candidates]
    made = {layer.output for layer in result.layers}
    made.update(output for candidate in candidates for output in candidate.outputs)
    read = [node.inputs[index] for node, index in result.readers()]
    tensors = [value for value in dict.fromkeys(read) if value is not None]
    result.made_here = {value for value in tensors if value in made}
    result.tensors = _share_scales(tensors, result.nodes)
    return result


@dataclass
class _Candidate:
    """A node that may compute in integers, and its results behind an activation of its own."""

    node: ir.Node
    outputs: list[ir.Value]


def data_inputs(node: ir.Node) -> list[int]:
    """Returns the places of the inputs that a node takes quantised."""
    if node.op_type == "Concat" or node.op_type in ("Add", "Mul"):
        return list(range(len(node.inputs)))
    return [0]


def _is_layer(node: ir.Node) -> bool:
    x, weight, bias = input_at(node, 0), input_at(node, 1), input_at(node, 2)
    tensor = constant(weight)
    if tensor is None or constant(x) is not None or not is_f32(x) or not is_f32(weight):
        return False
    if tensor.size == 0 or (bias is not None and constant(bias) is None):
        return False
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1 and attribute(node, "beta", 1.0) == 1
        return plain and (bias is None or rank_of(bias) == 1)
    if node.op_type == "MatMul":
        return len(tensor.shape) == 2
    return True


def _only_reader(value: ir.Value, accept: Callable[[ir.Node, ir.Value], bool]) -> ir.Node | None:
    producer = value.producer()
    if producer is None or not has_single_use(value):
        return None
    node = next(iter(value.uses())).node
    return node if node.graph is producer.graph and accept(node, value) else None


def _is_bias(node: ir.Node, value: ir.Value) -> bool:
    if not is_op(node, "Add"):
        return False
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    layer = value.producer()
    assert layer is not None
    tensor, weight = constant(other), constant(layer.inputs[1])
    assert weight is not None
    return tensor is not None and tuple(tensor.shape.numpy()) == (weight.shape.numpy()[1],)


def _is_activation(node: ir.Node, value: ir.Value) -> bool:
    if is_op(node, "Clip"):
        bounds = [bound for bound in node.inputs[1:] if bound is not None]
        return all(constant_scalar(bound) is not None for bound in bounds)
    return is_op(node, "Relu")


def _may_be_integer(node: ir.Node, op_types: Collection[str]) -> bool:
    op = node.op_type
    if node.domain != "" or not (op in op_types or op in _ALWAYS) or op in WEIGHTED:
        return False
    if op not in CARRYING and op not in ARITHMETIC and op not in OPTIONAL:
        return False
    for index in data_inputs(node):
        value = input_at(node, index)
        if value is None or not is_f32(value) or value.is_initializer():
            return False
    if op == "Clip":
        return _is_activation(node, node.outputs[0])
    if op == "Pad":
        value = input_at(node, 2)
        return value is None or constant_scalar(value) == 0
    if op == "Resize":
        return attribute(node, "mode", "nearest") == "nearest"
    if op == "MaxPool":
        return len(node.outputs) == 1
    return True


def _with_integer_inputs(candidates: list[_Candidate], layers: list[Layer]) -> list[_Candidate]:
    """Keeps those whose data all comes from layers or from one another."""
    made = {layer.output for layer in layers}
    kept = []
    for candidate in candidates:  # in the order of the graph
        node = candidate.node
        if all(node.inputs[index] in made for index in data_inputs(node)):
            kept.append(candidate)
            made.update(candidate.outputs)
    return kept


def _with_integer_readers(candidates: list[_Candidate], layers: list[Layer]) -> list[_Candidate]:
    """Keeps those that a layer reads, directly or through others that are kept."""
    wanted = {layer.x for layer in layers}
    kept = []
    for candidate in reversed(candidates):
        if any(output in wanted for output in candidate.outputs):
            kept.append(candidate)
            node = candidate.node
            wanted.update(value for i in data_inputs(node) if (value := node.inputs[i]) is not None)
    return kept[::-1]


def _share_scales(tensors: list[ir.Value], nodes: list[ir.Node]) -> dict[ir.Value, ir.Value]:
    """Returns, per tensor, the one that stands for its group."""
    parent = {value: value for value in tensors}

    def find(value: ir.Value) -> ir.Value:
        while parent[value] is not value:
            value = parent[value]
        return value

    for node in nodes:
        if node.op_type not in CARRYING:
            continue
        values = [node.inputs[index] for index in data_inputs(node)] + list(node.outputs)
        known = [value for value in values if value in parent]
        for value in known[1:]:
            parent[find(value)] = find(known[0])  # type: ignore[arg-type,index]
    return {value: find(value) for value in tensors}
