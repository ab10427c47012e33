"""What each way to prune costs in accuracy: python -m bench.pruning --publish.

The demo's CNN learns scikit-learn's digits, and the harder task that bench/cluttered_digits.py
makes of them; copies of it are pruned by each method and pattern, all layers alike, and fine-tuned,
every copy with the same batches.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import copy
import dataclasses
import io
import itertools
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.cluttered_digits import CLUTTERED, load_cluttered_digits
from bench.layers import ROOT, publish
from sparsert import prune
from sparsert.demo import FINE_TUNING_RATE, LEARNING_RATE, Images, build_network, load_digits
from sparsert.modelfile import save_atomic
from sparsert.runtime.table import Table

MEASURED = 128  # images that criteria see


@dataclasses.dataclass(frozen=True)
class Task:
    """Images to learn, and how.

    Attributes:
        title: of its table.
        about: what the images are.
        load: seed -> images.
        batch: images of a step.
        epochs: of the first training.
        tuning_epochs: of the fine-tuning.
    """

    title: str
    about: str
    load: Callable[[int], Images]
    batch: int
    epochs: int
    tuning_epochs: int


DIGITS = "scikit-learn's digits, 28x28 pixels: 1,347 for training, 450 for testing."
TASKS = {
    "digits": Task("the digits", DIGITS, load_digits, 16, 10, 5),
    "cluttered": Task("cluttered digits", CLUTTERED, load_cluttered_digits, 32, 8, 2),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to prune, and how much of the accuracy on the digits it may lose."""

    method: str
    sparsity: float
    pattern: str | None = None
    schedule: str = "one-shot"
    most: float = 0.01
    scope: str = "layer"

    @property
    def name(self) -> str:
        """Of its file."""
        parts = (self.method, self.sparsity, self.pattern, self.scope, self.schedule)
        return "-".join(str(part).replace(":", "of") for part in parts)


CHANNELS = ("activation-gradient", "activation-sensitivity", "apoz")
WEIGHTS = [method for method in prune.METHODS if method not in CHANNELS]
ON_DIGITS = (
    *(Case(method, 0.5) for method in prune.METHODS),
    *(Case(m, 0.9, most=0.02) for m in ("magnitude", "wanda", "second-order")),
    *(Case(m, 0.9, most=0.02, scope="global") for m in ("gradient", "taylor")),
    Case("gradient", 0.9, schedule="gradual", most=0.2),  # in each layer: too much of the first
    *(Case(m, 0.8, p, most=0.02) for m in ("magnitude", "wanda") for p in ("4x1", "1x4")),
    Case("magnitude", 0.5, "2:4"),
    Case("random", 0.9, schedule="regrow", most=0.1),
)
ON_CLUTTERED = (
    *(Case(method, 0.9) for method in WEIGHTS),
    *(Case(m, 0.9, scope="global") for m in ("magnitude", "gradient", "taylor")),
    *(Case(m, 0.9, schedule=s) for m, s in (("magnitude", "gradual"), ("random", "regrow"))),
    *(Case(m, 0.8, p) for m in ("magnitude", "second-order") for p in ("4x1", "1x4")),
    Case("magnitude", 0.5, "2:4"),
    *(Case(m, 0.5, "channel") for m in ("random", "magnitude", "taylor", *CHANNELS)),
)
CASES = {"digits": ON_DIGITS, "cluttered": ON_CLUTTERED}


class Kept:
    """Results that are kept in a folder, so that what is there is not computed again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def result(self, name: str, compute: Callable[[], Any]) -> Any:
        """Plain JSON."""
        path = self._folder / f"{name}.json"
        if not path.exists():
            save_atomic(path, json.dumps(compute()).encode())
        return json.loads(path.read_text(encoding="utf-8"))

    def weights(self, name: str, module: nn.Module, compute: Callable[[], Any]) -> nn.Module:
        """A module's, set by compute()."""
        path = self._folder / f"{name}.pt"
        if not path.exists():
            compute()
            buffer = io.BytesIO()
            torch.save(module.state_dict(), buffer)
            save_atomic(path, buffer.getvalue())
        prune.load_state(module, torch.load(path, weights_only=True))
        return module


class Batches:
    """Shuffled anew in each epoch, the same for every copy; seed None: by torch's own generator."""

    def __init__(self, images: Images, batch: int, seed: int | None) -> None:
        self._x, self._y = torch.from_numpy(images.train_x), torch.from_numpy(images.train_y)
        self._batch = batch
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self._y) // self._batch)

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(len(self._y), generator=self._generator)
        for picked in torch.split(order, self._batch):
            yield self._x[picked], self._y[picked]


def accuracy(module: nn.Module, images: Images) -> float:
    """Of the test set."""
    with torch.inference_mode():
        logits = module(torch.from_numpy(images.test_x)).numpy()
    return float((logits.argmax(1) == images.test_y).mean())


