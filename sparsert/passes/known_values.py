"""Says which values of a graph are known when a plan is made: those that shapes are made of."""

from __future__ import annotations

import onnx_ir as ir

from sparsert.modelfile.opset import COMPARE_FN
from sparsert.passes.graph_tools import input_at, rank_of

BINARY = frozenset("Add Sub Mul Div Pow Min Max".split())
COMPARISONS = frozenset(COMPARE_FN)
REDUCTIONS = frozenset(
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare "
    "ReduceLogSum ReduceLogSumExp".split()
)
# Operators that move data of any type, and the inputs that must be known at plan time.
MOVEMENT: dict[str, tuple[int, ...]] = {
    "Concat": (),
    "Split": (1,),
    "Slice": (1, 2, 3, 4),
    "Reshape": (1,),
    "Flatten": (),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Transpose": (),
    "Expand": (1,),
    "Identity": (),
    "Gather": (),
    "Pad": (1, 3),
    "Cast": (),
    "GatherElements": (),
    "GatherND": (),
    "Trilu": (1,),
    "Tile": (1,),
    "BitCast": (),
}
SHAPE_SOURCES = frozenset({"Shape", "Size"})
# Operators on numbers of any type but f16 and bool, and the inputs that must be known.
NUMBERS: dict[str, tuple[int, ...]] = {
    "ArgMax": (),
    "ArgMin": (),
    "TopK": (1,),
    "OneHot": (1,),
    "CumSum": (1,),
    "CumProd": (1,),
}
# Inputs that must be known when a plan is made, of all operators.
_KNOWN_INPUTS: dict[str, tuple[int, ...]] = {
    **{op: indices for op, indices in MOVEMENT.items() if indices},
    **dict.fromkeys(REDUCTIONS, (1,)),
    **{op: indices for op, indices in NUMBERS.items() if indices},
    "Pad": (1, 2, 3),
    "Resize": (1, 2, 3),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
}
# Operators that the planner evaluates when their inputs are known.
_FOLDED = (
    frozenset(MOVEMENT) - {"Pad", "GatherElements", "GatherND", "Trilu", "Tile", "BitCast"}
    | BINARY
    | frozenset({"ReduceProd", "ReduceSum", "ReduceMin", "ReduceMax", "Range", "ConstantOfShape"})
    | COMPARISONS
    | frozenset("Mod BitwiseAnd BitwiseOr BitwiseXor Where".split())
    | frozenset("Floor Ceil Round Neg Abs Sign Relu Clip Sqrt Exp Log Reciprocal".split())
)
INTEGERS = frozenset(
    {
        *(ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16),
        *(ir.DataType.UINT32, ir.DataType.INT32, ir.DataType.UINT64, ir.DataType.INT64),
    }
)
# Of inputs whose values a plan can be made for.
_KNOWN_DTYPES = INTEGERS | {ir.DataType.FLOAT, ir.DataType.BOOL}


def known_values(graph: ir.Graph) -> set[ir.Value]:
    """Returns the values that are known when a plan is made.

    They follow from constants, from the shapes of the graph's inputs, and from the values of those
    inputs that shapes, axes and the like are computed from: a plan is made for these values.
    """
    inputs = {
        value
        for value in graph.inputs
        if value.dtype in _KNOWN_DTYPES and (rank_of(value) or 0) <= 1
    }
    reachable = _closure(graph, {*graph.initializers.values(), *inputs})
    needed: set[ir.Value] = set()
    for node in reversed(graph):
        if node.domain != "":
            continue
        wanted = [input_at(node, index) for index in _KNOWN_INPUTS.get(node.op_type, ())]
        if node.op_type in _FOLDED and any(value in needed for value in node.outputs):
            wanted += node.inputs
        needed.update(value for value in wanted if value is not None and value in reachable)
    return _closure(graph, {*graph.initializers.values(), *(inputs & needed)})


def _closure(graph: ir.Graph, known: set[ir.Value]) -> set[ir.Value]:
    """Adds what the planner can compute from known values and from shapes."""
    for node in graph:
        if node.domain != "":
            continue
        if node.op_type in SHAPE_SOURCES:
            known.update(node.outputs)
        elif node.op_type in _FOLDED and all(v is None or v in known for v in node.inputs):
            known.update(node.outputs)
    return known
