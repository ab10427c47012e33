"""Turns a file that was read back into the canonical onnx_ir graph."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sparsert.modelfile.levels import at_level
from sparsert.modelfile.lower_node import SPARSERT_DOMAIN
from sparsert.modelfile.raise_node import raise_node
from sparsert.modelfile.reader import ModelFile, TensorInfo
from sparsert.modelfile.tables import FLOAT_LAYERS

if TYPE_CHECKING:
    import onnx_ir as ir

_IR_VERSION = 10


def to_ir(model_file: ModelFile) -> ir.Model:
    """Builds the canonical model of a .sprt file; weights stored as f16 become f32.

    Of a file with levels: of the first one.

    Raises:
        ModelFormatError: a constant's bytes are invalid.
    """
    import onnx
    import onnx_ir as ir

    model_file = at_level(model_file, 0)
    used = {*model_file.inputs, *model_file.outputs}
    for info in model_file.nodes:
        used.update(index for index in (*info.inputs, *info.outputs) if index is not None)
    names = _unique_names([tensor.name for tensor in model_file.tensors])
    # What only the levels of a file need stays there.
    values = {
        index: _value(tensor, names[index])
        for index, tensor in enumerate(model_file.tensors)
        if index in used
    }
    constants = [value for value in values.values() if value.const_value is not None]
    nodes = []
    for info in model_file.nodes:
        inputs = [None if index is None else values[index] for index in info.inputs]
        outputs = [values[index] for index in info.outputs]
        node, bounds = raise_node(info.op, info.name, info.attrs, inputs, outputs)
        nodes.append(node)
        constants.extend(bounds)
    graph = ir.Graph(
        [values[index] for index in model_file.inputs],
        [values[index] for index in model_file.outputs],
        nodes=nodes,
        initializers=constants,
        opset_imports={"": onnx.defs.onnx_opset_version(), SPARSERT_DOMAIN: 1},
        name=str(model_file.metadata.get("name", "sparsert")),
    )
    model = ir.Model(graph, ir_version=_IR_VERSION, producer_name="sparsert")
    if FLOAT_LAYERS in model_file.metadata:
        model.metadata_props[FLOAT_LAYERS] = json.dumps(model_file.metadata[FLOAT_LAYERS])
    return model


def _value(tensor: TensorInfo, name: str) -> ir.Value:
    import onnx_ir as ir

    dtype = ir.TensorType(ir.DataType(tensor.dtype)) if tensor.dtype else None
    shape = None if tensor.dims is None else ir.Shape(tensor.dims)
    constant = ir.tensor(tensor.decode(), name=name) if tensor.is_constant else None
    return ir.Value(name=name, shape=shape, type=dtype, const_value=constant)


def _unique_names(names: list[str]) -> list[str]:
    """Returns the names with empty and repeated ones replaced."""
    seen = set(names)
    used: set[str] = set()
    result = []
    for i, name in enumerate(names):
        if not name or name in used:
            name = f"{name or 'tensor'}_{i}"
            while name in seen:
                name += "_"
            seen.add(name)
        used.add(name)
        result.append(name)
    return result
