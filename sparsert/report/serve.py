"""An engine's end of a race: the commands that every worker answers, one JSON object a line.

The standard library alone, and nothing of this package: bench/peers loads this file by its path, in
environments that lack the rest.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any


class Worker:
    """The commands burst and describe; a subclass adds load and check.

    Attributes:
        engine: computes by run(feeds).
        feeds: a run of the race is a pass over all of them.
    """

    def __init__(self) -> None:
        self.engine: Any = None
        self.feeds: list[Any] = []
        self._base_bytes: int | None = None

    def time_load(self, load: Callable[[], Any]) -> float:
        """Returns the seconds of load(); the growth of memory counts from here."""
        gc.collect()
        # The peak starts again from the memory of now, where the system allows it.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._base_bytes = resident_bytes("VmRSS")
        start = time.perf_counter()
        load()
        return time.perf_counter() - start

    def burst(self, warmups: int, runs: int) -> dict[str, Any]:
        """Times `runs` passes over all feeds, one by one, after `warmups` that do not count."""
        seconds = []
        for i in range(warmups + runs):
            start = time.perf_counter()
            for feeds in self.feeds:
                self.engine.run(feeds)
            if i >= warmups:
                seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def describe(self) -> dict[str, Any]:
        """Growth of the peak of resident memory over load and runs."""
        peak, base = resident_bytes("VmHWM"), self._base_bytes
        return {"peak_growth_bytes": None if peak is None or base is None else peak - base}


def resident_bytes(field: str) -> int | None:
    """Reads VmRSS or VmHWM (its peak) of this process; None where the system does not tell."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key == field:
            return int(rest.split()[0]) * 1024
    return None


def answer(worker: Worker, commands: IO[str], replies: IO[str]) -> None:
    """Answers until the input ends."""
    for line in commands:
        request = json.loads(line)
        command = request.pop("command")
        try:
            reply = getattr(worker, command)(**request)
        except Exception as error:  # the race goes on without this engine
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def serve(worker: Worker) -> None:
    """Answers on the standard streams; what an engine prints goes elsewhere."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer(worker, sys.stdin, channel)
