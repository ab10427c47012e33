"""Renders reports as one HTML page that needs nothing else: tables, plots, style."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from sparsert.errors import BackendError
from sparsert.runtime.table import cell_text

if TYPE_CHECKING:
    from sparsert.report.model_report import ModelReport

TEMPLATE = "page.html.j2"


def render(report: ModelReport) -> str:
    """Returns the page.

    Raises:
        BackendError: matplotlib or jinja2 is not installed.
    """
    try:
        import jinja2

        from sparsert.report import plots
    except ImportError as error:
        raise BackendError(
            f'an HTML report needs matplotlib and jinja2 ({error}); pip install "sparsert[report]"'
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sparsert.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell_text
    figures = [("Accuracy, time and size", "areas: files", plots.front(report))]
    if any(layer.weights for layer in report.layers):
        note = f"the {plots.MAX_LAYERS} slowest at most; the table has all"
        figures.append(("Layers", note, plots.layers(report)))
    if report.pruning is not None and report.pruning.explanations:
        note = "weights by importance, before and after; the largest layers"
        figures.append(("What went", note, plots.importance(report.pruning.explanations)))
    return environment.get_template(TEMPLATE).render(
        report=report, figures=figures, command=shlex.join(report.command)
    )
