"""The NumPy backend: interprets a canonical graph with onnx's reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.errors import BackendError, ShapeError, UnsupportedOpError, describe_problems
from sparsert.kernels.custom_ops import CustomOp, custom_ops

if TYPE_CHECKING:
    import onnx_ir as ir

# Initializers with more bytes than this are handed to each run instead of being serialised.
_INLINE_BYTES = 4096


class NumpyBackend:
    """Runs a canonical model in NumPy. Slow and right: the oracle of the tests.

    Args:
        model: a canonical model (or any ONNX model); it is not changed.

    Raises:
        UnsupportedOpError: an operator is known neither to onnx nor to sparsert.
    """

    def __init__(self, model: ir.Model) -> None:
        proto, self._weights = split_weights(model)
        self._inputs = {value.name or "": value for value in model.graph.inputs}
        self._outputs = [value.name or "" for value in model.graph.outputs]
        self._evaluator = make_evaluator(proto)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs.

        Args:
            feeds: one array per graph input, of its dtype and shape.

        Returns:
            The outputs by name.

        Raises:
            ShapeError: a feed is missing, unknown, or of the wrong dtype or rank.
            BackendError: an operator failed; the message names it.
        """
        self._check(feeds)
        try:
            results = self._evaluator.run(self._outputs, {**self._weights, **feeds})
        except Exception as error:
            raise BackendError(f"the numpy backend failed: {reason_of(error)}") from error
        # They may be views of the feeds or of the weights.
        owned = (np.array(y) if isinstance(y, np.ndarray) else y for y in results)
        return dict(zip(self._outputs, owned, strict=True))

    def _check(self, feeds: Mapping[str, np.ndarray]) -> None:
        problems = []
        for name in feeds:
            if name not in self._inputs:
                expected = ", ".join(f"'{n}'" for n in self._inputs)
                problems.append(f"there is no input '{name}'; expected {expected}")
        for name, value in self._inputs.items():
            if name not in feeds:
                problems.append(f"input '{name}' is missing")
                continue
            array = feeds[name]
            if value.dtype is not None and array.dtype != value.dtype.numpy():
                problems.append(f"input '{name}' is {array.dtype}; expected {value.dtype.numpy()}")
            if value.shape is not None and not _fits(array.shape, value.shape):
                problems.append(
                    f"input '{name}' has shape {list(array.shape)}; expected {value.shape}"
                )
        if problems:
            raise ShapeError(describe_problems("feeds", problems))


def _fits(shape: tuple[int, ...], expected: ir.Shape) -> bool:
    return len(shape) == len(expected) and all(
        not isinstance(want, int) or have == want
        for have, want in zip(shape, expected, strict=True)
    )


def split_weights(model: ir.Model) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns an onnx.ModelProto with the large initializers as inputs, and those as arrays."""
    import onnx_ir as ir

    graph = model.graph
    large = [value for value in graph.initializers.values() if _is_large(value.const_value)]
    tensors = {value.name: value.const_value for value in large}
    user_inputs = list(graph.inputs)
    try:
        for value in large:
            graph.initializers.pop(value.name or "")
            value.const_value = None
            graph.inputs.append(value)
        proto = ir.to_proto(model)
    finally:
        graph.inputs.clear()
        graph.inputs.extend(user_inputs)
        for value in large:
            value.const_value = tensors[value.name]
            graph.register_initializer(value)
    arrays = {
        name: np.asarray(tensor.numpy())
        for name, tensor in tensors.items()
        if name is not None and tensor is not None
    }
    return proto, arrays


def reason_of(error: Exception) -> str:
    """Returns why an operator failed in Python."""
    if isinstance(error, MemoryError):
        return f"not enough memory ({error})" if str(error) else "not enough memory"
    return str(error) or type(error).__name__


def _is_large(tensor: Any) -> bool:
    import onnx_ir as ir

    # Strings stay with the graph: their tensors are arrays of bytes.
    has_size = tensor is not None and tensor.dtype != ir.DataType.STRING
    return has_size and tensor.nbytes > _INLINE_BYTES


def make_evaluator(proto: Any) -> Any:
    """Returns onnx's evaluator of a model with sparsert's operators and its own of some others."""
    from onnx.reference import ReferenceEvaluator

    from sparsert.runtime import numpy_ops, packed_ops

    new_ops = [*numpy_ops.SPARSERT_OPS, *packed_ops.PACKED_OPS, *numpy_ops.UNARY_OPS]
    new_ops += [numpy_ops.AVERAGE_POOL, numpy_ops.GLOBAL_MAX_POOL]
    new_ops += [numpy_ops.LOG_SOFTMAX, numpy_ops.PAD, numpy_ops.GATHER_ELEMENTS]
    new_ops += [numpy_ops.GRID_SAMPLE, numpy_ops.LOOP, numpy_ops.CAST]
    nodes = list(proto.graph.node)
    new_ops.append(numpy_ops.MAX_POOL)
    if all(_is_plain_resize(node) for node in nodes if node.op_type == "Resize"):
        new_ops.append(numpy_ops.RESIZE)
    new_ops += [_custom_run(op) for op in custom_ops()]
    try:
        return ReferenceEvaluator(proto, new_ops=new_ops)
    except (NotImplementedError, RuntimeError, TypeError, KeyError) as error:
        raise UnsupportedOpError(f"the numpy backend cannot run the model: {error}") from error


def _custom_run(op: CustomOp) -> type:
    """Teaches the evaluator an operator with a registered kernel."""
    from onnx.reference.op_run import OpRun

    def __init__(self: Any, node: Any, *arguments: Any, **options: Any) -> None:
        OpRun.__init__(self, node, *arguments, **options)
        self.call = op.bind(node)

    def _run(self: Any, *arrays: Any, **attributes: Any) -> tuple[np.ndarray, ...]:
        return self.call.run(arrays)

    members = {"op_domain": op.domain, "__init__": __init__, "_run": _run}
    return type(op.op_type, (OpRun,), members)


def _is_plain_resize(node: Any) -> bool:
    values = {a.name: a for a in node.attribute}
    mode = values["mode"].s.decode() if "mode" in values else "nearest"
    name = "coordinate_transformation_mode"
    coordinates = values[name].s.decode() if name in values else "half_pixel"
    antialias = values["antialias"].i if "antialias" in values else 0
    return mode in ("nearest", "linear") and coordinates != "tf_crop_and_resize" and not antialias
