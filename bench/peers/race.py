"""Runs a race: engines as separate processes, taking turns in rounds, one measuring at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
DEEPSPARSE_PYTHON = ROOT / ".venv-deepsparse" / "bin" / "python"
REFERENCE = "onnxruntime"
REPLY_SECONDS = 600.0  # a worker that is silent for longer is ended


@dataclasses.dataclass(frozen=True)
class Entrant:
    """An engine with the file that it reads.

    Attributes:
        name: as printed: `sparsert`, `sparsert-onnx`, `sparsert@avx2`, `onnxruntime`, ...
        module: of bench.peers.engines.
        suffix: of the file, ".onnx" or ".sprt".
        isa: forced instruction set of sparsert, or "".
    """

    name: str
    module: str
    suffix: str
    isa: str = ""

    @property
    def python(self) -> str:
        """The interpreter that has this engine."""
        return str(DEEPSPARSE_PYTHON) if self.module == "deepsparse" else sys.executable


def parse_entrant(name: str) -> Entrant:
    """Reads an engine's name as given on the command line."""
    base, _, isa = name.partition("@")
    if base == "sparsert":
        return Entrant(name, "sparsert", ".sprt", isa)
    if base == "sparsert-onnx":
        return Entrant(name, "sparsert", ".onnx", isa)
    if base in ("onnxruntime", "openvino", "deepsparse", "torch") and not isa:
        return Entrant(name, base, ".onnx")
    raise ValueError(
        f"unknown engine {name!r}; there are: sparsert, sparsert-onnx (both also with @ISA), "
        "onnxruntime, openvino, deepsparse, torch"
    )


@dataclasses.dataclass
class Result:
    """What one engine did on one file; None where it could not."""

    model: str
    sparsity: float
    threads: int
    batch: int
    engine: str
    version: str = ""
    error: str = ""
    seconds: list[float] = dataclasses.field(default_factory=list)
    round_medians: list[float] = dataclasses.field(default_factory=list)
    load_seconds: float | None = None
    first_run_seconds: float | None = None
    peak_growth_bytes: int | None = None
    file_bytes: int | None = None
    max_error: float | None = None

    @property
    def median(self) -> float:
        """Median seconds of a run."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles, relative to the median."""
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median

    def speedup_over(self, other: Result) -> float | None:
        """Median over the rounds of the other's time divided by this one's."""
        pairs = list(zip(other.round_medians, self.round_medians, strict=False))
        return statistics.median(o / s for o, s in pairs) if pairs else None


class WorkerProcess:
    """The worker of one entrant, stopped (SIGSTOP) except while it has the floor."""

    def __init__(self, entrant: Entrant) -> None:
        self.entrant = entrant
        env = dict(os.environ, PYTHONPATH=str(ROOT))
        if entrant.isa:
            env["SPARSERT_ISA"] = entrant.isa
        self.process = subprocess.Popen(
            [entrant.python, "-m", "bench.peers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
            cwd=ROOT,
        )

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Sends a command and waits for its reply; a dead worker answers with an error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        watchdog = threading.Timer(REPLY_SECONDS, self.process.kill)
        watchdog.start()
        try:
            self.process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        return {"error": f"the engine's process ended (exit status {self.process.wait()})"}

    @contextlib.contextmanager
    def floor(self) -> Iterator[WorkerProcess]:
        """Lets the process run inside the `with`: idle engines' threads may spin otherwise."""
        self._signal(signal.SIGCONT)
        try:
            yield self
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def close(self) -> None:
        """Ends the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure: `rounds` turns of about `burst_seconds` for every engine."""

    rounds: int = 9
    burst_seconds: float = 0.4
    warmups: int = 2  # or a tenth of the timed runs, if that is more
    settle_seconds: float = 0.02


def max_relative_error(y: NDArray[Any], reference: NDArray[Any]) -> float:
    """Largest absolute difference over the largest absolute value of the reference."""
    if y.shape != reference.shape:
        return float("inf")
    return float(np.abs(y - reference).max() / max(float(np.abs(reference).max()), 1e-30))


def run_heat(
    model: str,
    sparsity: float,
    threads: int,
    x: NDArray[Any],
    files: dict[str, Path | str],
    entrants: Sequence[Entrant],
    effort: Effort,
    folder: Path,
    log: Callable[[str], None],
) -> list[Result]:
    """Races all entrants on one model at one number of threads.

    Args:
        model: name, for the results.
        sparsity: for the results.
        threads: for every engine.
        x: the input.
        files: path of the model by suffix, or the reason why there is none.
        entrants: the engines, in the order of their turns.
        effort: how much to measure.
        folder: for input and output arrays.
        log: receives one line per engine as it loads.
    """
    feeds = folder / "input.npy"
    np.save(feeds, x)
    results: list[Result] = []
    workers: list[tuple[WorkerProcess, Result, int]] = []
    reference: NDArray[Any] | None = None
    try:
        for entrant in sorted(entrants, key=lambda e: e.name != REFERENCE):
            result = Result(model, sparsity, threads, x.shape[0], entrant.name)
            results.append(result)
            path = files[entrant.suffix]
            if isinstance(path, str):
                result.error = path
                continue
            result.file_bytes = path.stat().st_size
            worker = WorkerProcess(entrant)
            out = folder / f"{entrant.name}.npy"
            with worker.floor():
                y, runs = _prepare(worker, result, path, feeds, out, effort)
            if result.error:
                log(f"  {entrant.name}: {result.error}")
                worker.close()
                continue
            workers.append((worker, result, runs))
            if entrant.name == REFERENCE:
                reference = y
            if reference is not None and y is not None:
                result.max_error = max_relative_error(y, reference)
        for _ in range(effort.rounds):
            for worker, result, runs in workers:
                if result.error:
                    continue
                with worker.floor():
                    time.sleep(effort.settle_seconds)
                    warmups = max(effort.warmups, runs // 10)
                    reply = worker.ask("burst", warmups=warmups, runs=runs)
                if "error" in reply:
                    result.error = reply["error"]
                    continue
                result.seconds += reply["seconds"]
                result.round_medians.append(statistics.median(reply["seconds"]))
    finally:
        for worker, _, _ in workers:
            worker.close()
    return results


def _prepare(
    worker: WorkerProcess, result: Result, path: Path, feeds: Path, out: Path, effort: Effort
) -> tuple[NDArray[Any] | None, int]:
    """Loads, runs once, and finds how many runs make a burst; errors go into the result."""
    loaded = worker.ask(
        "load",
        engine=worker.entrant.module,
        path=str(path),
        threads=result.threads,
        feeds=str(feeds),
    )
    if "error" in loaded:
        result.error = loaded["error"]
        return None, 0
    result.version = loaded["version"]
    result.load_seconds = loaded["load_seconds"]
    for command, arguments in (
        ("check", {"out": str(out)}),
        ("burst", {"warmups": effort.warmups, "runs": 3}),
        ("memory", {}),
    ):
        reply = worker.ask(command, **arguments)
        if "error" in reply:
            result.error = reply["error"]
            return None, 0
        if command == "check":
            result.first_run_seconds = reply["first_run_seconds"]
        elif command == "burst":
            fastest = min(reply["seconds"])
        else:
            result.peak_growth_bytes = reply["peak_growth_bytes"]
    runs = max(1, min(200, round(effort.burst_seconds / max(fastest, 1e-6))))
    return np.load(out), runs
