"""Resize: nearest, linear and cubic, every coordinate and rounding mode, scales and sizes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suite.harness import FUNCTION, Case, check, random_weights, unique

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def resize(name: str, attributes: str, shape: tuple[int, ...], **factors: object) -> Case:
    """One Resize; `factors` holds scales (f32) or sizes (i64)."""
    constants = {}
    if "scales" in factors:
        constants["scales"] = np.array(factors["scales"], np.float32)
        text = f"y = Resize<{attributes}>(h, , scales)"
    else:
        constants["sizes"] = np.array(factors["sizes"], np.int64)
        text = f"y = Resize<{attributes}>(h, , , sizes)"
    return Case(
        f"resize_{name}", ["h = Identity(x)", text], {"x": shape}, constants, tolerance=FUNCTION
    )


def all_cases() -> list[Case]:
    """The attribute space."""
    cases = []
    targets = {
        "up2": (10, 14),
        "up": (8, 19),
        "down": (3, 4),
        "down2": (2, 3),
        "same": (5, 7),
        "mixed": (9, 2),
        "one": (1, 1),
        "wide": (5, 65),
    }
    for label, (height, width) in targets.items():
        for coordinates in COORDINATES:
            mode = f'coordinate_transformation_mode="{coordinates}"'
            size = (2, 3, height, width)
            for rounding in ROUNDINGS:
                text = f'mode="nearest", nearest_mode="{rounding}", {mode}'
                case = resize(
                    f"nearest_{label}_{coordinates}_{rounding}", text, (2, 3, 5, 7), sizes=size
                )
                cases.append(case)
            text = f'mode="linear", {mode}'
            cases.append(resize(f"linear_{label}_{coordinates}", text, (2, 3, 5, 7), sizes=size))
    # Sizes whose coordinates miss a tie, or a whole number, by a bit of float.
    for (height, width), size in (((20, 14), (6, 19)), ((18, 7), (39, 2)), ((14, 11), (31, 26))):
        for coordinates in (*COORDINATES, "half_pixel_symmetric"):
            for rounding in ROUNDINGS:
                text = f'mode="nearest", nearest_mode="{rounding}", '
                text += f'coordinate_transformation_mode="{coordinates}"'
                name = f"nearest_tie_{height}_{coordinates}_{rounding}"
                cases.append(resize(name, text, (1, 1, height, width), sizes=(1, 1, *size)))
    # Rows of one vector and of several, of every instruction set; more rows than a work item has.
    for height, width, times in ((3, 33, 2), (70, 5, 3), (2, 16, 4), (5, 12, 1.5), (1, 100, 2)):
        for coordinates, rounding in (("asymmetric", "floor"), ("half_pixel", "round_prefer_ceil")):
            text = f'mode="nearest", nearest_mode="{rounding}", '
            text += f'coordinate_transformation_mode="{coordinates}"'
            name = f"nearest_row_{width}_times_{times}_{coordinates}"
            shape = (2, 3, height, width)
            cases.append(resize(name, text, shape, scales=(1, 1, times, times)))
            cases.append(resize(f"{name}_channels", text, shape, scales=(1, times, times, 1)))
    for mode in ("nearest", "linear"):
        base = f'mode="{mode}", coordinate_transformation_mode='
        for scale in (2.0, 0.5, 1.5, 0.7, 3.0):
            for coordinates in ("half_pixel", "asymmetric"):
                cases.append(
                    resize(
                        f"{mode}_scale{scale}_{coordinates}",
                        f'{base}"{coordinates}"',
                        (1, 2, 8, 9),
                        scales=(1, 1, scale, scale),
                    )
                )
        cases.append(
            resize(f"{mode}_axes", f'{base}"half_pixel", axes=[2, 3]', (1, 2, 5, 6), sizes=(9, 4))
        )
        cases.append(
            resize(
                f"{mode}_axes_reversed",
                f'{base}"half_pixel", axes=[3, 2]',
                (1, 2, 5, 6),
                sizes=(9, 4),
            )
        )
        cases.append(resize(f"{mode}_1d", f'{base}"half_pixel"', (2, 3, 17), scales=(1, 1, 2)))
        cases.append(
            resize(
                f"{mode}_not_larger",
                f'{base}"half_pixel", axes=[2, 3], keep_aspect_ratio_policy="not_larger"',
                (1, 2, 6, 8),
                sizes=(12, 9),
            )
        )
        cases.append(
            resize(
                f"{mode}_not_smaller",
                f'{base}"half_pixel", axes=[2, 3], keep_aspect_ratio_policy="not_smaller"',
                (1, 2, 6, 8),
                sizes=(12, 9),
            )
        )
        attributes = f'{base}"asymmetric"'
        cases.append(
            Case(
                f"resize_{mode}_dynamic",
                [f"y = Resize<{attributes}>(x, , scales)"],
                {"x": ["n", 3, "h", "w"]},
                {"scales": np.array([1, 1, 2, 2], np.float32)},
                tolerance=FUNCTION,
                sizes=[
                    {"n": 1, "h": 4, "w": 4},
                    {"n": 3, "h": 7, "w": 1},
                    {"n": 2, "h": 1, "w": 33},
                ],
            )
        )
        cases.append(
            Case(
                f"resize_{mode}_opset11_to_the_shape_of_another",
                [
                    "s = Shape(b)",
                    "t = Slice(s, two, four)",
                    "u = Shape(a)",
                    "v = Slice(u, zero, two)",
                    "z = Concat<axis=0>(v, t)",
                    f"r = Resize<{attributes}>(a, roi, none, z)",
                    "y = Concat<axis=1>(r, b)",
                ],
                {"a": ["n", 3, "h", "w"], "b": ["n", 2, "k", "l"]},
                {
                    "zero": np.array([0]),
                    "two": np.array([2]),
                    "four": np.array([4]),
                    "roi": np.array([], np.float32),
                    "none": np.array([], np.float32),
                },
                opset=11,
                tolerance=FUNCTION,
                sizes=[
                    {"n": 1, "h": 4, "w": 4, "k": 8, "l": 8},
                    {"n": 2, "h": 3, "w": 5, "k": 4, "l": 11},
                ],
            )
        )
        cases.append(
            Case(
                f"upsample_{mode}_by_convolution",
                [
                    "c = Conv(x, w)",
                    f"r = Resize<{attributes}>(c, , scales)",
                    "d = Conv<pads=[1,1,1,1]>(r, v)",
                    "y = Relu(d)",
                ],
                {"x": (2, 3, 6, 6)},
                {
                    "w": random_weights(5, 3, 3, 3, sparsity=0.5),
                    "v": random_weights(4, 5, 3, 3, sparsity=0.5),
                    "scales": np.array([1, 1, 2, 2], np.float32),
                },
            )
        )
    return cases


def axis_cases() -> list[Case]:
    """Cubic, antialias, crops and other dimensions than the last two."""
    cases = []
    # onnxruntime leaves a dimension that keeps its size as it is, crop or not.
    targets = {"up": (8, 19), "down": (3, 4), "one": (1, 1), "wide": (6, 65), "mixed": (9, 2)}
    for label, (height, width) in targets.items():
        size = (2, 3, height, width)
        for coordinates in (*COORDINATES, "half_pixel_symmetric"):
            if (label, coordinates) == ("one", "pytorch_half_pixel"):
                continue  # onnx and onnxruntime differ
            for more in ("", ", cubic_coeff_a=-0.5", ", exclude_outside=1"):
                text = f'mode="cubic", coordinate_transformation_mode="{coordinates}"{more}'
                name = f"cubic_{label}_{coordinates}_{more[2:].replace('=', '')}"
                cases.append(resize(name, text, (2, 3, 5, 7), sizes=size))
        for mode in ("linear", "cubic"):
            for coordinates in ("half_pixel", "align_corners"):
                for more in ("", ", exclude_outside=1"):
                    text = f'mode="{mode}", antialias=1{more}, '
                    text += f'coordinate_transformation_mode="{coordinates}"'
                    name = f"{mode}_antialias_{label}_{coordinates}_{len(more)}"
                    cases.append(resize(name, text, (2, 3, 5, 7), sizes=size))
        for mode in ("linear", "nearest", "cubic"):
            text = f'mode="{mode}", extrapolation_value=3.5, '
            text += 'coordinate_transformation_mode="tf_crop_and_resize"'
            for part, roi in (
                ("inside", (0, 0, 0.2, 0.1, 1, 1, 0.7, 0.9)),
                ("outside", (0, 0, -0.4, 0.3, 1, 1, 0.8, 1.6)),
                ("flipped", (0, 0, 1, 0.8, 1, 1, 0, 0.1)),
            ):
                if mode == "cubic" and part == "outside":
                    continue  # onnxruntime extrapolates cubic crops by rows and columns alone
                cases.append(
                    Case(
                        f"resize_crop_{mode}_{label}_{part}",
                        ["h = Identity(x)", f"y = Resize<{text}>(h, roi, , sizes)"],
                        {"x": (2, 3, 5, 7)},
                        {"roi": np.array(roi, np.float32), "sizes": np.array(size, np.int64)},
                        tolerance=FUNCTION,
                    )
                )
    base = 'coordinate_transformation_mode="half_pixel"'
    for label, shape, size in (
        ("volume", (2, 3, 4, 5, 6), (2, 3, 7, 3, 9)),
        ("volume_of_one", (1, 1, 1, 2, 3), (1, 1, 3, 2, 1)),
    ):
        cases.append(resize(f"linear_{label}", f'mode="linear", {base}', shape, sizes=size))
    cases.append(
        Case(
            "resize_cubic_dynamic",
            [
                "c = Conv<pads=[1,1,1,1]>(x, w)",
                f'y = Resize<mode="cubic", {base}>(c, , scales)',
            ],
            {"x": ["n", 3, "h", "w_"]},
            {
                "w": random_weights(5, 3, 3, 3, sparsity=0.5),
                "scales": np.array([1, 1, 2, 1.5], np.float32),
            },
            tolerance=FUNCTION,
            sizes=[{"n": 1, "h": 4, "w_": 4}, {"n": 3, "h": 7, "w_": 2}],
        )
    )
    return cases


@pytest.mark.parametrize("case", unique(all_cases() + axis_cases()), ids=str)
def test_resize(case: Case) -> None:
    check(case)
