"""Command: python -m bench.peers --models resnet50 --sparsity 0.9 --threads 1 2."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.models import ALL_MODELS, ENCODERS, LINEAR, MODELS, PATTERNS, UNSEEN, make_feeds
from bench.models.quantised import ACTIVATIONS, output_units
from bench.peers.files import make_files
from bench.peers.published import PUBLISHED
from bench.peers.race import (
    DEEPSPARSE_PYTHON,
    ROOT,
    Effort,
    Result,
    parse_entrant,
    run_heat,
)
from bench.peers.report import (
    machine_facts,
    merge_rows,
    publish,
    summarise,
    to_summary,
    write_all,
)

GROUPS = {"unseen": list(UNSEEN), "linear": [*LINEAR, *ENCODERS]}
# What Numba compiles takes longer than a heat of the short race.
SHORT_ENGINES = ["onnxruntime", "openvino", "deepsparse", "torch", "sparsert"]
ENGINES = [*SHORT_ENGINES, "sparsert-numba"]
SPARSITIES = [0.0, 0.5, 0.7, 0.8, 0.9, 0.95]
DTYPES = ["float32", "int8"]
# Of a race of int8: PyTorch's engine here interprets float graphs alone.
INT8_ENGINES = ["onnxruntime", "openvino", "openvino@avx512vnni", "deepsparse", "sparsert"]


def log(message: str) -> None:
    """Prints progress at once."""
    print(message, file=sys.stderr, flush=True)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="Races engines.")
    parser.add_argument(
        "--models",
        nargs="+",
        choices=[*ALL_MODELS, *GROUPS],
        default=list(MODELS),
        help="; ".join(f"{group}: {', '.join(names)}" for group, names in GROUPS.items()),
    )
    parser.add_argument("--sparsity", nargs="+", type=float, default=SPARSITIES)
    parser.add_argument(
        "--pattern",
        nargs="+",
        choices=list(PATTERNS),
        default=["unstructured"],
        help="of the zeros: output x input channels that are zero together",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="int8: the models as ONNX Runtime quantises them (QDQ, a scale per output channel), "
        "kept in --out/int8; engines are compared on the same quantised file",
    )
    parser.add_argument("--activation", choices=ACTIVATIONS, default="u8", help="of int8 models")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--engines",
        nargs="+",
        help="also sparsert-onnx (the ONNX file, loaded directly), sparsert-numba (the Numba "
        "backend), sparsert@avx2 (a forced ISA), openvino@avx512vnni (limited to an ISA, so "
        "without AMX)",
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of each engine, 7 or more")
    parser.add_argument("--burst", type=float, default=0.4, help="seconds of one turn")
    parser.add_argument("--with-bn", action="store_true", help="models with BatchNormalization")
    parser.add_argument(
        "--published",
        action="store_true",
        help="all heats of docs/peers.md; of the other options --rounds, --burst and those of the "
        "output count",
    )
    parser.add_argument("--short", action="store_true", help="three models at 0 and 90 %%")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--name", default="peers", help="of the files written into --out")
    parser.add_argument(
        "--merge",
        type=Path,
        help="JSON of an earlier race on this machine and day: heats not run again come from it",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="also put a summary into README.md, the tables and the plot into docs/",
    )
    args = parser.parse_args(argv)
    if args.short:
        args.models = ["resnet50", "mobilenet_v1", "small_cnn"]
        args.sparsity = [0.0, 0.9]
    named = [name for model in args.models for name in GROUPS.get(model, [model])]
    args.models = list(dict.fromkeys(named))
    floats = SHORT_ENGINES if args.short else ENGINES
    args.engines = args.engines or (INT8_ENGINES if args.dtype == "int8" else floats)
    if args.rounds < 7:
        parser.error("--rounds: at least 7, or the medians mean little")
    return args


def levels_of(args: argparse.Namespace) -> list[tuple[float, str]]:
    """Sparsities with their patterns; without zeros there is no pattern."""
    pairs = [
        (sparsity, pattern if sparsity else "unstructured")
        for pattern in args.pattern
        for sparsity in args.sparsity
    ]
    return list(dict.fromkeys(pairs))


def races(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The races that the arguments ask for, one after the other."""
    if not args.published:
        return [args]
    shared = ["--rounds", str(args.rounds), "--burst", str(args.burst), "--out", str(args.out)]
    return [parse_arguments([*shlex.split(options), *shared]) for options in PUBLISHED]


def run_race(args: argparse.Namespace, start: float) -> Iterator[list[Result]]:
    """Yields the results of a heat at a time."""
    entrants = [parse_entrant(name) for name in args.engines]
    if not DEEPSPARSE_PYTHON.exists():
        entrants = [e for e in entrants if e.module != "deepsparse"]
    effort = Effort(rounds=args.rounds, burst_seconds=args.burst)
    for model in args.models:
        for sparsity, pattern in levels_of(args):
            with tempfile.TemporaryDirectory(prefix="race-") as name:
                folder = Path(name)
                is_int8 = args.dtype == "int8"
                files = make_files(
                    *(model, sparsity, pattern, folder),
                    batch=args.batch,
                    with_bn=args.with_bn,
                    quantised_in=args.out / "int8" if is_int8 else None,
                    activation=args.activation,
                    suffixes={key for e in entrants for key in (e.suffix, e.module)},
                    log=log,
                )
                feeds = make_feeds(model, args.batch)
                source = files[".onnx"]
                units = output_units(source) if is_int8 and isinstance(source, Path) else None
                for threads in args.threads:
                    elapsed = time.monotonic() - start
                    log(f"[{elapsed:5.0f} s] {model} {sparsity:.0%} {pattern}, {threads} thread(s)")
                    yield run_heat(
                        *(model, sparsity, threads, args.batch, feeds, files, entrants),
                        *(effort, folder, log),
                        pattern=pattern,
                        dtype=args.dtype,
                        units=units,
                    )


def main(argv: list[str] | None = None) -> None:
    """Runs the race and prints its table."""
    args = parse_arguments(argv)
    if not DEEPSPARSE_PYTHON.exists():
        log("DeepSparse is not installed (.venv-deepsparse): the race runs without it")
    commands = [
        shlex.join(["python", "-m", "bench.peers", *(sys.argv[1:] if argv is None else argv)])
    ]
    earlier: list[dict[str, Any]] = []
    if args.merge is not None:
        report = json.loads(args.merge.read_text(encoding="utf-8"))
        if report["machine"] != machine_facts():
            raise SystemExit(f"{args.merge}: a race of another machine or day cannot be merged")
        commands = [*report["commands"], *commands]
        earlier = report["results"]
    results: list[Result] = []
    rows = earlier
    markdown = ""
    start = time.monotonic()
    for race in races(args):
        for heat in run_race(race, start):
            results += heat
            rows = merge_rows(summarise(results), earlier)
            markdown = write_all(rows, args.out, args.name, commands)
    print(markdown)
    if args.publish:
        summary = to_summary(rows, machine_facts(), commands)
        publish(ROOT, summary, markdown, args.out / f"{args.name}.png")
    log(f"wrote {args.name}.md, .json and .png into {args.out.name}/")


if __name__ == "__main__":
    main()
