"""Parts a model from the memory of its source: what is read of its weights is a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

# Smaller tensors are copied at once.
_SMALL_BYTES = 1024


def own_weights(model: ir.Model) -> ir.Model:
    """Replaces initializers that are views of memory that others may write to.

    Args:
        model: changed in place.

    Returns:
        The same model; large weights are lazy tensors, which copy whenever they are read.
    """
    import onnx_ir as ir

    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.Tensor):
                is_small = tensor.nbytes <= _SMALL_BYTES
                value.const_value = _copied(tensor) if is_small else _lazy(tensor)
    return model


def _copied(tensor: ir.TensorProtocol) -> ir.Tensor:
    import onnx_ir as ir

    shape = tensor.shape
    assert isinstance(shape, ir.Shape)
    array = np.array(tensor.numpy())
    return ir.Tensor(array, dtype=tensor.dtype, shape=shape, name=tensor.name)


def _lazy(tensor: ir.TensorProtocol) -> ir.LazyTensor:
    import onnx_ir as ir

    shape = tensor.shape
    assert isinstance(shape, ir.Shape)
    return ir.LazyTensor(lambda: _copied(tensor), tensor.dtype, shape, name=tensor.name)
