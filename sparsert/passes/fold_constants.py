"""Evaluates what depends on constants alone, and shape arithmetic on static shapes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx.reference.ops
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from sparsert.passes.graph_tools import (
    add_initializer,
    attribute,
    constant,
    dim_at,
    is_f32,
    is_op,
    lazy_tensor,
    nodes_of,
)

# Larger tensors are weights: computing with them at once would hold copies of them.
_INPUT_ELEMS = 1 << 16
_OUTPUT_ELEMS = 1 << 16
# A lazily folded result may have this many times the elements of what it is computed from.
_MAX_GROWTH = 4
_NEVER_FOLDED = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli "
    "DynamicQuantizeLinear QuantizeLinear Conv ConvTranspose Dropout".split()
)
_PRODUCTS = frozenset({"MatMul", "Gemm"})


def run(model: ir.Model) -> None:
    """Folds constants in place: small ones with onnxscript's optimizer, f32 weights lazily."""
    logger = logging.getLogger("onnxscript.optimizer")
    level = logger.level
    logger.setLevel(logging.ERROR)  # an op that the evaluator lacks is simply not folded
    try:
        optimizer.fold_constants(
            model,
            onnx_shape_inference=False,
            input_size_limit=_INPUT_ELEMS,
            output_size_limit=_OUTPUT_ELEMS,
            should_fold=_should_fold,
        )
    except RuntimeError as error:  # it gave up on a node; what it folded before is in place
        logging.getLogger(__name__).debug("not all constants are folded: %s", error)
    finally:
        logger.setLevel(level)
    common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in nodes_of(model.graph):
        if is_op(node, "Split"):
            _fold_split(node, model)
        else:
            _fold_lazily(node, model)
    common.RemoveUnusedNodesPass()(model)


def _should_fold(node: ir.Node) -> bool | None:
    tensors = [value.const_value for value in node.inputs if value is not None]
    if any(tensor is not None and tensor.size > _INPUT_ELEMS for tensor in tensors):
        return False
    if any(tensor is not None and tensor.dtype == ir.DataType.STRING for tensor in tensors):
        return False  # the result would be no tensor of strings
    if node.op_type == "ConstantOfShape":
        shape = tensors[0]
        if shape is not None and shape.numpy().prod() <= _OUTPUT_ELEMS:
            return True
    return None


def _fold_lazily(node: ir.Node, model: ir.Model) -> None:
    """Replaces a node over constants by an f32 initializer; but for products, it is lazy."""
    if node.domain != "" or not node.outputs or not node.inputs:
        return
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return
    output = node.outputs[0]
    tensors = [None if value is None else constant(value) for value in node.inputs]
    given = [value is not None for value in node.inputs]
    if any(here and tensor is None for here, tensor in zip(given, tensors, strict=True)):
        return
    if node.op_type in _NEVER_FOLDED or not is_f32(output) or output.is_graph_output():
        return
    if output.shape is None or not output.shape.is_static():
        return
    shape = output.shape.numpy()
    elems = sum(tensor.size for tensor in tensors if tensor is not None)
    if np.prod(shape, dtype=np.int64) > _MAX_GROWTH * max(elems, 1):
        return
    evaluate = evaluator(node, model.opset_imports[""])
    if evaluate is None:
        return
    if node.op_type in _PRODUCTS and np.prod(shape, dtype=np.int64) > elems:
        return

    def compute() -> np.ndarray:
        arrays = [None if tensor is None else tensor.numpy() for tensor in tensors]
        result = evaluate(*arrays)
        if isinstance(result, tuple):  # all outputs, also those that the node leaves out
            result = result[0]
        return np.asarray(result).reshape(shape)

    name = output.name or "folded"
    tensor = lazy_tensor(compute, shape, name)
    # A product takes longer than a read should, and is not larger than what it is made of.
    stored = ir.tensor(tensor.numpy(), name=name) if node.op_type in _PRODUCTS else tensor
    folded = add_initializer(model.graph, f"{name}_folded", stored)
    output.replace_all_uses_with(folded)


def _fold_split(node: ir.Node, model: ir.Model) -> None:
    """Replaces the parts of an f32 constant by initializers that are cut out when read."""
    whole = constant(node.inputs[0])
    if whole is None or not is_f32(node.inputs[0]):
        return
    axis = attribute(node, "axis", 0) % max(len(whole.shape), 1)
    sizes = [dim_at(output, axis) or 0 for output in node.outputs]
    if sum(sizes) != whole.shape[axis] or any(y.is_graph_output() for y in node.outputs):
        return
    start = 0
    for output, size in zip(node.outputs, sizes, strict=True):
        place = (slice(None),) * axis + (slice(start, start + size),)
        shape = [*whole.shape.numpy()[:axis], size, *whole.shape.numpy()[axis + 1 :]]
        name = output.name or "part"

        def cut(place: tuple[slice, ...] = place) -> np.ndarray:
            return np.asarray(whole.numpy()[place])

        part = add_initializer(model.graph, f"{name}_folded", lazy_tensor(cut, shape, name))
        output.replace_all_uses_with(part)
        start += size


def evaluator(node: ir.Node, opset: int) -> Callable[..., Any] | None:
    """Returns onnx's reference implementation of a node, attributes bound, or None."""
    attributes: dict[str, Any] = {}
    for name, found in node.attributes.items():
        if found.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            return None
        is_tensor = found.type == ir.AttributeType.TENSOR
        attributes[name] = ir.to_proto(found.as_tensor()) if is_tensor else found.value
    try:
        implementation = onnx.reference.ops.load_op("", node.op_type, opset)
    except (NotImplementedError, RuntimeError, ValueError, TypeError):
        return None
    if not hasattr(implementation, "eval"):
        return None
    return lambda *arrays: implementation.eval(*arrays, **attributes)
