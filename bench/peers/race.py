"""Runs a race: engines as separate processes, taking turns in rounds, one measuring at a time."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsert.report.race import save_arrays
from sparsert.report.turns import Timed, WorkerProcess, max_relative_error, runs_of_a_turn

ROOT = Path(__file__).resolve().parents[2]
DEEPSPARSE_PYTHON = ROOT / ".venv-deepsparse" / "bin" / "python"
REFERENCE = "onnxruntime"
# Instruction sets that OpenVINO's oneDNN can be limited to, by our names.
ONEDNN_ISAS = {"avx2": "AVX2", "avx512": "AVX512_CORE", "avx512vnni": "AVX512_CORE_VNNI"}


@dataclasses.dataclass(frozen=True)
class Entrant:
    """An engine with the file that it reads.

    Attributes:
        name: as printed: `sparsert`, `sparsert-onnx`, `sparsert@avx2`, `onnxruntime`, ...
        module: of bench.peers.engines.
        suffix: of the file, ".onnx" or ".sprt".
        isa: instruction set that sparsert is forced to, or OpenVINO limited to; or "".
    """

    name: str
    module: str
    suffix: str
    isa: str = ""

    @property
    def python(self) -> str:
        """The interpreter that has this engine."""
        return str(DEEPSPARSE_PYTHON) if self.module == "deepsparse" else sys.executable

    def start(self) -> WorkerProcess:
        """Starts its worker."""
        env = dict(os.environ, PYTHONPATH=str(ROOT))
        env["SPARSERT_CACHE"] = "0"  # what loads on a busier machine chose does not count
        if self.isa and self.module == "sparsert":
            env["SPARSERT_ISA"] = self.isa
        elif self.isa:
            env["ONEDNN_MAX_CPU_ISA"] = ONEDNN_ISAS[self.isa]
        return WorkerProcess([self.python, "-m", "bench.peers.worker"], env, cwd=ROOT)


def parse_entrant(name: str) -> Entrant:
    """Reads an engine's name as given on the command line."""
    base, _, isa = name.partition("@")
    if base == "sparsert":
        return Entrant(name, "sparsert", ".sprt", isa)
    if name == "sparsert-numba":
        return Entrant(name, "sparsert_numba", ".sprt")
    if base == "sparsert-onnx":
        return Entrant(name, "sparsert", ".onnx", isa)
    if base in ("onnxruntime", "openvino", "deepsparse", "torch") and not isa:
        return Entrant(name, base, ".onnx")
    if base == "openvino" and isa in ONEDNN_ISAS:
        return Entrant(name, base, ".onnx", isa)
    raise ValueError(
        f"unknown engine {name!r}; there are: sparsert, sparsert-onnx (both also with @ISA), "
        "sparsert-numba, onnxruntime, "
        f"openvino (also with @{', @'.join(ONEDNN_ISAS)}), deepsparse, torch"
    )


