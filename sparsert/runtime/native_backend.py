"""The native backend: the C++ core, with one plan per set of input shapes."""

from __future__ import annotations

import functools
import importlib
import mmap
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from sparsert import errors
from sparsert.runtime import tuning_cache
from sparsert.runtime.table import Table, format_bytes
from sparsert.runtime.types import EXPLAIN_COLUMNS, NUMPY_DTYPES, TensorSpec

# Plans kept per model; the least recently used one goes first.
MAX_PLANS = 16

# Compute formats that make no use of zeros; layers without weights have none.
DENSE_FORMATS = ("dense", "dense8", "dense16", "winograd", "")

# Nodes of a quantised model in f32 that a note of explain() names.
_MAX_FLOATS = 8

_TUNE = {False: 0, "auto": 1, True: 2}
_ERRORS: dict[int, type[errors.SparsertError]] = {
    1: errors.BackendError,
    2: errors.ModelFormatError,
    3: errors.ShapeError,
    4: errors.BackendError,
    5: errors.BackendError,
    6: errors.BackendError,
    7: errors.ModelFormatError,
}

_alive: weakref.WeakSet[NativeBackend] = weakref.WeakSet()

# What the models of this process take the cores of their runs from; made by the first load. And
# the same of models in the C library, which the extension knows nothing of.
_budget: Any = None
_library_budget: Any = None
_budget_lock = threading.Lock()


def import_core(backend: str = "native") -> Any:
    """Returns the compiled module, or what stands for it.

    Args:
        backend: "native" for the compiled extension, "capi" for the C library.

    Raises:
        BackendError: the package was installed without its compiled extension; the C library, or
            cffi, is missing.
    """
    if backend == "capi":
        from sparsert.capi import library

        return library()
    try:
        return importlib.import_module("sparsert.runtime._core")
    except ImportError as error:
        raise errors.BackendError(
            "the compiled extension sparsert.runtime._core cannot be imported "
            f"({error}); reinstall sparsert on a machine with a C++17 compiler, or use "
            'backend="capi" (the C library through cffi), backend="numba" or backend="numpy"'
        ) from error


def available_isas() -> list[str]:
    """Names the instruction sets that this build and machine can run, least capable first."""
    return list(import_core().isas())


def usable_cores() -> int:
    """Counts the cores that this process may keep busy: the default of `threads=`.

    They are the physical cores of its CPU mask, or fewer if the CPU quota of its cgroup, or of one
    above it, is less. Without the compiled extension: the CPUs of the mask.
    """
    try:
        return int(import_core().usable_cores())
    except errors.BackendError:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


def process_budget(threads: int | None = None, backend: str = "native") -> Any:
    """Returns the budget that all models of this process share.

    It has as many cores as the process may keep busy, or more if a model asks for more threads:
    then one such model runs with all of them, and several together with no more.

    Args:
        threads: that a model asks for; None: no more than there are cores.
        backend: as in import_core(); each has a budget of its own.
    """
    global _budget, _library_budget
    with _budget_lock:
        if backend == "capi":
            budget = _library_budget = _library_budget or import_core("capi").Budget(0)
        else:
            budget = _budget = _budget or import_core().Budget(0)
        if threads is not None and threads > budget.cores:
            budget.cores = threads
        return budget


def aligned_bytes(data: Any) -> np.ndarray:
    """Returns `data` (any buffer) as uint8 at a 64-byte boundary, copied only if need be."""
    flat: np.ndarray = np.frombuffer(data, np.uint8)
    if flat.ctypes.data % 64 == 0:
        return flat
    room = np.empty(flat.size + 64, np.uint8)
    start = -room.ctypes.data % 64
    aligned = room[start : start + flat.size]
    aligned[:] = flat
    return aligned


