"""Operators of a user's own: the decorator custom_op, and what the engines need to run them."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.errors import BackendError, UnsupportedOpError, describe_problems

if TYPE_CHECKING:
    import onnx

# Inferred shapes that a bound operator remembers, one for each set of input shapes.
_MAX_SHAPES = 64

_registry: dict[tuple[str, str], CustomOp] = {}
_lock = threading.Lock()


class Dim:
    """A dimension whose size only a run tells; sums and products with it are such ones, too.

    Attributes:
        name: the symbol that the model has for it; None if it has none.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def _unknown(self, other: Any) -> Dim:
        return Dim()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _unknown
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _unknown

    def __repr__(self) -> str:
        return self.name or "?"


@dataclasses.dataclass(frozen=True)
class Spec:
    """What is known of a tensor: that is what an `infer` function gets and returns.

    Attributes:
        shape: ints; Dim where only a run tells, or None in what `infer` returns.
        dtype: anything that numpy.dtype() takes.
        value: of an input, its elements if they are known; None when the model is loaded and they
            are no constant.
    """

    shape: Sequence[int | Dim | None]
    dtype: Any
    value: np.ndarray | None = None

    def __repr__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{np.dtype(self.dtype)}[{dims}]"


def custom_op(
    domain: str,
    op_type: str,
    *,
    infer: Callable[..., Any] | None = None,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as the kernel of an ONNX operator, for every load() from then on.

    The function takes one array for each input of the node, in order (None for one that is absent),
    and the node's attributes as keyword-only parameters: ints and strings, floats as numpy.float32,
    lists as tuples, tensors as arrays. It returns the output, or a tuple of them; it must not write
    to its inputs. NumPy code will do; code compiled with numba.njit or numba.vectorize is faster.

    It runs where a node is not native, between native parts of the graph, and is preferred to a
    fallback engine. Since it was asked for there is no warning, and strict=True allows it. A .sprt
    file holds no Python, so that such a model cannot be saved or converted.

    Args:
        domain: of the operator; not that of ONNX itself.
        op_type: its name.
        infer: takes a Spec for each input and those of the attributes that it names, and returns
            the Spec of the output, or a tuple of them. Called when a model is loaded, with what is
            known then, and for the shapes of each run: what the kernel returns must be just that.
            Without it, each output is as the first input.
        name: in explain(), profile() and messages; None: the function's own.

    Returns:
        A decorator; it leaves the function as it is. Registering an operator again replaces it for
        the models that are loaded later.

    Raises:
        ValueError: the domain is ONNX's own or sparsert's, or a name is empty.

    Example:
        >>> @custom_op("com.example", "Halve")
        ... def halve(x):
        ...     return x / numpy.float32(2)
    """
    if domain in ("", "ai.onnx", "sparsert"):
        raise ValueError(
            f"domain {domain!r}: operators of ONNX and sparsert are not replaced; give the domain "
            "that the model has for the operator"
        )
    if not op_type:
        raise ValueError("op_type is empty; give the operator's name")

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        op = CustomOp(domain, op_type, function, infer, name or name_of(function))
        with _lock:
            _registry[domain, op_type] = op
        return function

    return register


def find_custom_op(domain: str, op_type: str) -> CustomOp | None:
    """Returns the registered operator, if there is one."""
    return _registry.get((domain, op_type))


def custom_ops() -> list[CustomOp]:
    """Returns all that are registered."""
    with _lock:
        return list(_registry.values())


def name_of(function: Callable[..., Any]) -> str:
    """Returns the name of a function, compiled or not."""
    return str(getattr(function, "__name__", type(function).__name__))


@dataclasses.dataclass(frozen=True)
class CustomOp:
    """A registered operator: see custom_op()."""

    domain: str
    op_type: str
    function: Callable[..., Any]
    infer: Callable[..., Any] | None
    name: str

    @property
    def kernel(self) -> str:
        """The kernel's name in tables: "threshold (numba)"."""
        is_compiled = type(self.function).__module__.split(".")[0] == "numba"
        return f"{self.name} ({'numba' if is_compiled else 'python'})"

    def bind(self, node: onnx.NodeProto) -> CustomCall:
        """Makes the operator ready to run one node.

        Raises:
            UnsupportedOpError: the function does not take the node's inputs or attributes.
        """
        where = f"node '{node.name}' ({self.domain}::{self.op_type})"
        signature = _Signature.of(self.function)
        attributes: dict[str, Any] = {}
        problems: list[str] = []
        for attribute in node.attribute:
            try:
                attributes[attribute.name] = _attribute_value(attribute)
            except ValueError as error:
                problems.append(f"its attribute '{attribute.name}' {error}")
        if not problems:
            problems = signature.misfits(len(node.input), attributes)
        if problems:
            texts = [f"{problem} (kernel '{self.name}')" for problem in problems]
            raise UnsupportedOpError(describe_problems(where, texts))
        attributes = {**signature.defaults, **attributes}
        absent = signature.positional[len(node.input) :]
        return CustomCall(self, where, attributes, absent, [bool(name) for name in node.output])


def _attribute_value(attribute: onnx.AttributeProto) -> Any:
    """Returns an attribute as kernels take it.

    Raises:
        ValueError: it is a graph, a type or the like.
    """
    from onnx import AttributeProto, helper, numpy_helper

    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.FLOAT:
        return np.float32(value)
    if attribute.type == AttributeProto.INT:
        return int(value)
    if attribute.type == AttributeProto.STRING:
        return value.decode()
    if attribute.type == AttributeProto.FLOATS:
        return tuple(np.float32(v) for v in value)
    if attribute.type == AttributeProto.INTS:
        return tuple(int(v) for v in value)
    if attribute.type == AttributeProto.STRINGS:
        return tuple(v.decode() for v in value)
    if attribute.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(value)
    raise ValueError("is a graph or the like; kernels take numbers, text and tensors")


@dataclasses.dataclass(frozen=True)
class _Signature:
    """What a function takes.

    Attributes:
        positional: the default of each, inspect.Parameter.empty without one.
        defaults: of keyword-only parameters that have one; Numba wants them spelled out.
        required: keyword-only parameters without a default.
        takes_more: further inputs, and further attributes.
    """

    positional: list[Any]
    defaults: dict[str, Any]
    required: list[str]
    takes_more: tuple[bool, bool]

    @staticmethod
    def of(function: Callable[..., Any]) -> _Signature:
        try:
            found = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # as of numba.vectorize
            return _Signature([], {}, [], (True, True))
        named = [p for p in found if p.kind is p.KEYWORD_ONLY]
        return _Signature(
            [p.default for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)],
            {p.name: p.default for p in named if p.default is not p.empty},
            [p.name for p in named if p.default is p.empty],
            (
                any(p.kind is p.VAR_POSITIONAL for p in found),
                any(p.kind is p.VAR_KEYWORD for p in found),
            ),
        )

    def named(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Returns those of the attributes that are keyword-only parameters."""
        if self.takes_more[1]:
            return attributes
        known = {*self.defaults, *self.required}
        return {name: value for name, value in attributes.items() if name in known}

    def misfits(self, inputs: int, attributes: dict[str, Any]) -> list[str]:
        """Says what of a node the function does not take."""
        problems = []
        least, most = (
            sum(d is inspect.Parameter.empty for d in self.positional),
            len(self.positional),
        )
        if inputs < least or (inputs > most and not self.takes_more[0]):
            expected = f"{least}" if least == most else f"{least} to {most}"
            expected = f"{least} or more" if self.takes_more[0] else expected
            problems.append(f"it has {inputs} inputs; expected {expected}")
        for name in attributes.keys() - self.named(attributes).keys():
            known = ", ".join(f"'{n}'" for n in (*self.required, *self.defaults)) or "none"
            problems.append(
                f"its attribute '{name}' is not a keyword-only parameter; there are: {known}"
            )
        missing = [name for name in self.required if name not in attributes]
        return problems + [f"its attribute '{name}' is missing" for name in missing]


class CustomCall:
    """A registered operator with the attributes of one node.

    Args:
        op: the operator.
        where: names the node in messages.
        attributes: what the kernel is called with besides the inputs.
        absent: defaults of inputs that the node does not have.
        wanted: which of the node's outputs have a name.
    """

    def __init__(
        self,
        op: CustomOp,
        where: str,
        attributes: dict[str, Any],
        absent: Sequence[Any],
        wanted: Sequence[bool],
    ) -> None:
        self.op = op
        self.where = where
        self._attributes = attributes
        self._absent = absent
        self._wanted = wanted
        self._known: dict[Any, list[Spec]] = {}

    def infer(self, inputs: Sequence[Spec | None]) -> list[Spec]:
        """Returns what the node's outputs are.

        Raises:
            UnsupportedOpError: the infer function failed, or returned something else than Specs.
        """
        count = len(self._wanted)
        if self.op.infer is None:
            if not inputs or inputs[0] is None:
                raise UnsupportedOpError(
                    f"{self.where}: custom_op() needs an infer function for operators whose first "
                    "input may be absent"
                )
            return [Spec(inputs[0].shape, inputs[0].dtype)] * count
        try:
            attributes = _Signature.of(self.op.infer).named(self._attributes)
            result = self.op.infer(*inputs, **attributes)
            outputs = list(result) if isinstance(result, tuple | list) else [result]
            outputs = [Spec(tuple(spec.shape), np.dtype(spec.dtype)) for spec in outputs]
        except Exception as error:
            given = ", ".join(map(str, inputs))
            raise UnsupportedOpError(
                f"{self.where}: its infer function failed for {given}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if len(outputs) < count:
            raise UnsupportedOpError(
                f"{self.where}: its infer function returned {len(outputs)} Spec(s) for {count} "
                "outputs"
            )
        return outputs[:count]

    def run(self, arrays: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
        """Computes the node's outputs.

        Raises:
            BackendError: the kernel failed, or returned other shapes or dtypes than it should.
        """
        inputs = [x if x is None else np.asarray(x, order="C") for x in arrays]
        expected = self._expected(inputs)
        try:
            result = self.op.function(*inputs, *self._absent, **self._attributes)
        except Exception as error:
            raise BackendError(
                f"{self.where}: the kernel '{self.op.name}' failed: {type(error).__name__}: {error}"
            ) from error
        outputs = result if isinstance(result, tuple | list) else (result,)
        problems = _mismatches(outputs, expected)
        if problems:
            given = ", ".join("none" if x is None else str(Spec(x.shape, x.dtype)) for x in inputs)
            texts = [f"{problem}, for inputs {given}" for problem in problems]
            where = f"{self.where}: the kernel '{self.op.name}'"
            raise BackendError(describe_problems(where, texts))
        return tuple(np.asarray(y) for y in outputs[: len(expected)])

    def _expected(self, inputs: Sequence[np.ndarray | None]) -> list[Spec]:
        key: tuple[Any, ...] = tuple(None if x is None else (x.shape, x.dtype.num) for x in inputs)
        # Small integers may be shapes and axes, on whose values the outputs' shapes depend.
        key += tuple(
            x.tobytes() for x in inputs if x is not None and x.dtype.kind == "i" and x.size <= 16
        )
        known = self._known.get(key)
        if known is None:
            known = self.infer([None if x is None else Spec(x.shape, x.dtype, x) for x in inputs])
            if len(self._known) >= _MAX_SHAPES:
                self._known.clear()
            self._known[key] = known
        return known


def _mismatches(outputs: Sequence[Any], expected: Sequence[Spec]) -> list[str]:
    if len(outputs) < len(expected):
        return [f"returned {len(outputs)} output(s); expected {len(expected)}"]
    problems = []
    for index, (y, spec) in enumerate(zip(outputs, expected, strict=False)):
        if not isinstance(y, np.ndarray | np.generic):
            problems.append(f"returned output {index} as {type(y).__name__}; expected an array")
            continue
        fits = y.dtype == spec.dtype and len(y.shape) == len(spec.shape)
        fits = fits and all(
            not isinstance(want, int | np.integer) or have == want
            for have, want in zip(y.shape, spec.shape, strict=True)
        )
        if not fits:
            problems.append(f"returned output {index} as {Spec(y.shape, y.dtype)}; expected {spec}")
    return problems
