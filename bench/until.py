"""prune_until() against uniform pruning at the same speed: python -m bench.until --publish.

A CNN of 23 million multiply-adds learns cluttered digits (bench/cluttered_digits.py) and is pruned
until it is 2 and 4 times as fast as it is in ONNX Runtime. For comparison it is pruned alike in all
layers, with the sparsity that takes the same time, in as many rounds with the same training.

Training and timing take turns. To time on a machine that does nothing else, give --state and call
it with --phase training and --phase timing in turns, until it says that all is done.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import copy
import functools
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.cluttered_digits import CLUTTERED, load_cluttered_digits
from bench.layers import ROOT, publish
from bench.pruning import Batches, Kept, accuracy, share_of_zeros
from sparsert import convert, load, prune
from sparsert.demo import Images
from sparsert.prune.until.goals import PATTERNS, SPARSITIES
from sparsert.report.cost_table import CostTable
from sparsert.report.machine import describe_machine
from sparsert.report.module_bench import CAREFUL, Measured, ModuleBench, to_measured
from sparsert.report.race import CalmRaces, Entrant
from sparsert.runtime.table import Table, format_bytes

TARGETS = (2.0, 4.0)
UNIFORM = ("unstructured", "4x1")
METHOD = "prune_until"
ROUNDS = 2
BATCH = 32
TRAINING: dict[str, Any] = {"epochs": 12, "learning_rate": 2e-3}
TUNING: dict[str, Any] = {"epochs": 3, "learning_rate": 1e-3}
LAST_RATE = 0.01  # of a training's first one
NEAR = 0.05  # of the requested latency
CORRECTIONS = 4  # of a uniform sparsity
PATIENCE = 240.0  # seconds to wait for a calmer machine, for a network's choices and for a race
EXAMPLE = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
PHASES = ("training", "timing")


class PhaseOver(Exception):
    """What comes next belongs to a phase that is not to be done now."""


class Phase:
    """What may be done now: everything, or one of PHASES alone."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    def enter(self, name: str) -> None:
        """Raises PhaseOver unless a phase may begin."""
        if self._name not in (None, name):
            raise PhaseOver(name)

    def step(self, stage: str, share: float) -> None:
        """Is told by prune_until() what it is about to do."""
        if share == 0.0:
            self.enter("timing" if stage.startswith("timing") else "training")
            print(stage, flush=True)


def build_network() -> nn.Module:
    """float32 [n, 1, 28, 28] -> [n, 10]."""

    def block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32, 2),
        *block(32, 64),
        nn.MaxPool2d(2),
        *block(64, 96),
        *block(96, 128),
        *block(128, 192),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(192, 10),
    )


class SharedBench(ModuleBench):
    """Times the layers once: networks that differ in their weights alone share the table."""

    def __init__(self, module: nn.Module, kept: Kept) -> None:
        super().__init__(module, EXAMPLE, patience=PATIENCE)
        self._kept = kept

    def table(self, *arguments: Any) -> CostTable:
        """As in ModuleBench."""
        make = super().table
        return CostTable.from_dict(self._kept.result("costs", lambda: make(*arguments).to_dict()))

    def measure(self, module: nn.Module, careful: bool = False) -> Measured:
        """As in ModuleBench."""
        make = super().measure
        dense = self._kept.result("dense", lambda: make(self._dense, True).to_dict())
        self._races.best = min(self._races.best, dense["reference_seconds"])
        return make(module, careful) if share_of_zeros(module) > 0 else Measured(**dense)


def train(
    module: nn.Module,
    images: Images,
    *,
    epochs: int,
    learning_rate: float,
    after_batch: Callable[[], Any] = lambda: None,
) -> Sequence[float]:
    """Trains with a rate that falls in a straight line; returns the mean loss of each epoch."""
    batches = Batches(images, BATCH, None)
    optimizer = torch.optim.Adam(module.parameters(), learning_rate)
    falling = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, LAST_RATE, total_iters=epochs * len(batches)
    )

    def step() -> None:
        falling.step()
        after_batch()

    return prune.fine_tune(module, batches, epochs=epochs, optimizer=optimizer, after_batch=step)


def train_dense(images: Images, seed: int, kept: Kept, phase: Phase) -> nn.Module:
    """Returns the network before it is pruned."""
    torch.manual_seed(seed)
    module = build_network().eval()

    def run() -> None:
        phase.enter("training")
        train(module, images, **TRAINING)

    return kept.weights(f"dense-{seed}", module, run)