@dataclasses.dataclass
class Result(Timed):
    """What one engine did on one file; None where it could not, or where the engine tells nothing.

    Attributes:
        pattern: of the zeros, a key of bench.models.PATTERNS.
        weight_bytes: packed weights in memory beside the file.
        arena_bytes: activations in memory.
        dtype: "float32" or "int8".
        error_units: of int8 models, the largest difference from ONNX Runtime in units of the
            output's quantisation; see count_units().
        note: what the engine says of how it runs the model.
    """

    model: str
    sparsity: float
    threads: int
    batch: int
    engine: str
    version: str = ""
    error: str = ""
    seconds: list[float] = dataclasses.field(default_factory=list)
    round_medians: list[float] = dataclasses.field(default_factory=list)
    round_minima: list[float] = dataclasses.field(default_factory=list)
    load_seconds: float | None = None
    first_run_seconds: float | None = None
    peak_growth_bytes: int | None = None
    file_bytes: int | None = None
    max_error: float | None = None
    pattern: str = "unstructured"
    weight_bytes: int | None = None
    arena_bytes: int | None = None
    dtype: str = "float32"
    error_units: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure: `rounds` turns of about `burst_seconds` for every engine."""

    rounds: int = 9
    burst_seconds: float = 0.4
    warmups: int = 2  # or a tenth of the timed runs, if that is more
    settle_seconds: float = 0.02


def run_heat(
    model: str,
    sparsity: float,
    threads: int,
    batch: int,
    arrays: Mapping[str, NDArray[Any]],
    files: dict[str, Path | str],
    entrants: Sequence[Entrant],
    effort: Effort,
    folder: Path,
    log: Callable[[str], None],
    pattern: str = "unstructured",
    dtype: str = "float32",
    units: Sequence[float | None] | None = None,
) -> list[Result]:
    """Races all entrants on one model at one number of threads.

    Args:
        model: name, for the results.
        sparsity: for the results.
        threads: for every engine.
        batch: for the results.
        arrays: the feeds, by input name and in order.
        files: path of the model by suffix, or by module of an engine that reads a file of its own;
            or the reason why there is none.
        entrants: the engines, in the order of their turns.
        effort: how much to measure.
        folder: for input and output arrays.
        log: receives one line per engine that fails.
        pattern: for the results.
        dtype: of the model, for the results.
        units: of int8 models, the scales of the outputs, None where floats make one.
    """
    feeds = folder / "feeds.npz"
    save_arrays(feeds, arrays)
    results: list[Result] = []
    workers: list[tuple[WorkerProcess, Result, int]] = []
    reference: list[NDArray[Any]] | None = None
    try:
        for entrant in sorted(entrants, key=lambda e: e.name != REFERENCE):
            result = Result(
                *(model, sparsity, threads, batch, entrant.name),
                pattern=pattern,
                dtype=dtype,
            )
            results.append(result)
            path = files.get(entrant.module, files[entrant.suffix])
            if isinstance(path, str):
                result.error = path
                continue
            result.file_bytes = path.stat().st_size
            worker = entrant.start()
            out = folder / f"{entrant.name}.npz"
            with worker.floor():
                outputs, runs = _prepare(worker, entrant, result, path, feeds, out, effort)
            if result.error:
                log(f"  {entrant.name}: {result.error}")
                worker.close()
                continue
            workers.append((worker, result, runs))
            if entrant.name == REFERENCE:
                reference = outputs
            if reference is not None:
                pairs = zip(outputs, reference, strict=True)
                result.max_error = max(max_relative_error(y, wanted) for y, wanted in pairs)
                if units is not None:
                    result.error_units = count_units(outputs, reference, units)
        for _ in range(effort.rounds):
            for worker, result, runs in workers:
                if result.error:
                    continue
                warmups = max(effort.warmups, runs // 10)
                result.take_turn(worker, settle=effort.settle_seconds, warmups=warmups, runs=runs)
    finally:
        for worker, _, _ in workers:
            worker.close()
    return results


def count_units(
    outputs: Sequence[NDArray[Any]],
    reference: Sequence[NDArray[Any]],
    units: Sequence[float | None],
) -> float:
    """Largest difference of outputs in units of their quantisation.

    A unit is the scale of the DequantizeLinear that makes the output; of an output that floats make
    it is a 255th of the reference's range, as if it were quantised to bytes.
    """
    worst = 0.0
    for y, wanted, unit in zip(outputs, reference, units, strict=True):
        if y.shape != wanted.shape:
            return float("inf")
        if y.size == 0:
            continue
        size = unit or float(np.ptp(wanted)) / 255 or 1.0
        difference = np.abs(y.astype(np.float64) - wanted.astype(np.float64)).max()
        worst = max(worst, float(difference) / size)
    return worst


def _prepare(
    worker: WorkerProcess,
    entrant: Entrant,
    result: Result,
    path: Path,
    feeds: Path,
    out: Path,
    effort: Effort,
) -> tuple[list[NDArray[Any]], int]:
    """Loads, runs once, and finds how many runs make a burst; errors go into the result."""
    load = {
        "engine": entrant.module,
        "path": str(path),
        "threads": result.threads,
        "feeds": str(feeds),
    }
    reply = worker.ask_all(
        [
            ("load", load),
            ("check", {"out": str(out)}),
            ("burst", {"warmups": effort.warmups, "runs": 3}),
            ("describe", {}),
        ]
    )
    result.version = reply.get("version", "")
    result.load_seconds = reply.get("load_seconds")
    result.first_run_seconds = reply.get("first_run_seconds")
    if "error" in reply:
        result.error = reply["error"]
        return [], 0
    result.peak_growth_bytes = reply["peak_growth_bytes"]
    result.weight_bytes = reply.get("weight_bytes")
    result.arena_bytes = reply.get("arena_bytes")
    result.note = reply.get("note", "")
    with np.load(out) as outputs:
        return list(outputs.values()), runs_of_a_turn(effort.burst_seconds, reply["seconds"])