def share_of_zeros(module: nn.Module) -> float:
    """Among the weights of convolutions and linear layers."""
    weights = [part.weight for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def train_dense(task: Task, images: Images, seed: int, kept: Kept) -> nn.Module:
    """Returns the network before it is pruned."""
    torch.manual_seed(seed)
    module = build_network().eval()

    def train() -> None:
        batches = Batches(images, task.batch, seed)
        prune.fine_tune(module, batches, epochs=task.epochs, learning_rate=LEARNING_RATE)

    return kept.weights("dense", module, train)


def run_case(
    case: Case, dense: nn.Module, images: Images, task: Task, seed: int
) -> tuple[float, float, float]:
    """Returns the share of zeros, and the accuracy before and after fine-tuning."""
    module = copy.deepcopy(dense)
    batches = Batches(images, task.batch, seed + 1)
    data = list(itertools.islice(batches, MEASURED // task.batch))
    options: dict[str, Any] = {
        "method": case.method,
        "pattern": case.pattern,
        "scope": case.scope,
        "data": data,
    }
    optimizer = torch.optim.Adam(module.parameters(), lr=FINE_TUNING_RATE)
    steps = len(batches) * task.tuning_epochs
    step: Any = None
    if case.schedule == "gradual":
        schedule = prune.Gradual(
            module, sparsity=case.sparsity, end=steps // 2, every=steps // 20, **options
        )
        step = schedule.step
    else:
        sparsity = None if ":" in (case.pattern or "") else case.sparsity
        prune.prune(module, sparsity=sparsity, seed=seed, **options)
    if case.schedule == "regrow":
        step = prune.Regrowth(module, optimizer, end=steps * 3 // 4, every=steps // 20).step
    before = accuracy(module, images)
    prune.fine_tune(
        module, batches, epochs=task.tuning_epochs, optimizer=optimizer, after_batch=step
    )
    prune.remove(module)
    return share_of_zeros(module), before, accuracy(module, images)


def run_cases(name: str, seed: int, cases: Sequence[Case], folder: Path) -> list[dict[str, float]]:
    """Returns of each case the zeros, and the accuracies: dense, pruned and fine-tuned.

    One thread: so small a network is no faster on more.
    """
    torch.set_num_threads(1)
    task, kept = TASKS[name], Kept(folder / f"{name}-{seed}")
    images = task.load(seed)
    dense = train_dense(task, images, seed, kept)
    found = []
    for case in cases:

        def compute(case: Case = case) -> dict[str, float]:
            zeros, pruned, tuned = run_case(case, dense, images, task, seed)
            print(name, seed, case.name, f"{zeros:.3f} {pruned:.4f} {tuned:.4f}", flush=True)
            full = accuracy(dense, images)
            return {"zeros": zeros, "dense": full, "pruned": pruned, "tuned": tuned}

        found.append(kept.result(case.name, compute))
    return found


def measure(name: str, cases: Sequence[Case], seeds: Sequence[int], folder: Path, pool: Any) -> Any:
    """Starts all cases of a task; returns a function that waits and returns the results by case."""
    dense = [pool.submit(run_cases, name, seed, (), folder) for seed in seeds]
    concurrent.futures.wait(dense)
    running = {
        case: [pool.submit(run_cases, name, seed, [case], folder) for seed in seeds]
        for case in cases
    }
    return lambda: {
        case: [future.result()[0] for future in futures] for case, futures in running.items()
    }


def to_table(name: str, found: dict[Case, list[dict[str, float]]]) -> Table:
    """Returns a row for each case: means over the seeds."""
    rows, records = [], []
    for case, results in found.items():
        lost = [r["dense"] - r["tuned"] for r in results]
        record = {
            **dataclasses.asdict(case),
            "zeros": float(np.mean([r["zeros"] for r in results])),
            "lost_pruned": float(np.mean([r["dense"] - r["pruned"] for r in results])),
            "lost": float(np.mean(lost)),
            "spread": max(lost) - min(lost),
        }
        rows.append(
            (
                case.method,
                case.pattern or ("channel" if case.method in CHANNELS else "unstructured"),
                case.scope,
                case.schedule,
                f"{100 * record['zeros']:.1f} %",
                *(f"{record[key]:+.4f}" for key in ("lost_pruned", "lost")),
                f"{record['spread']:.4f}",
            )
        )
        records.append(record)
    columns = ["method", "pattern", "scope", "schedule", "zeros", "lost at once", "lost", "spread"]
    seeds = [r["dense"] for r in next(iter(found.values()))]
    task = TASKS[name]
    notes = [
        task.about,
        f"Means over {len(seeds)} seeds; spread: greatest less least of `lost`. Accuracy of the "
        f"dense network: {np.mean(seeds):.4f} ({min(seeds):.4f} to {max(seeds):.4f}); "
        f"{task.tuning_epochs} epochs of fine-tuning at a learning rate of {FINE_TUNING_RATE:g}.",
    ]
    return Table(f"Accuracy lost on {task.title}", columns, rows, notes, records)


def main() -> None:
    """Measures every case, prints the tables, and fails if one loses more than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=prune.METHODS, default=prune.METHODS)
    parser.add_argument("--state", type=Path, help="a folder in which what is done is kept")
    parser.add_argument("--publish", action="store_true", help="put the tables in docs/pruning.md")
    args = parser.parse_args()
    if args.publish and (len(args.tasks) < len(TASKS) or len(args.methods) < len(prune.METHODS)):
        parser.error("--publish takes all tasks and methods")
    context = multiprocessing.get_context("spawn")
    jobs = max(1, args.jobs)
    with (
        tempfile.TemporaryDirectory() as temporary,
        concurrent.futures.ProcessPoolExecutor(jobs, context) as pool,
    ):
        folder = args.state or Path(temporary)
        waiting = {}
        for name in args.tasks:
            cases = [case for case in CASES[name] if case.method in args.methods]
            waiting[name] = measure(name, cases, range(args.seeds), folder, pool)
        tables = {name: to_table(name, wait()) for name, wait in waiting.items()}
    print(*tables.values(), sep="\n\n")
    if args.publish:
        command = f"`python -m bench.pruning --seeds {args.seeds} --publish`"
        parts = [command, *(table.to_markdown() for table in tables.values())]
        publish(ROOT / "docs" / "pruning.md", "grid", "\n\n".join(parts))
    records = tables["digits"].records if "digits" in tables else []
    worse = [r for r in records if r["lost"] > r["most"] + 1e-9]
    for record in worse:
        print(f"loses more than {record['most']}: {record}")
    if worse:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
