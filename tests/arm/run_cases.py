"""Runs what write_cases.py wrote, and compares; with NumPy and sparsert alone.

Command: python tests/arm/run_cases.py FOLDER BACKEND [--every N] [--isa NAME]. Every Nth case, on
one or every instruction set of this machine; 1 when outputs differ.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import numpy as np

import sparsert
from sparsert.runtime.native_backend import import_core


def difference(got: np.ndarray, want: np.ndarray, tolerance: float) -> str:
    """What is wrong with an output, or ""."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{got.shape}, expected {want.dtype}{want.shape}"
    if got.dtype.kind != "f" or tolerance == 0:
        same = np.array_equal(got, want, equal_nan=got.dtype.kind == "f")
        return "" if same else f"{np.count_nonzero(got != want)} of {got.size} values differ"
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return "infinities or NaN differ"
    scale = max(1.0, float(np.abs(want[finite]).max(initial=0.0)))
    error = float(np.abs(got[finite] - want[finite]).max(initial=0.0)) / scale
    return "" if error <= tolerance else f"error {error:.3g}, at most {tolerance:.3g} expected"


def check(path: Path, backend: str, isa: str) -> list[str]:
    """Runs one case on one instruction set; what is wrong, a line each."""
    wrong = []
    with np.load(path) as arrays:
        name, tolerance = str(arrays["name"]), float(arrays["tolerance"])
        file = path.with_suffix(".sprt")
        model = sparsert.load(file, backend=backend, threads=1, isa=isa, tune=False)
        for i in range(int(arrays["runs"])):
            feeds = {spec.name: arrays[f"feed {i} {spec.name}"] for spec in model.inputs}
            for j, got in enumerate(model.run(None, feeds)):
                text = difference(np.asarray(got), arrays[f"want {i} {j}"], tolerance)
                wrong += [f"{name}, {isa}, run {i}, output {j}: {text}"] if text else []
    return wrong


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("backend", choices=("native", "capi"))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--isa")
    args = parser.parse_args()
    isas = [args.isa] if args.isa else list(import_core(args.backend).isas())
    cases = sorted(args.folder.glob("*.npz"))[:: args.every]
    wrong = [text for path in cases for isa in isas for text in check(path, args.backend, isa)]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    where = f"{platform.machine()}, {args.backend}, {', '.join(isas)}"
    print(f"{where}: {len(cases)} cases, {len(wrong)} outputs differ")
    sys.exit(1 if wrong or not cases else 0)


if __name__ == "__main__":
    main()
