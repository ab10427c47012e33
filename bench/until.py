"""prune_until() against uniform pruning at the same speed: python -m bench.until --publish.

A CNN of 90 million multiply-adds learns scikit-learn's digits and is pruned until it is 2 and 4
times as fast as it is in ONNX Runtime. For comparison it is pruned alike in all layers, with the
sparsity that takes the same time, in as many rounds with the same training.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.layers import ROOT, publish
from bench.pruning import accuracy
from sparsert import convert, load, prune
from sparsert.demo import Images, load_digits
from sparsert.report.cost_table import CostTable
from sparsert.report.machine import describe_machine
from sparsert.report.module_bench import CAREFUL, Measured, ModuleBench
from sparsert.report.race import Entrant, race
from sparsert.runtime.table import Table, format_bytes

TARGETS = (2.0, 4.0)
UNIFORM = ("unstructured", "4x1")
ROUNDS = 3
BATCH = 32
TRAINING: Sequence[dict[str, Any]] = (
    {"epochs": 4, "learning_rate": 2e-3},
    {"epochs": 2, "learning_rate": 2e-4},
)
TUNING: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3}
NEAR = 0.05  # of the requested latency
BISECTIONS = 7
EXAMPLE = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def build_network() -> nn.Module:
    """float32 [n, 1, 28, 28] -> [n, 10]."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32),
        nn.MaxPool2d(2),
        *block(32, 64),
        *block(64, 128),
        *block(128, 128),
        nn.MaxPool2d(2),
        *block(128, 256),
        *block(256, 256),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


