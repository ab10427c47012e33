"""Writes models, feeds and this machine's outputs, for run_cases.py on another machine.

Command: python -m tests.arm.write_cases FOLDER [--every N]. Takes the networks below and every Nth
case of the modules of tests/suite that list theirs.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

import sparsert
from bench.models.architectures import build_model, make_feeds
from bench.models.quantised import quantise
from tests.suite.harness import EXACT, FUNCTION, Case

MODULES = (
    *("attention", "conv", "elementwise", "in_place", "index", "linear", "logic", "matmul"),
    *("movement", "norms", "pooled_conv", "sample", "views"),
)
# Sums in another order; functions by polynomials, whose steps may round differently.
TOLERANCE = 1e-5

Feeds = dict[str, np.ndarray]


def networks() -> Iterator[tuple[str, bytes, list[Feeds], float]]:
    """(name, .sprt bytes, feeds, tolerance) of whole networks; the first is that of the demo."""
    for name in ("small_cnn", "lstm"):
        for sparsity in (0.0, 0.9):
            proto, _ = build_model(name, sparsity)
            file = _file(proto)
            yield f"{name}-{sparsity:g}", file, [make_feeds(name)], TOLERANCE
    for sparsity, pattern in ((0.0, "unstructured"), (0.9, "1x4")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            quantise("small_cnn", sparsity, path, pattern=pattern)
            file = _file(onnx.load(path))
        yield f"small_cnn-int8-{sparsity:g}", file, [make_feeds("small_cnn")], 0.0


def suite_cases(every: int) -> Iterator[tuple[str, bytes, list[Feeds], float]]:
    """The same of cases of tests/suite."""
    cases = [
        case
        for module in MODULES
        for case in importlib.import_module(f"tests.suite.test_{module}").CASES
        if isinstance(case, Case) and not case.known_problem
    ]
    for case in cases[::every]:
        tolerance = {EXACT: 0.0, FUNCTION: 2 * TOLERANCE}.get(case.tolerance, TOLERANCE)
        yield case.name, case.file, [feeds for feeds, _ in case.runs], tolerance


def _file(proto: onnx.ModelProto) -> bytes:
    return bytes(sparsert.load(proto, backend="numpy", strict=True)._native_file())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for name, file, all_feeds, tolerance in [*networks(), *suite_cases(args.every)]:
        (args.folder / f"{number:04}.sprt").write_bytes(file)
        model = sparsert.load(file, threads=1, tune=False)
        arrays = {"name": np.array(name), "tolerance": np.array(tolerance)}
        arrays["runs"] = np.array(len(all_feeds))
        for i, feeds in enumerate(all_feeds):
            arrays |= {f"feed {i} {key}": array for key, array in feeds.items()}
            arrays |= {f"want {i} {j}": y for j, y in enumerate(model.run(None, feeds))}
        np.savez(args.folder / f"{number:04}.npz", **arrays)
        number += 1
    print(f"{number} cases")


if __name__ == "__main__":
    main()
