"""Brings the model to the newest ONNX opset."""

from __future__ import annotations

import logging
from typing import TypeGuard

import numpy as np
import onnx
import onnx_ir as ir
from onnx import version_converter
from onnx_ir.passes import common

from sparsert.errors import UnsupportedOpError
from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    input_at,
    is_op,
    known_dims,
    make_node,
    nodes_of,
    replace_node,
)

# Initializers with more bytes than this stay out of the proto given to onnx's converter.
_INLINE_BYTES = 1000
# onnxscript converts this range inside the IR and knows GroupNormalization's change of meaning.
_SCRIPT_OLDEST, _SCRIPT_NEWEST = 18, 25


def run(model: ir.Model) -> None:
    """Converts all nodes of the ONNX domain to the semantics of the newest opset, in place.

    Raises:
        UnsupportedOpError: onnx cannot convert some operator.
    """
    target = onnx.defs.onnx_opset_version()
    version = convert_old(model)
    if version < _SCRIPT_NEWEST:
        version = _convert_with_onnxscript(model, version, min(_SCRIPT_NEWEST, target))
    if version < target and any(_changes(node, version, target) for node in _all_nodes(model)):
        version = _convert_with_onnx(model, target)
    model.opset_imports[""] = target
    model.graph.opset_imports[""] = target
    for node in _all_nodes(model):
        node.version = None


def convert_old(model: ir.Model) -> int:
    """Converts opsets before 18 to 18, in place; returns the version that the model has then.

    Raises:
        UnsupportedOpError: onnx cannot convert some operator.
    """
    version = model.opset_imports.get("", onnx.defs.onnx_opset_version())
    if version >= _SCRIPT_OLDEST:
        return version
    if version < 16:
        _keep_old_roi_align(model)
    before, version = version, _convert_with_onnx(model, _SCRIPT_OLDEST)
    if before < 11:
        _keep_old_resizes(model)
    if before < 13:
        _keep_old_hardmaxes(model)
    return version


def _all_nodes(model: ir.Model) -> list[ir.Node]:
    return list(model.graph.all_nodes())


def _changes(node: ir.Node, version: int, target: int) -> bool:
    """Says whether the operator was redefined between two opsets."""
    if node.domain != "":
        return False
    try:
        old = onnx.defs.get_schema(node.op_type, version, "")
        new = onnx.defs.get_schema(node.op_type, target, "")
    except onnx.defs.SchemaError:
        return True
    return old.since_version != new.since_version


def _convert_with_onnxscript(model: ir.Model, version: int, target: int) -> int:
    from onnxscript.version_converter import convert_version

    if version < 20:
        _set_modes_of_grid_samples(model)
    convert_version(model, target)
    return target


def _keep_old_resizes(model: ir.Model) -> None:
    """Says what Upsample and Resize meant before opset 11, which onnx's converter leaves out.

    onnxruntime takes the nearest element below along dimensions that grow, above along those that
    shrink, and copies where no size changes.
    """
    nodes = [node for node in _all_nodes(model) if is_op(node, "Resize")]
    if any(_may_keep_sizes(_scales_of(node)) for node in nodes):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    for node in nodes:
        name = "coordinate_transformation_mode"
        node.attributes[name] = ir.AttrString(name, "asymmetric")
        scales = _scales_of(node)
        if _may_keep_sizes(scales) and _keeps_sizes(node.inputs[0], scales):
            replace_node(node, make_node("Identity", [node.inputs[0]], name=node.name))
        elif attribute(node, "mode", "nearest") == "nearest":
            _keep_old_nearest(node, scales)


def _keep_old_nearest(node: ir.Node, scales: np.ndarray | None) -> None:
    x, graph = node.inputs[0], node.graph
    assert x is not None
    assert isinstance(graph, ir.Graph)
    if scales is not None and not (np.any(scales < 1) and np.any(scales > 1)):
        mode = "ceil" if np.any(scales < 1) else "floor"
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", mode)
        return
    chain = Chain(node, graph)
    one = chain.constant("one", np.ones(1, np.float32))
    for limit, mode in (("Min", "ceil"), ("Max", "floor")):
        if scales is None:
            part = chain.add(limit, [node.inputs[2], one])
        else:
            bounded = np.minimum(scales, 1) if limit == "Min" else np.maximum(scales, 1)
            part = chain.constant("scales", bounded)
        x = chain.add(
            "Resize",
            [x, None, part],
            coordinate_transformation_mode="asymmetric",
            mode="nearest",
            nearest_mode=mode,
        )
    chain.replace()


