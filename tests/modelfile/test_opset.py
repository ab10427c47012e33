"""The Python and the C++ tables of the opset say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from sparsert.modelfile.opset import (
    ATTRS,
    BINARY_FN,
    COMPARE_FN,
    COORDINATE_MODE,
    GATE_FN,
    GRID_PADDING,
    NEAREST_MODE,
    OP_RULES,
    OPS,
    PAD_MODE,
    RECURRENT_CELL,
    REDUCE_FN,
    RESIZE_MODE,
    ROI_COORDINATES,
    ROI_MODE,
    attr_types,
)
from tests.modelfile import driver

CSRC = driver.ROOT / "csrc"


def entries(path: Path, macro: str) -> dict[str, int]:
    found = re.findall(rf"^{macro}\((\d+), (\w+)\)", path.read_text(), re.MULTILINE)
    return {name: int(number) for number, name in found}


def test_numbers() -> None:
    assert entries(CSRC / "graph" / "ops.inc", "SRT_OP") == OPS
    assert entries(CSRC / "graph" / "attrs.inc", "SRT_ATTR") == ATTRS


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def test_functions() -> None:
    text = (CSRC / "base" / "functions.h").read_text()
    enums = {
        "UnaryFn": [camel(name) for name in GATE_FN],
        "BinaryFn": list(BINARY_FN),
        "CompareFn": list(COMPARE_FN),
        "ReduceFn": [name.removeprefix("Reduce") for name in REDUCE_FN],
        "Cell": [camel(name) for name in RECURRENT_CELL],
        "PadMode": [camel(name) for name in PAD_MODE],
        "ResizeMode": [camel(name) for name in RESIZE_MODE],
        "CoordinateMode": [camel(name) for name in COORDINATE_MODE],
        "NearestMode": [camel(name) for name in NEAREST_MODE],
        "GridPadding": [camel(name) for name in GRID_PADDING],
        "RoiMode": [camel(name) for name in ROI_MODE],
        "RoiCoordinates": [camel(name) for name in ROI_COORDINATES],
    }
    for enum, names in enums.items():
        body = re.search(rf"enum class {enum} : uint8_t {{(.*?)}};", text, re.DOTALL)
        assert body is not None
        numbers = {name: int(value) for name, value in re.findall(r"k(\w+) = (\d+)", body[1])}
        expected = {name: i for i, name in enumerate(names)}
        assert numbers == {**expected, "Count": len(names)}, enum


def test_rules() -> None:
    lines = [line.split() for line in driver.run("rules")]
    ops = {name: tuple(map(int, rest)) for kind, _, name, *rest in lines if kind == "op"}
    expected = {}
    for name, rule in OP_RULES.items():
        arity = (rule.min_inputs, rule.max_inputs, rule.min_outputs, rule.max_outputs)
        constants = sum(1 << i for i in rule.constants)
        attrs = sum(1 << ATTRS[attr] for attr in rule.attrs)
        required = sum(1 << ATTRS[attr] for attr in rule.required)
        expected[name] = (*arity, constants, attrs, required)
    assert ops == expected
    types = {line[2]: int(line[3]) for line in lines if line[0] == "attr"}
    assert types == {name: sum(1 << t for t in attr_types(name)) for name in ATTRS}


def test_driver_checks_itself() -> None:
    assert driver.run() == ["ok"]


def test_reading_needs_numpy_alone() -> None:
    code = (
        "import sys, sparsert.modelfile, sparsert.formats\n"
        "assert not {'onnx', 'onnx_ir', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=driver.ROOT, check=True)
