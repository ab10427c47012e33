"""Half the parameters removed by structure: python -m bench.structure --publish.

A CNN of 3x3 convolutions learns scikit-learn's digits; copies of it lose half of their parameters
as whole channels, chosen in several ways, and are fine-tuned. The networks of the first seed race
against the dense one in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import copy
import itertools
import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from bench.layers import ROOT, publish
from bench.pruning import Batches, accuracy
from sparsert import convert, load, prune
from sparsert.demo import FINE_TUNING_RATE, LEARNING_RATE, export_network, load_digits
from sparsert.report import Effort, Entrant, describe_machine, race
from sparsert.report.race import max_relative_error
from sparsert.runtime.table import Table

EPOCHS, FINE_TUNING_EPOCHS = 4, 2
BATCH = 16
MEASURED = 8  # batches that criteria see
SHARE = 0.5  # of the parameters
SPEED = 2.08  # to beat: speed at half the parameters
MOST = 0.03  # accuracy that may be lost
TOLERANCE = 1e-4
DENSE = "dense"
VARIANTS: dict[str, dict[str, Any]] = {
    "random, layer-wise": {"method": "random"},
    "taylor, layer-wise": {"method": "taylor"},
    "taylor, greedy": {"method": "taylor", "strategy": "greedy"},
}
PEER = "taylor, layer-wise"  # runs in ONNX Runtime too
NETWORK = "Conv64-Pool-Conv128-Conv128-Pool-Conv256-GlobalPool-Dense10"


def build_network() -> nn.Module:
    """Returns the network with new weights: float32 [n, 1, 28, 28] -> [n, 10]."""
    layers: list[nn.Module] = []
    widths = [1, 64, 128, 128, 256]
    for number, (before, width) in enumerate(itertools.pairwise(widths)):
        if number in (1, 3):
            layers.append(nn.MaxPool2d(2))
        convolution = nn.Conv2d(before, width, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def make_networks(folder: Path, seed: int) -> None:
    """Trains, shrinks and fine-tunes; leaves facts and, of the first seed, ONNX and .sprt files."""
    path = folder / f"facts-{seed}.json"
    if path.exists():
        return
    torch.set_num_threads(1)
    images = load_digits(seed)
    torch.manual_seed(seed)
    dense = build_network().eval()
    batches = Batches(images, BATCH, seed)
    prune.fine_tune(dense, batches, epochs=EPOCHS, learning_rate=LEARNING_RATE)
    facts = {DENSE: _facts(dense, images)}
    if seed == 0:
        _save(dense, folder / "dense", images.test_x)
    for number, (name, options) in enumerate(VARIANTS.items()):
        module = copy.deepcopy(dense)
        data = list(itertools.islice(Batches(images, BATCH, seed), MEASURED))
        x = data[0][0]
        report = prune.shrink(module, x, parameters=SHARE, data=data, seed=seed, **options)
        before = accuracy(module, images)
        batches = Batches(images, BATCH, seed + 1)
        prune.fine_tune(module, batches, epochs=FINE_TUNING_EPOCHS, learning_rate=FINE_TUNING_RATE)
        facts[name] = {**_facts(module, images), "at_once": before, "error": report.error}
        print(seed, name, facts[name], flush=True)
        if seed == 0:
            _save(module, folder / f"variant-{number}", images.test_x)
    path.write_text(json.dumps(facts), encoding="utf-8")


def _facts(module: nn.Module, images: Any) -> dict[str, Any]:
    parameters = sum(parameter.numel() for parameter in module.parameters())
    widths = [part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d)]
    return {
        "accuracy": accuracy(module, images),
        "parameters": parameters,
        "widths": "-".join(map(str, widths)),
    }


def _save(module: nn.Module, stem: Path, x: np.ndarray) -> None:
    """Writes the network as ONNX and .sprt, and compares the outputs.

    Raises:
        RuntimeError: they differ.
    """
    onnx.save(export_network(module.eval()), stem.with_suffix(".onnx"))
    convert(stem.with_suffix(".onnx"), stem.with_suffix(".sprt"))
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    found = load(stem.with_suffix(".sprt"), threads=1).run(None, {"image": x})[0]
    error = max_relative_error(found, expected)
    if error > TOLERANCE:
        raise RuntimeError(f"{stem.name}: sparsert's outputs differ from torch's by {error:.1e}")


def measure(folder: Path, seeds: Sequence[int], images: np.ndarray, effort: Effort) -> Table:
    """Races the networks of the first seed; returns a row for each engine and network.

    Raises:
        RuntimeError: an engine failed.
    """
    facts = [json.loads((folder / f"facts-{seed}.json").read_text("utf-8")) for seed in seeds]
    stems = {DENSE: folder / "dense"}
    stems |= {name: folder / f"variant-{number}" for number, name in enumerate(VARIANTS)}
    peers = [("onnxruntime", name) for name in (DENSE, PEER)]
    heats = [*peers, *(("sparsert", name) for name in stems)]
    suffixes = {"onnxruntime": ".onnx", "sparsert": ".sprt"}
    entrants = [
        Entrant(f"{engine}, {name}", engine, stems[name].with_suffix(suffixes[engine]))
        for engine, name in heats
    ]
    races = {
        batch: {
            result.name: result
            for result in race(entrants, {"image": images}, chunk=batch, effort=effort)
        }
        for batch in (1, len(images))
    }
    problems = [f"{r.name}: {r.error}" for found in races.values() for r in found.values()]
    problems = [problem for problem in problems if not problem.endswith(": ")]
    rows, records = [], []
    if problems:
        raise RuntimeError("; ".join(problems))
    for engine, name in heats:
        own = [fact[name] for fact in facts]
        lost = [f[DENSE]["accuracy"] - f[name]["accuracy"] for f in facts]
        speeds, spreads = [], []
        for found in races.values():
            mine, reference = found[f"{engine}, {name}"], found[f"onnxruntime, {DENSE}"]
            pairs = zip(reference.round_medians, mine.round_medians, strict=True)
            speeds.append(float(np.median([a / b for a, b in pairs])))
            spreads.append(mine.spread)
        share = 1 - own[0]["parameters"] / facts[0][DENSE]["parameters"]
        rows.append(
            (
                f"{engine}, {name}",
                own[0]["widths"],
                f"{own[0]['parameters']:,}",
                f"{100 * share:.1f} %",
                f"{np.mean([f['accuracy'] for f in own]):.4f}",
                f"{np.mean(lost):+.4f}" if name != DENSE else "",
                f"{min(lost):+.4f} to {max(lost):+.4f}" if name != DENSE else "",
                *(f"{speed:.2f}" for speed in speeds),
                f"{100 * max(spreads):.0f} %",
            )
        )
        facts_of_row = {"engine": engine, "network": name, "share": share}
        records.append({**facts_of_row, "lost": max(lost), "speed": min(speeds)})
    columns = ["engine, network", "channels", "parameters", "removed", "accuracy", "lost"]
    columns += ["of the seeds", *(f"speed, batch {batch}" for batch in races), "spread"]
    machine = describe_machine()
    title = (
        f"{NETWORK} on the digits, one thread; accuracy: mean of {len(seeds)} seeds; speed "
        "relative to ONNX Runtime with the dense network"
    )
    return Table(title, columns, rows, [f"{machine.cpu}, {machine.date}."], records)


def main() -> None:
    """Trains, measures, prints the table; fails if half the parameters bring less than they may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--state", type=Path, help="a folder in which what is done is kept")
    parser.add_argument("--no-race", action="store_true", help="train only; needs --state")
    parser.add_argument("--publish", action="store_true", help="put the table into docs/pruning.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.state or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        seeds = range(args.seeds)
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(max(1, args.jobs), context) as pool:
            list(pool.map(make_networks, [folder] * len(seeds), seeds))
        if args.no_race:
            return
        effort = Effort(rounds=9, burst_seconds=0.1)
        table = measure(folder, seeds, load_digits(0).test_x, effort)
    print(table)
    if args.publish:
        command = f"python -m bench.structure --seeds {args.seeds} --publish"
        publish(ROOT / "docs" / "pruning.md", "structure", f"`{command}`\n\n{table.to_markdown()}")
    bad = [
        record
        for record in table.records
        if record["engine"] == "sparsert"
        and record["network"] != DENSE
        and (record["speed"] <= SPEED or record["lost"] >= MOST or record["share"] < SHARE)
    ]
    for record in bad:
        print(f"misses {SPEED} times the speed at {SHARE:.0%} for less than {MOST} lost: {record}")
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