def _scales_of(node: ir.Node) -> np.ndarray | None:
    scales = input_at(node, 2)
    tensor = None if scales is None else ir.convenience.get_const_tensor(scales)
    return None if tensor is None else np.asarray(tensor.numpy(), np.float32)


def _may_keep_sizes(scales: np.ndarray | None) -> TypeGuard[np.ndarray]:
    """Says whether some sizes would be rounded down to what they were, and the others are."""
    return scales is not None and bool(np.all((scales >= 1) & (scales < 2)) and np.any(scales > 1))


def _keeps_sizes(x: ir.Value | None, scales: np.ndarray) -> bool:
    sizes = known_dims(x, range(len(scales)))
    return sizes is not None and all(
        int(np.float32(size) * scale) == size for size, scale in zip(sizes, scales, strict=True)
    )


def _keep_old_hardmaxes(model: ir.Model) -> None:
    """Hardmax was over all dimensions from `axis` on before opset 13."""
    for node in _all_nodes(model):
        graph = node.graph
        if not is_op(node, "Hardmax") or not isinstance(graph, ir.Graph):
            continue
        x, axis = node.inputs[0], attribute(node, "axis", 1)
        chain = Chain(node, graph)
        rows = chain.add("Flatten", [x], axis=axis)
        largest = chain.add("Hardmax", [rows], axis=1)
        shape = chain.add("Shape", [x])
        shape.type = ir.TensorType(ir.DataType.INT64)
        chain.add("Reshape", [largest, shape])
        chain.replace()


def _keep_old_roi_align(model: ir.Model) -> None:
    """Says where the elements of a RoiAlign lay before opset 16, whose default is another one."""
    for node in _all_nodes(model):
        if node.domain == "" and node.op_type == "RoiAlign":
            name = "coordinate_transformation_mode"
            node.attributes[name] = ir.AttrString(name, "output_half_pixel")


def _set_modes_of_grid_samples(model: ir.Model) -> None:
    """Names GridSample modes as onnxscript's converter expects (opset 16 writes them out)."""
    for node in _all_nodes(model):
        if node.domain == "" and node.op_type == "GridSample" and "mode" not in node.attributes:
            node.attributes["mode"] = ir.AttrString("mode", "bilinear")


def _convert_with_onnx(model: ir.Model, target: int) -> int:
    """Runs onnx's converter on a copy whose large initializers are plain inputs."""
    graph = model.graph
    initializers = list(graph.initializers.values())
    large = {v.name: v.const_value for v in initializers if _bytes_of(v) > _INLINE_BYTES}
    user_inputs = list(graph.inputs)
    # onnx's converter drops nodes' metadata and turns absent names into duplicates: name them all.
    for index, node in enumerate(nodes_of(graph)):
        node.name = node.name or f"{node.op_type}_{index}"
    for value in initializers:
        if value.name in large:
            value.const_value = None
            graph.initializers.pop(value.name or "")
            graph.inputs.append(value)
    try:
        proto = ir.to_proto(model)
        converted = version_converter.convert_version(proto, target)
    except Exception as error:
        raise UnsupportedOpError(
            f"the model cannot be converted from ONNX opset {model.opset_imports.get('')} to "
            f"{target}: {error}"
        ) from error
    finally:
        graph.inputs.clear()
        graph.inputs.extend(user_inputs)
        for value in initializers:
            if value.name in large:
                value.const_value = large[value.name]
                graph.register_initializer(value)
    result = ir.from_proto(converted)
    kept = []
    for value in list(result.graph.inputs):
        if value.name in large:
            value.const_value = large[value.name]
            kept.append(value)
    inputs = [v for v in result.graph.inputs if v.name not in large and not v.is_initializer()]
    result.graph.inputs.clear()
    result.graph.inputs.extend(inputs)
    for value in kept:
        result.graph.register_initializer(value)
    logging.getLogger(__name__).debug("converted to opset %d with onnx", target)
    model.graph = result.graph
    return target


def _bytes_of(value: ir.Value) -> int:
    tensor = value.const_value
    has_size = tensor is not None and tensor.dtype != ir.DataType.STRING
    return tensor.nbytes if tensor is not None and has_size else 0
