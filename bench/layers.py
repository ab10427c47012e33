"""Each layer of a network against what the machine can do: python -m bench.layers resnet50.

Times come from Model.profile(); the peak of multiply-adds and the bandwidth of memory from the
program fma_peak (bench/kernels/fma_peak.cc), run before and after: the faster one counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from bench.models import ALL_MODELS, build_model, make_feeds
from bench.models.network import LayerShape
from sparsert import load
from sparsert.report.machine import describe_machine
from sparsert.runtime.table import Table

ROOT = Path(__file__).resolve().parents[1]
PEAK_PROGRAM = ROOT / "build" / "dev" / "fma_peak"


@dataclasses.dataclass(frozen=True)
class Layer:
    """One node of a network as it ran.

    Attributes:
        name: of the node.
        kind: its class: "stem", "1x1", "3x3 strided", "depthwise", "linear", "Add", ...
        output: its shape.
        kernel: of the last step.
        zeros: share of zero weights, 0 without weights.
        seconds: median of the profiled runs.
        flops: of the weights that are not zero.
        bytes: input and output activations and packed weights, each counted once; 0 where the
            input is not known.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    kernel: str
    zeros: float
    seconds: float
    flops: float
    bytes: float


def machine_peaks() -> dict[str, float]:
    """What one core can do: GFLOP/s of multiply-adds by instruction set, "read" GB/s of memory.

    Raises:
        FileNotFoundError: the program is not built: run `make build-all`.
    """
    if not PEAK_PROGRAM.exists():
        raise FileNotFoundError(f"{PEAK_PROGRAM.relative_to(ROOT)} is missing: run make build-all")
    lines = subprocess.run([PEAK_PROGRAM], capture_output=True, text=True, check=True).stdout
    peaks = {name: float(value) for name, value in (line.split() for line in lines.splitlines())}
    # These have no multiply-adds of floats of their own.
    for isa, wider in (("avx512", "avx512vnni"), ("avx512", "amx"), ("neon", "neondot")):
        if isa in peaks:
            peaks[wider] = peaks[isa]
    return peaks


def kind_of(layer: LayerShape, is_first: bool) -> str:
    """The class of a layer with weights."""
    if layer.height == layer.width == layer.kernel == 1:
        return "linear"
    if is_first:
        return "stem"
    if layer.groups > 1 and layer.groups == layer.in_channels:
        return "depthwise"
    strided = " strided" if layer.stride > 1 else ""
    taps = f"{layer.kernel}" if layer.flat else f"{layer.kernel}x{layer.kernel}"
    return f"{taps}{strided}"


def activation_bytes(layer: LayerShape) -> float:
    """Input and output of a layer in f32."""
    read = layer.in_channels * layer.height * layer.width
    written = layer.out_channels * layer.out_height * layer.out_width
    return 4.0 * layer.batch * (read + written)


def run(name: str, sparsity: float, batch: int, runs: int) -> tuple[list[Layer], str]:
    """Profiles a model of bench.models on one thread: its layers, and the instruction set."""
    proto, shapes = build_model(name, sparsity, batch=batch)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        onnx.save(proto, path)
        model = load(path, threads=1, strict=True)
    records = model.profile(make_feeds(name, batch), runs=runs).to_dict()["rows"]
    waiting = iter(shapes)
    layers = []
    for record in records:
        zeros, flops, size, kind = 0.0, 0.0, 0.0, record["op"]
        if record["weights"]:
            shape = next(waiting)
            kind = kind_of(shape, shape is shapes[0])
            zeros = 1.0 - record["nonzeros"] / record["weights"]
            columns = shape.batch * shape.out_height * shape.out_width
            flops = 2.0 * record["nonzeros"] * columns
            size = activation_bytes(shape) + record["packed_bytes"]
        elif not record["step_count"]:
            continue
        layers.append(
            Layer(
                record["name"],
                kind,
                tuple(record["output_shape"]),
                record["kernel"],
                zeros,
                record["time_ns"] * 1e-9,
                flops,
                size,
            )
        )
    isas = [r["isa"] for r in records if r["weights"]]
    return layers, isas[0]


