"""Writes a race's results as Markdown, JSON and a plot."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from bench.peers.race import REFERENCE, Result

DENSE_ENGINES = ("onnxruntime", "openvino")
Key = tuple[str, float, str, int, int]


def group_heats(results: list[Result]) -> dict[Key, list[Result]]:
    """Groups results of engines that raced each other."""
    heats: dict[Key, list[Result]] = {}
    for r in results:
        heats.setdefault((r.model, r.sparsity, r.pattern, r.threads, r.batch), []).append(r)
    return heats


def speedups(heat: list[Result], result: Result) -> tuple[float | None, float | None]:
    """Speed relative to ONNX Runtime, and to the faster of the dense engines."""
    timed = {r.engine: r for r in heat if r.seconds and not r.error}
    if result.engine not in timed:
        return None, None
    over = {e: result.speedup_over(timed[e]) for e in DENSE_ENGINES if e in timed}
    dense = [ratio for ratio in over.values() if ratio is not None]
    return over.get(REFERENCE), min(dense) if dense else None


def summarise(results: list[Result]) -> list[dict[str, Any]]:
    """One flat row per result, with the ratios."""
    rows = []
    for heat in group_heats(results).values():
        for r in heat:
            over_ort, over_dense = speedups(heat, r)
            row = dataclasses.asdict(r)
            del row["seconds"]
            row["round_medians"] = [float(f"{s:.4g}") for s in r.round_medians]
            row.update(
                runs=len(r.seconds),
                median_ms=1e3 * r.median if r.seconds else None,
                spread=r.spread if len(r.seconds) > 1 else None,
                speedup_over_onnxruntime=over_ort,
                speedup_over_best_dense=over_dense,
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
        return row["model"], row["sparsity"], pattern, row["threads"], row["batch"]

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
    """One table, a line per engine and heat.

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
        "the model is ready; RSS: growth of the peak of resident memory over load and runs, the "
        "engine's import excluded.",
        "",
        "| model | zeros | threads | batch | engine | ms | spread | x ORT | x best dense | error "
        "| load s | RSS MB | file MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = (
            f"| {row['model']} | {_zeros(row)} | {row['threads']} | {row['batch']} "
            f"| {row['engine']} "
        )
        if row["error"]:
            lines.append(start + f"| failed: {' '.join(row['error'].split())[:120]} |" + " |" * 7)
            continue
        cells = [
            _cell(row["median_ms"], ".3f"),
            _cell(row["spread"], ".0%"),
            _cell(row["speedup_over_onnxruntime"], ".2f"),
            _cell(row["speedup_over_best_dense"], ".2f"),
            _cell(row["max_error"], ".1e"),
            _cell(row["load_seconds"], ".2f"),
            _cell(row["peak_growth_bytes"], ".1f", 1e-6),
            _cell(row["file_bytes"], ".2f", 1e-6),
        ]
        lines.append(start + "| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def to_summary(rows: list[dict[str, Any]], facts: dict[str, Any], commands: list[str]) -> str:
    """Sparsert's speed relative to ONNX Runtime: a line per model and threads, a column per level.

    The arguments are those of to_markdown().
    """
    by_heat: dict[tuple[str, int, int], dict[float, dict[str, dict[str, Any]]]] = {}
    for row in rows:
        heat = by_heat.setdefault((row["model"], row["threads"], row["batch"]), {})
        heat.setdefault(row["sparsity"], {})[row["engine"]] = row
    levels = sorted({row["sparsity"] for row in rows})
    lines = [
        origin(commands, facts),
        "",
        "Speed of sparsert relative to ONNX Runtime on the same file in the same run, and in "
        "brackets relative to DeepSparse. All times, the other engines, errors, memory and file "
        "sizes: [docs/peers.md](docs/peers.md).",
        "",
        "| model | threads | " + " | ".join(f"{level:.0%} zeros" for level in levels) + " |",
        "|---|---|" + "---|" * len(levels),
    ]
    for (model, threads, batch), heat in by_heat.items():
        name = model if batch == 1 else f"{model}, batch {batch}"
        cells = [_summary_cell(heat.get(level, {})) for level in levels]
        lines.append(f"| {name} | {threads} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _summary_cell(engines: dict[str, dict[str, Any]]) -> str:
    own = engines.get("sparsert", {})
    ratio = own.get("speedup_over_onnxruntime")
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
    """Draws speed relative to ONNX Runtime over sparsity; a panel per model and threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

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
