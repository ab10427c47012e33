"""The C library of sparsert through cffi: for machines whose Python has no compiled extension.

sparsert.load(..., backend="capi") runs models with it. Library has what the extension
sparsert.runtime._core has, so that sparsert.runtime.native_backend works with either.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsert.capi_declarations import ABI_VERSION, DECLARATIONS
from sparsert.errors import BackendError

_OK = 0
_SHAPE = 3
_MAX_RANK = 8
_ALIGNMENT = 64


class NativeError(Exception):
    """A code of the C interface and its text."""


@functools.lru_cache(maxsize=4)
def library(path: str | None = None) -> Library:
    """Returns the C library.

    Args:
        path: of the shared library; None: $SPARSERT_LIBRARY, else the one beside this package's
            files, else the one that the system's loader finds.

    Raises:
        BackendError: cffi or the library is missing, or the library has another ABI version.
    """
    try:
        cffi = importlib.import_module("cffi")
    except ImportError as error:
        raise BackendError(
            f'backend="capi" needs the package cffi ({error}); pip install "sparsert[capi]"'
        ) from error
    ffi = cffi.FFI()
    ffi.cdef(DECLARATIONS)
    failures = []
    for name in _candidates(path):
        try:
            return Library(ffi, ffi.dlopen(name), name)
        except OSError as error:
            failures.append(f"{name}: {error}")
    raise BackendError(
        f"libsparsert of ABI version {ABI_VERSION} was not found ({'; '.join(failures)}); build it "
        "with CMake and install it (docs/c_api.md), or name its path in SPARSERT_LIBRARY"
    )


def _candidates(path: str | None) -> list[str]:
    named = path or os.environ.get("SPARSERT_LIBRARY")
    if named:
        return [named]
    if sys.platform == "darwin":
        file = f"libsparsert.{ABI_VERSION}.dylib"
    else:
        file = f"libsparsert.so.{ABI_VERSION}"
    beside = Path(__file__).parent / "runtime" / file
    return [str(beside), file] if beside.exists() else [file]


class Library:
    """The opened C library, with the names of sparsert.runtime._core."""

    NativeError = NativeError

    def __init__(self, ffi: Any, lib: Any, path: str) -> None:
        self.ffi = ffi
        self.lib = lib
        self.__file__ = path
        try:
            self.abi_version = int(lib.srt_abi_version())
        except AttributeError as error:
            raise BackendError(f"{path}: is not the library of sparsert ({error})") from error
        if self.abi_version != ABI_VERSION:
            raise BackendError(
                f"{path}: has ABI version {self.abi_version}, this package needs {ABI_VERSION}; "
                "install the library of the same version of sparsert"
            )
        self.__version__ = self.text(lib.srt_version())
        self.Budget = functools.partial(Budget, self)
        self.Model = functools.partial(Model, self)
        self.Plan = functools.partial(Plan, self)
        self.Repeat = Repeat

    def isas(self) -> list[str]:
        """Names the instruction sets that this build and machine can run."""
        names: list[str] = []
        while (name := self.lib.srt_isa_name(len(names))) != self.ffi.NULL:
            names.append(self.text(name))
        return names

    def usable_cores(self) -> int:
        """Counts the cores that this process may keep busy."""
        return int(self.lib.srt_usable_cores())

    def text(self, characters: Any, size: int | None = None) -> str:
        """Decodes a C string, terminated or of `size` bytes."""
        data = self.ffi.string(characters) if size is None else self.ffi.buffer(characters, size)
        return bytes(data).decode("utf-8", "replace")

    def call(self, function: Any, *args: Any) -> None:
        """Calls a function whose last parameter is an error.

        Raises:
            NativeError: it does not return SRT_OK.
        """
        error = self.ffi.new("srt_error*")
        code = function(*args, error)
        if code != _OK:
            raise NativeError(int(code), self.text(error.text))

    def free_with(self, owner: Any, free: Callable[[Any], None], handle: Any, *keep: Any) -> None:
        """Frees a handle when its owner goes; `keep` stays until then.

        The order holds in garbage cycles too, unlike that of ffi.gc: who is kept is no garbage yet.
        """
        finalizer = weakref.finalize(owner, _free, free, handle, (self, keep))
        finalizer.atexit = False  # threads may still run the model


def _free(free: Callable[[Any], None], handle: Any, keep: Any) -> None:
    free(handle)


class Budget:
    """The cores that the runs of several models share."""

    def __init__(self, core: Library, cores: int) -> None:
        self._lib = core.lib
        made = core.ffi.new("srt_budget**")
        core.call(core.lib.srt_budget_make, cores, core.ffi.NULL, made)
        self.handle = made[0]
        core.free_with(self, core.lib.srt_budget_free, self.handle)

    @property
    def cores(self) -> int:
        """How many there are."""
        return int(self._lib.srt_budget_cores(self.handle))

    @cores.setter
    def cores(self, cores: int) -> None:
        self._lib.srt_budget_set_cores(self.handle, cores)

    @property
    def busy(self) -> int:
        """Threads that are running now."""
        return int(self._lib.srt_budget_busy(self.handle))

    @property
    def peak(self) -> int:
        """The most threads that ran at once."""
        return int(self._lib.srt_budget_peak(self.handle))

    def after_fork(self) -> None:
        """In the child of a fork: no thread runs."""
        self._lib.srt_budget_after_fork(self.handle)


class Model:
    """A loaded .sprt file. The arguments are those of sparsert.runtime._core.Model."""

    def __init__(
        self,
        core: Library,
        file: np.ndarray,
        threads: int,
        isa: str,
        tune: int,
        budget: Budget | None = None,
        allow_empty: bool = False,
        mapped: bool = False,
    ) -> None:
        self.core = core
        ffi, lib = core.ffi, core.lib
        isa_text = ffi.new("char[]", isa.encode()) if isa else ffi.NULL
        options = ffi.new("srt_options*")
        options.struct_bytes = ffi.sizeof("srt_options")
        options.abi_version = ABI_VERSION
        options.threads = threads
        options.isa = isa_text
        options.tune = tune
        options.allow_empty = allow_empty
        options.budget = ffi.NULL if budget is None else budget.handle
        options.is_mapped = mapped
        made = ffi.new("srt_model**")
        core.call(lib.srt_model_load, address(core, file), file.nbytes, options, made)
        self.handle = made[0]
        core.free_with(self, lib.srt_model_free, self.handle, file, budget)
        count = range(lib.srt_model_input_count(self.handle))
        self.plan_inputs = [i for i in count if lib.srt_model_needs_value(self.handle, i)]
        self.inputs = self._tensors(count, lib.srt_model_input)
        self.outputs = self._tensors(
            range(lib.srt_model_output_count(self.handle)), lib.srt_model_output
        )

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return self.core.text(self.core.lib.srt_model_isa(self.handle))

    @property
    def threads(self) -> int:
        """Threads of one run."""
        return int(self.core.lib.srt_model_threads(self.handle))

    @property
    def weight_bytes(self) -> int:
        """Bytes of decoded and packed weights in memory."""
        return int(self.core.lib.srt_model_weight_bytes(self.handle))

    @property
    def level_names(self) -> list[str]:
        """The names of the levels, the densest first; none of a model without levels."""
        count = self.core.lib.srt_model_level_count(self.handle)
        return [self._name(self.core.lib.srt_model_level_name, i) for i in range(count)]

    @property
    def levels(self) -> list[dict[str, int]]:
        """What each level weighs."""
        info = self.core.ffi.new("srt_level_info*")
        found = []
        for index in range(self.core.lib.srt_model_level_count(self.handle)):
            code = self.core.lib.srt_model_level_info(self.handle, index, info)
            if code != _OK:
                raise NativeError(
                    int(code),
                    f"level {index}: {self.core.text(self.core.lib.srt_status_text(code))}",
                )
            found.append({name: int(getattr(info, name)) for name in _LEVEL})
        return found

    @property
    def level(self) -> int:
        """The index of the level that plans are made for."""
        return int(self.core.lib.srt_model_level(self.handle))

    def set_level(self, name: str) -> None:
        """Plans are made for this level from now on."""
        self.core.call(self.core.lib.srt_model_set_level, self.handle, name.encode())

    def drop_level(self, name: str) -> None:
        """Frees what was packed for a level, once it has no plans."""
        self.core.call(self.core.lib.srt_model_drop_level, self.handle, name.encode())

    def after_fork(self) -> None:
        """In the child of a fork: the model's threads are made anew."""
        self.core.call(self.core.lib.srt_model_after_fork, self.handle)

    def _tensors(
        self, indices: Iterable[int], query: Any
    ) -> list[tuple[str, int, tuple[int | str, ...] | None]]:
        info = self.core.ffi.new("srt_tensor_info*")
        found = []
        for index in indices:
            query(self.handle, index, info)
            shape = None
            if info.shape.rank >= 0:
                dims = list(info.shape.dims)[: info.shape.rank]
                symbol = self.core.lib.srt_model_symbol
                shape = tuple(d if d >= 0 else self._name(symbol, -d - 1) for d in dims)
            found.append((self.core.text(info.name, info.name_bytes), int(info.dtype), shape))
        return found

    def _name(self, query: Any, index: int) -> str:
        name = self.core.ffi.new("const char**")
        size = self.core.ffi.new("size_t*")
        query(self.handle, index, name, size)
        return self.core.text(name[0], size[0])


