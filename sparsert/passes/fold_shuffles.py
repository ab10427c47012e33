"""Turns channel shuffles into one Gather along the channels, or folds them into weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SMALL_ELEMS,
    SPARSERT,
    add_initializer,
    attribute,
    bypass,
    constant,
    constant_array,
    dim_at,
    has_single_use,
    input_at,
    is_op,
    lazy_tensor,
    make_node,
    nodes_of,
    replace_node,
)

# The engine keeps index tensors of at most this many elements as known values.
_MAX_CHANNELS = 4096

_ELEMENTWISE = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Elu", "Gelu")


def run(model: ir.Model) -> None:
    """Rewrites Reshape [N, g, C/g, ...], Transpose 1 <-> 2, Reshape [N, C, ...], in place.

    Where every user is a convolution of one group, its weights take the permutation of their input
    channels; else, where the producer is one with no other user, those of its output channels
    and of the depthwise convolutions and activations in between.
    """
    for node in nodes_of(model.graph):
        if not is_op(node, "Transpose"):
            continue
        shuffle = _shuffle_at(node)
        if shuffle is None:
            continue
        last, source, order = shuffle
        indices = add_initializer(model.graph, "shuffle", order)
        gather = make_node("Gather", [source, indices], {"axis": 1}, name=last.name)
        replace_node(last, gather)
        _remove_unused(node)
        if _fold_into_users(model.graph, gather, order) or _fold_into_producers(
            model.graph, gather, order
        ):
            bypass(gather)


def _shuffle_at(transpose: ir.Node) -> tuple[ir.Node, ir.Value, np.ndarray] | None:
    """Returns the last of the three nodes, what they shuffle, and its channels in their new order.

    The channels are i64[channels].
    """
    middle, result = transpose.inputs[0], transpose.outputs[0]
    first = middle.producer() if middle is not None else None
    if middle is None or not is_op(first, "Reshape") or not has_single_use(result):
        return None
    last = next(iter(result.uses())).node
    assert first is not None
    source, output = first.inputs[0], last.outputs[0]
    if source is None or not is_op(last, "Reshape") or last.inputs[0] is not result:
        return None
    if source.shape is None or middle.shape is None or output.shape is None:
        return None
    rank = len(source.shape)
    perm = attribute(transpose, "perm")
    if rank < 3 or len(middle.shape) != rank + 1 or perm != (0, 2, 1, *range(3, rank + 1)):
        return None
    groups, group_size = dim_at(middle, 1), dim_at(middle, 2)
    channels = dim_at(source, 1)
    if groups is None or group_size is None or channels is None or channels > _MAX_CHANNELS:
        return None
    if groups * group_size != channels:
        return None
    kept = [source.shape[0], *source.shape[2:]]
    if not _same_dims([middle.shape[0], *middle.shape[3:]], kept):
        return None
    if dim_at(output, 1) != channels or not _same_dims([*output.shape], [*source.shape]):
        return None
    order = np.arange(channels, dtype=np.int64).reshape(groups, group_size).T.reshape(-1)
    return last, source, order


def _remove_unused(node: ir.Node) -> None:
    """Removes a node without users, and the one before it if that has none either."""
    graph, value = node.graph, node.inputs[0]
    assert isinstance(graph, ir.Graph)
    assert value is not None
    graph.remove(node, safe=True)
    before = value.producer()
    if before is not None and not value.uses() and not value.is_graph_output():
        graph.remove(before, safe=True)


def _same_dims(a: list[int | ir.SymbolicDim], b: list[int | ir.SymbolicDim]) -> bool:
    """Says whether shapes with the same number of elements are equal.

    One dimension may be unknown: it follows from the others.
    """
    if len(a) != len(b):
        return False
    unknown = 0
    for one, other in zip(a, b, strict=True):
        if isinstance(one, int) and isinstance(other, int):
            if one != other:
                return False
        elif isinstance(one, int) or isinstance(other, int):
            unknown += 1
        elif one.value is None or one.value != other.value:
            unknown += 1
    return unknown <= 1


def _is_conv(node: ir.Node | None) -> bool:
    return is_op(node, "Conv", domain=SPARSERT)


def _is_depthwise(node: ir.Node) -> bool:
    weight = node.inputs[1]
    group = attribute(node, "group", 1)
    assert weight is not None
    return group > 1 and dim_at(weight, 0) == group and dim_at(weight, 1) == 1


def _may_permute(weight: ir.Value | None) -> bool:
    """Says whether a copy of the weight for one node costs little: no other user, or small."""
    tensor = constant(weight)
    assert weight is not None
    return tensor is not None and (has_single_use(weight) or tensor.size <= SMALL_ELEMS)


def _fold_into_users(graph: ir.Graph, gather: ir.Node, order: np.ndarray) -> bool:
    value = gather.outputs[0]
    if value.is_graph_output():
        return False
    users = [use.node for use in value.uses()]
    for use in value.uses():
        whole = _is_conv(use.node) and attribute(use.node, "group", 1) == 1
        if not whole or use.idx != 0 or not _may_permute(use.node.inputs[1]):
            return False
    for user in users:
        _permute(graph, user, 1, np.argsort(order), axis=1)
    return bool(users)


@dataclasses.dataclass(frozen=True)
class _Permuted:
    """An input of a node that takes the permutation along axis 0."""

    node: ir.Node
    index: int


def _fold_into_producers(graph: ir.Graph, gather: ir.Node, order: np.ndarray) -> bool:
    value = gather.inputs[0]
    permuted: list[_Permuted] = []
    while True:
        node = value.producer() if value is not None else None
        if value is None or node is None or not has_single_use(value):
            return False
        if is_op(node, *_ELEMENTWISE) or (
            is_op(node, "Clip") and all(constant(v) is not None for v in node.inputs[1:] if v)
        ):
            value = node.inputs[0]
            continue
        if not _is_conv(node) or input_at(node, 3) is not None:
            return False
        bias = input_at(node, 2)
        if not _may_permute(node.inputs[1]):
            return False
        if bias is not None and constant_array(bias, _MAX_CHANNELS) is None:
            return False
        permuted.append(_Permuted(node, 1))
        if bias is not None:
            permuted.append(_Permuted(node, 2))
        if attribute(node, "group", 1) == 1:
            break
        if not _is_depthwise(node):
            return False
        value = node.inputs[0]
    for one in permuted:
        _permute(graph, one.node, one.index, order, axis=0)
    return True


def _permute(graph: ir.Graph, node: ir.Node, index: int, order: np.ndarray, axis: int) -> None:
    """Gives `node` an input whose entry i along the axis is entry order[i] of the old one."""
    value = node.inputs[index]
    tensor = constant(value)
    assert value is not None
    assert tensor is not None
    permuted = lazy_tensor(
        lambda: np.take(tensor.numpy(), order, axis), tensor.shape.numpy(), value.name or "weight"
    )
    if has_single_use(value):
        value.const_value = permuted
        return
    node.replace_input_with(index, add_initializer(graph, f"{value.name}_shuffled", permuted))
