"""Times engines against each other: each in its own process, taking turns, one at a time."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsert.report.turns import Timed, WorkerProcess, max_relative_error, runs_of_a_turn
from sparsert.runtime.table import Table, format_bytes

BUSY = 1.15  # times what a run takes at best: more than the clock of a calm machine changes
MIN_CALM_ROUNDS, CALM_SHARE = 5, 0.1  # of a race's rounds, that count
PAUSE = 3.0  # seconds until a race is run again


@dataclass(frozen=True)
class Entrant:
    """An engine with the file it runs.

    Attributes:
        name: as printed.
        engine: a key of sparsert.report.worker.ENGINES.
        path: of the model.
        options: of the engine: arguments of sparsert.load(), or the factory of a torch module.
    """

    name: str
    engine: str
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: turns of each engine.
        burst_seconds: about how long a turn lasts.
        runs: timed runs of each engine, at least one a turn; None: as many as the turns hold.
        least_rounds: where a run of some engine is longer than a turn, there are fewer rounds in
            the same time, but so many; None: as many.
    """

    rounds: int = 9
    burst_seconds: float = 0.3
    runs: int | None = None
    least_rounds: int | None = None

    def runs_for(self, run_seconds: float) -> int:
        """How many runs of an engine make a turn if one takes about so long."""
        if self.runs is not None:
            return max(1, round(self.runs / self.rounds))
        return runs_of_a_turn(self.burst_seconds, [run_seconds])

    def rounds_for(self, run_seconds: float) -> int:
        """How many rounds there are if the slowest engine's run takes so long."""
        if self.least_rounds is None or run_seconds <= self.burst_seconds:
            return self.rounds
        return max(self.least_rounds, round(self.rounds * self.burst_seconds / run_seconds))


