"""The tables of docs/arm.md."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.arm.cycles import MODELS
from bench.arm.disassembly import Loop, hot_loops
from bench.arm.emulate import Program, Run, run_model
from bench.arm.models import Subject, write_model
from sparsert.runtime.table import Table, format_bytes

NETWORKS = ("resnet50", "mobilenet_v1", "small_cnn", "mlp")
SPARSITIES = (0.0, 0.7, 0.9)
QUANTISED = ("mobilenet_v1", "small_cnn")
LAYERS = ("layer-128-28", "layer-512-14")

DENSE_FORMATS = ("dense", "dense8")
# What unstructured zeros are computed in, and blocks of 4x1.
SPARSE_FORMATS = {"unstructured": ("csr", "csr2"), "4x1": ("bsr4",)}

Tools = tuple[Program, Path]
Cycles = Callable[[Sequence[str]], float]


@dataclasses.dataclass(frozen=True)
class Emulated:
    """A model that was run.

    Attributes:
        run: what was counted.
        macs: its multiply-adds, those of zeros included.
        file_bytes: of the .sprt file.
    """

    run: Run
    macs: int
    file_bytes: int


def emulate(
    tools: Tools, subject: Subject, isa: str = "neon", compute_format: str = ""
) -> Emulated:
    """Builds and runs a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.sprt"
        macs = write_model(subject, path)
        run = run_model(tools, path, isa=isa, compute_format=compute_format)
        return Emulated(run, macs, path.stat().st_size)


def network_table(tools: Tools, names: Sequence[str] = NETWORKS) -> Table:
    """Counts of whole networks."""
    rows = []
    subjects = [(Subject(n, s), "neon") for n in names for s in SPARSITIES]
    for name in names:
        if name in QUANTISED:
            subjects += [
                (Subject(name, int8=True), "neondot"),
                (Subject(name, 0.9, "1x4", int8=True), "neondot"),
            ]
    dense = 0
    for subject, isa in subjects:
        found = emulate(tools, subject, isa)
        counts = found.run.counts
        if subject.sparsity == 0:
            dense = counts.instructions
        rows.append(
            (
                subject.name,
                "int8" if subject.int8 else "f32",
                _zeros(subject),
                format_bytes(found.file_bytes),
                format_bytes(found.run.facts["arena_bytes"]),
                f"{counts.instructions / 1e6:.1f}",
                f"{counts.instructions / found.macs:.3f}",
                f"{counts.loads / found.macs:.3f}",
                f"{counts.load_bytes / found.macs:.2f}",
                f"{counts.store_bytes / found.macs:.3f}",
                f"{dense / counts.instructions:.2f}",
            )
        )
        print(*rows[-1], sep="  ", flush=True)
    columns = ["network", "type", "zeros", "file", "arena", "10^6 instructions"]
    columns += ["instructions per MAC", "loads per MAC", "bytes loaded per MAC"]
    columns += ["bytes stored per MAC", "dense instructions over these"]
    return Table("Counted under emulation, batch 1", columns, rows)


def _zeros(subject: Subject) -> str:
    pattern = "" if subject.pattern == "unstructured" else f", {subject.pattern}"
    return f"{100 * subject.sparsity:g} %{pattern}"


@dataclasses.dataclass(frozen=True)
class Projection:
    """The inner loops of a layer under the models.

    Attributes:
        cycles: per multiply-add of the layer, those of zeros included; by model.
        share: of the run's instructions that lie in the loops.
        loops: themselves.
    """

    cycles: dict[str, float]
    share: float
    loops: Sequence[Loop]


def project(tools: Tools, found: Emulated, models: dict[str, Cycles]) -> Projection:
    """Cycles of the loops of a run."""
    loops = hot_loops(tools[0], found.run.blocks)
    inside = sum(loop.rounds * len(loop.body) for loop in loops)
    # Some rows leave a few multiply-adds behind a loop: they count as if they were in it.
    looped = sum(loop.rounds * loop.multiply_adds for loop in loops)
    scale = found.run.counts.multiply_adds / looped / found.macs
    cycles = {
        name: sum(loop.rounds * model(loop.body) for loop in loops) * scale
        for name, model in models.items()
    }
    return Projection(cycles, inside / found.run.counts.instructions, loops)


def remembered(models: dict[str, Cycles]) -> dict[str, Cycles]:
    """The same models, each asked once per loop."""

    def ask_once(model: Cycles) -> Cycles:
        return functools.lru_cache(maxsize=None)(model)

    return {name: ask_once(model) for name, model in models.items()}


def projection_table(tools: Tools, layers: Sequence[str] = LAYERS) -> Table:
    """Projected speed-ups of the inner loops of 1x1 convolutions at 90 % zeros."""
    models = remembered(MODELS)
    rows = []
    for layer in layers:
        dense = [
            project(tools, emulate(tools, Subject(layer), compute_format=f), models)
            for f in DENSE_FORMATS
        ]
        best = {name: min(d.cycles[name] for d in dense) for name in models}
        channels, size = layer.split("-")[1:]
        what = f"{channels} to {channels}, {size}x{size}"
        for name, made in zip(DENSE_FORMATS, dense, strict=True):
            rows.append(_projection_row(what, "none", name, made, best))
        for pattern, formats in SPARSE_FORMATS.items():
            for name in formats:
                found = emulate(tools, Subject(layer, 0.9, pattern), compute_format=name)
                made = project(tools, found, models)
                zeros = _zeros(Subject(layer, 0.9, pattern))
                rows.append(_projection_row(what, zeros, name, made, best))
    columns = ["1x1 convolution", "zeros", "format", "instructions in the loops", *models]
    return Table("Projected, inner loop, L1-resident", columns, rows)


def _projection_row(
    what: str, zeros: str, name: str, made: Projection, best: dict[str, float]
) -> tuple[str, ...]:
    ratios = [f"{best[model] / cycles:.1f}" for model, cycles in made.cycles.items()]
    row = (what, zeros, name, f"{100 * made.share:.0f} %", *ratios)
    print(*row, sep="  ", flush=True)
    return row
