"""The backend interface of the onnx package (onnx.backend.base) over sparsert.load()."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.backend.base import Backend, BackendRep, namedtupledict

from sparsert.api import load
from sparsert.runtime.model import Model

__all__ = [
    "SparsertBackend",
    "SparsertBackendRep",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]

_Feeds = Mapping[str, Any] | Sequence[Any] | np.ndarray


class SparsertBackendRep(BackendRep):
    """A model that is ready to run.

    Attributes:
        model: as sparsert.load() returned it.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def run(self, inputs: _Feeds, **kwargs: Any) -> tuple[Any, ...]:
        """Computes all outputs.

        Args:
            inputs: arrays in the order of the model's inputs, or by their names; or the array of a
                model of one input.
            kwargs: none is known.

        Returns:
            A named tuple of the outputs; outputs can also be had by name.

        Raises:
            ShapeError: an input is missing, unknown, or of the wrong dtype or shape.
            TypeError: an unknown option.
        """
        if kwargs:
            raise TypeError(f"unknown options {', '.join(sorted(kwargs))}")
        names = [spec.name for spec in self.model.inputs]
        if isinstance(inputs, Mapping):
            feeds = dict(inputs)
        else:
            arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
            if len(arrays) > len(names):
                raise TypeError(f"{len(arrays)} arrays for {len(names)} inputs")
            feeds = dict(zip(names, arrays, strict=False))
        outputs = self.model.run(None, feeds)
        named = namedtupledict("Outputs", [spec.name for spec in self.model.outputs])
        return named(*outputs)


class SparsertBackend(Backend):
    """Runs ONNX models with sparsert, as other backends of the onnx package run them."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Says whether prepare() would succeed with the same arguments."""
        from sparsert.errors import SparsertError

        if not cls.supports_device(device):
            return False
        try:
            cls.prepare(model, device, **kwargs)
        except SparsertError:
            return False
        return True

    @classmethod
    def prepare(
        cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any
    ) -> SparsertBackendRep:
        """Loads a model.

        Args:
            model: an onnx.ModelProto.
            device: "CPU".
            kwargs: options of sparsert.load(), such as strict=True or threads=1.

        Raises:
            ValueError: another device.
            SparsertError: as sparsert.load().

        Example:
            >>> from sparsert.compat import onnx_backend
            >>> outputs = onnx_backend.prepare(model, strict=True).run([x])  # doctest: +SKIP
        """
        if not cls.supports_device(device):
            raise ValueError(f"device is {device!r}; sparsert runs on the CPU")
        return SparsertBackendRep(load(model, **kwargs))

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: _Feeds, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Loads a model and runs it once; see prepare() and SparsertBackendRep.run()."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: _Feeds,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Runs one operator.

        Args:
            node: the operator with the names of its inputs and outputs.
            inputs: arrays in the order of the node's inputs, absent ones left out, or by name.
            device: "CPU".
            outputs_info: (dtype, shape) of each output, where they are not to be inferred.
            kwargs: opset_version of the operator (the newest one, unless given), and options of
                sparsert.load().
        """
        opset = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        present = list(dict.fromkeys(name for name in node.input if name))
        if isinstance(inputs, Mapping):
            feeds = {name: np.asarray(inputs[name]) for name in present}
        else:
            arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
            if len(arrays) != len(present):
                raise TypeError(f"{len(arrays)} arrays for the inputs {', '.join(present)}")
            feeds = {name: np.asarray(x) for name, x in zip(present, arrays, strict=True)}
        model = _model_of(node, feeds, opset, outputs_info)
        return cls.run_model(model, feeds, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Says whether models run on a device, such as "CPU" or "CUDA:0"."""
        return device.split(":")[0] == "CPU"


def _model_of(
    node: onnx.NodeProto,
    feeds: Mapping[str, np.ndarray],
    opset: int,
    outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None,
) -> onnx.ModelProto:
    """Builds a model of one node; types and shapes of its outputs are inferred or given."""
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in feeds.items()
    ]
    names = [name for name in node.output if name]
    if outputs_info is None:
        results = [onnx.ValueInfoProto(name=name) for name in names]
    else:
        results = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
            )
            for name, (dtype, shape) in zip(names, outputs_info, strict=True)
        ]
    graph = helper.make_graph([node], node.op_type or "node", values, results)
    imports = [helper.make_opsetid("", opset)]
    if node.domain not in ("", "ai.onnx"):
        imports.append(helper.make_opsetid(node.domain, 1))
    model = helper.make_model(graph, opset_imports=imports)
    return onnx.shape_inference.infer_shapes(model) if outputs_info is None else model


# The functions of the interface, as other backends' modules have them.
is_compatible = SparsertBackend.is_compatible
prepare = SparsertBackend.prepare
run_model = SparsertBackend.run_model
run_node = SparsertBackend.run_node
supports_device = SparsertBackend.supports_device
