"""Writes a race's results as Markdown, JSON and a plot."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import platform
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.peers.race import REFERENCE, Result

DENSE_ENGINES = ("onnxruntime", "openvino")
# OpenVINO kept from some of the machine's instructions: the dense engine of another machine.
LIMITED = "openvino@"
Key = tuple[str, str, float, str, int, int]


def group_heats(results: list[Result]) -> dict[Key, list[Result]]:
    """Groups results of engines that raced each other."""
    heats: dict[Key, list[Result]] = {}
    for r in results:
        key = (r.dtype, r.model, r.sparsity, r.pattern, r.threads, r.batch)
        heats.setdefault(key, []).append(r)
    return heats


def speedups(heat: list[Result], result: Result) -> tuple[float | None, float | None, float | None]:
    """Speed relative to ONNX Runtime, to the fastest dense engine, and to that without AMX.

    The last one is None where OpenVINO did not race limited to an instruction set.
    """
    timed = {r.engine: r for r in heat if r.seconds and not r.error}
    if result.engine not in timed:
        return None, None, None

    def least(engines: Iterable[str]) -> float | None:
        over = [result.speedup_over(timed[e]) for e in engines if e in timed]
        return min((ratio for ratio in over if ratio is not None), default=None)

    limited = [e for e in timed if e.startswith(LIMITED)]
    over_limited = least([REFERENCE, *limited]) if limited else None
    return least([REFERENCE]), least(DENSE_ENGINES), over_limited


def summarise(results: list[Result]) -> list[dict[str, Any]]:
    """One flat row per result, with the ratios."""
    rows = []
    for heat in group_heats(results).values():
        for r in heat:
            over_ort, over_dense, over_limited = speedups(heat, r)
            row = dataclasses.asdict(r)
            del row["seconds"], row["round_minima"]
            row["round_medians"] = [float(f"{s:.4g}") for s in r.round_medians]
            row.update(
                runs=len(r.seconds),
                median_ms=1e3 * r.median if r.seconds else None,
                spread=r.spread if len(r.seconds) > 1 else None,
                speedup_over_onnxruntime=over_ort,
                speedup_over_best_dense=over_dense,
                speedup_over_best_without_amx=over_limited,
            )
            rows.append(row)
    return rows


def machine_facts() -> dict[str, Any]:
    """What the numbers were measured on: CPU, its vector instructions, cores, system."""
    facts: dict[str, Any] = {"system": platform.system(), "machine": platform.machine()}
    facts["date"] = datetime.date.today().isoformat()
    facts["cores"] = os.cpu_count()
    facts["python"] = platform.python_version()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return facts
    info: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        info[key.strip()] = value.strip()
    facts["cpu"] = info.get("model name", "")
    flags = (info.get("flags") or info.get("Features") or "").split()
    known = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "asimd", "asimddp")
    facts["features"] = [flag for flag in known if flag in flags]
    return facts


def _cell(value: float | None, form: str, scale: float = 1.0) -> str:
    return "-" if value is None or not math.isfinite(value) else format(value * scale, form)


def _zeros(row: dict[str, Any]) -> str:
    pattern = row.get("pattern", "unstructured")
    return f"{row['sparsity']:.0%}" + ("" if pattern == "unstructured" else f" {pattern}")


def merge_rows(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds the heats of an earlier race that were not run again; keeps that race's order."""

    def heat(row: dict[str, Any]) -> Key:
        pattern = row.get("pattern", "unstructured")
        first = row.get("dtype", "float32"), row["model"], row["sparsity"], pattern
        return *first, row["threads"], row["batch"]

    fresh: dict[Key, list[dict[str, Any]]] = {}
    for row in rows:
        fresh.setdefault(heat(row), []).append(row)
    merged: list[dict[str, Any]] = []
    for row in earlier:
        if heat(row) not in fresh:
            merged.append(row)
        else:
            merged += fresh[heat(row)]
            fresh[heat(row)] = []
    return merged + [row for heats in fresh.values() for row in heats]


def origin(commands: list[str], facts: dict[str, Any]) -> str:
    """One paragraph: the commands that ran, when and on what."""
    ran = ", then ".join(f"`{command}`" for command in commands)
    return (
        f"Command: {ran}. Date: {facts.get('date', '?')}. CPU: {facts.get('cpu', '?')}, "
        f"{facts['cores']} cores, {' '.join(facts.get('features', []))}."
    )


