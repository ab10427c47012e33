"""Writes the files of a race: a pruned network as ONNX, float or int8, and the same as .sprt."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from bench.models import quantised
from bench.peers.race import ROOT

CONVERT = "import sys, sparsert; sparsert.convert(sys.argv[1], sys.argv[2])"


def make_files(
    model: str,
    sparsity: float,
    pattern: str,
    folder: Path,
    *,
    batch: int = 1,
    with_bn: bool = False,
    quantised_in: Path | None = None,
    activation: str = "u8",
    suffixes: Collection[str],
    log: Callable[[str], None],
) -> dict[str, Path | str]:
    """Builds the ONNX file and converts it, in processes of their own.

    Args:
        model: a key of bench.models.ALL_MODELS.
        sparsity: of the pruned layers.
        pattern: of the zeros, a key of bench.models.PATTERNS.
        folder: to write into.
        batch: first dimension of the input.
        with_bn: keep batch normalisation as nodes.
        quantised_in: make int8 models, and keep their ONNX files in this folder; None: float ones.
        activation: of int8 models, one of bench.models.quantised.ACTIVATIONS.
        suffixes: of the files that the engines read; "deepsparse": the form of int8 models that it
            has kernels for.
        log: receives why a conversion failed.

    Returns:
        By suffix, the path, or the reason why there is none.
    """
    files: dict[str, Path | str] = {}
    if quantised_in is not None:
        options: dict[str, Any] = {
            "batch": batch,
            "with_bn": with_bn,
            "pattern": pattern,
            "activation": activation,
        }
        for key, form in ((".onnx", "qdq"), ("deepsparse", "qoperator")):
            if key not in (".onnx", *suffixes):
                continue
            try:
                files[key] = quantised.cached(model, sparsity, quantised_in, **options, form=form)
            except ValueError as error:
                files[key] = str(error)
                log(f"  {error}")
        onnx_path = files[".onnx"]
        if isinstance(onnx_path, str):
            return files | {".sprt": onnx_path}
    else:
        onnx_path = folder / f"{model}.onnx"
        command = [sys.executable, "-m", "bench.models.build", model, "--sparsity", str(sparsity)]
        command += ["--pattern", pattern, "--batch", str(batch), "-o", str(onnx_path)]
        command += ["--with-bn"] if with_bn else []
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        files[".onnx"] = onnx_path
    if ".sprt" not in suffixes:
        return files
    sprt_path = folder / f"{model}.sprt"
    converted = subprocess.run(
        [sys.executable, "-c", CONVERT, str(onnx_path), str(sprt_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if converted.returncode == 0:
        files[".sprt"] = sprt_path
    else:
        reason = (converted.stderr.strip().splitlines() or ["no message"])[-1]
        files[".sprt"] = f"sparsert.convert: {reason}"
        log(f"  {files['.sprt']}")
    return files