class Plan:
    """A model ready for input shapes. The arguments are those of sparsert.runtime._core.Plan."""

    def __init__(
        self,
        core: Library,
        model: Model,
        shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[np.dtype[Any]],
        tuning: bytes = b"",
        values: Sequence[np.ndarray | None] = (),
    ) -> None:
        self._core = core
        ffi, lib = core.ffi, core.lib
        if any(len(shape) > _MAX_RANK for shape in shapes):
            raise NativeError(_SHAPE, f"an input has more than {_MAX_RANK} dimensions")
        c_shapes = ffi.new("srt_shape[]", [(len(s), list(s)) for s in shapes])
        pointers, sizes = ffi.NULL, ffi.NULL
        if values:
            pointers = ffi.new(
                "void*[]", [ffi.NULL if v is None else address(core, v) for v in values]
            )
            sizes = ffi.new("size_t[]", [0 if v is None else v.nbytes for v in values])
        made = ffi.new("srt_plan**")
        core.call(
            lib.srt_plan_make_valued,
            *(model.handle, c_shapes, len(shapes), pointers, sizes),
            *(ffi.from_buffer(tuning), len(tuning), made),
        )
        self._handle = made[0]
        core.free_with(self, lib.srt_plan_free, self._handle, model)
        self._outputs = [
            (self._shape(lib.srt_plan_output_shape, i), dtype)
            for i, dtype in enumerate(output_dtypes)
        ]
        self.arena_bytes = int(lib.srt_plan_arena_bytes(self._handle))
        self.plan_bytes = int(lib.srt_plan_memory_bytes(self._handle))
        self._step_count = int(lib.srt_plan_step_count(self._handle))
        self._arenas: list[np.ndarray] = []  # not in use by a run

    @property
    def tuning(self) -> bytes:
        """The measured choices."""
        size = self._core.lib.srt_plan_tuning(self._handle, self._core.ffi.NULL, 0)
        blob = self._core.ffi.new("char[]", max(1, size))
        self._core.lib.srt_plan_tuning(self._handle, blob, size)
        return bytes(self._core.ffi.buffer(blob, size))

    @property
    def slices(self) -> tuple[int, int]:
        """Slices of the batch and images of one; (1, 0) for a batch that is not cut."""
        images = self._core.ffi.new("int64_t*")
        return int(self._core.lib.srt_plan_slices(self._handle, images)), int(images[0])

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """What explain() says of each node."""
        core = self._core
        info = core.ffi.new("srt_node_info*")
        nodes = []
        for index in range(core.lib.srt_plan_node_count(self._handle)):
            core.lib.srt_plan_node(self._handle, index, info)
            node: dict[str, Any] = {"name": core.text(info.name, info.name_bytes)}
            node["output_shape"] = tuple(info.output_shape.dims)[: info.output_shape.rank]
            node.update({name: _plain(core, getattr(info, name)) for name in _NODE_FACTS})
            node["candidates"] = self._candidates(index)
            nodes.append(node)
        return nodes

    def run(self, inputs: Sequence[np.ndarray], timed: bool = False) -> list[Any]:
        """Returns the outputs as new arrays, or the time of each step in nanoseconds."""
        core, ffi = self._core, self._core.ffi
        outputs = [np.empty(shape, dtype) for shape, dtype in self._outputs]
        kept: list[Any] = []  # what the pointers of `run` point to

        def array(kind: str, items: list[Any]) -> Any:
            kept.append(ffi.new(kind, items))
            return kept[-1]

        run = ffi.new("srt_run*")
        run.struct_bytes = ffi.sizeof("srt_run")
        run.input_count = len(inputs)
        run.inputs = array("void*[]", [address(core, x) for x in inputs])
        run.input_bytes = array("size_t[]", [x.nbytes for x in inputs])
        run.output_count = len(outputs)
        run.outputs = array("void*[]", [address(core, y) for y in outputs])
        run.output_bytes = array("size_t[]", [y.nbytes for y in outputs])
        step_ns = np.zeros(self._step_count, np.uint64)
        if timed:
            run.step_ns = ffi.cast("uint64_t*", address(core, step_ns))
            run.step_count = self._step_count
        try:
            arena = self._arenas.pop()  # another thread never gets the same one
        except IndexError:
            arena = _aligned_zeros(self.arena_bytes)
        run.arena = address(core, arena)
        run.arena_bytes = arena.nbytes
        try:
            core.call(core.lib.srt_plan_run, self._handle, run)
        finally:
            self._arenas.append(arena)
        return step_ns.tolist() if timed else outputs

    def after_fork(self) -> None:
        """In the child of a fork: nothing here belongs to a thread."""

    def _shape(self, query: Any, index: int) -> tuple[int, ...]:
        shape = self._core.ffi.new("srt_shape*")
        query(self._handle, index, shape)
        return tuple(shape.dims)[: shape.rank]

    def _candidates(self, node: int) -> list[dict[str, Any]]:
        core = self._core
        candidate = core.ffi.new("srt_candidate*")
        found = []
        for index in range(core.lib.srt_plan_candidate_count(self._handle, node)):
            core.lib.srt_plan_candidate(self._handle, node, index, candidate)
            found.append({name: _plain(core, getattr(candidate, name)) for name in _CANDIDATE})
        return found


