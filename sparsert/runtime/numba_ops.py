"""Which operators Numba's kernels run: the table from an operator to what makes its step.

Those that are there are in the modules that load_makers() imports.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparsert.kernels import activations
from sparsert.runtime.numpy_functions import activate

if TYPE_CHECKING:
    import onnx_ir as ir

    from sparsert.runtime.numba_room import Room

# Modules of this package with functions that @makes registers.
_MODULES = (
    *("numba_layers", "numba_pools", "numba_elementwise", "numba_qops", "numba_attention"),
    *("numba_norms", "numba_recurrent"),
)
PACKED_BYTES = 12  # the number of uint32 in TensorProto.DataType
_Arrays = Sequence[Any]


class Step(Protocol):
    """What runs one node.

    Attributes:
        kernel: name of its kernel.
        format: of its weights; "" without any.
        why: the reason for the format.
        weights: elements of its weights.
        nonzeros: those that are not zero.
        packed_bytes: of its weights in memory.
        constants: indices of inputs that were read when it was made, and are not given to run().
    """

    kernel: str
    format: str
    why: str
    weights: int
    nonzeros: int
    packed_bytes: int
    constants: Sequence[int]

    def run(self, inputs: _Arrays, room: Room) -> _Arrays:
        """Computes the outputs; memory and threads are the room's."""
        ...


@dataclasses.dataclass(frozen=True)
class Node:
    """A node of the graph as the makers of steps see it.

    Attributes:
        op: its type.
        attributes: values by name.
        constants: the value of each input that is a constant, else None.
        inputs: for each input its type, or None where it is absent.
        outputs: how many there are.
    """

    op: str
    attributes: dict[str, Any]
    constants: list[np.ndarray | None]
    inputs: list[np.dtype[Any] | None]
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        """Returns an attribute; the default if it is absent or empty."""
        value = self.attributes.get(name)
        return default if value is None or value == [] or value == () else value


# (domain, op) -> what makes its step, or says why there is none.
MAKERS: dict[tuple[str, str], Callable[[Node], Step | str]] = {}


def makes(op: str, domain: str = "") -> Callable[[Any], Any]:
    """Registers a function or class that makes the steps of an operator."""

    def register(maker: Any) -> Any:
        MAKERS[domain, op] = maker
        return maker

    return register


def load_makers() -> None:
    """Fills the table.

    Raises:
        ImportError: Numba is not installed.
    """
    for name in _MODULES:
        importlib.import_module(f"sparsert.runtime.{name}")


def make_step(node: ir.Node) -> Step | str:
    """Returns the step of a node, or why NumPy runs it."""
    maker = MAKERS.get((node.domain, node.op_type))
    if maker is None:
        return f"no kernel of Numba for {node.op_type}"
    return maker(read_node(node))


def read_node(node: ir.Node) -> Node:
    """Returns a node as the makers of steps see it."""
    constants: list[np.ndarray | None] = []
    inputs: list[np.dtype[Any] | None] = []
    for value in node.inputs:
        constant = None if value is None else value.const_value
        constants.append(None if constant is None else np.asarray(constant.numpy()))
        known = value is not None and value.dtype is not None
        inputs.append(np.dtype(value.dtype.numpy()) if known and value and value.dtype else None)
    values = {name: attribute.value for name, attribute in node.attributes.items()}
    return Node(node.op_type, values, constants, inputs, len(node.outputs))


def as_floats(y: np.ndarray) -> np.ndarray:
    """Returns an array of four bytes an element as kernels move it."""
    return y.reshape(-1).view(np.float32)


class StepWithoutWeights:
    """What a step says of weights when it has none."""

    format = why = ""
    weights = nonzeros = packed_bytes = 0
    constants: Sequence[int] = ()


class Activation:
    """act() of a node: bounds or a function of the kernels, or one that follows in NumPy.

    Attributes:
        arguments: number and two parameters, as the kernels take them.
    """

    def __init__(self, fn: str | None, alpha: float = 0.0, beta: float = 0.0) -> None:
        bounds = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
        self._after: tuple[str, float, float] | None = None
        fn = fn or "none"
        if fn not in bounds and fn not in activations.FUNCTIONS:
            self._after, fn = (fn, alpha, beta), "none"
        if fn in bounds:
            fn, (alpha, beta) = "clip", bounds[fn]
        self.arguments = (activations.FUNCTIONS.index(fn), np.float32(alpha), np.float32(beta))

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left for finish()."""
        return self._after is None

    @staticmethod
    def of(node: Node) -> Activation:
        """Returns what the attributes of a node say."""
        return Activation(node.get("act"), node.get("act_alpha", 0.0), node.get("act_beta", 0.0))

    def finish(self, y: np.ndarray) -> np.ndarray:
        """Returns y after a function that the kernels do not have."""
        return y if self._after is None else activate(y, *self._after)
