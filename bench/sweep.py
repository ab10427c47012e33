"""Speed and memory over zeros, patterns, batch and threads: python -m bench.sweep resnet50.

sparsert races the dense engines that are installed, each in its own process, taking turns; outputs
are compared in the same run. Writes a Markdown table, JSON, and a plot per network of the speed
relative to the best dense engine beside the ideal 1 / (1 - zeros).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.models import ALL_MODELS, PATTERNS, make_feeds
from bench.peers.files import make_files
from bench.peers.race import ROOT, Effort, Result, parse_entrant, run_heat
from bench.peers.report import DENSE_ENGINES, machine_facts, origin, summarise
from sparsert.runtime.table import Table, format_bytes

OWN = "sparsert"
UNSTRUCTURED = "unstructured"
EXAMPLE = "example: python -m bench.sweep resnet50 mobilenet_v1 --sparsity 0 0.8 0.9 --batch 1 16"
MAX_ERROR = 1e-3  # over the largest output; more is a wrong answer, not rounding


@dataclasses.dataclass(frozen=True)
class Heat:
    """One race: a file, a batch, a number of threads."""

    model: str
    sparsity: float
    pattern: str
    batch: int
    threads: int

    @property
    def file(self) -> tuple[str, float, str, int]:
        """What the file depends on."""
        return self.model, self.sparsity, self.pattern, self.batch

    def __str__(self) -> str:
        return (
            f"{self.model}, {self.sparsity:.0%} zeros, {self.pattern}, batch {self.batch}, "
            f"{self.threads} thread(s)"
        )


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.sweep",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(ALL_MODELS))
    parser.add_argument("--sparsity", nargs="+", type=float, default=[0, 0.5, 0.7, 0.8, 0.9, 0.95])
    parser.add_argument(
        "--pattern", nargs="+", choices=list(PATTERNS), default=["unstructured", "4x1"]
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument(
        "--at",
        type=float,
        default=0.9,
        help="zeros at which further batches and numbers of threads are raced",
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each engine, 7 or more")
    parser.add_argument("--burst", type=float, default=0.3, help="seconds of one turn")
    parser.add_argument("--short", action="store_true", help="the small CNN alone, under a minute")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--name", default="sweep", help="of the files written into --out")
    args = parser.parse_args(argv)
    if args.short:
        args.models = args.models or ["small_cnn"]
        args.sparsity, args.batch, args.threads, args.burst = [0, 0.9], [1, 4], [1], 0.05
    unknown = [model for model in args.models if model not in ALL_MODELS]
    if unknown or not args.models:
        parser.error(
            f"expected some of {', '.join(ALL_MODELS)}, got {', '.join(unknown) or 'none'}"
        )
    if not all(0 <= sparsity < 1 for sparsity in [*args.sparsity, args.at]):
        parser.error("--sparsity and --at: at least 0 and less than 1")
    if args.rounds < 7:
        parser.error("--rounds: at least 7, or the medians mean little")
    return args


def plan_heats(args: argparse.Namespace) -> list[Heat]:
    """Every sparsity and pattern at the first batch and threads; the others at --at alone."""
    heats: list[Heat] = []
    batch, threads = args.batch[0], args.threads[0]
    for model in args.models:
        for sparsity, pattern in itertools.product(args.sparsity, args.pattern):
            # Without zeros there is no pattern.
            pattern = pattern if sparsity else UNSTRUCTURED
            heats.append(Heat(model, sparsity, pattern, batch, threads))
        heats += [Heat(model, args.at, UNSTRUCTURED, batch, n) for n in args.threads]
        heats += [Heat(model, args.at, UNSTRUCTURED, n, threads) for n in args.batch]
    return list(dict.fromkeys(heats))


def installed_engines() -> list[str]:
    """The dense engines that can be imported here, and sparsert."""
    dense = [name for name in DENSE_ENGINES if importlib.util.find_spec(name) is not None]
    if not dense:
        raise SystemExit("no dense engine is installed: pip install onnxruntime openvino")
    return [*dense, OWN]


def log(message: str) -> None:
    """Prints progress at once."""
    print(message, file=sys.stderr, flush=True)


def race(heats: Sequence[Heat], effort: Effort) -> list[Result]:
    """Runs the heats; heats of one file share it."""
    entrants = [parse_entrant(name) for name in installed_engines()]
    results: list[Result] = []
    start, done = time.monotonic(), 0
    by_file: dict[tuple[str, float, str, int], list[Heat]] = {}
    for heat in heats:
        by_file.setdefault(heat.file, []).append(heat)
    for (model, sparsity, pattern, batch), members in by_file.items():
        with tempfile.TemporaryDirectory(prefix="sweep-") as name:
            folder = Path(name)
            suffixes = {entrant.suffix for entrant in entrants}
            files = make_files(
                *(model, sparsity, pattern, folder), batch=batch, suffixes=suffixes, log=log
            )
            feeds = make_feeds(model, batch)
            for heat in members:
                done += 1
                log(f"[{time.monotonic() - start:5.0f} s] {done}/{len(heats)}: {heat}")
                results += run_heat(
                    *(model, sparsity, heat.threads, batch, feeds, files, entrants),
                    *(effort, folder, log),
                    pattern=pattern,
                )
    return results


def pair_up(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record per heat: sparsert beside the dense engine that was the fastest.

    Args:
        rows: as bench.peers.report.summarise() makes them.

    Raises:
        RuntimeError: an engine failed, or sparsert's output is not the dense engines'.
    """
    failed = [f"{row['engine']} on {row['model']}: {row['error']}" for row in rows if row["error"]]
    failed += [
        f"{row['engine']} on {row['model']}: error {row['max_error']:.1e} of the largest output"
        for row in rows
        if not row["error"] and row["max_error"] is not None and not row["max_error"] < MAX_ERROR
    ]
    if failed:
        raise RuntimeError("; ".join(failed))
    heats: dict[Heat, dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = Heat(*(row[f.name] for f in dataclasses.fields(Heat)))
        heats.setdefault(key, {})[row["engine"]] = row
    records = []
    for heat, engines in heats.items():
        own = engines.pop(OWN)
        dense = min(engines.values(), key=lambda row: row["median_ms"])
        record: dict[str, Any] = dataclasses.asdict(heat)
        record.update(
            dense_engine=dense["engine"],
            dense_ms=dense["median_ms"],
            sparsert_ms=own["median_ms"],
            spread=own["spread"],
            speedup=own["speedup_over_best_dense"],
            ideal=1 / (1 - heat.sparsity),
            max_error=own["max_error"],
            onnx_bytes=dense["file_bytes"],
            sprt_bytes=own["file_bytes"],
            weight_bytes=own["weight_bytes"],
            arena_bytes=own["arena_bytes"],
            sparsert_rss_bytes=own["peak_growth_bytes"],
            dense_rss_bytes=dense["peak_growth_bytes"],
        )
        records.append(record)
    return records


def add_scaling(records: list[dict[str, Any]]) -> None:
    """Adds how the time grows from the smallest batch, and shrinks from the fewest threads.

    per_image: ms of an image over that of the smallest batch of the same file otherwise; 1 is
    linear, less is better. over_one_thread: speed over that of the fewest threads.
    """
    for record in records:
        alike = [r for r in records if _same(r, record, "model", "sparsity", "pattern")]
        batches = [r for r in alike if _same(r, record, "threads")]
        base = min(batches, key=lambda r: r["batch"])
        record["per_image"] = (
            record["sparsert_ms"] / record["batch"] / (base["sparsert_ms"] / base["batch"])
        )
        base = min((r for r in alike if _same(r, record, "batch")), key=lambda r: r["threads"])
        record["over_one_thread"] = base["sparsert_ms"] / record["sparsert_ms"]


def _same(a: dict[str, Any], b: dict[str, Any], *keys: str) -> bool:
    return all(a[key] == b[key] for key in keys)


def sweep_table(model: str, records: list[dict[str, Any]]) -> Table:
    """One row per heat of a model."""
    columns = ["zeros", "pattern", "batch", "threads", "best dense", "dense ms", "sparsert ms"]
    columns += ["spread", "x best dense", "ideal", "ms per image", "per image / smallest batch"]
    columns += ["x fewest threads", "error", "file, onnx", "file, sprt", "packed weights", "arena"]
    columns += ["RSS growth, dense", "RSS growth, sparsert"]
    byte_keys = ["onnx_bytes", "sprt_bytes", "weight_bytes", "arena_bytes"]
    byte_keys += ["dense_rss_bytes", "sparsert_rss_bytes"]
    mine = [record for record in records if record["model"] == model]
    rows = [
        (
            f"{r['sparsity']:.0%}",
            r["pattern"] if r["sparsity"] else "",
            r["batch"],
            r["threads"],
            r["dense_engine"],
            f"{r['dense_ms']:.3f}",
            f"{r['sparsert_ms']:.3f}",
            f"{r['spread']:.0%}",
            f"{r['speedup']:.2f}",
            f"{r['ideal']:.2f}",
            f"{r['sparsert_ms'] / r['batch']:.3f}",
            f"{r['per_image']:.2f}",
            f"{r['over_one_thread']:.2f}",
            None if r["max_error"] is None else f"{r['max_error']:.1e}",
            *(None if r[key] is None else format_bytes(r[key]) for key in byte_keys),
        )
        for r in mine
    ]
    return Table(model, columns, rows, records=mine)


def plot(model: str, records: list[dict[str, Any]], path: Path) -> None:
    """Draws the speed relative to the best dense engine over zeros, a line per pattern."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    mine = [record for record in records if record["model"] == model]
    first = mine[0]
    mine = [record for record in mine if _same(record, first, "batch", "threads")]
    figure, axis = pyplot.subplots(figsize=(5.5, 4))
    dense = [(r["sparsity"], r["speedup"]) for r in mine if not r["sparsity"]]
    for pattern in dict.fromkeys(r["pattern"] for r in mine if r["sparsity"]):
        points = [(r["sparsity"], r["speedup"]) for r in mine if r["pattern"] == pattern]
        points = sorted({*dense, *points})
        axis.plot([100 * s for s, _ in points], [y for _, y in points], "o-", label=pattern)
    grid = np.linspace(0, max(r["sparsity"] for r in mine), 100)
    axis.plot(100 * grid, 1 / (1 - grid), "k--", lw=1, label="ideal, 1 / (1 - zeros)")
    axis.axhline(1, color="grey", lw=1)
    axis.set_ylim(0, 1.5 * max(r["speedup"] for r in mine) + 0.5)
    axis.set_xlabel("zeros, %")
    axis.set_ylabel("speed / best dense engine")
    axis.set_title(f"{model}, batch {first['batch']}, {first['threads']} thread(s)")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> None:
    """Races, prints the tables and writes them with the plots."""
    args = parse_arguments(argv)
    command = shlex.join(["python", "-m", "bench.sweep", *(sys.argv[1:] if argv is None else argv)])
    facts = machine_facts()
    effort = Effort(rounds=args.rounds, burst_seconds=args.burst, warmups=1)
    records = pair_up(summarise(race(plan_heats(args), effort)))
    add_scaling(records)
    args.out.mkdir(parents=True, exist_ok=True)
    sections = ["# Sweep", origin([command], facts)]
    for model in args.models:
        image = f"{args.name}-{model}.png"
        plot(model, records, args.out / image)
        table = sweep_table(model, records)
        print(table)
        sections += [table.to_markdown(), f"![{model}: speed over zeros]({image})"]
    (args.out / f"{args.name}.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    report = {"command": command, "machine": facts, "results": records}
    (args.out / f"{args.name}.json").write_text(
        json.dumps(report, indent=1) + "\n", encoding="utf-8"
    )
    log(f"wrote {args.name}.md, {args.name}.json and a plot per network into {args.out.name}/")


if __name__ == "__main__":
    main()
