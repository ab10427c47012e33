"""How runs scale over cores: python -m bench.threads resnet50 --sparsity 0 0.9.

Of each network: runs per second of one model on several threads, of several callers of one model,
of several models with a caller each, and of several processes with one thread, each held on a CPU
of its own, all over the runs per second of one thread. The processes share nothing, so that they
show what the machine can give at all: the ceiling.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np

from bench.layers import ROOT, publish
from bench.models import NETWORKS, build_model, input_shape
from sparsert import Model, convert, load
from sparsert.report.machine import describe_machine
from sparsert.runtime.table import Table

# A way to run: its name, and a function from seconds to runs per second.
Way = tuple[str, Callable[[float], float]]
LEAD_SECONDS = 0.05  # for processes to begin together


def runs_per_second(model: Model, x: np.ndarray, seconds: float) -> float:
    """Of one caller, after a run to warm up."""
    model(x)
    begin = now = time.perf_counter()
    runs = 0
    while now - begin < seconds:
        model(x)
        runs += 1
        now = time.perf_counter()
    return runs / (now - begin)


def of_callers(models: Sequence[Model], x: np.ndarray, seconds: float) -> float:
    """Runs per second of all callers, each with its own thread and model."""
    rates = [0.0] * len(models)
    begin = threading.Barrier(len(models))

    def call(number: int) -> None:
        begin.wait()
        rates[number] = runs_per_second(models[number], x, seconds)

    callers = [threading.Thread(target=call, args=(n,)) for n in range(len(models))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(rates)


def serve(path: Path, x: np.ndarray, cpu: int, pipe: Connection) -> None:
    """The work of a process: measures when and for as long as it is told."""
    os.sched_setaffinity(0, {cpu})
    model = load(path, threads=1, strict=True)
    model(x)
    pipe.send(0.0)
    while (told := pipe.recv()) is not None:
        start, seconds = told
        while time.time() < start:
            pass
        pipe.send(runs_per_second(model, x, seconds))


class Processes:
    """One process of one thread per CPU."""

    def __init__(self, path: Path, x: np.ndarray, cpus: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.count = len(cpus)
        self._pipes: list[Connection] = []
        for cpu in cpus:
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(path, x, cpu, theirs), daemon=True).start()
            self._pipes.append(ours)
        for pipe in self._pipes:
            pipe.recv()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.send(None)

    def measure(self, seconds: float) -> float:
        """Runs per second of all of them together."""
        start = time.time() + LEAD_SECONDS
        for pipe in self._pipes:
            pipe.send((start, seconds))
        return sum(pipe.recv() for pipe in self._pipes)


def ways(path: Path, x: np.ndarray, threads: int, processes: Processes) -> list[Way]:
    """All ways to run a model, the one that the others are compared with first."""
    one = load(path, threads=1, strict=True)
    several = [load(path, threads=threads, strict=True) for _ in range(threads)]
    return [
        ("1 thread", lambda seconds: runs_per_second(one, x, seconds)),
        (f"{threads} threads", lambda seconds: runs_per_second(several[0], x, seconds)),
        (f"{threads} callers", lambda seconds: of_callers([several[0]] * threads, x, seconds)),
        (f"{threads} models", lambda seconds: of_callers(several, x, seconds)),
        (f"{processes.count} processes", processes.measure),
    ]


def measure(
    name: str, sparsity: float, threads: int, rounds: int, seconds: float
) -> tuple[list[str], list[list[float]]]:
    """The ways' names, and of each its runs per second, round by round."""
    proto, _ = build_model(name, sparsity)
    x = np.random.default_rng(0).standard_normal(input_shape(name, 1), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.sprt"
        convert(proto, path)
        cpus = sorted(os.sched_getaffinity(0))[:threads]
        with Processes(path, x, cpus) as processes:
            all_ways = ways(path, x, threads, processes)
            rates: list[list[float]] = [[] for _ in all_ways]
            for _ in range(rounds):
                for way, (_, run) in enumerate(all_ways):
                    rates[way].append(run(seconds))
    return [way for way, _ in all_ways], rates


def row(name: str, sparsity: float, rates: Sequence[Sequence[float]]) -> tuple[str | float, ...]:
    """A line of the table: ratios are medians over the rounds."""
    one = rates[0]
    ratios = [median(r / o for r, o in zip(way, one, strict=True)) for way in rates[1:]]
    return (name, f"{100 * sparsity:g} %", 1e3 / median(one), *ratios, ratios[0] / ratios[-1])


def main() -> None:
    """Prints the table of some networks."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.threads resnet50 --sparsity 0.9 --rounds 9",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", choices=list(NETWORKS), metavar="MODEL")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.0, 0.9])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each way in each round")
    parser.add_argument(
        "--publish", action="store_true", help="put the table into docs/performance.md"
    )
    args = parser.parse_args()
    rows = []
    names: list[str] = []
    for model in args.models:
        for sparsity in args.sparsity:
            names, rates = measure(model, sparsity, args.threads, args.rounds, args.seconds)
            rows.append(row(model, sparsity, rates))
    facts = describe_machine()
    title = f"Runs per second over those of one thread. {facts.cpu}, {facts.date}."
    columns = ["model", "zeros", "ms, 1 thread", *names[1:], f"{names[1]} of the ceiling"]
    table = Table(title, columns, rows)
    print(table)
    if args.publish:
        levels = " ".join(f"{sparsity:g}" for sparsity in args.sparsity)
        command = f"python -m bench.threads {' '.join(args.models)} --sparsity {levels}"
        defaults = {"threads": 2, "rounds": 5, "seconds": 0.25}
        for option, default in defaults.items():
            value = getattr(args, option)
            command += f" --{option} {value:g}" if value != default else ""
        text = f"`{command} --publish`\n\n{table.to_markdown()}"
        publish(ROOT / "docs" / "performance.md", "threads", text)


if __name__ == "__main__":
    main()