class Batches:
    """Shuffled by torch's own generator, which prune_until() sets."""

    def __init__(self, images: Images) -> None:
        self._x, self._y = torch.from_numpy(images.train_x), torch.from_numpy(images.train_y)

    def __len__(self) -> int:
        return -(-len(self._y) // BATCH)

    def __iter__(self) -> Iterator[Any]:
        for picked in torch.split(torch.randperm(len(self._y)), BATCH):
            yield self._x[picked], self._y[picked]


class Kept:
    """Results that are kept in a folder, as prune_until() keeps its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def result(self, name: str, compute: Callable[[], Any]) -> Any:
        """Plain JSON."""
        path = self._folder / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(compute()), encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))

    def weights(self, name: str, module: nn.Module, compute: Callable[[], Any]) -> nn.Module:
        """A module's, set by compute()."""
        path = self._folder / f"{name}.pt"
        if not path.exists():
            compute()
            torch.save(module.state_dict(), path)
        prune.load_state(module, torch.load(path, weights_only=True))
        return module


class SharedBench(ModuleBench):
    """Times the layers once: networks that differ in their weights alone share the table."""

    def __init__(self, module: nn.Module, kept: Kept) -> None:
        super().__init__(module, EXAMPLE)
        self._kept = kept

    def table(self, *arguments: Any) -> CostTable:
        """As in ModuleBench."""
        make = super().table
        return CostTable.from_dict(self._kept.result("costs", lambda: make(*arguments).to_dict()))


def train_dense(images: Images, seed: int, kept: Kept) -> nn.Module:
    """Returns the network before it is pruned."""
    torch.manual_seed(seed)
    module = build_network().eval()

    def train() -> None:
        for options in TRAINING:
            prune.fine_tune(module, Batches(images), **options)

    return kept.weights(f"dense-{seed}", module, train)


def prune_uniformly(
    dense: nn.Module,
    images: Images,
    pattern: str,
    target: float,
    bench: ModuleBench,
    kept: Kept,
    seed: int,
) -> nn.Module:
    """Returns the network with one sparsity in all layers, and about that speed."""
    name = f"uniform-{pattern}-{target:g}-{seed}"

    def find() -> float:
        low, high = 0.3, 0.99
        for _ in range(BISECTIONS):
            middle = 1 - ((1 - low) * (1 - high)) ** 0.5
            trial = copy.deepcopy(dense)
            prune.prune(trial, sparsity=middle, pattern=pattern)
            if bench.measure(trial).speedup < target:
                low = middle
            else:
                high = middle
        return high

    sparsity = kept.result(name, find)
    module = copy.deepcopy(dense)

    def train(_round: int) -> None:
        prune.fine_tune(module, Batches(images), **TUNING)

    def run() -> None:
        torch.manual_seed(seed)
        prune.iterative(module, train, sparsity=sparsity, rounds=ROUNDS, pattern=pattern)

    return kept.weights(name, module, run)


def race_files(
    dense: nn.Module, modules: dict[str, nn.Module], folder: Path
) -> dict[str, dict[str, Any]]:
    """Times the exported files in turns with the dense network in ONNX Runtime."""
    import onnx_ir

    from sparsert.importers import import_model

    onnx_ir.save(import_model(dense, EXAMPLE, None), folder / "dense.onnx")
    entrants = [Entrant("ONNX Runtime, dense", "onnxruntime", folder / "dense.onnx")]
    for name, module in {"sparsert, dense": dense, **modules}.items():
        path = folder / f"{name.replace(' ', '-')}.sprt"
        convert(module, path, example_inputs=EXAMPLE)
        entrants.append(Entrant(name, "sparsert", path))
    feeds = {load(entrants[1].path).inputs[0].name: EXAMPLE.numpy()}
    results = race(entrants, feeds, effort=CAREFUL)
    return {
        result.name: Measured(
            result.median,
            result.spread,
            result.speedup_over(results[0]) or 0.0,
            results[0].median,
            results[0].spread,
            result.file_bytes or 0,
        ).to_dict()
        for result in results
    }


def run_seed(seed: int, targets: Sequence[float], folder: Path) -> tuple[list[dict[str, Any]], Any]:
    """Returns a record for each network, and the last result of prune_until()."""
    images, kept = load_digits(seed), Kept(folder)
    dense = train_dense(images, seed, kept)
    bench = SharedBench(dense, kept)
    scores = {"ONNX Runtime, dense": accuracy(dense, images)}
    scores["sparsert, dense"] = scores["ONNX Runtime, dense"]
    records, result = [], None
    for target in targets:
        modules = {"prune_until": copy.deepcopy(dense)}
        result = prune.prune_until(
            modules["prune_until"],
            lambda module: accuracy(module, images),
            target_speedup=target,
            data=Batches(images),
            rounds=ROUNDS,
            batches=2,
            seed=seed,
            state=folder / f"until-{target:g}-{seed}",
            bench=bench,
            on_progress=lambda stage, share: print(stage, f"{share:.2f}", flush=True),
            **TUNING,
        )
        for pattern in UNIFORM:
            modules[f"uniform {pattern}"] = prune_uniformly(
                dense, images, pattern, target, bench, kept, seed
            )
        name = f"race-{target:g}-{seed}"
        times = kept.result(name, functools.partial(race_files, dense, modules, folder))
        scores.update({name: accuracy(module, images) for name, module in modules.items()})
        records += [
            {
                "target": target,
                "seed": seed,
                "network": name,
                "score": scores[name],
                "drop": scores["ONNX Runtime, dense"] - scores[name],
                "zeros": zeros(modules.get(name, dense)),
                **measured,
            }
            for name, measured in times.items()
        ]
    bench.close()
    return records, result


def zeros(module: nn.Module) -> float:
    """Share of zeros among the weights of convolutions and linear layers."""
    weights = [part.weight for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def to_table(records: Sequence[dict[str, Any]]) -> Table:
    """Returns a row for each target and network: medians over the seeds."""
    keys = list(dict.fromkeys((r["target"], r["network"]) for r in records))
    seeds = len({r["seed"] for r in records})
    rows: list[Sequence[Any]] = []
    for target, network in keys:
        mine = [r for r in records if (r["target"], r["network"]) == (target, network)]

        def middle(key: str, mine: list[dict[str, Any]] = mine) -> float:
            return float(np.median([r[key] for r in mine]))

        off = [target / r["speedup"] - 1 for r in mine]
        is_pruned = not network.endswith("dense")
        rows.append(
            (
                f"{target:g}",
                network,
                f"{100 * middle('zeros'):.1f} %",
                f"{1e3 * middle('seconds'):.3f}",
                f"{100 * middle('spread'):.0f} %",
                f"{middle('speedup'):.2f}",
                f"{100 * max(off, key=abs):+.1f} %" if is_pruned else None,
                f"{middle('score'):.4f}",
                f"{np.mean([r['drop'] for r in mine]):+.4f}" if is_pruned else None,
                format_bytes(middle("file_bytes")),
            )
        )
    columns = ["target", "network", "zeros", "ms", "spread", "speedup", "off at worst"]
    columns += ["accuracy", "drop", "file"]
    notes = [
        f"{seeds} seed(s): medians; drop: mean. ms of one image on one thread; speedup over ONNX "
        "Runtime with the dense network, median over the rounds of a race of the exported files, "
        "in turns; off: from the requested latency."
    ]
    return Table("Pruned until 2 and 4 times as fast", columns, rows, notes, list(records))


def main() -> None:
    """Prints the table; fails if a target was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--state", type=Path, help="a folder in which what is done is kept")
    parser.add_argument("--publish", action="store_true", help="put the table into docs/pruning.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.state or Path(temporary)
        records: list[dict[str, Any]] = []
        result: Any = None
        for seed in range(args.seeds):
            found, result = run_seed(seed, args.targets, folder)
            records += found
    table = to_table(records)
    print(table, result, sep="\n\n")
    if args.publish:
        command = f"python -m bench.until --seeds {args.seeds} --publish"
        lines = "\n".join(f"- {line}" for line in describe_machine().lines())
        layers = result.layers.to_markdown()
        text = f"`{command}`\n\n{table.to_markdown()}\n\n{layers}\n\n{lines}"
        publish(ROOT / "docs" / "pruning.md", "until", text)
    mine = [r for r in records if r["network"] == "prune_until"]
    missed = [r for r in mine if abs(r["target"] / r["speedup"] - 1) > NEAR]
    for record in missed:
        print(f"more than {100 * NEAR:g} % off the target: {record}")
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
