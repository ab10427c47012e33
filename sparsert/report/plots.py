"""Plots of reports, as SVG text to put into a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib

from sparsert.report.model_report import DENSE, FLOAT, OWN_ENGINE, SPARSE, VARIANTS
from sparsert.runtime.table import format_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparsert.prune.explanation import LayerExplanation
    from sparsert.report.model_report import LayerRow, ModelReport

MAX_LAYERS = 40  # with labels that can be read; the table has all
MAX_HISTOGRAMS = 12
_MARKERS = {"sparsert": "o", "onnxruntime": "s", "torch": "^", "numba": "D"}


def front(report: ModelReport) -> str:
    """Accuracy (or speed alone, where it is not known) over the time of a run; areas are files."""
    figure = _figure(9, 4.6)
    axis = figure.subplots()
    timed = [r for r in report.rows if not r.result.error]
    has_accuracy = any(r.accuracy is not None for r in timed)
    shown = [r for r in timed if r.accuracy is not None or not has_accuracy]
    sizes = [r.result.file_bytes or 0 for r in shown] + [p.file_bytes for p in report.front]
    largest = max([*sizes, 1])
    for number, r in enumerate(shown, 1):
        place = (
            1e3 * r.result.median,
            float(len(shown) - number if r.accuracy is None else r.accuracy),
        )
        bytes_ = r.result.file_bytes or 0
        axis.scatter(
            *place,
            s=30 + 500 * bytes_ / largest,
            marker=_MARKERS[r.engine],
            color=f"C{VARIANTS.index((r.weights, r.dtype))}",
            alpha=0.5,
        )
        axis.annotate(str(number), place, ha="center", va="center", fontsize=7)
        text = f"{number}  {r.label}, {format_bytes(bytes_)}"
        axis.plot([], [], " ", label=text)
    levels = [x for x in report.levels if x.accuracy is not None and not x.result.error]
    if levels and has_accuracy:
        xs, ys = [1e3 * x.result.median for x in levels], [x.accuracy or 0.0 for x in levels]
        axis.plot(xs, ys, "kD:", lw=0.8, ms=4, label="levels of one file")
    if report.front and has_accuracy:
        points = sorted(report.front, key=lambda p: p.seconds)
        xs, ys = [1e3 * p.seconds for p in points], [p.accuracy for p in points]
        axis.plot(xs, ys, "k.--", lw=0.8, label="other models between")
        chosen = [p for p in points if p.is_chosen]
        if chosen:
            xs, ys = [1e3 * p.seconds for p in chosen], [p.accuracy for p in chosen]
            axis.plot(xs, ys, "k*", ms=12, label="chosen")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1)
    axis.set_xscale("log")
    axis.set_xlabel("milliseconds of a run")
    axis.margins(x=0.15, y=0.15)
    if has_accuracy:
        axis.set_ylabel("accuracy")
    else:
        axis.set_yticks([])
    axis.grid(alpha=0.3, which="both")
    return _svg(figure)


def layers(report: ModelReport) -> str:
    """Zeros of each layer, and its time in the dense and in the sparse float32 model."""
    shown = _slowest(report.layers)
    figure = _figure(9, 1.2 + 0.22 * len(shown))
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(shown))
    left.barh(places, [100 * (layer.sparsity or 0) for layer in shown], color="C1")
    left.set_xlim(0, 100)
    left.set_xlabel("zeros, %")
    left.set_yticks(places, [_short(layer.name) for layer in shown], fontsize=7)
    for offset, variant, color in ((-0.2, (DENSE, FLOAT), "C0"), (0.2, (SPARSE, FLOAT), "C1")):
        times = [layer.us.get(variant, 0.0) for layer in shown]
        label = f"{variant[0]} {variant[1]}"
        right.barh([p + offset for p in places], times, height=0.4, color=color, label=label)
    right.set_xlabel(f"microseconds in {OWN_ENGINE}")
    right.legend(fontsize=8)
    left.invert_yaxis()
    for axis in (left, right):
        axis.grid(alpha=0.3, axis="x")
    return _svg(figure)


def importance(explanations: Sequence[LayerExplanation]) -> str:
    """Histograms of importance before and after the pruning; a panel per layer."""
    shown = sorted(explanations, key=lambda layer: -layer.weights)[:MAX_HISTOGRAMS]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure = _figure(9, 2.1 * lines)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axis in panels.flat[len(shown) :]:
        axis.remove()
    for axis, layer in zip(panels.flat, shown, strict=False):
        axis.stairs(layer.before, layer.edges, fill=True, color="C0", alpha=0.4, label="before")
        axis.stairs(layer.after, layer.edges, fill=True, color="C1", alpha=0.8, label="after")
        if layer.edges[0] > 0:
            axis.set_xscale("log")
        axis.set_title(_short(layer.name), fontsize=8)
        axis.tick_params(labelsize=6)
    panels[0][0].legend(fontsize=7)
    return _svg(figure)


def _slowest(rows: Sequence[LayerRow]) -> list[LayerRow]:
    """Layers with weights, the slowest if there are too many, in the order of the graph."""
    weighted = [layer for layer in rows if layer.weights]
    by_time = sorted(weighted, key=lambda layer: -max(layer.us.values(), default=0.0))
    kept = {id(layer) for layer in by_time[:MAX_LAYERS]}
    return [layer for layer in weighted if id(layer) in kept]


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"...{name[-25:]}"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="tight")


def _svg(figure: Any) -> str:
    """Returns the figure as an <svg> element with text as text and nothing from elsewhere."""
    buffer = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "sparsert"}
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
