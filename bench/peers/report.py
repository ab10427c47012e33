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
Key = tuple[str, float, int, int]


def group_heats(results: list[Result]) -> dict[Key, list[Result]]:
    """Groups results of engines that raced each other."""
    heats: dict[Key, list[Result]] = {}
    for r in results:
        heats.setdefault((r.model, r.sparsity, r.threads, r.batch), []).append(r)
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


def to_markdown(results: list[Result], facts: dict[str, Any], command: str) -> str:
    """One table, a line per engine and heat."""
    versions = {r.engine: r.version for r in results if r.version}
    lines = [
        "# Race of engines",
        "",
        f"Command: `{command}`. Date: {facts.get('date', '?')}. "
        f"CPU: {facts.get('cpu', '?')}, {facts['cores']} cores, "
        f"{' '.join(facts.get('features', []))}.",
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
    for heat in group_heats(results).values():
        for r in heat:
            start = f"| {r.model} | {r.sparsity:.0%} | {r.threads} | {r.batch} | {r.engine} "
            if r.error:
                lines.append(start + f"| failed: {' '.join(r.error.split())[:120]} |" + " |" * 7)
                continue
            over_ort, over_dense = speedups(heat, r)
            cells = [
                _cell(r.median, ".3f", 1e3),
                _cell(r.spread, ".0%"),
                _cell(over_ort, ".2f"),
                _cell(over_dense, ".2f"),
                _cell(r.max_error, ".1e"),
                _cell(r.load_seconds, ".2f"),
                _cell(r.peak_growth_bytes, ".1f", 1e-6),
                _cell(r.file_bytes, ".2f", 1e-6),
            ]
            lines.append(start + "| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


README_MARKS = ("<!-- peers:begin -->", "<!-- peers:end -->")


def update_readme(path: Path, markdown: str) -> None:
    """Puts the race's report between the README's marks, its heading left out.

    Raises:
        ValueError: the marks are not there.
    """
    begin, end = README_MARKS
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path.name} lacks {begin} or {end}")
    body = markdown.split("\n", 2)[2].strip()
    path.write_text(f"{before}{begin}\n{body}\n{end}{after}", encoding="utf-8")


def plot(results: list[Result], path: Path) -> None:
    """Draws speed relative to ONNX Runtime over sparsity; a panel per model and threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heats = group_heats(results)
    models = list(dict.fromkeys(key[0] for key in heats))
    threads = sorted({key[2] for key in heats})
    engines = list(dict.fromkeys(r.engine for r in results))
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
                for (name, sparsity, count, _), heat in heats.items():
                    if (name, count) != (model, n):
                        continue
                    for r in heat:
                        ratio = speedups(heat, r)[0] if r.engine == engine else None
                        if ratio is not None:
                            points.setdefault(sparsity, []).append(ratio)
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


def write_all(results: list[Result], folder: Path, name: str, command: str) -> str:
    """Writes NAME.md, NAME.json and NAME.png into the folder; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine_facts()
    markdown = to_markdown(results, facts, command)
    (folder / f"{name}.md").write_text(markdown, encoding="utf-8")
    report = {"command": command, "machine": facts, "results": summarise(results)}
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if any(r.seconds for r in results):
        plot(results, folder / f"{name}.png")
    return markdown