def to_markdown(rows: list[dict[str, Any]], facts: dict[str, Any], commands: list[str]) -> str:
    """A table for float models and one for int8 models, a line per engine and heat.

    Args:
        rows: as summarise() makes them, or the "results" of a race's JSON file.
        facts: as machine_facts() makes them.
        commands: that ran the race.
    """
    versions = {row["engine"]: row["version"] for row in rows if row["version"]}
    lines = [
        "# Race of engines",
        "",
        origin(commands, facts),
        "Versions: " + ", ".join(f"{name} {v}" for name, v in sorted(versions.items())) + ".",
        "",
        "Each engine has its own process; they take turns in rounds, one at a time. ms: median of "
        "all timed runs; spread: distance of the quartiles over the median; x: speed relative to "
        "ONNX Runtime and to the faster of ONNX Runtime and OpenVINO, the median over rounds; "
        "error: largest difference from ONNX Runtime over its largest output; load: seconds until "
        "the model is ready; first: those of the run that follows; RSS: growth of the peak of "
        "resident memory over load and runs, the engine's import excluded.",
        "",
    ]
    floats, quantised = by_dtype(rows)
    if floats:
        lines += [*_table(floats, _COLUMNS), ""]
    if quantised:
        lines += ["## int8", "", _INT8_RULES, "", *_table(quantised, _INT8_COLUMNS), ""]
    notes = dict.fromkeys((r["engine"], _model_of(r), r["note"]) for r in rows if r.get("note"))
    lines += [f"- {engine}, {model}: {note}." for engine, model, note in notes]
    return "\n".join(lines).rstrip() + "\n"


_INT8_RULES = (
    "Models as ONNX Runtime quantises them: QDQ, signed weights with a scale per output channel, "
    "ranges of two random inputs. All engines read the same file but DeepSparse, which has no "
    "kernels of its own for this form: it gets QLinear operators with one scale per weight, and "
    "sums and pools in float. 1x4: zeros in blocks of four input channels. w/o AMX: speed relative "
    "to the faster of ONNX Runtime and of OpenVINO limited to an instruction set by "
    "ONEDNN_MAX_CPU_ISA. units: largest difference from ONNX Runtime's output, in scales of the "
    "DequantizeLinear that makes it; where floats make it, in 255ths of its range."
)

# Title of a column -> key of a row, format and factor.
_Columns = dict[str, tuple[str, str, float]]
_SPEED: _Columns = {
    "ms": ("median_ms", ".3f", 1.0),
    "spread": ("spread", ".0%", 1.0),
    "x ORT": ("speedup_over_onnxruntime", ".2f", 1.0),
    "x best dense": ("speedup_over_best_dense", ".2f", 1.0),
}
_ERROR: _Columns = {"error": ("max_error", ".1e", 1.0)}
_SIZE: _Columns = {
    "load s": ("load_seconds", ".2f", 1.0),
    "first s": ("first_run_seconds", ".2f", 1.0),
    "RSS MB": ("peak_growth_bytes", ".1f", 1e-6),
    "file MB": ("file_bytes", ".2f", 1e-6),
}
_COLUMNS: _Columns = {**_SPEED, **_ERROR, **_SIZE}
_INT8_COLUMNS: _Columns = {
    **_SPEED,
    "w/o AMX": ("speedup_over_best_without_amx", ".2f", 1.0),
    **_ERROR,
    "units": ("error_units", ".1f", 1.0),
    **_SIZE,
}


