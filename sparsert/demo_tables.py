"""The tables that the demo prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparsert.runtime.table import Table, format_bytes

if TYPE_CHECKING:
    from sparsert.demo import Plan, Variant
    from sparsert.report import Result

DENSE_NAME = "onnxruntime, dense"


def accuracy_table(variants: list[Variant], plan: Plan, count: int) -> Table:
    """Returns what pruning did to the accuracy of each network."""
    dense = variants[0]
    rows: list[Sequence[Any]] = []
    records = []
    for v in variants[1:]:
        lost = dense.accuracy - v.accuracy
        accuracies = (dense.accuracy, v.accuracy_pruned, v.accuracy, v.accuracy_native)
        rows.append(
            (
                v.label,
                *(f"{accuracy:.4f}" for accuracy in accuracies),
                f"{lost:+.4f}",
                f"{v.error:.1e}",
            )
        )
        records.append(
            {
                "sparsity": v.sparsity,
                "accuracy_before": dense.accuracy,
                "accuracy_pruned": v.accuracy_pruned,
                "accuracy_fine_tuned": v.accuracy,
                "accuracy_native": v.accuracy_native,
                "lost": lost,
                "max_relative_error": v.error,
            }
        )
    columns = ["network", "before", "pruned", "fine-tuned", "in sparsert", "lost", "error"]
    notes = [
        f"Share of right answers for {count} test images; {plan.epochs} epochs of training, "
        f"{plan.fine_tuning_epochs} of fine-tuning with the zeros held. Error: largest difference "
        "from ONNX Runtime's outputs, over their largest."
    ]
    return Table("Table 1: accuracy", columns, rows, notes, records)


def speed_table(variants: list[Variant], races: dict[str, list[Result]], count: int) -> Table:
    """Returns parameters and run time of each engine and network, relative to the first one."""
    columns = ["engine and network", "parameters", "not zero"]
    for name in races:
        columns += [f"{name}: ms", "spread", "times faster"]
    rows: list[Sequence[Any]] = []
    records = []
    for i, result in enumerate(next(iter(races.values()))):
        variant = _variant_of(result, variants)
        row: list[Any] = [result.name, f"{variant.parameters:,}", f"{variant.nonzero:,}"]
        record: dict[str, Any] = {
            "name": result.name,
            "parameters": variant.parameters,
            "nonzero": variant.nonzero,
        }
        for name, results in races.items():
            timed, base = results[i], results[0]
            speedup = timed.speedup_over(base)
            row += [f"{1e3 * timed.median:.2f}", f"{100 * timed.spread:.0f} %", f"{speedup:.2f}"]
            record[name] = {"speedup": speedup, **timed.to_dict()}
        rows.append(row)
        records.append(record)
    notes = [
        f"Milliseconds for all {count} test images, one thread, medians; spread: distance of the "
        f"quartiles over the median; times faster than {DENSE_NAME}, median over the turns."
    ]
    title = "Table 2: parameters and run time"
    return Table(title, columns, rows, notes, records)


def memory_table(results: list[Result]) -> Table:
    """Returns file, memory and loading time of each engine and network."""
    columns = ["engine and network", "file", "packed weights", "peak RSS growth", "load ms"]
    rows: list[Sequence[Any]] = []
    for r in results:
        counts = (r.file_bytes, r.packed_bytes, r.peak_growth_bytes)
        cells = [None if n is None else format_bytes(n) for n in counts]
        rows.append((r.name, *cells, f"{1e3 * (r.load_seconds or 0):.1f}"))
    notes = [
        "Packed weights: as sparsert lays them out to compute with. Peak RSS growth: over load and "
        "runs at batch 1, the engine's code not counted."
    ]
    records = [r.to_dict() for r in results]
    return Table("File and memory", columns, rows, notes, records)


def _variant_of(result: Result, variants: list[Variant]) -> Variant:
    return next(v for v in variants if result.name.endswith(f", {v.label}"))
