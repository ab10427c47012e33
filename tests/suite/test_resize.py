"""Resize: nearest and linear, every coordinate and rounding mode, scales and sizes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.suite.harness import FUNCTION, Case, Engine, check, random_weights, unique

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


@pytest.mark.parametrize("case", unique(all_cases()), ids=str)
def test_resize(case: Case, engine: Engine) -> None:
    check(case, engine)