def by_dtype(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Splits rows into those of float models and those of int8 models."""
    quantised = [row for row in rows if row.get("dtype") == "int8"]
    return [row for row in rows if row.get("dtype") != "int8"], quantised


def _table(rows: list[dict[str, Any]], columns: _Columns) -> list[str]:
    names = ["model", "zeros", "threads", "batch", "engine", *columns]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        start = (
            f"| {row['model']} | {_zeros(row)} | {row['threads']} | {row['batch']} "
            f"| {row['engine']} "
        )
        if row["error"]:
            reason = " ".join(row["error"].split())[:120]
            lines.append(start + f"| failed: {reason} |" + " |" * (len(columns) - 1))
            continue
        cells = [_cell(row.get(key), form, scale) for key, form, scale in columns.values()]
        lines.append(start + "| " + " | ".join(cells) + " |")
    return lines


def _model_of(row: dict[str, Any]) -> str:
    dtype = " int8" if row.get("dtype") == "int8" else ""
    return f"{row['model']}{dtype} at {_zeros(row)} zeros"


def to_summary(rows: list[dict[str, Any]], facts: dict[str, Any], commands: list[str]) -> str:
    """Sparsert's speed on float models over ONNX Runtime, on int8 ones over the best dense engine.

    The arguments are those of to_markdown().
    """
    floats, quantised = by_dtype(rows)
    lines = [origin(commands, facts)]
    if floats:
        lines += [
            "",
            "Speed of sparsert relative to ONNX Runtime on the same file in the same run, and in "
            "brackets relative to DeepSparse. All times, the other engines, errors, memory and "
            "file sizes: [docs/peers.md](docs/peers.md).",
            "",
            *_summary_table(floats, "speedup_over_onnxruntime"),
        ]
    if quantised:
        lines += [
            "",
            "Quantised to int8: speed relative to the fastest dense engine (ONNX Runtime or "
            "OpenVINO) on the same quantised file, and in brackets relative to DeepSparse on the "
            "form that it has kernels for; 1x4: zeros in blocks of four input channels.",
            "",
            *_summary_table(quantised, "speedup_over_best_dense"),
        ]
    return "\n".join(lines) + "\n"


def _summary_table(rows: list[dict[str, Any]], key: str) -> list[str]:
    """A line per model, threads and batch, a column per share and pattern of zeros."""
    by_heat: dict[tuple[str, int, int], dict[str, dict[str, dict[str, Any]]]] = {}
    for row in rows:
        heat = by_heat.setdefault((row["model"], row["threads"], row["batch"]), {})
        heat.setdefault(_zeros(row), {})[row["engine"]] = row
    patterns = {_zeros(row): row.get("pattern", "unstructured") for row in rows}
    shares = {_zeros(row): row["sparsity"] for row in rows}
    levels = sorted(shares, key=lambda z: (patterns[z] != "unstructured", patterns[z], shares[z]))
    lines = [
        "| model | threads | " + " | ".join(f"{level} zeros" for level in levels) + " |",
        "|---|---|" + "---|" * len(levels),
    ]
    for (model, threads, batch), heat in by_heat.items():
        name = model if batch == 1 else f"{model}, batch {batch}"
        cells = [_summary_cell(heat.get(level, {}), key) for level in levels]
        lines.append(f"| {name} | {threads} | " + " | ".join(cells) + " |")
    return lines


def _summary_cell(engines: dict[str, dict[str, Any]], key: str) -> str:
    own = engines.get("sparsert", {})
    ratio = own.get(key)
    if ratio is None:
        return "-"
    pairs = zip(
        engines.get("deepsparse", {}).get("round_medians", []), own["round_medians"], strict=False
    )
    over_deepsparse = [theirs / ours for theirs, ours in pairs]
    if not over_deepsparse:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} ({statistics.median(over_deepsparse):.2f})"


README_MARKS = ("<!-- peers:begin -->", "<!-- peers:end -->")


def publish(root: Path, summary: str, markdown: str, plotted: Path) -> None:
    """Puts the summary between the README's marks, the whole report and its plot into docs/.

    Raises:
        ValueError: the marks are not there.
    """
    readme = root / "README.md"
    begin, end = README_MARKS
    before, found, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{readme.name} lacks {begin} or {end}")
    readme.write_text(f"{before}{begin}\n{summary.strip()}\n{end}{after}", encoding="utf-8")
    image = "![Speed relative to ONNX Runtime over the share of zeros](peers.png)"
    (root / "docs" / "peers.md").write_text(f"{markdown}\n{image}\n", encoding="utf-8")
    (root / "docs" / "peers.png").write_bytes(plotted.read_bytes())


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws speed relative to ONNX Runtime over sparsity; a panel per model and threads.

    The float models are drawn, or the int8 ones where there are no others.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    floats, quantised = by_dtype(rows)
    rows = floats or quantised
    models = list(dict.fromkeys(row["model"] for row in rows))
    threads = sorted({row["threads"] for row in rows})
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    figure, axes = pyplot.subplots(
        len(threads),
        len(models),
        figsize=(3.6 * len(models), 3.2 * len(threads)),
        squeeze=False,
        sharey="col",
    )
    for row, n in enumerate(threads):
        for column, model in enumerate(models):
            axis = axes[row][column]
            for index, engine in enumerate(engines):
                points: dict[float, list[float]] = {}
                for r in rows:
                    ratio = r["speedup_over_onnxruntime"]
                    if (r["model"], r["threads"], r["engine"]) == (model, n, engine) and ratio:
                        points.setdefault(r["sparsity"], []).append(ratio)
                xs = sorted(points)
                ys = [statistics.median(points[x]) for x in xs]
                axis.plot([100 * x for x in xs], ys, "o-", label=engine, color=f"C{index}", ms=4)
            axis.set_title(f"{model}, {n} thread{'s' if n > 1 else ''}", fontsize=10)
            axis.set_xlabel("zeros, %")
            axis.set_xlim(-3, 100)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel("speed / ONNX Runtime")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write_all(rows: list[dict[str, Any]], folder: Path, name: str, commands: list[str]) -> str:
    """Writes NAME.md, NAME.json and NAME.png into the folder; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine_facts()
    markdown = to_markdown(rows, facts, commands)
    (folder / f"{name}.md").write_text(markdown, encoding="utf-8")
    report = {"commands": commands, "machine": facts, "results": rows}
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if any(row["runs"] for row in rows):
        plot(rows, folder / f"{name}.png")
    return markdown
