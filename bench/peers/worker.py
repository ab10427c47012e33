"""One engine in one process; answers commands of the coordinator, one JSON object a line.

Uses NumPy and the standard library alone, for it also runs in DeepSparse's environment.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from typing import IO, Any

import numpy as np


def memory_status() -> dict[str, int]:
    """Reads VmRSS and VmHWM (its peak) of this process, in bytes; zeros where Linux lacks."""
    fields = {"VmRSS": 0, "VmHWM": 0}
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                key, _, rest = line.partition(":")
                if key in fields:
                    fields[key] = int(rest.split()[0]) * 1024
    except OSError:
        pass
    return fields


def reset_memory_peak() -> None:
    """Makes VmHWM start again from VmRSS, so that imports do not hide what the model needs."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")
    except OSError:
        pass


class Worker:
    """The commands: load, check, burst, memory."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.x: Any = None
        self.base_bytes = 0

    def load(self, engine: str, path: str, threads: int, feeds: str) -> dict[str, Any]:
        """Imports the engine, then loads the model; the import counts neither time nor memory."""
        module = importlib.import_module(f"bench.peers.engines.{engine}")
        self.x = np.load(feeds)
        gc.collect()
        reset_memory_peak()
        self.base_bytes = memory_status()["VmRSS"]
        start = time.perf_counter()
        self.engine = module.Engine(path, threads)
        return {"load_seconds": time.perf_counter() - start, "version": self.engine.version}

    def check(self, out: str) -> dict[str, Any]:
        """Runs once and writes the output."""
        start = time.perf_counter()
        y = np.array(self.engine.run(self.x))
        seconds = time.perf_counter() - start
        np.save(out, y)
        return {"first_run_seconds": seconds}

    def burst(self, warmups: int, runs: int) -> dict[str, Any]:
        """Times `runs` runs, one by one, after `warmups` that do not count."""
        for _ in range(warmups):
            self.engine.run(self.x)
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            self.engine.run(self.x)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def memory(self) -> dict[str, Any]:
        """Growth of the peak of resident memory since just before the model was loaded."""
        peak = memory_status()["VmHWM"]
        return {"peak_growth_bytes": peak - self.base_bytes if peak else None}


def serve(commands: IO[str], replies: IO[str]) -> None:
    """Answers until the input ends."""
    worker = Worker()
    for line in commands:
        request = json.loads(line)
        command = request.pop("command")
        try:
            reply = getattr(worker, command)(**request)
        except Exception as error:  # the race goes on without this engine
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    # Engines print; what they print must not mix with the replies.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, channel)
