"""The race's end of an engine's process: its commands, its turns and what they measured."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

REPLY_SECONDS = 600.0  # a worker that is silent for longer is ended


class Timed:
    """Figures of a dataclass with these fields.

    Attributes:
        error: why there are none.
        seconds: of every timed run.
        round_medians, round_minima: median and fewest seconds of each turn.
    """

    error: str
    seconds: list[float]
    round_medians: list[float]
    round_minima: list[float]

    @property
    def median(self) -> float:
        """Median seconds of a run."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles over the median."""
        return spread_of(self.seconds)

    def speedup_over(self, other: Timed) -> float | None:
        """Median over the rounds of the other's time divided by this one's."""
        return _median_ratio(other.round_medians, self.round_medians)

    @property
    def undisturbed(self) -> float:
        """Median over the rounds of the seconds of the fastest run.

        What else runs on the host can only lengthen runs, and seldom lengthens all of a turn.
        """
        return statistics.median(self.round_minima)

    def undisturbed_speedup_over(self, other: Timed) -> float | None:
        """As speedup_over(), of the fastest runs of the turns."""
        return _median_ratio(other.round_minima, self.round_minima)

    def take_turn(self, worker: WorkerProcess, *, settle: float, warmups: int, runs: int) -> None:
        """Adds `runs` timed runs, made `settle` seconds after the worker gets the floor."""
        with worker.floor():
            time.sleep(settle)
            reply = worker.ask("burst", warmups=warmups, runs=runs)
        if "error" in reply:
            self.error = reply["error"]
            return
        self.seconds += reply["seconds"]
        self.round_medians.append(statistics.median(reply["seconds"]))
        self.round_minima.append(min(reply["seconds"]))


def spread_of(seconds: Sequence[float]) -> float:
    """Distance of the quartiles over the median; 0 of less than two runs."""
    if len(seconds) < 2:
        return 0.0
    low, _, high = statistics.quantiles(seconds, n=4)
    return (high - low) / statistics.median(seconds)


def _median_ratio(others: Sequence[float], own: Sequence[float]) -> float | None:
    pairs = list(zip(others, own, strict=False))
    return statistics.median(other / mine for other, mine in pairs) if pairs else None


def runs_of_a_turn(burst_seconds: float, seconds: Sequence[float]) -> int:
    """How many runs fill a turn, to judge by some that were timed."""
    return max(1, min(200, round(burst_seconds / max(min(seconds), 1e-6))))


def storable(array: np.ndarray) -> np.ndarray:
    """Returns an array as .npy files hold it: strings of one length, types of others as f32."""
    if array.dtype == object:
        return array.astype(str)
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def max_relative_error(y: np.ndarray, reference: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute value of the reference."""
    if y.shape != reference.shape:
        return float("inf")
    if y.size == 0:
        return 0.0
    if reference.dtype.kind not in "biufc":  # strings are right or wrong
        return 0.0 if np.array_equal(y, reference) else float("inf")
    y64, reference64 = y.astype(np.float64), reference.astype(np.float64)
    scale = max(float(np.abs(reference64).max()), 1e-30)
    return float(np.abs(y64 - reference64).max()) / scale


class WorkerProcess:
    """The process of one engine, stopped except while it has the floor: idle threads may spin."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
            cwd=cwd,
        )

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Sends a command and waits for its reply; a dead worker answers with an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(REPLY_SECONDS, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        return {"error": f"the engine's process ended (exit status {self._process.wait()})"}

    def ask_all(self, requests: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
        """Sends commands with their arguments until one fails; all replies in one."""
        merged: dict[str, Any] = {}
        for command, arguments in requests:
            merged.update(self.ask(command, **arguments))
            if "error" in merged:
                break
        return merged

    @contextmanager
    def floor(self) -> Iterator[None]:
        """Lets the process run inside the `with`."""
        self._signal("SIGCONT")
        try:
            yield
        finally:
            self._signal("SIGSTOP")

    def _signal(self, name: str) -> None:
        number = getattr(signal, name, None)
        if number is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
