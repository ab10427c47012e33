"""Models of bench.models as ONNX Runtime quantises them to int8.

Command: python -m bench.models.quantised resnet50 --sparsity 0.8 --pattern 1x4 -o resnet50.onnx.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bench.models.architectures import ALL_MODELS, ENCODERS, PATTERNS, build_model, make_feeds

ROOT = Path(__file__).resolve().parents[2]
# Of the activations; weights are always signed.
ACTIVATIONS = ("u8", "s8")
# qdq: float operators between QuantizeLinear and DequantizeLinear, a scale per output channel.
# qoperator: QLinearConv and QLinearMatMul, a scale per weight, sums and pools in float: what
# DeepSparse has kernels for.
FORMS = ("qdq", "qoperator")
CALIBRATION_FEEDS = 2
_FIRST_SEED = 100  # the race's own feeds are of another seed

Feeds = dict[str, NDArray[Any]]


def quantise(
    name: str,
    sparsity: float,
    path: Path,
    *,
    batch: int = 1,
    with_bn: bool = False,
    pattern: str = "unstructured",
    activation: str = "u8",
    form: str = "qdq",
) -> None:
    """Builds a model of ALL_MODELS, prunes it and quantises it with onnxruntime.quantization.

    Convolutions, products, sums and pools of the image networks are quantised; of encoders the
    products with constant weights. Ranges are those of two random feeds.

    Args:
        name: a key of ALL_MODELS.
        sparsity: share of zeros in the pruned layers.
        path: the file to write, atomically.
        batch: first dimension of the input.
        with_bn: keep batch normalisation as nodes.
        pattern: of the zeros, a key of PATTERNS.
        activation: one of ACTIVATIONS.
        form: one of FORMS.

    Raises:
        ValueError: ONNX Runtime quantises no layer of this model.
    """
    from onnxruntime import quantization as ort

    model, _ = build_model(name, sparsity, batch=batch, with_bn=with_bn, pattern=pattern)
    feeds = (make_feeds(name, batch, _FIRST_SEED + n) for n in range(CALIBRATION_FEEDS))
    options: dict[str, Any] = {}
    if name in ENCODERS or form == "qoperator":
        options["op_types_to_quantize"] = ["Conv", "MatMul", "Gemm"]
    if name in ENCODERS:
        options["extra_options"] = {"MatMulConstBOnly": True}
    types = {"u8": ort.QuantType.QUInt8, "s8": ort.QuantType.QInt8}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source, made = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        if form == "qoperator":
            _split_gemms(model.graph)
        onnx.save(model, source)
        ort.quantize_static(
            source,
            made,
            _reader(feeds),
            quant_format=ort.QuantFormat.QDQ if form == "qdq" else ort.QuantFormat.QOperator,
            per_channel=form == "qdq",
            activation_type=types[activation],
            weight_type=ort.QuantType.QInt8,
            **options,
        )
        constants = onnx.load(made).graph.initializer
        if not any(t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1 for t in constants):
            raise ValueError(f"ONNX Runtime quantises no layer of {name}")
        os.replace(made, path)


def cached(
    name: str,
    sparsity: float,
    folder: Path,
    *,
    batch: int = 1,
    with_bn: bool = False,
    pattern: str = "unstructured",
    activation: str = "u8",
    form: str = "qdq",
) -> Path:
    """Returns the file of what quantise() makes; made, in a process of its own, if it is not there.

    Its name tells the versions of bench.models and ONNX Runtime, so that an old file is not taken.

    Raises:
        ValueError: the model could not be quantised; says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bn = "-bn" if with_bn else ""
    kind = f"{sparsity:g}-{pattern}-batch{batch}{bn}-{activation}-{form}"
    path = folder / f"{name}-{kind}-{_version()}.onnx"
    if path.exists():
        return path
    command = [sys.executable, "-m", "bench.models.quantised", name, "-o", str(path)]
    command += ["--sparsity", str(sparsity), "--pattern", pattern, "--batch", str(batch)]
    command += ["--activation", activation, "--form", form]
    command += ["--with-bn"] if with_bn else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"quantising failed: {reason}")
    return path


def output_units(path: Path) -> list[float | None]:
    """Returns the unit, the scale, of each output of a model; None where floats make it."""
    graph = onnx.load(path).graph
    constants = {t.name: t for t in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    units: list[float | None] = []
    for output in graph.output:
        node = producers.get(output.name)
        if node is None or node.op_type != "DequantizeLinear" or node.input[1] not in constants:
            units.append(None)
            continue
        units.append(float(numpy_helper.to_array(constants[node.input[1]]).max()))
    return units


def _split_gemms(graph: onnx.GraphProto) -> None:
    """Turns Gemm with transB, which has no QLinear operator of ONNX's own, into MatMul and Add."""
    weights = {t.name: t for t in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type != "Gemm":
            graph.node.append(node)
            continue
        x, weight, bias = node.input
        columns = np.ascontiguousarray(numpy_helper.to_array(weights[weight]).T)
        weights[weight].CopyFrom(numpy_helper.from_array(columns, weight))
        product = f"{node.name}_product"
        graph.node.append(helper.make_node("MatMul", [x, weight], [product], name=product))
        graph.node.append(helper.make_node("Add", [product, bias], node.output, name=node.name))


def _reader(feeds: Iterator[Feeds]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def get_next(self) -> Feeds | None:
            return next(feeds, None)

    return Reader()


def _version() -> str:
    """Returns a digest of what quantise() depends on."""
    from importlib.metadata import version

    digest = hashlib.sha256(version("onnxruntime").encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def main() -> None:
    """Writes one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=ALL_MODELS)
    parser.add_argument("--sparsity", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--with-bn", action="store_true", help="keep batch normalisation as nodes")
    parser.add_argument("--pattern", choices=list(PATTERNS), default="unstructured")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="u8")
    parser.add_argument("--form", choices=FORMS, default="qdq")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    quantise(
        args.name,
        args.sparsity,
        args.output,
        batch=args.batch,
        with_bn=args.with_bn,
        pattern=args.pattern,
        activation=args.activation,
        form=args.form,
    )


if __name__ == "__main__":
    main()
