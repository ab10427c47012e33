"""Turns the loop of an EmbeddingBag over its bags into a reduction or a scatter."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes import infer_shapes
from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    constant_array,
    constant_scalar,
    dim_at,
    has_single_use,
    is_f32,
    is_op,
    nodes_of,
    rank_of,
    same_shape,
)
from sparsert.passes.symbolic_values import dims_of

# What torch's exporter makes of bag i, as nested tuples: the rows of the data from offsets[i] to
# offsets[i + 1]. A name that begins with ? stands for any one expression; casts are left out, and
# constants are tuples of their elements.
_AT = ("Reshape", "i", (-1,))
_NEXT = ("Add", _AT, (1,))
_START = ("Slice", "?offsets", _AT, _NEXT)
_END = ("Slice", "?offsets", _NEXT, ("Add", _AT, (2,)))
_ROWS = ("Slice", "?data", _START, _END)
_SUM = ("ReduceSum", _ROWS, (0,))
# The last bag is the rest of the rows.
_IS_LAST = ("Equal", "i", "?last")
_REST = ("Sub", "?rows", _START)
_RESULTS = {
    "ReduceSum": _SUM,
    "ReduceMean": (
        "If",
        _IS_LAST,
        ("If", ("Greater", _REST, (0,)), ("Div", _SUM, _REST), _SUM),
        ("ReduceMean", _ROWS, (0,)),
    ),
    "ReduceMax": (
        "ReduceMax",
        ("If", _IS_LAST, ("Slice", "?data", _START, "?rows"), _ROWS),
        (0,),
    ),
}
_CASTS = ("Cast", "CastLike", "Identity")
# Computed outside of the loop, but part of the expressions.
_OUTSIDE = (*_CASTS, "Less", "Shape", "Size", "Sub")
_MAX_CONSTANT = 4096


def run(model: ir.Model) -> None:
    """Replaces such loops of the main graph, in place.

    Bags of one size become a dimension that is reduced. Of others, each row of the data is added
    to the row of the result that its bag has.
    """
    changed = False
    for node in nodes_of(model.graph):
        if is_op(node, "ConcatFromSequence"):
            changed = _lower(node, model.graph) or changed
    if changed:
        common.RemoveUnusedNodesPass()(model)
        infer_shapes.run(model)


@dataclasses.dataclass(frozen=True)
class _Bags:
    reduction: str
    data: ir.Value  # [rows, width]
    offsets: ir.Value | tuple[int, ...]  # of the bags, and the end of the last one
    firsts: ir.Value | None  # the offsets without that end, where it was added


def _lower(node: ir.Node, graph: ir.Graph) -> bool:
    results = node.inputs[0]
    loop = results.producer() if results is not None and has_single_use(results) else None
    if not is_op(loop, "Loop") or attribute(node, "axis") != 0 or attribute(node, "new_axis", 0):
        return False
    assert loop is not None
    bags = _bags_of(loop, graph) if results is loop.outputs[0] else None
    if bags is None:
        return False
    bags = dataclasses.replace(bags, data=_without_ones(bags.data))
    chain = Chain(node, graph)
    size = _common_size(bags)
    if size is None:
        _scatter(chain, bags)
    else:
        shape = chain.constant("bags", np.array([-1, size, dim_at(bags.data, 1)]))
        rows = chain.add("Reshape", [bags.data, shape])
        chain.add(bags.reduction, [rows, chain.constant("axis", np.array([1]))], keepdims=0)
    chain.replace()
    _let_go(loop)
    return True


def _let_go(node: ir.Node) -> None:
    """Ends the uses that the subgraphs of an unused node make of values outside of them."""
    for found in node.attributes.values():
        if found.type == ir.AttributeType.GRAPH:
            for inner in found.as_graph():
                _let_go(inner)
                for index in range(len(inner.inputs)):
                    inner.replace_input_with(index, None)


def _without_ones(data: ir.Value) -> ir.Value:
    """Returns x if data = x * 1, as rows are weighted where no weights are given."""
    node = data.producer()
    if node is None or not is_op(node, "Mul"):
        return data
    x, ones = node.inputs
    while ones is not None:
        maker = ones.producer()
        if maker is None or not is_op(maker, "Expand", "Unsqueeze", *_CASTS):
            break
        ones = maker.inputs[0]
    array = constant_array(ones)
    if x is None or array is None or not same_shape(x, data):
        return data
    return x if bool(np.all(array == 1)) else data


def _scatter(chain: Chain, bags: _Bags) -> None:
    """Adds up rows by their bag; row 0 of the sums takes what comes before the first one."""
    data, offsets = bags.data, bags.offsets
    if isinstance(offsets, tuple):
        offsets = chain.constant("offsets", np.array(offsets, np.int64))
    zero, one = (chain.constant(what, np.array([n])) for what, n in (("zero", 0), ("one", 1)))
    minus_one = chain.constant("minus_one", np.array([-1]))
    offsets = chain.add("Cast", [offsets], to=int(ir.DataType.INT64))
    rows = _length(chain, data)
    # How many bags have begun at each row.
    nothing = chain.add("Expand", [zero, chain.add("Add", [rows, one])])
    ones = chain.add("Expand", [one, _length(chain, offsets)])
    begun = chain.add("ScatterElements", [nothing, offsets, ones], axis=0, reduction="add")
    begun = chain.add("CumSum", [begun, zero])
    place = chain.add("Unsqueeze", [chain.add("Slice", [begun, zero, minus_one]), one])
    is_max = bags.reduction == "ReduceMax"
    first = chain.constant("first", np.array([-np.inf if is_max else 0], np.float32))
    width = chain.constant("width", np.array([dim_at(data, 1)]))
    count = chain.add("Add", [_length(chain, offsets), one])
    start = chain.add("Expand", [first, chain.add("Concat", [count, width], axis=0)])
    how = "max" if is_max else "add"
    y = chain.add("ScatterND", [start, place, data], reduction=how)
    y = chain.add("Slice", [y, one, minus_one])
    if bags.reduction == "ReduceSum":
        return
    far = chain.constant("far", np.array([np.iinfo(np.int64).max]))
    ends = chain.add("Slice", [offsets, one, far])
    sizes = chain.add("Sub", [ends, chain.add("Slice", [offsets, zero, minus_one])])
    sizes = chain.add("Unsqueeze", [sizes, one])
    divisor = chain.add("Max", [sizes, one])
    divisor = chain.add("Cast", [divisor], to=int(ir.DataType.FLOAT))
    if not is_max:
        chain.add("Div", [y, divisor])
        return
    empty = chain.add("Equal", [sizes, zero])
    empty.type = ir.TensorType(ir.DataType.BOOL)
    y = chain.add("Where", [empty, chain.constant("none", np.zeros(1, np.float32)), y])
    y.type = data.type


def _length(chain: Chain, value: ir.Value) -> ir.Value:
    """Returns the first dimension of a value, [1]."""
    length = chain.add("Shape", [value], ir.Shape([1]), start=0, end=1)
    length.type = ir.TensorType(ir.DataType.INT64)
    return length


def _bags_of(loop: ir.Node, graph: ir.Graph) -> _Bags | None:
    """Returns what a loop over bags reduces."""
    body = loop.attributes["body"].as_graph()
    if len(loop.inputs) != 4 or loop.inputs[0] is not None or loop.outputs[1].uses():
        return None
    start, first = loop.inputs[2:]
    if start is None or not is_op(start.producer(), "SequenceEmpty"):
        return None
    if constant_scalar(first) != 0:
        return None
    leaves = {body.inputs[2]: "results", body.inputs[3]: "i"}
    condition, results, index = (_expression(value, leaves, graph) for value in body.outputs)
    found: dict[str, Any] = {}
    if index != ("Add", "i", (1,)) or not _matches(("Less", index, "?bags"), condition, found):
        return None
    before = _expression(loop.inputs[1], {}, graph)
    if before not in (("Less", (0,), found["?bags"]), (True,)):
        return None
    for reduction, result in _RESULTS.items():
        wanted = ("SequenceInsert", "results", ("If", ("Equal", _START, _END), "?none", result))
        roles = dict(found)
        if not _matches(wanted, results, roles):
            continue
        data, offsets = roles["?data"], roles["?offsets"]
        if not isinstance(data, ir.Value) or not is_f32(data) or rank_of(data) != 2:
            return None
        width = dim_at(data, 1)
        if width is None or roles["?none"] != (0.0,) * width:
            return None
        return _checked(reduction, data, offsets, roles, graph)
    return None


def _checked(
    reduction: str, data: ir.Value, offsets: Any, roles: dict[str, Any], graph: ir.Graph
) -> _Bags | None:
    """Returns the bags if their number and ends are what the offsets say."""
    bags = roles["?bags"]
    last: tuple[Any, ...] = (bags[0] - 1,) if len(bags) == 1 else ("Sub", bags, (1,))
    if roles.get("?last", last) != last or not _is_rows(roles.get("?rows"), data):
        return None
    if isinstance(offsets, tuple):
        whole = roles.get("?rows") is None or offsets[-1] == dim_at(data, 0)
        return (
            _Bags(reduction, data, offsets, None) if whole and bags == (len(offsets) - 1,) else None
        )
    if bags == ("Sub", ("Size", offsets), (1,)) and reduction == "ReduceSum":
        return _Bags(reduction, data, offsets, None)
    joined = offsets.producer()
    if joined is None or not is_op(joined, "Concat") or len(joined.inputs) != 2:
        return None
    firsts, end = joined.inputs
    if not _is_rows(_expression(end, {}, graph), data):
        return None
    count = (dim_at(firsts, 0),)
    return _Bags(reduction, data, offsets, firsts) if bags in (("Size", firsts), count) else None


def _is_rows(expression: Any, data: ir.Value) -> bool:
    """Says whether an expression, if any, is the number of rows of the data."""
    assert data.shape is not None
    if expression is None or expression == (dim_at(data, 0),):
        return True
    if expression[0] != "Shape" or rank_of(expression[1]) != 1:
        return False
    rows, dim = expression[1].shape[0], data.shape[0]
    return isinstance(rows, ir.SymbolicDim) and rows.value is not None and rows == dim


def _common_size(bags: _Bags) -> int | None:
    """Returns the number of rows that each bag has, if it is one and known."""
    offsets, firsts = bags.offsets, bags.firsts
    if isinstance(offsets, tuple):
        sizes = {b - a for a, b in itertools.pairwise(offsets)}
        is_whole = offsets[0] == 0 and offsets[-1] == dim_at(bags.data, 0)
        return sizes.pop() if is_whole and len(sizes) == 1 and min(sizes) > 0 else None
    node = firsts.producer() if firsts is not None else None
    if node is None or not is_op(node, "Range") or constant_scalar(node.inputs[0]) != 0:
        return None
    step = constant_scalar(node.inputs[2])
    dims = (dims_of(firsts) or [None])[0], (dims_of(bags.data) or [None])[0]
    if step is None or step < 1 or not isinstance(dims[0], str):
        return None
    size, count = int(step), dims[0]
    whole = (f"{size}*{count}", f"{size}*({count})", count if size == 1 else "")
    return size if count.isidentifier() and dims[1] in whole else None


def _expression(value: ir.Value | None, leaves: dict[ir.Value, str], graph: ir.Graph) -> Any:
    """Returns how a value follows from leaves, constants and values of the main graph."""
    if value is None or value in leaves:
        return None if value is None else leaves[value]
    tensor = value.const_value if value.is_initializer() else None
    if tensor is not None and tensor.size <= _MAX_CONSTANT:
        return tuple(tensor.numpy().reshape(-1).tolist())
    node = value.producer()
    if node is None or (node.graph is graph and node.op_type not in _OUTSIDE):
        return value
    if node.op_type in _CASTS:
        return _expression(node.inputs[0], leaves, graph)
    parts = [_expression(part, leaves, graph) for part in node.inputs]
    if node.op_type == "If":
        branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
        parts += [_expression(branch.outputs[0], leaves, graph) for branch in branches]
    return (node.op_type, *parts)


def _matches(wanted: Any, expression: Any, found: dict[str, Any]) -> bool:
    """Says whether an expression is as wanted; adds to `found` what the names stand for."""
    if isinstance(wanted, str) and wanted.startswith("?"):
        return bool(found.setdefault(wanted, expression) == expression)
    if not isinstance(wanted, tuple) or not isinstance(expression, tuple):
        return bool(wanted == expression)
    pairs = zip(wanted, expression, strict=False)
    return len(wanted) == len(expression) and all(_matches(a, b, found) for a, b in pairs)
