"""GridSample, RoiAlign and DeformConv: images read at places that data gives."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

import sparsert
from sparsert.errors import BackendError, ShapeError
from tests.suite.harness import (
    FUNCTION,
    SUM,
    Case,
    Engine,
    assert_close,
    build,
    check,
    i64,
    op_text,
    random_weights,
    unique,
)

I64 = TensorProto.INT64


def grid_cases() -> list[Case]:
    cases = []
    rng = np.random.default_rng(4)
    shapes = {"2d": ((2, 3, 5, 7), (4, 9)), "one": ((1, 1, 1, 1), (1, 1))}
    shapes |= {"wide": ((1, 4, 3, 40), (2, 67)), "3d": ((2, 2, 3, 4, 5), (2, 3, 7))}
    for label, (shape, out) in shapes.items():
        for mode in ("linear", "nearest", "cubic"):
            if label == "3d" and mode == "cubic":
                continue
            for padding in ("zeros", "border", "reflection"):
                for corners in (0, 1):
                    grid = rng.uniform(-1.7, 1.7, (shape[0], *out, len(out))).astype(np.float32)
                    text = op_text(
                        "GridSample", "h, g", mode=mode, padding_mode=padding, align_corners=corners
                    )
                    cases.append(
                        Case(
                            f"grid_{label}_{mode}_{padding}_{corners}",
                            ["h = Relu(x)", f"y = {text}"],
                            {"x": shape, "g": grid.shape},
                            feeds={
                                "x": rng.standard_normal(shape).astype(np.float32),
                                "g": grid,
                            },
                            tolerance=FUNCTION,
                        )
                    )
    cases.append(
        Case(
            "grid_opset16_between_convolutions",
            [
                "c = Conv<pads=[1,1,1,1]>(x, w)",
                'd = GridSample<mode="bilinear">(c, g)',
                "y = Conv(d, w2)",
            ],
            {"x": ["n", 3, "h", "w_"], "g": ["n", "k", "l", 2]},
            {"w": random_weights(5, 3, 3, 3, sparsity=0.6), "w2": random_weights(4, 5, 1, 1)},
            opset=16,
            low=-1.2,
            high=1.2,
            sizes=[
                {"n": 1, "h": 6, "w_": 5, "k": 4, "l": 4},
                {"n": 3, "h": 9, "w_": 17, "k": 11, "l": 1},
            ],
        )
    )
    return cases


def roi_cases() -> list[Case]:
    rng = np.random.default_rng(8)
    boxes = rng.uniform(-2, 14, (6, 4)).astype(np.float32)
    boxes[:, 2:] = boxes[:, :2] + rng.uniform(0, 9, (6, 2))
    feeds = {
        "x": rng.standard_normal((2, 3, 9, 11)).astype(np.float32),
        "r": boxes,
        "b": rng.integers(0, 2, 6),
    }
    cases = []
    for mode in ("avg", "max"):
        for coordinates in ("half_pixel", "output_half_pixel"):
            for ratio, (height, width) in ((0, (3, 5)), (2, (1, 1)), (3, (7, 10))):
                text = op_text(
                    "RoiAlign",
                    "x, r, b",
                    mode=mode,
                    coordinate_transformation_mode=coordinates,
                    output_height=height,
                    output_width=width,
                    sampling_ratio=ratio,
                    spatial_scale=0.625,
                )
                cases.append(
                    Case(
                        f"roi_{mode}_{coordinates}_{ratio}",
                        [f"y = {text}"],
                        {"x": (2, 3, 9, 11), "r": (6, 4), "b": (I64, [6])},
                        feeds=feeds,
                    )
                )
    cases.append(
        Case(
            "roi_opset10_then_layers",
            [
                "c = Conv<pads=[1,1,1,1]>(x, w)",
                "a = RoiAlign<output_height=2, output_width=2>(c, r, b)",
                "f = Flatten(a)",
                "y = MatMul(f, v)",
            ],
            {"x": (2, 3, 9, 11), "r": ["k", 4], "b": (I64, ["k"])},
            {"w": random_weights(4, 3, 3, 3, sparsity=0.5), "v": random_weights(16, 5)},
            opset=10,
            feeds=feeds,
        )
    )
    return cases


CASES = unique(grid_cases() + roi_cases())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case) -> None:
    check(case)


def test_image_that_there_is_not(engine: Engine) -> None:
    case = Case(
        "roi_bad_image",
        ["y = RoiAlign(x, r, b)"],
        {"x": (2, 1, 4, 4), "r": (1, 4), "b": (I64, [1])},
    )
    model = case.load(engine)
    feeds = {"x": np.ones((2, 1, 4, 4), np.float32), "r": np.ones((1, 4), np.float32)}
    model.run(None, {**feeds, "b": i64(1)})
    if engine.is_native:  # the interpreter reads on behind the images
        for bad in (2, -1):
            with pytest.raises(BackendError, match=rf"\(RoiAlign\): index {bad} of 'b'.*\[0, 2\)"):
                model.run(None, {**feeds, "b": i64(bad)})


def test_shapes_that_do_not_fit() -> None:
    model = sparsert.load(
        build(["y = GridSample(x, g)"], {"x": ["n", 2, "h", "w"], "g": ["m", "k", "l", "p"]}),
        strict=True,
    )
    x = np.ones((2, 2, 3, 3), np.float32)
    for shape in ((1, 4, 4, 2), (2, 4, 4, 3)):
        with pytest.raises(ShapeError, match="GridSample"):
            model(x=x, g=np.zeros(shape, np.float32))


DEFORMS = {
    "plain": ((1, 3, 5, 5), (4, 3, 3, 3), {}, False, False),
    "pads": ((2, 4, 6, 7), (5, 4, 2, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}, True, True),
    "groups": (
        (2, 4, 6, 6),
        (6, 2, 3, 3),
        {"group": 2, "offset_group": 4, "pads": [1, 1, 1, 1]},
        True,
        False,
    ),
    "dilated": ((1, 6, 9, 8), (2, 6, 2, 2), {"dilations": [2, 3], "offset_group": 3}, False, True),
}


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("name", DEFORMS)
def test_deform_conv(name: str, constant: bool, engine: Engine) -> None:
    """Against onnx's reference: weights that are constant and sparse, and those of the run."""
    x_shape, w_shape, attributes, masked, biased = DEFORMS[name]
    strides = attributes.get("strides", [1, 1])
    pads = attributes.get("pads", [0] * 4)
    dilations = attributes.get("dilations", [1, 1])
    out = [
        (x_shape[2 + i] + pads[i] + pads[2 + i] - (w_shape[2 + i] - 1) * dilations[i] - 1)
        // strides[i]
        + 1
        for i in range(2)
    ]
    taps = attributes.get("offset_group", 1) * w_shape[2] * w_shape[3]
    rng = np.random.default_rng(6)
    feeds = {
        "x": rng.standard_normal(x_shape).astype(np.float32),
        "o": rng.uniform(-2, 2, (x_shape[0], 2 * taps, *out)).astype(np.float32),
    }
    if masked:
        feeds["m"] = rng.random((x_shape[0], taps, *out)).astype(np.float32)
    weights = {"w": random_weights(*w_shape, sparsity=0.7)}
    if biased:
        weights["b"] = rng.standard_normal(w_shape[0]).astype(np.float32)
    inputs = ["x", "w", "o", "b" if biased else "", "m" if masked else ""]
    while not inputs[-1]:
        inputs.pop()
    node = op_text("DeformConv", ", ".join(inputs), kernel_shape=list(w_shape[2:]), **attributes)
    given = feeds if constant else feeds | weights
    proto = build(
        [f"d = {node}", "y = Relu(d)"],
        {key: value.shape for key, value in given.items()},
        weights if constant else {},
    )
    (wanted,) = ReferenceEvaluator(proto).run(None, given)
    model = sparsert.load(proto, strict=True, **dict(engine.options))
    assert_close(model.run(None, given)[0], wanted, SUM)
    if engine.is_native and constant:
        ops = [row["op"] for row in model.explain().to_dict()["rows"]]
        assert ops == ["DeformColumns", "Conv"]
        saved = sparsert.load(bytes(model._native_file()), **dict(engine.options))
        assert_close(saved.run(None, given)[0], wanted, SUM)