@dataclass
class Result(Timed):
    """What one engine did; `error` says why it could not.

    Attributes:
        seconds: of every timed run; with pieces (chunk), a run is a pass over all of them.
        round_medians, round_minima: median and fewest seconds of each turn.
        outputs: of the check run.
        packed_bytes, memory_note: what sparsert tells of its memory.
    """

    name: str
    threads: int
    error: str = ""
    seconds: list[float] = field(default_factory=list)
    round_medians: list[float] = field(default_factory=list)
    round_minima: list[float] = field(default_factory=list)
    load_seconds: float | None = None
    file_bytes: int | None = None
    peak_growth_bytes: int | None = None
    packed_bytes: int | None = None
    memory_note: str = ""
    outputs: list[np.ndarray] = field(default_factory=list, repr=False)

    def error_against(self, other: Result) -> float | None:
        """Largest difference from the other's outputs over their largest absolute value."""
        if not self.outputs or len(self.outputs) != len(other.outputs):
            return None
        pairs = list(zip(self.outputs, other.outputs, strict=True))
        return max(max_relative_error(y, reference) for y, reference in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurements for JSON, without outputs."""
        facts = asdict(self)
        del facts["outputs"]
        if self.seconds:
            facts.update(median=self.median, spread=self.spread)
        return facts


def precision_entrants(
    sparse: Path,
    *,
    dense: Path | None = None,
    int8: Path | None = None,
    dense_int8: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Entrant]:
    """Returns sparsert on a pruned model and on its relatives, those that are given.

    Args:
        sparse: the pruned float model.
        dense: the float model before it was pruned.
        int8: the pruned model, quantised.
        dense_int8: the dense one, quantised.
        options: of sparsert.load(), for each.
    """
    rows = {
        "dense float32": dense,
        "sparse float32": sparse,
        "dense int8": dense_int8,
        "sparse int8": int8,
    }
    return [
        Entrant(name, "sparsert", path, options or {})
        for name, path in rows.items()
        if path is not None
    ]


def race(
    entrants: Sequence[Entrant],
    feeds: Mapping[str, np.ndarray],
    *,
    threads: int = 1,
    chunk: int | None = None,
    effort: Effort | None = None,
    on_turn: Callable[[], None] | None = None,
) -> list[Result]:
    """Races engines on the same feeds.

    Args:
        entrants: in the order of their turns.
        feeds: arrays by input name.
        threads: for every engine.
        chunk: cut the feeds along the first dimension; a run is then a pass over all pieces.
        effort: how much to measure.
        on_turn: called after every load and every turn: at most len(entrants) * (1 + rounds) times.

    Returns:
        One result per entrant, in order; an engine that failed has an `error`.
    """
    effort = effort or Effort()
    results = [Result(e.name, threads, file_bytes=file_bytes(e.path)) for e in entrants]
    report = on_turn or (lambda: None)
    workers: list[tuple[WorkerProcess, Result, float]] = []
    with tempfile.TemporaryDirectory(prefix="sparsert-race-") as folder:
        feeds_path = Path(folder, "feeds.npz")
        save_arrays(feeds_path, feeds)
        try:
            for entrant, result in zip(entrants, results, strict=True):
                worker = _start_worker(threads)
                workers.append((worker, result, 0.0))
                load = {
                    "engine": entrant.engine,
                    "path": str(entrant.path),
                    "threads": threads,
                    "options": dict(entrant.options),
                    "feeds": str(feeds_path),
                    "chunk": chunk,
                }
                with worker.floor():
                    seconds = _prepare(worker, result, load, Path(folder, "out.npz"))
                workers[-1] = worker, result, seconds
                report()
            for _ in range(effort.rounds_for(max((s for _, _, s in workers), default=0.0))):
                for worker, result, seconds in workers:
                    if not result.error:
                        runs = effort.runs_for(seconds)
                        result.take_turn(worker, settle=0.01, warmups=1, runs=runs)
                    report()
        finally:
            for worker, _, _ in workers:
                worker.close()
    return results


class CalmRaces:
    """Races of which only the rounds count in which the machine was calm.

    What else runs on the host slows engines down by different shares, so that even the ratio of
    their times is not what it is on a calm machine. A round counts if the first entrant's fastest
    run, in this turn and in its next one, took little longer than its fastest run ever; a race that
    has too few of them is run again.

    Args:
        patience: seconds to spend on waiting and on further races, in all. Then the calmest rounds
            count.
        best: what is known of the first entrant's fastest run.
        on_wait: called whenever a race is to be run again, with the seconds of patience left.

    Attributes:
        best: the first entrant's fewest seconds so far.
    """

    def __init__(
        self,
        patience: float,
        best: float = math.inf,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self.best = best
        self._patience = patience
        self._on_wait = on_wait or (lambda _seconds: None)

    def race(
        self, entrants: Sequence[Entrant], feeds: Mapping[str, np.ndarray], **options: Any
    ) -> list[Result]:
        """As race(): results whose rounds are those that count, while `seconds` has all runs."""
        joined: list[Result] = []
        busy: list[float] = []  # the first entrant's seconds in and after each round
        while True:
            start = time.monotonic()
            results = race(entrants, feeds, **options)
            if any(result.error for result in results):
                return results
            own = results[0].round_minima
            busy += [max(pair) for pair in zip(own, own[1:] + own[-1:], strict=True)]
            for total, result in zip(joined, results, strict=False):
                total.seconds += result.seconds
                total.round_medians += result.round_medians
                total.round_minima += result.round_minima
            joined = joined or results
            self.best = min(self.best, *own)
            order = sorted(range(len(busy)), key=busy.__getitem__)
            calm = sum(seconds <= self.best * BUSY for seconds in busy)
            needed = max(MIN_CALM_ROUNDS, round(len(own) * CALM_SHARE))
            if calm >= needed or self._patience <= 0:
                return [_only(result, order[: max(calm, needed)]) for result in joined]
            self._on_wait(self._patience)
            time.sleep(PAUSE)
            self._patience -= time.monotonic() - start


def _only(result: Result, rounds: Sequence[int]) -> Result:
    medians, minima = result.round_medians, result.round_minima
    return replace(
        result,
        round_medians=[medians[place] for place in rounds],
        round_minima=[minima[place] for place in rounds],
    )


def race_table(title: str, results: Sequence[Result], reference: str | None = None) -> Table:
    """Returns one row per result: time, spread, speed and error against an engine, memory.

    Args:
        title: of the table.
        results: of one or several races.
        reference: name of the engine to compare with, among those of the same threads.
    """
    columns = ["engine", "threads", "median ms", "spread"]
    columns += [f"x {reference}", "error"] if reference else []
    columns += ["load ms", "file", "packed", "peak RSS growth"]
    rows: list[Sequence[Any]] = []
    records, notes = [], []
    for result in results:
        base = next(
            (r for r in results if r.name == reference and r.threads == result.threads), None
        )
        record = result.to_dict()
        if result.error:
            empty = [None] * (len(columns) - 3)
            rows.append((result.name, result.threads, "failed", *empty))
            notes.append(f"{result.name}, {result.threads} thread(s): {result.error}")
            records.append(record)
            continue
        row: list[Any] = [result.name, result.threads, f"{1e3 * result.median:.3f}"]
        row.append(f"{100 * result.spread:.0f} %")
        if reference:
            speedup = result.speedup_over(base) if base else None
            error = result.error_against(base) if base and base is not result else None
            row += [None if speedup is None else f"{speedup:.2f}"]
            row += [None if error is None else f"{error:.1e}"]
            record.update(speedup=speedup, max_relative_error=error)
        row.append(None if result.load_seconds is None else f"{1e3 * result.load_seconds:.0f}")
        row += [
            None if count is None else format_bytes(count)
            for count in (result.file_bytes, result.packed_bytes, result.peak_growth_bytes)
        ]
        rows.append(row)
        records.append(record)
        if result.memory_note:
            notes.append(f"{result.name}, {result.threads} thread(s): {result.memory_note}")
    return Table(title, columns, rows, notes, records)


def file_bytes(path: Path) -> int | None:
    """Returns the size of a model's file, external data of an ONNX file included."""
    try:
        total = path.stat().st_size
    except OSError:
        return None
    if path.suffix != ".onnx":
        return total
    import onnx

    from sparsert.importers.payloads import external_tensors

    try:
        tensors = external_tensors(onnx.load(path, load_external_data=False))
    except Exception:  # loading it will say what is wrong with the file
        return total
    places = {
        entry.value
        for tensor in tensors
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return total + sum(
        (path.parent / place).stat().st_size for place in places if (path.parent / place).is_file()
    )


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file; unlike numpy.savez, any name will do."""
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def _start_worker(threads: int) -> WorkerProcess:
    import sparsert

    package_root = str(Path(sparsert.__file__).parent.parent)
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(threads),
    }
    return WorkerProcess([sys.executable, "-m", "sparsert.report.worker"], env)


def _prepare(worker: WorkerProcess, result: Result, load: dict[str, Any], out: Path) -> float:
    """Loads, and returns about how many seconds a run takes; errors go into the result."""
    reply = worker.ask_all(
        [
            ("load", load),
            ("check", {"out": str(out)}),
            ("burst", {"warmups": 1, "runs": 2}),
            ("describe", {}),
        ]
    )
    result.load_seconds = reply.get("load_seconds")
    if "error" in reply:
        result.error = reply["error"]
        return 0.0
    with np.load(out, allow_pickle=False) as file:
        result.outputs = [file[name] for name in file.files]
    result.peak_growth_bytes = reply["peak_growth_bytes"]
    result.packed_bytes = reply.get("packed_bytes")
    result.memory_note = reply.get("memory_note", "")
    return float(min(reply["seconds"]))