def find_sparsity(
    dense: nn.Module, pattern: str, target: float, bench: SharedBench, kept: Kept, phase: Phase
) -> float:
    """Returns the share of zeros in all layers with which the network is about so fast."""

    def find() -> float:
        phase.enter("timing")
        layers = [n for n, part in dense.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        costs = bench.table(layers, PATTERNS, SPARSITIES)
        grid = np.linspace(SPARSITIES[0], SPARSITIES[-1], 481)
        times = np.array(
            [
                costs.other_seconds + sum(costs.cost(name, pattern, s).seconds for name in layers)
                for s in grid
            ]
        )
        reference = bench.measure(dense).reference_seconds
        factor, tries = 1.0, []
        for _ in range(CORRECTIONS):
            aim = reference / target
            place = int(np.abs(times * factor - aim).argmin())
            trial = copy.deepcopy(dense)
            prune.prune(trial, sparsity=float(grid[place]), pattern=pattern)
            found = bench.measure(trial)
            tries.append((abs(target / found.speedup - 1), float(grid[place])))
            factor = reference / found.speedup / times[place]
        return min(tries)[1]

    return float(kept.result(f"uniform-{pattern}-{target:g}", find))


def prune_uniformly(
    dense: nn.Module,
    images: Images,
    sparsity: float,
    pattern: str,
    name: str,
    seed: int,
    kept: Kept,
    phase: Phase,
) -> nn.Module:
    """Returns the network with one sparsity in all layers, trained as often as the other one."""
    module = copy.deepcopy(dense)

    def tune(_round: int) -> None:
        train(module, images, **TUNING)

    def run() -> None:
        phase.enter("training")
        torch.manual_seed(seed)
        prune.iterative(module, tune, sparsity=sparsity, rounds=ROUNDS, pattern=pattern)

    return kept.weights(name, module, run)


def race_files(
    dense: nn.Module, modules: dict[str, nn.Module], folder: Path, best: float
) -> dict[str, dict[str, Any]]:
    """Times the exported files in turns with the dense network in ONNX Runtime.

    Args:
        best: seconds that it took there on a calm machine.
    """
    import onnx_ir

    from sparsert.importers import import_model

    onnx_ir.save(import_model(dense, EXAMPLE, None), folder / "dense.onnx")
    entrants = [Entrant("ONNX Runtime, dense", "onnxruntime", folder / "dense.onnx")]
    for name, module in {"sparsert, dense": dense, **modules}.items():
        path = folder / f"{name.replace(' ', '-')}.sprt"
        plain = copy.deepcopy(module)
        prune.remove(plain)
        convert(plain, path, example_inputs=EXAMPLE)
        entrants.append(Entrant(name, "sparsert", path))
    feeds = {load(entrants[1].path).inputs[0].name: EXAMPLE.numpy()}
    results = CalmRaces(PATIENCE, best).race(entrants, feeds, effort=CAREFUL)
    return {
        result.name: {
            **to_measured(result, results[0]).to_dict(),
            "of_medians": result.speedup_over(results[0]),
        }
        for result in results
    }


def run_target(seed: int, target: float, folder: Path, phase: Phase) -> Any:
    """Returns a record for each network, and what prune_until() returned.

    Raises:
        PhaseOver: there is no more to do in this phase.
    """
    torch.set_num_threads(1)
    images, kept = load_cluttered_digits(seed), Kept(folder)
    dense = train_dense(images, seed, kept, phase)
    bench = SharedBench(dense, kept)
    over: list[PhaseOver] = []
    modules, result = {METHOD: copy.deepcopy(dense)}, None
    try:
        result = prune.prune_until(
            modules[METHOD],
            lambda module: accuracy(module, images),
            target_speedup=target,
            data=Batches(images, BATCH, None),
            train=functools.partial(train, images=images),
            rounds=ROUNDS,
            seed=seed,
            state=folder / f"until-{target:g}-{seed}",
            bench=bench,
            on_progress=phase.step,
            **TUNING,
        )
    except PhaseOver as error:
        over.append(error)
    for pattern in UNIFORM:
        try:
            sparsity = find_sparsity(dense, pattern, target, bench, kept, phase)
            name = f"uniform-{pattern}-{target:g}-{seed}"
            modules[f"uniform {pattern}"] = prune_uniformly(
                dense, images, sparsity, pattern, name, seed, kept, phase
            )
        except PhaseOver as error:
            over.append(error)
    bench.close()
    if over:
        raise over[0]

    def time_all() -> dict[str, dict[str, Any]]:
        phase.enter("timing")
        with tempfile.TemporaryDirectory() as temporary:
            best = bench.measure(dense).reference_seconds
            return race_files(dense, modules, Path(temporary), best)

    times = kept.result(f"race-{target:g}-{seed}", time_all)
    full = accuracy(dense, images)
    scores = {name: accuracy(module, images) for name, module in modules.items()}
    records = [
        {
            "target": target,
            "seed": seed,
            "network": name,
            "score": scores.get(name, full),
            "drop": full - scores.get(name, full),
            "zeros": share_of_zeros(modules.get(name, dense)),
            **figures,
        }
        for name, figures in times.items()
    ]
    return records, result


def try_target(seed: int, target: float, folder: Path, phase: str | None) -> str:
    """Does what can be done in a phase; returns the phase that comes next, or ""."""
    try:
        run_target(seed, target, folder, Phase(phase))
    except PhaseOver as error:
        return str(error)
    return ""


def to_table(records: Sequence[dict[str, Any]]) -> Table:
    """Returns a row for each target and network: medians over the seeds."""
    keys = sorted({(r["target"], r["network"]) for r in records}, key=lambda key: key[0])
    order = list(dict.fromkeys(r["network"] for r in records))
    seeds = len({r["seed"] for r in records})
    rows: list[Sequence[Any]] = []
    for target, network in sorted(keys, key=lambda key: (key[0], order.index(key[1]))):
        mine = [r for r in records if (r["target"], r["network"]) == (target, network)]

        def middle(key: str, mine: list[dict[str, Any]] = mine) -> float:
            return float(np.median([r[key] for r in mine]))

        off = [target / r["speedup"] - 1 for r in mine]
        drops = [r["drop"] for r in mine]
        is_pruned = not network.endswith("dense")
        rows.append(
            (
                f"{target:g}",
                network,
                f"{100 * middle('zeros'):.1f} %",
                f"{1e3 * middle('seconds'):.3f}",
                f"{100 * middle('spread'):.0f} %",
                f"{middle('speedup'):.2f}",
                f"{middle('of_medians'):.2f}",
                f"{100 * max(off, key=abs):+.1f} %" if is_pruned else None,
                f"{np.mean([r['score'] for r in mine]):.4f}",
                f"{np.mean(drops):+.4f}" if is_pruned else None,
                f"{min(drops):+.4f} to {max(drops):+.4f}" if is_pruned else None,
                format_bytes(middle("file_bytes")),
            )
        )
    columns = ["target", "network", "zeros", "ms", "spread", "speedup", "of medians"]
    columns += ["off at worst", "accuracy", "drop", "of the seeds", "file"]
    notes = [
        CLUTTERED,
        f"{seeds} seed(s): medians; accuracy and drop: means. A race of the exported files with "
        "the dense network in ONNX Runtime, one image, one thread. ms and speedup: the "
        "turns count in which the machine was calm, by ONNX Runtime's fastest run in this one and "
        "the next, each by its fastest run, since what else runs on the host lengthens runs, and "
        "not alike in both engines; of medians: the speedup if they count by their median run; "
        "off: from the requested latency.",
    ]
    return Table("Pruned until 2 and 4 times as fast", columns, rows, notes, list(records))


def find_problems(records: Sequence[dict[str, Any]]) -> list[str]:
    """Returns where prune_until() missed a target, or was not better than pruning uniformly."""
    problems = []
    for record in records:
        off = record["target"] / record["speedup"] - 1
        if record["network"] == METHOD and abs(off) > NEAR:
            problems.append(f"{100 * off:+.1f} % off the target: {record}")
    for target in sorted({record["target"] for record in records}):
        scores: dict[str, list[float]] = {}
        for record in records:
            if record["target"] == target and not record["network"].endswith("dense"):
                scores.setdefault(record["network"], []).append(record["score"])
        means = {network: float(np.mean(values)) for network, values in scores.items()}
        problems += [
            f"at {target:g}x {network} is as accurate as {METHOD}: {means[network]:.4f}"
            for network in means
            if network != METHOD and means[network] >= means[METHOD]
        ]
    return problems


def main() -> None:
    """Prints the table; fails if a target was missed, or nothing gained on pruning uniformly."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--state", type=Path, help="a folder in which what is done is kept")
    parser.add_argument("--phase", choices=PHASES, help="only this; needs --state")
    parser.add_argument("--publish", action="store_true", help="put the table into docs/pruning.md")
    args = parser.parse_args()
    if args.phase and not args.state:
        parser.error("--phase needs --state")
    runs = [(seed, target) for target in args.targets for seed in range(args.seeds)]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.state or Path(temporary)
        left = ["training"]
        while any(left):
            for phase in (args.phase,) if args.phase else PHASES:
                jobs = 1 if phase == "timing" else max(1, args.jobs)
                with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
                    do = functools.partial(try_target, folder=folder, phase=phase)
                    left = list(pool.map(do, *zip(*runs, strict=True)))
            if args.phase:
                break
        if any(left):
            print("next: --phase", " and ".join(sorted({name for name in left if name})))
            return
        found = [run_target(seed, target, folder, Phase(None)) for seed, target in runs]
    records = [record for part, _ in found for record in part]
    result = found[-1][1]
    table = to_table(records)
    print(table, result, sep="\n\n")
    if args.publish:
        command = f"python -m bench.until --seeds {args.seeds} --publish"
        lines = "\n".join(f"- {line}" for line in describe_machine().lines())
        layers = result.layers.to_markdown()
        text = f"`{command}`\n\n{table.to_markdown()}\n\n{layers}\n\n{lines}"
        publish(ROOT / "docs" / "pruning.md", "until", text)
    problems = find_problems(records)
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