_NODE_FACTS = (
    *("op", "weights", "nonzeros", "storage_bytes", "packed_bytes", "storage_format"),
    *("compute_format", "kernel", "isa", "reason", "predicted_ns", "measured_ns"),
    *("first_step", "step_count"),
)
_LEVEL = ("weights", "nonzeros", "file_bytes", "packed_bytes")
_CANDIDATE = (
    *("format", "kernel", "predicted_ns", "measured_ns", "tiles", "tile_columns", "block_depth"),
)


class Repeat:
    """Stands for the extension's short way of a repeated run, which cffi does not make shorter."""

    def __init__(self, names: Any, dtypes: Any, translate: Any) -> None:
        self.function = _no_repeat

    def set_plan(self, plan: Plan) -> None:
        """The plan of the last run: not kept."""


def _no_repeat(feeds: Any) -> None:
    """There is no shorter way for any feeds."""


def address(core: Library, array: np.ndarray) -> Any:
    """Returns the address of a C-contiguous array's data; the caller keeps the array."""
    return core.ffi.cast("void*", array.ctypes.data)


def _plain(core: Library, value: Any) -> Any:
    """A number, or the text that a const char* points to."""
    return value if isinstance(value, int | float) else core.text(value)


def _aligned_zeros(size: int) -> np.ndarray:
    room: np.ndarray = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size]
