"""What the passes share: reading constants and attributes, lazy weights, replacing nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

SPARSERT = "sparsert"
# Weights up to this many elements may be copied per user; larger shared ones stay shared.
SMALL_ELEMS = 16384


def is_op(node: ir.Node | None, *op_types: str, domain: str = "") -> bool:
    """Says whether `node` is one of these operators of `domain`."""
    return node is not None and node.domain == domain and node.op_type in op_types


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Returns the tensor of an initializer, or None if `value` is known only at run time."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value


def constant_array(value: ir.Value | None, max_elems: int = SMALL_ELEMS) -> np.ndarray | None:
    """Returns a small initializer as an array; None if it is larger or no initializer."""
    tensor = constant(value)
    if tensor is None or tensor.size > max_elems:
        return None
    return np.asarray(tensor.numpy())


def constant_scalar(value: ir.Value | None) -> float | None:
    """Returns the value of an initializer with exactly one element, else None."""
    array = constant_array(value, 1)
    if array is None or array.size != 1 or array.dtype.kind not in "fiub":
        return None
    return float(array.reshape(()))


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Returns an input, or None if it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Returns the value of an attribute: int, float, str, or a tuple of them."""
    found = node.attributes.get(name)
    if found is None or found.value is None:
        return default
    return (
        tuple(found.value)
        if isinstance(found.value, Sequence) and not isinstance(found.value, str)
        else found.value
    )


def has_single_use(value: ir.Value) -> bool:
    """Says whether exactly one node input uses `value`, and the graph's outputs do not."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def only_use(value: ir.Value) -> Any:
    """Returns the use of a value that has one: node and idx."""
    return next(iter(value.uses()))


def rank_of(value: ir.Value | None) -> int | None:
    """Returns the number of dimensions, or None if unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def dim_at(value: ir.Value, axis: int) -> int | None:
    """Returns one dimension if it is a known number, else None."""
    if value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    dim = value.shape[axis]
    return dim if isinstance(dim, int) else None


def known_dims(value: ir.Value | None, axes: Iterable[int]) -> list[int] | None:
    """Returns these dimensions if all are known numbers, else None."""
    dims = [None if value is None else dim_at(value, axis) for axis in axes]
    known = [dim for dim in dims if dim is not None]
    return known if len(known) == len(dims) else None


def same_shape(a: ir.Value, b: ir.Value) -> bool:
    """Says whether both shapes are provably equal, symbol by symbol."""
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    for one, other in zip(a.shape, b.shape, strict=True):
        if isinstance(one, int) or isinstance(other, int):
            if not (isinstance(one, int) and isinstance(other, int) and one == other):
                return False
        elif one.value is None or one.value != other.value:
            return False
    return True


def is_f32(value: ir.Value | None) -> bool:
    """Says whether `value` is known to hold f32."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def lazy_tensor(
    compute: Callable[[], np.ndarray], shape: Iterable[int], name: str
) -> ir.LazyTensor:
    """Returns an f32 tensor that is computed anew each time it is read, so that it costs nothing.

    Args:
        compute: returns the contents, f32 of `shape`.
        shape: the tensor's dimensions.
        name: the initializer's name.
    """
    dims = ir.Shape(list(shape))

    def evaluate() -> ir.Tensor:
        array = np.asarray(compute(), np.float32, order="C")
        return ir.Tensor(array, dtype=ir.DataType.FLOAT, shape=dims, name=name)

    return ir.LazyTensor(evaluate, dtype=ir.DataType.FLOAT, shape=dims, name=name)


def unique_name(graph: ir.Graph, base: str) -> str:
    """Returns a name derived from `base` that no initializer of the graph has."""
    name, count = base, 1
    while name in graph.initializers:
        count += 1
        name = f"{base}_{count}"
    return name


def add_initializer(
    graph: ir.Graph, base_name: str, tensor: ir.TensorProtocol | np.ndarray
) -> ir.Value:
    """Registers a constant under a fresh name and returns its value."""
    name = unique_name(graph, base_name)
    if isinstance(tensor, np.ndarray):
        tensor = ir.Tensor(tensor, name=name)
    shape = tensor.shape
    assert isinstance(shape, ir.Shape)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value


def make_node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any] | None = None,
    domain: str = "",
    name: str | None = None,
    like: ir.Value | None = None,
) -> ir.Node:
    """Builds a node with one output; the output takes type and shape from `like`.

    Attributes that are None are left out; absent trailing inputs are dropped.
    """
    kept = list(inputs)
    while kept and kept[-1] is None:
        kept.pop()
    given = {k: v for k, v in (attributes or {}).items() if v is not None}
    node = ir.node(op_type, kept, attributes=given, domain=domain, name=name)
    if like is not None:
        node.outputs[0].type = like.type
        node.outputs[0].shape = like.shape
    return node


def replace_node(old: ir.Node, new: ir.Node | Sequence[ir.Node]) -> None:
    """Puts `new` where `old` was; the last new node's output takes over the old first output."""
    graph = old.graph
    assert isinstance(graph, ir.Graph)
    nodes = [new] if isinstance(new, ir.Node) else list(new)
    take_over(old.outputs[0], nodes[-1].outputs[0])
    graph.insert_before(old, nodes)
    graph.remove(old, safe=True)


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Lets `new` replace `old` everywhere, with its name, also as a graph output."""
    if new.type is None:
        new.type = old.type
    if new.shape is None:
        new.shape = old.shape
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = f"{name}_replaced"
    if name:  # an output that is left out has none
        new.name = name


def bypass(node: ir.Node) -> bool:
    """Removes a node that hands its first input on unchanged; returns False where it must stay.

    It must stay when its output is a graph output and its input is a graph input, an initializer
    or itself a graph output, since the output's name would be lost.
    """
    graph = node.graph
    source, result = node.inputs[0], node.outputs[0]
    assert isinstance(graph, ir.Graph)
    assert source is not None
    if result.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return False
        name = result.name
        result.replace_all_uses_with(source, replace_graph_outputs=True)
        result.name = f"{name}_replaced"
        source.name = name
        if source.type is None:
            source.type = result.type
        if source.shape is None:
            source.shape = result.shape
    else:
        result.replace_all_uses_with(source)
    graph.remove(node, safe=True)
    return True


def nodes_of(graph: ir.Graph) -> list[ir.Node]:
    """Returns the graph's own nodes as a list that stays valid while the graph is edited."""
    return list(graph)
