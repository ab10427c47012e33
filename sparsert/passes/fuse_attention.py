"""Fuses the products and the softmax of attention into sparsert.Attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes.graph_tools import (
    SPARSERT,
    add_initializer,
    attribute,
    constant,
    constant_scalar,
    dim_at,
    has_single_use,
    is_f32,
    is_op,
    known_dims,
    lazy_tensor,
    make_node,
    nodes_of,
    rank_of,
    replace_node,
)


def run(model: ir.Model) -> None:
    """Turns softmax(alpha * q k' + mask) v on [N, heads, tokens, size] into one node, in place.

    Where every operand is split into heads by Reshape and Transpose, and the result joined by
    them, the fused node does so itself: its operands are [N, tokens, heads * size]. Two masks in a
    row become one, which layers share as they share the two.
    """
    sums: dict[tuple[ir.Value, ir.Value], ir.Value] = {}
    for node in nodes_of(model.graph):
        if _is_product(node) and is_f32(node.outputs[0]):
            _fuse(node, sums)
    common.RemoveUnusedNodesPass()(model)


def _fuse(node: ir.Node, sums: dict[tuple[ir.Value, ir.Value], ir.Value]) -> None:
    """Fuses the attention that ends in the product `node`."""
    shares, v = node.inputs
    if shares is None or v is None or _flags(node) != (False, False, 1.0):
        return
    numbers = _numbers_of(shares)
    softmax = _only_producer(shares, "Softmax") if numbers is None else numbers.producer()
    if softmax is None or attribute(softmax, "axis", -1) not in (-1, 3):
        return
    scores = softmax.inputs[0]
    masks: list[ir.Value] = []
    while scores is not None and not _is_product(scores.producer()):
        add = _only_producer(scores, "Add")
        found = None
        if len(masks) < 2:
            found = _windows_and_mask(scores) if add is None else _scores_and_mask(add)
        if found is None:
            return
        scores, mask = found
        masks.append(mask)
    product = scores.producer() if scores is not None else None
    if product is None or scores is None or not has_single_use(scores):
        return
    trans_a, trans_b, alpha = _flags(product)
    q, k = product.inputs
    if trans_a or q is None or k is None:
        return
    if rank_of(v) != 4 or rank_of(q) != 4 or rank_of(k) != 4:
        return
    # The rows of k, as [N, heads, tokens, size].
    rows = (k, None) if trans_b else (None, k)
    if not _same_batch(q, k, v):
        return
    assert q.shape is not None and v.shape is not None
    node.outputs[0].shape = ir.Shape([*q.shape[:3], v.shape[3]])
    total = _sum_of(masks, node, sums)
    attributes: dict[str, float] = {"alpha": float(alpha)}
    if numbers is not None:
        attributes["zero_nan"] = 1
    if _fuse_with_heads(node, q, rows, v, total, attributes):
        return
    if rows[0] is None:
        turn = make_node("Transpose", [k], {"perm": [0, 1, 3, 2]}, name=f"{node.name}_rows")
        turn.outputs[0].type = k.type
        if k.shape is not None:
            turn.outputs[0].shape = ir.Shape([k.shape[i] for i in (0, 1, 3, 2)])
        nodes, k = [turn], turn.outputs[0]
    else:
        nodes = []
    nodes.append(
        make_node(
            "Attention", [q, k, v, total], attributes, SPARSERT, softmax.name, node.outputs[0]
        )
    )
    replace_node(node, nodes)


def _fuse_with_heads(
    node: ir.Node,
    q: ir.Value,
    k: tuple[ir.Value | None, ir.Value | None],
    v: ir.Value,
    mask: ir.Value | None,
    attributes: dict[str, float],
) -> bool:
    """Fuses with operands [N, tokens, heads * size]; k is given as rows or as columns."""
    heads = dim_at(q, 1)
    joined = _joined(node.outputs[0])
    parts = [
        _split_from(q, (0, 2, 1, 3)),
        _split_from(k[1], (0, 2, 3, 1)) if k[0] is None else _split_from(k[0], (0, 2, 1, 3)),
        _split_from(v, (0, 2, 1, 3)),
    ]
    if heads is None or joined is None or any(part is None for part in parts):
        return False
    if any(dim_at(x, 1) != heads for x in (v, *(x for x in k if x is not None))):
        return False
    new = make_node(
        "Attention",
        [*parts, mask],
        {**attributes, "heads": heads},
        SPARSERT,
        node.name,
        joined.outputs[0],
    )
    replace_node(joined, new)
    return True


def _is_product(node: ir.Node | None) -> bool:
    return is_op(node, "MatMul") or is_op(node, "MatMul", domain=SPARSERT)


def _flags(node: ir.Node) -> tuple[bool, bool, float]:
    return (
        bool(attribute(node, "trans_a", 0)),
        bool(attribute(node, "trans_b", 0)),
        float(attribute(node, "alpha", 1.0)),
    )


def _only_producer(value: ir.Value, op_type: str) -> ir.Node | None:
    """Returns the node that computes `value` for one user, if it is of this type."""
    node = value.producer()
    return node if node is not None and is_op(node, op_type) and has_single_use(value) else None


def _is_scores(value: ir.Value) -> bool:
    """Says whether a value is a product, or one with something added."""
    node = value.producer()
    if node is not None and is_op(node, "Add"):
        return any(v is not None and _is_product(v.producer()) for v in node.inputs)
    return _is_product(node)


def _numbers_of(value: ir.Value) -> ir.Value | None:
    """Returns the softmax p, used for nothing else, if value = p where that is no NaN, else 0."""
    choice = _only_producer(value, "Where")
    if choice is None or constant_scalar(choice.inputs[1]) != 0:
        return None
    p = choice.inputs[2]
    test = _only_producer(choice.inputs[0], "Not") if choice.inputs[0] is not None else None
    equal = _only_producer(test.inputs[0], "Equal") if test and test.inputs[0] else None
    if p is None or equal is None or list(equal.inputs) != [p, p]:
        return None
    is_softmax = is_op(p.producer(), "Softmax") and not p.is_graph_output()
    return p if is_softmax and {use.node for use in p.uses()} == {choice, equal} else None


def _sum_of(
    masks: list[ir.Value],
    user: ir.Node,
    sums: dict[tuple[ir.Value, ir.Value], ir.Value],
) -> ir.Value | None:
    """Returns what is added to the scores; what does not exist yet is put before `user`."""
    if len(masks) < 2:
        return masks[0] if masks else None
    second, first = masks
    if (first, second) not in sums:
        add = make_node("Add", [first, second], name=f"{user.name}_masks")
        add.outputs[0].type = first.type
        graph = user.graph
        assert isinstance(graph, ir.Graph)
        graph.insert_before(user, add)
        sums[first, second] = add.outputs[0]
    return sums[first, second]


def _scores_and_mask(add: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Returns the scores and what is added to them, if that broadcasts to them."""
    for scores, mask in (add.inputs, add.inputs[::-1]):
        if scores is None or mask is None or not _is_scores(scores):
            continue
        if not is_f32(mask) or (rank_of(mask) or 9) > 4 or constant_scalar(mask) is not None:
            continue
        if _is_scores(mask):
            continue
        shape = add.outputs[0].shape
        if shape is None or scores.shape is None or len(shape) != len(scores.shape):
            continue
        # A dimension that is 1 in the scores but not in the sum would be the mask's.
        if all(_same_dim(a, b) or b != 1 for a, b in zip(shape, scores.shape, strict=True)):
            return scores, mask
    return None


def _windows_and_mask(value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """Returns scores [N * windows, ...] and a mask of them, where a constant is added per window.

    The sum is Reshape(Reshape(scores, [N, windows, ...]) + mask, [N * windows, ...]).
    """
    join = _only_producer(value, "Reshape")
    total = join.inputs[0] if join is not None else None
    add = _only_producer(total, "Add") if total is not None else None
    if add is None or total is None:
        return None
    for grouped, mask in (add.inputs, add.inputs[::-1]):
        split = _only_producer(grouped, "Reshape") if grouped is not None else None
        scores, tensor = split.inputs[0] if split is not None else None, constant(mask)
        if scores is None or tensor is None or grouped is None or not is_f32(mask):
            continue
        sizes = known_dims(grouped, range(rank_of(grouped) or 0))
        rows = known_dims(scores, range(rank_of(scores) or 0))
        if not sizes or len(sizes) != 5 or [sizes[0] * sizes[1], *sizes[2:]] != rows:
            continue
        if known_dims(total, range(5)) != sizes or known_dims(value, range(4)) != rows:
            continue
        return scores, _mask_of_images(add, tensor, sizes[0], sizes[1])
    return None


def _mask_of_images(add: ir.Node, tensor: ir.TensorProtocol, images: int, windows: int) -> ir.Value:
    """Returns [images * windows, ...] of a mask that broadcasts to [images, windows, ...]."""
    shape = [1] * (5 - len(tensor.shape)) + list(tensor.shape.numpy())
    inner = shape[2:]

    def compute() -> np.ndarray:
        apart = np.broadcast_to(tensor.numpy().reshape(shape), (images, windows, *inner))
        return apart.reshape(-1, *inner)

    graph = add.graph
    assert isinstance(graph, ir.Graph)
    name = f"{tensor.name}_of_windows"
    return add_initializer(graph, name, lazy_tensor(compute, (images * windows, *inner), name))


def _same_batch(q: ir.Value, k: ir.Value, v: ir.Value) -> bool:
    """Says whether the products provably do not broadcast over images or heads."""
    if q.shape is None or k.shape is None or v.shape is None:
        return False
    return all(_same_dim(q.shape[axis], x.shape[axis]) for x in (k, v) for axis in (0, 1))  # type: ignore[index]


def _same_dim(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    if isinstance(a, int) or isinstance(b, int):
        return isinstance(a, int) and isinstance(b, int) and a == b
    return a.value is not None and a.value == b.value


def _split_from(value: ir.Value | None, perm: tuple[int, ...]) -> ir.Value | None:
    """Returns x if value = Transpose(Reshape(x, [N, tokens, heads, size]), perm)."""
    node = value.producer() if value is not None else None
    if node is None or value is None or not is_op(node, "Transpose"):
        return None
    turned = attribute(node, "perm")
    middle = node.inputs[0]
    before = middle.producer() if middle is not None else None
    if before is not None and is_op(before, "Transpose") and rank_of(middle) == 4:
        # Two in a row.
        first = attribute(before, "perm")
        turned = tuple(first[axis] for axis in turned)
        middle = before.inputs[0]
        before = middle.producer() if middle is not None else None
    if turned != perm or before is None or middle is None or not is_op(before, "Reshape"):
        return None
    x = before.inputs[0]
    if x is None or x.shape is None or middle.shape is None:
        return None
    if len(x.shape) != 3 or len(middle.shape) != 4:
        return None
    heads, size, width = dim_at(middle, 2), dim_at(middle, 3), dim_at(x, 2)
    if heads is None or size is None or width != heads * size:
        return None
    return x if _same_dims(list(x.shape[:2]), list(middle.shape[:2])) else None


def _joined(value: ir.Value) -> ir.Node | None:
    """Returns the Reshape that joins the heads of `value` [N, heads, tokens, size]."""
    if not has_single_use(value):
        return None
    turn = next(iter(value.uses())).node
    if not is_op(turn, "Transpose") or attribute(turn, "perm") != (0, 2, 1, 3):
        return None
    middle = turn.outputs[0]
    joins = [use.node for use in middle.uses() if not is_op(use.node, "Shape")]
    if len(joins) != 1 or middle.is_graph_output():
        return None
    join = joins[0]
    if not is_op(join, "Reshape") or join.inputs[0] is not middle:
        return None
    if any(use.node is not join and not _leads_to(use.node, join) for use in middle.uses()):
        return None
    y = join.outputs[0]
    heads, size = dim_at(value, 1), dim_at(value, 3)
    if rank_of(y) != 3 or heads is None or size is None:
        return None
    assert value.shape is not None and y.shape is not None
    wanted = [value.shape[0], value.shape[2], heads * size]
    return join if _same_dims(list(y.shape), wanted) else None


def _leads_to(node: ir.Node, join: ir.Node) -> bool:
    """Says whether shape arithmetic that begins with `node` is there for `join` alone."""
    if node is join:
        return True
    if node.op_type not in ("Shape", "Gather", "Unsqueeze", "Concat", "Slice", "Cast", "Reshape"):
        return False
    if any(value.is_graph_output() for value in node.outputs):
        return False
    return all(_leads_to(use.node, join) for value in node.outputs for use in value.uses())


def _same_dims(a: list[int | ir.SymbolicDim], b: list[int | ir.SymbolicDim]) -> bool:
    """Says whether shapes of as many elements agree; one dimension may be unknown: it follows."""
    same = [_same_dim(one, other) for one, other in zip(a, b, strict=True)]
    for one, other, equal in zip(a, b, same, strict=True):
        if not equal and isinstance(one, int) and isinstance(other, int):
            return False
    return sum(same) >= len(same) - 1