class NativeBackend:
    """Runs a .sprt file in the C++ core. Safe to call from many threads at once.

    Args:
        file: the file's bytes (any buffer); kept, since weights are read from it in place. Pages of
            a mapped file that only planning reads do not stay in memory.
        label: names the model in error messages.
        threads: for one run; None: as many cores as this process may use.
        isa: an instruction set by name; None: $SPARSERT_ISA, else the best of this machine.
        tune: True measures every candidate kernel, "auto" the close ones, False none. What was
            measured is kept in the tuning cache and not measured again.
        allow_empty: dimensions of inputs may be 0, as where a fallback found nothing.
        backend: "native" runs it in the compiled extension, "capi" in the C library.
        level: of a file with levels, which one; None: the first.
        keep_levels: whether the packed weights of a level stay when another is chosen.

    Raises:
        ModelFormatError: the bytes are not a valid .sprt file.
        BackendError: the instruction set is absent, or the extension or library is missing.
        ShapeError: the graph's static shapes contradict each other.
        LevelError: there is no such level.
    """

    def __init__(
        self,
        file: Any,
        label: str,
        threads: int | None = None,
        isa: str | None = None,
        tune: bool | str = "auto",
        allow_empty: bool = False,
        backend: str = "native",
        level: str | None = None,
        keep_levels: bool = True,
    ) -> None:
        self._core = import_core(backend)
        self._label = label
        self._tune = tune
        self.file = aligned_bytes(file)
        if self.file.size == 0:
            raise errors.ModelFormatError(f"{label}: the file is empty")
        try:
            self._model = self._core.Model(
                self.file,
                threads or 0,
                isa or "",
                _TUNE[tune],
                process_budget(threads, backend),
                allow_empty,
                mapped=isinstance(file, mmap.mmap),
            )
        except self._core.NativeError as error:
            raise self._translate(error) from None
        self.inputs = [self._spec(*entry) for entry in self._model.inputs]
        self.outputs = [self._spec(*entry) for entry in self._model.outputs]
        self._input_names = [spec.name for spec in self.inputs]
        self._output_names = [spec.name for spec in self.outputs]
        self._repeat = self._core.Repeat(
            self._input_names,
            [spec.dtype for spec in self.inputs],
            functools.partial(_translate, label),
        )
        # (feeds) -> the outputs, by the plan of the last run; None if the feeds are not just what
        # it takes (see Repeat in csrc/python/repeat.h).
        self.run_again: Callable[[Any], list[np.ndarray] | None] = self._repeat.function
        # Inputs whose values a plan depends on: shapes, axes and the like.
        self._plan_inputs: list[int] = self._model.plan_inputs
        # Of the level in use; a change of the level takes others.
        self._plans: OrderedDict[Any, Any] = OrderedDict()
        self._plans_of_levels: dict[str, OrderedDict[Any, Any]] = {}
        self._keep_levels = keep_levels
        self.level_names: list[str] = self._model.level_names
        self._level = self.level_names[0] if self.level_names else None
        self._lock = threading.Lock()
        _alive.add(self)
        if level is not None and level != self._level:
            self.set_level(level)
        else:
            self._plan_static()

    def _plan_static(self) -> None:
        """Makes the plan of a model whose inputs have one shape."""
        is_static = all(s.shape and all(isinstance(d, int) for d in s.shape) for s in self.inputs)
        if is_static and not self._plan_inputs:
            self._plan([s.shape for s in self.inputs])

    @property
    def level(self) -> str | None:
        """The level in use; None for a model without levels."""
        return self._level

    def set_level(self, name: str) -> None:
        """Chooses the level of the runs that begin from now on; others end on theirs.

        Raises:
            LevelError: there is no such level.
        """
        if name not in self.level_names:
            raise errors.unknown_level(self._label, name, self.level_names)
        with self._lock:
            before = self._level
            if name == before:
                return
            assert before is not None
            try:
                self._model.set_level(name)
                if not self._keep_levels:
                    self._model.drop_level(before)
            except self._core.NativeError as error:
                raise self._translate(error) from None
            if self._keep_levels:
                self._plans_of_levels[before] = self._plans
            self._plans = self._plans_of_levels.pop(name, OrderedDict())
            self._level = name
            self._repeat.set_plan(next(reversed(self._plans.values()), None))
        self._plan_static()

    def levels(self) -> list[dict[str, Any]]:
        """What each level weighs."""
        try:
            facts = self._model.levels
        except self._core.NativeError as error:
            raise self._translate(error) from None
        return [{"name": name, **fact} for name, fact in zip(self.level_names, facts, strict=True)]

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return str(self._model.isa)

    @property
    def threads(self) -> int:
        """Threads of one run, the calling one included."""
        return int(self._model.threads)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs from checked feeds."""
        outputs = self.run_again(feeds)
        if outputs is None:
            arrays = [feeds[name] for name in self._input_names]
            outputs = self._run_plan(self._plan_of(arrays), arrays)
        return dict(zip(self._output_names, outputs, strict=True))

    def explain(self) -> Table:
        """Says how each layer runs and why: for the last shapes used, else with 1 for symbols."""
        plan = self._some_plan()
        floats = self._float_layers()
        nodes = [
            {**n, "reason": f"{n['reason']}; in f32: {floats[n['name']]}".removeprefix("; ")}
            if n["name"] in floats
            else n
            for n in plan.nodes
        ]
        rows = [
            (
                n["name"],
                n["op"],
                "x".join(map(str, n["output_shape"])),
                f"{100 * (1 - n['nonzeros'] / n['weights']):.1f} %" if n["weights"] else "",
                n["storage_format"],
                format_bytes(n["storage_bytes"]) if n["weights"] else "",
                n["compute_format"],
                format_bytes(n["packed_bytes"]) if n["packed_bytes"] else "",
                n["kernel"],
                _candidate_cell(n["candidates"]),
                n["reason"],
            )
            for n in nodes
        ]
        weights = sum(n["weights"] for n in nodes)
        nonzeros = sum(n["nonzeros"] for n in nodes)
        zeros = 100 * (1 - nonzeros / weights) if weights else 0.0
        sparse = sum(n["weights"] > 0 and n["compute_format"] not in DENSE_FORMATS for n in nodes)
        memory = self.memory()
        notes = [
            f"isa {self.isa}, {self.threads} thread(s); {sparse} of "
            f"{sum(n['weights'] > 0 for n in nodes)} layers with weights run sparse; "
            f"{zeros:.1f} % of {weights:,} weights are zero",
            f"memory: file {format_bytes(memory['file_bytes'])}, packed weights "
            f"{format_bytes(memory['packed_bytes'])}, arena {format_bytes(memory['arena_bytes'])}",
        ]
        if any(n["candidates"] for n in nodes):
            notes.append(
                "candidates: the chosen one first; us on one thread, measured with the weights "
                "cold (warm in a model that stays in cache), or predicted (~); +n: others, in "
                "to_dict()"
            )
        if floats:
            shown = [f"{name} ({why})" for name, why in [*floats.items()][:_MAX_FLOATS]]
            more = f" and {len(floats) - len(shown)} more" if len(floats) > len(shown) else ""
            notes.append(f"in f32 in a quantised model: {', '.join(shown)}{more}")
        slices, images = plan.slices
        if slices > 1:
            grows = any("images at a time" in node["reason"] for node in nodes)
            larger = ", in larger ones from a layer on that says so" if grows else ""
            notes.append(
                f"the batch runs in {slices} slices of {images} image(s){larger}; the times of "
                "candidates are of one slice"
            )
        if self._level is not None:
            others = [name for name in self.level_names if name != self._level]
            notes.append(f"level '{self._level}'; the file also has {', '.join(others)}")
        title = f"{self._label}: how each layer runs"
        return Table(title, EXPLAIN_COLUMNS, rows, notes, records=nodes)

    def _float_layers(self) -> dict[str, str]:
        """Returns why layers of a quantised model are in f32, by name."""
        from sparsert.modelfile import read_metadata
        from sparsert.modelfile.tables import FLOAT_LAYERS

        found = read_metadata(self.file).get(FLOAT_LAYERS)
        return found if isinstance(found, dict) else {}

    def memory(self) -> dict[str, int]:
        """Bytes of the file, the packed weights, and the arena and plan that explain() shows."""
        plan = self._some_plan()
        return {
            "file_bytes": int(self.file.nbytes),
            "arena_bytes": int(plan.arena_bytes),
            "plan_bytes": int(plan.plan_bytes),
            "packed_bytes": int(self._model.weight_bytes),
        }

    def profile(self, feeds: Mapping[str, np.ndarray], runs: int = 10) -> Table:
        """Times each layer: medians over `runs` runs after one to warm up."""
        arrays = [feeds[spec.name] for spec in self.inputs]
        plan = self._plan_of(arrays)
        timings = [self._run_plan(plan, arrays, timed=True) for _ in range(runs + 1)][1:]
        total = median(sum(steps) for steps in timings)
        rows, records = [], []
        for n in plan.nodes:
            first, count = n["first_step"], n["step_count"]
            ns = median(sum(steps[first : first + count]) for steps in timings)
            rows.append(
                (
                    n["name"],
                    n["op"],
                    "x".join(map(str, n["output_shape"])),
                    n["kernel"],
                    ns / 1e3,
                    100 * ns / total if total else 0.0,
                )
            )
            records.append({**n, "time_ns": ns})
        notes = [f"total {total / 1e6:.3f} ms, {self.threads} thread(s), isa {self.isa}"]
        title = f"{self._label}: median of {runs} runs"
        columns = ["layer", "op", "output", "kernel", "us", "%"]
        return Table(title, columns, rows, notes, records=records)

    def after_fork(self) -> None:
        """Makes threads and locks anew in the child of a fork."""
        self._lock = threading.Lock()
        self._model.after_fork()
        for plans in (self._plans, *self._plans_of_levels.values()):
            for plan in plans.values():
                plan.after_fork()

    def _spec(self, name: str, dtype: int, shape: tuple[int | str, ...] | None) -> TensorSpec:
        return TensorSpec(name, shape, NUMPY_DTYPES[dtype])

    def _plan_of(self, arrays: list[np.ndarray]) -> Any:
        shapes = [array.shape for array in arrays]
        if not self._plan_inputs:
            return self._plan(shapes)
        values: list[np.ndarray | None] = [None] * len(arrays)
        for index in self._plan_inputs:
            values[index] = arrays[index]
        return self._plan(shapes, values)

    def _plan(self, shapes: list[Any], values: Sequence[np.ndarray | None] = ()) -> Any:
        key: tuple[Any, ...] = tuple(tuple(shape) for shape in shapes)
        key += tuple(value.tobytes() for value in values if value is not None)
        with self._lock:
            plan = self._plans.get(key)
            if plan is not None:
                self._plans.move_to_end(key)
                self._remember(plan)
                return plan
            try:
                plan = self._make_plan(key, shapes, list(values))
            except self._core.NativeError as error:
                raise self._translate(error) from None
            self._plans[key] = plan
            self._remember(plan)
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
            return plan

    def _remember(self, plan: Any) -> None:
        """Lets run_again() use a plan, unless it holds for certain values alone."""
        if not self._plan_inputs:
            self._repeat.set_plan(plan)

    def _make_plan(self, key: tuple[Any, ...], shapes: list[Any], values: list[Any]) -> Any:
        dtypes = [spec.dtype for spec in self.outputs]
        if not self._tune:
            return self._core.Plan(self._model, shapes, dtypes, values=values)
        of_level = () if self._level is None else (f"level {self._level}".encode(),)
        name = tuning_cache.file_name(
            self._core, self.file, self.isa, self.threads, self._tune, (*key, *of_level)
        )
        known = tuning_cache.read(name)
        plan = self._core.Plan(self._model, shapes, dtypes, known, values)
        measured = plan.tuning
        if measured and measured != known:
            tuning_cache.write(name, measured)
        return plan

    def _some_plan(self) -> Any:
        with self._lock:
            if self._plans:
                return next(reversed(self._plans.values()))
        if self._plan_inputs:
            names = ", ".join(f"'{self.inputs[i].name}'" for i in self._plan_inputs)
            raise errors.BackendError(
                f"{self._label}: how it runs depends on the values of {names}: run it first"
            )
        shapes = [
            [d if isinstance(d, int) else 1 for d in spec.shape or ()] for spec in self.inputs
        ]
        try:
            return self._plan(shapes)
        except errors.ShapeError as error:
            if all(isinstance(d, int) for spec in self.inputs for d in spec.shape or ("rank",)):
                raise
            raise errors.BackendError(
                f"{self._label}: how it runs depends on the sizes of its inputs, and 1 for each "
                f"that the model leaves open is too small: run it first"
            ) from error

    def _run_plan(self, plan: Any, arrays: list[np.ndarray], timed: bool = False) -> Any:
        try:
            return plan.run(arrays, timed=timed)
        except self._core.NativeError as error:
            raise self._translate(error) from None

    def _translate(self, error: Any) -> errors.SparsertError:
        return _translate(self._label, *error.args)


def _translate(label: str, code: int, text: str) -> errors.SparsertError:
    return _ERRORS.get(code, errors.BackendError)(f"{label}: {text}")


def _candidate_cell(candidates: list[dict[str, Any]]) -> str:
    """The chosen candidate, the next best, and the best dense one: 'pat4 12.1, dense ~30 +4'."""
    if not candidates:
        return ""
    families = {c["kernel"].split("_")[0] for c in candidates} - {"winograd"}

    def text(c: dict[str, Any]) -> str:
        family = c["kernel"].split("_")[0] + " "
        if len(families) < 2 or c["format"] == "winograd":
            family = ""
        us = (c["measured_ns"] or c["predicted_ns"]) / 1e3
        time = f"{us:.3g}" if us < 100 else f"{us:.0f}"
        return f"{family}{c['format']} {'' if c['measured_ns'] else '~'}{time}"

    others = sorted(
        candidates[1:], key=lambda c: (c["measured_ns"] == 0, c["measured_ns"] or c["predicted_ns"])
    )
    shown = [candidates[0], *others[:1]]
    dense = next((c for c in others[1:] if c["format"].startswith("dense")), None)
    if dense is not None and not any(c["format"].startswith("dense") for c in shown):
        shown.append(dense)
    hidden = len(candidates) - len(shown)
    return ", ".join(map(text, shown)) + (f" +{hidden}" if hidden else "")


def _after_fork() -> None:
    global _budget_lock
    _budget_lock = threading.Lock()
    for budget in (_budget, _library_budget):
        if budget is not None:
            budget.after_fork()
    for backend in list(_alive):
        backend.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