def layer_table(layers: Sequence[Layer], peak: float, title: str) -> Table:
    """One row per layer."""
    rows = [
        (
            layer.name,
            layer.kind,
            "x".join(map(str, layer.output[1:])),
            f"{100 * layer.zeros:.0f} %" if layer.flops else "",
            layer.kernel,
            layer.seconds * 1e6,
            layer.flops / layer.seconds * 1e-9 if layer.flops else None,
            100 * layer.flops / layer.seconds * 1e-9 / peak if layer.flops else None,
            layer.bytes / layer.seconds * 1e-9 if layer.bytes else None,
        )
        for layer in layers
        if layer.seconds > 0
    ]
    columns = ["layer", "class", "output", "zeros", "kernel", "us", "GFLOP/s", "% of peak", "GB/s"]
    return Table(title, columns, rows)


def class_table(layers: Sequence[Layer], peak: float, title: str) -> Table:
    """One row per class of layer, the slowest first."""
    total = sum(layer.seconds for layer in layers)
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.kind, []).append(layer)
    rows: list[tuple[Any, ...]] = []
    for kind, members in sorted(groups.items(), key=lambda g: -sum(m.seconds for m in g[1])):
        seconds = sum(m.seconds for m in members)
        flops = sum(m.flops for m in members)
        size = sum(m.bytes for m in members)
        ideal = flops / (peak * 1e9)
        rows.append(
            (
                kind,
                len(members),
                seconds * 1e6,
                100 * seconds / total,
                flops / seconds * 1e-9 if flops else None,
                100 * ideal / seconds if flops else None,
                size / seconds * 1e-9 if size else None,
                (seconds - ideal) * 1e6,
            )
        )
    flops = sum(layer.flops for layer in layers)
    ideal = flops / (peak * 1e9)
    share = 100 * ideal / total
    rows.append(
        ("all", len(layers), total * 1e6, 100.0, flops / total * 1e-9, share, None)
        + ((total - ideal) * 1e6,)
    )
    columns = ["class", "layers", "us", "% of time", "GFLOP/s", "% of peak", "GB/s", "us over peak"]
    return Table(title, columns, rows)


def publish(document: Path, mark: str, text: str) -> None:
    """Puts `text` between the marks of a section of a Markdown file.

    Raises:
        ValueError: the marks are not there.
    """
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{document.name} lacks {begin} or {end}")
    document.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Prints the tables of one network."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.layers resnet50 --sparsity 0.9 --markdown layers.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=ALL_MODELS)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--markdown", type=Path, help="also write both tables into this file")
    parser.add_argument(
        "--publish", action="store_true", help="put the classes into docs/performance.md"
    )
    args = parser.parse_args()
    isa = os.environ.get("SPARSERT_ISA", "")
    layers, used = run(args.model, args.sparsity, args.batch, args.runs)
    measured = [machine_peaks() for _ in range(2)]
    peak = max(peaks[isa or used] for peaks in measured)
    bandwidth = max(peaks["read"] for peaks in measured)
    facts = describe_machine()
    where = (
        f"{args.model}, {100 * args.sparsity:g} % zeros, batch {args.batch}, one thread, "
        f"{isa or used}: {sum(layer.seconds for layer in layers) * 1e3:.2f} ms. Peak of one core: "
        f"{peak:.0f} GFLOP/s; memory: {bandwidth:.0f} GB/s. {facts.cpu}, {facts.date}."
    )
    classes = class_table(layers, peak, where)
    print(layer_table(layers, peak, where))
    print()
    print(classes)
    if args.markdown:
        table = layer_table(layers, peak, where)
        args.markdown.write_text(
            f"{classes.to_markdown()}\n\n{table.to_markdown()}\n", encoding="utf-8"
        )
    if args.publish:
        command = f"python -m bench.layers {args.model} --sparsity {args.sparsity:g} --publish"
        publish(
            ROOT / "docs" / "performance.md",
            f"layers-{args.model}-{args.sparsity:g}",
            f"`{command}`\n\n{classes.to_markdown()}",
        )


if __name__ == "__main__":
    main()
