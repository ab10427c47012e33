"""What each way to prune costs in accuracy: python -m bench.pruning --publish.

The demo's CNN learns scikit-learn's digits; copies of it are pruned by each method and pattern,
all layers alike, and fine-tuned as the demo does, every copy with the same batches.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import copy
import dataclasses
import multiprocessing
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bench.layers import ROOT, publish
from sparsert import prune
from sparsert.demo import FINE_TUNING_RATE, LEARNING_RATE, Images, build_network, load_digits
from sparsert.runtime.table import Table

BATCH = 16
MEASURED = 8  # batches that criteria see
TRAINING_EPOCHS = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to prune, and how much it may lose."""

    method: str
    sparsity: float
    pattern: str | None = None
    schedule: str = "one-shot"
    most: float = 0.01
    scope: str = "layer"


CHANNELS = ("activation-gradient", "activation-sensitivity", "apoz")
CASES = (
    *(Case(method, 0.5) for method in prune.METHODS),
    *(Case(m, 0.5, "channel", most=0.03) for m in prune.METHODS if m not in CHANNELS),
    *(Case(m, 0.9, most=0.02) for m in ("magnitude", "wanda", "second-order")),
    *(Case(m, 0.9, most=0.02, scope="global") for m in ("gradient", "taylor")),
    Case("gradient", 0.9, schedule="gradual", most=0.2),  # in each layer: too much of the first
    *(Case(m, 0.8, p, most=0.02) for m in ("magnitude", "wanda") for p in ("4x1", "1x4")),
    Case("magnitude", 0.5, "2:4"),
    Case("random", 0.9, schedule="regrow", most=0.1),
)


class Batches:
    """Shuffled anew in each epoch, the same for every copy."""

    def __init__(self, images: Images, seed: int) -> None:
        self._x, self._y = torch.from_numpy(images.train_x), torch.from_numpy(images.train_y)
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self._y) // BATCH)

    def __iter__(self) -> Any:
        order = torch.randperm(len(self._y), generator=self._generator)
        for picked in torch.split(order, BATCH):
            yield self._x[picked], self._y[picked]


def accuracy(module: torch.nn.Module, images: Images) -> float:
    """Of the test set."""
    with torch.inference_mode():
        logits = module(torch.from_numpy(images.test_x)).numpy()
    return float((logits.argmax(1) == images.test_y).mean())


def run_case(
    case: Case, dense: torch.nn.Module, images: Images, seed: int, epochs: int
) -> tuple[float, float, float]:
    """Returns the share of zeros, and the accuracy before and after fine-tuning."""
    module = copy.deepcopy(dense)
    batches = Batches(images, seed + 1)
    data = [batch for batch, _ in zip(batches, range(MEASURED), strict=False)]
    options: dict[str, Any] = {
        "method": case.method,
        "pattern": case.pattern,
        "scope": case.scope,
        "data": data,
    }
    optimizer = torch.optim.Adam(module.parameters(), lr=FINE_TUNING_RATE)
    steps = len(batches) * epochs
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
    prune.fine_tune(module, batches, epochs=epochs, optimizer=optimizer, after_batch=step)
    prune.remove(module)
    weights = [p for p in module.parameters() if p.ndim > 1]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    return zeros, before, accuracy(module, images)


def run_cases(cases: Sequence[Case], seed: int, epochs: int) -> list[tuple[float, ...]]:
    """Trains the network; returns of each case the zeros and the accuracy lost, before and after.

    One thread: so small a network is no faster on more.
    """
    torch.set_num_threads(1)
    images = load_digits(seed)
    torch.manual_seed(seed)
    dense = build_network().eval()
    prune.fine_tune(
        dense, Batches(images, seed), epochs=TRAINING_EPOCHS, learning_rate=LEARNING_RATE
    )
    full = accuracy(dense, images)
    found: list[tuple[float, ...]] = []
    for case in cases:
        zeros, before, after = run_case(case, dense, images, seed, epochs)
        found.append((zeros, full - before, full - after))
        print(seed, case, f"{zeros:.3f} {full:.4f} {before:.4f} {after:.4f}", flush=True)
    return found


def measure(cases: Sequence[Case], seeds: Sequence[int], epochs: int, jobs: int) -> Table:
    """Returns a row for each case: medians over the seeds; `jobs` processes share the work."""
    parts = [(seed, cases[first::jobs]) for seed in seeds for first in range(jobs)]
    found: dict[Case, list[tuple[float, ...]]] = {case: [] for case in cases}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
        running = [pool.submit(run_cases, part, seed, epochs) for seed, part in parts if part]
        for (_, part), future in zip((p for p in parts if p[1]), running, strict=True):
            for case, result in zip(part, future.result(), strict=True):
                found[case].append(result)
    rows, records = [], []
    for case, results in found.items():
        zeros, before, after = (float(np.median(column)) for column in zip(*results, strict=True))
        rows.append(
            (
                case.method,
                case.pattern or ("channel" if case.method in CHANNELS else "unstructured"),
                case.scope,
                case.schedule,
                f"{100 * zeros:.1f} %",
                f"{before:+.4f}",
                f"{after:+.4f}",
                f"{max(r[2] for r in results):+.4f}",
            )
        )
        records.append(
            {**dataclasses.asdict(case), "zeros": zeros, "lost_pruned": before, "lost": after}
        )
    columns = [
        "method",
        "pattern",
        "scope",
        "schedule",
        "zeros",
        "lost at once",
        "lost",
        "lost at worst",
    ]
    title = f"Accuracy lost on the digits' test set, median of {len(seeds)} seeds"
    return Table(title, columns, rows, records=records)


def main() -> None:
    """Measures every case, prints the table, and fails if one loses more than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5, help="of the fine-tuning")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--methods", nargs="+", choices=prune.METHODS, default=prune.METHODS)
    parser.add_argument("--publish", action="store_true", help="put the table into docs/pruning.md")
    args = parser.parse_args()
    cases = [case for case in CASES if case.method in args.methods]
    table = measure(cases, range(args.seeds), args.epochs, max(1, args.jobs))
    print(table)
    if args.publish:
        command = f"python -m bench.pruning --seeds {args.seeds} --epochs {args.epochs} --publish"
        publish(ROOT / "docs" / "pruning.md", "grid", f"`{command}`\n\n{table.to_markdown()}")
    worse = [r for r in table.records if r["lost"] > r["most"] + 1e-9]
    for record in worse:
        print(f"loses more than {record['most']}: {record}")
    if worse:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
