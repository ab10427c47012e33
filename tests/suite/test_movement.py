"""Ops that move data: Concat, Split, Slice, views, Transpose, Pad, Expand, Gather; any dtype."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import TensorProto

from tests.suite.harness import (
    EXACT,
    FUNCTION,
    ROUNDED,
    Case,
    check,
    i64,
    random_weights,
    unique,
)

# A Relu in front makes an activation with padded planes of an input; one behind, an inner tensor.
HEAD = "h = Relu(x)"


def moved(name: str, text: str, shape: tuple[int, ...], **constants: np.ndarray) -> list[Case]:
    """The op on a graph input, and between two activations. `text` reads h and writes m."""
    return [
        Case(
            f"{name}_plain",
            ["h = Identity(x)", text, "y = Identity(m)"],
            {"x": shape},
            constants,
            tolerance=EXACT,
        ),
        Case(f"{name}_inner", [HEAD, text, "y = Neg(m)"], {"x": shape}, constants, tolerance=EXACT),
    ]


def concat_split_cases() -> list[Case]:
    """Every axis; uneven parts; constants among the inputs."""
    cases = []
    for axis in (0, 1, 2, 3, -1, -3):
        shapes = []
        for extra in (0, 1, 2):
            shape = [2, 3, 5, 7]
            shape[axis] += extra
            shapes.append(shape)
        inputs = dict(zip("abc", shapes, strict=True))
        cases.append(
            Case(f"concat_{axis}", [f"y = Concat<axis={axis}>(a, b, c)"], inputs, tolerance=EXACT)
        )
        nodes = ["d = Relu(a)", "e = Neg(b)", f"m = Concat<axis={axis}>(d, e, c, d)", "y = Abs(m)"]
        cases.append(Case(f"concat_inner_{axis}", nodes, inputs, tolerance=EXACT))
        sizes = i64(
            *(
                [1, 3, 2]
                if axis in (1, -3)
                else [1, 1]
                if axis == 0
                else [2, 1, 2]
                if axis == 2
                else [4, 1, 2]
            )
        )
        shape = (2, 6, 5, 7)
        names = ["p", "q", "r"][: len(sizes)]
        cases.append(
            Case(
                f"split_{axis}",
                [HEAD, f"{', '.join(names)} = Split<axis={axis}>(h, s)"],
                {"x": shape},
                {"s": sizes},
                outputs=names,
                tolerance=EXACT,
            )
        )
    cases.append(
        Case(
            "split_equal",
            [HEAD, "p, q, r = Split<axis=1, num_outputs=3>(h)"],
            {"x": (2, 6, 5, 7)},
            outputs=("p", "q", "r"),
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "split_uneven_outputs",
            ["p, q, r = Split<axis=1, num_outputs=3>(x)"],
            {"x": (2, 8, 5)},
            outputs=("p", "q", "r"),
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "split_opset11",
            ["p, q = Split<axis=1, split=[1,3]>(x)"],
            {"x": (2, 4, 5)},
            outputs=("p", "q"),
            opset=11,
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "split_conv_concat",
            [
                "p, q = Split<axis=1>(x, s)",
                "c = Conv<pads=[1,1,1,1]>(p, w)",
                "d = Conv(q, v)",
                "y = Concat<axis=1>(d, c)",
            ],
            {"x": (2, 8, 6, 5)},
            {
                "s": i64(3, 5),
                "w": random_weights(4, 3, 3, 3, sparsity=0.5),
                "v": random_weights(7, 5, 1, 1, sparsity=0.5),
            },
        )
    )
    cases.append(
        Case(
            "concat_constant",
            [HEAD, "y = Concat<axis=1>(h, k, h)"],
            {"x": (2, 3, 5)},
            {"k": random_weights(2, 4, 5)},
            tolerance=EXACT,
        )
    )
    cases.append(Case("concat_one", ["y = Concat<axis=0>(x)"], {"x": (2, 3)}, tolerance=EXACT))
    cases.append(
        Case(
            "concat_dynamic",
            ["y = Concat<axis=2>(a, b)"],
            {"a": ["n", 3, "h"], "b": ["n", 3, "k"]},
            tolerance=EXACT,
            sizes=[{"n": 1, "h": 1, "k": 4}, {"n": 7, "h": 17, "k": 2}],
        )
    )
    return cases


def slice_cases() -> list[Case]:
    """Positive and negative bounds and steps, out of range ones, all axes, empty results."""
    cases = []
    shape = (2, 6, 5, 9)
    slices = [
        ((1,), (4,), (1,), (1,)),
        ((0,), (100,), (3,), (2,)),
        ((-1,), (-100,), (1,), (-1,)),
        ((7,), (0,), (3,), (-3,)),
        ((-5,), (-1,), (-1,), (1,)),
        ((1, 2), (3, 4), (2, 1), (1, 1)),
        ((0, 1, 0, 8), (1, 5, 5, 0), (0, 1, 2, 3), (1, 2, 3, -2)),
        ((-100,), (100,), (2,), (1,)),
    ]
    for number, (starts, ends, axes, steps) in enumerate(slices):
        cases += moved(
            f"slice_{number}",
            "m = Slice(h, s, e, a, t)",
            shape,
            s=i64(*starts),
            e=i64(*ends),
            a=i64(*axes),
            t=i64(*steps),
        )
    cases += moved("slice_no_axes", "m = Slice(h, s, e)", shape, s=i64(0, 1), e=i64(1, 3))
    cases += moved(
        "slice_int32",
        "m = Slice(h, s, e, a)",
        shape,
        s=np.array([1], np.int32),
        e=np.array([3], np.int32),
        a=np.array([2], np.int32),
    )
    cases.append(
        Case(
            "slice_empty_joined",
            [HEAD, "m = Slice(h, s, e, a)", "y = Concat<axis=1>(m, h)"],
            {"x": shape},
            {"s": i64(4), "e": i64(2), "a": i64(1)},
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "slice_empty_output",
            [HEAD, "y = Slice(h, s, e, a)"],
            {"x": shape},
            {"s": i64(4), "e": i64(2), "a": i64(1)},
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "slice_dynamic",
            ["y = Slice(x, s, e, a)"],
            {"x": ["n", 3, "h"]},
            {"s": i64(1), "e": i64(-1), "a": i64(2)},
            tolerance=EXACT,
            sizes=[{"n": 1, "h": 3}, {"n": 2, "h": 40}],
        )
    )
    return cases


def view_cases() -> list[Case]:
    """Reshape, Flatten, Squeeze, Unsqueeze: of inputs, of padded planes, in chains, as outputs."""
    cases = []
    shape = (2, 6, 5, 7)
    for number, target in enumerate(
        [
            (2, 210),
            (-1,),
            (0, -1, 7),
            (0, 0, 35),
            (7, 5, 6, 2),
            (1, 2, 6, 5, 7),
            (12, 5, 7),
            (2, 2, 3, 5, 7),
            (2, 6, 35),
            (60, 7),
        ]
    ):
        cases += moved(f"reshape_{number}", "m = Reshape(h, s)", shape, s=i64(*target))
    cases += moved("reshape_to_scalar", "m = Reshape(h, s)", (1, 1, 1), s=i64())
    cases += moved("reshape_allowzero", "m = Reshape<allowzero=1>(h, s)", (2, 3), s=i64(3, 2))
    for axis in (0, 1, 2, 3, 4, -1, -2):
        cases += moved(f"flatten_{axis}", f"m = Flatten<axis={axis}>(h)", shape)
    cases += moved("flatten_rank1", "m = Flatten(h)", (5,))
    cases += moved("squeeze", "m = Squeeze(h, a)", (1, 3, 1, 5), a=i64(0, 2))
    cases += moved("squeeze_all", "m = Squeeze(h)", (1, 3, 1, 5))
    cases += moved("squeeze_negative", "m = Squeeze(h, a)", (2, 3, 5, 1), a=i64(-1))
    cases += moved("unsqueeze", "m = Unsqueeze(h, a)", (3, 5), a=i64(0, 2, -1))
    cases.append(
        Case(
            "squeeze_opset11",
            ["y = Squeeze<axes=[0]>(x)"],
            {"x": (1, 3, 5)},
            opset=11,
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "views_of_views",
            [
                "a = Relu(x)",
                "b = Flatten(a)",
                "c = Reshape(b, s)",
                "d = Unsqueeze(c, z)",
                "e = Squeeze(d, z)",
                "f = Neg(e)",
                "y = Add(f, c)",
            ],
            {"x": (2, 3, 4, 5)},
            {"s": i64(6, 20), "z": i64(0)},
            tolerance=ROUNDED,
        )
    )
    cases.append(
        Case(
            "view_outlives_its_tensor",
            [
                "a = Neg(x)",
                "b = Reshape(a, s)",
                "c = Exp(a)",
                "d = Sqrt(c)",
                "e = Sin(d)",
                "f = Reshape(e, s)",
                "y = Add(b, f)",
            ],
            {"x": (2, 3, 20)},
            {"s": i64(6, 20)},
            tolerance=FUNCTION,
        )
    )
    for op in ("Reshape(a, s)", "Flatten(a)"):
        cases.append(
            Case(
                f"view_as_output_{op[:4]}",
                ["a = Relu(x)", f"y = {op}", "z = Neg(a)"],
                {"x": (2, 3, 4, 5)},
                {"s": i64(24, 5)} if "s" in op[8:] else {},
                outputs=("y", "z"),
                tolerance=EXACT,
            )
        )
    cases.append(
        Case(
            "input_as_output",
            ["y = Identity(x)", "z = Relu(x)"],
            {"x": (2, 3)},
            outputs=("y", "z"),
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "view_of_input_as_output",
            ["y = Reshape(x, s)"],
            {"x": (2, 3)},
            {"s": i64(3, 2)},
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "constant_as_output",
            ["y = Identity(k)", "z = Relu(x)"],
            {"x": (2, 3)},
            {"k": random_weights(3, 4)},
            outputs=("y", "z"),
            tolerance=EXACT,
        )
    )
    return cases


def transpose_cases() -> list[Case]:
    """All permutations up to rank 4, some beyond."""
    cases = []
    for rank in (1, 2, 3, 4):
        shape = (2, 3, 5, 7)[:rank]
        for perm in itertools.permutations(range(rank)):
            label = "".join(map(str, perm))
            cases += moved(f"transpose_{label}", f"m = Transpose<perm={list(perm)}>(h)", shape)
    cases += moved("transpose_default", "m = Transpose(h)", (2, 3, 5))
    cases += moved("transpose_rank6", "m = Transpose<perm=[5,2,0,4,1,3]>(h)", (2, 3, 2, 3, 2, 3))
    cases += moved("transpose_tails", "m = Transpose<perm=[0,2,1]>(h)", (2, 33, 17))
    cases.append(
        Case(
            "channel_shuffle",
            [
                "a = Relu(x)",
                "b = Reshape(a, s)",
                "c = Transpose<perm=[0,2,1,3,4]>(b)",
                "y = Reshape(c, t)",
            ],
            {"x": (2, 6, 5, 4)},
            {"s": i64(2, 2, 3, 5, 4), "t": i64(2, 6, 5, 4)},
            tolerance=EXACT,
        )
    )
    cases.append(
        Case(
            "nhwc_to_conv",
            [
                "a = Transpose<perm=[0,3,1,2]>(x)",
                "c = Conv(a, w)",
                "y = Transpose<perm=[0,2,3,1]>(c)",
            ],
            {"x": (2, 6, 5, 3)},
            {"w": random_weights(4, 3, 3, 3, sparsity=0.5)},
        )
    )
    for block in (2, 3):
        shape = (1, 2 * block * block, 3, 4)
        cases.append(
            Case(
                f"pixel_shuffle_{block}",
                [
                    "a = Relu(x)",
                    "b = Reshape(a, s)",
                    "c = Transpose<perm=[0,1,4,2,5,3]>(b)",
                    "y = Reshape(c, t)",
                ],
                {"x": shape},
                {"s": i64(1, 2, block, block, 3, 4), "t": i64(1, 2, 3 * block, 4 * block)},
                tolerance=EXACT,
            )
        )
    return cases


def pad_cases() -> list[Case]:
    """Modes, negative pads, values, axes."""
    cases = []
    for mode in ("constant", "reflect", "edge", "wrap"):
        text = f'm = Pad<mode="{mode}">(h, p)'
        cases += moved(f"pad_{mode}", text, (2, 3, 5, 7), p=i64(0, 0, 1, 2, 0, 0, 3, 1))
        cases += moved(f"pad_{mode}_1d", text, (2, 3, 17), p=i64(0, 0, 4, 0, 0, 4))
        cases += moved(f"pad_{mode}_channels", text, (2, 3, 5), p=i64(1, 2, 0, 1, 0, 0))
    cases += moved(
        "pad_value",
        "m = Pad(h, p, v)",
        (2, 3, 5, 7),
        p=i64(0, 1, 1, 2, 1, 0, 3, 1),
        v=np.float32(-2.5),
    )
    cases += moved("pad_axes", "m = Pad(h, p, , a)", (2, 3, 5, 7), p=i64(1, 2, 3, 0), a=i64(3, 1))
    cases += moved("pad_negative", "m = Pad(h, p)", (2, 3, 5, 7), p=i64(0, -1, 1, -2, 0, 0, -3, 2))
    cases += moved("pad_nothing", "m = Pad(h, p)", (2, 3), p=i64(0, 0, 0, 0))
    cases.append(
        Case(
            "pad_into_conv",
            ["a = Pad(x, p)", "y = Conv<strides=[2,2]>(a, w)"],
            {"x": (2, 3, 6, 7)},
            {"p": i64(0, 0, 1, 0, 0, 0, 2, 1), "w": random_weights(4, 3, 3, 3, sparsity=0.5)},
        )
    )
    cases.append(
        Case(
            "pad_value_into_conv",
            ["a = Pad(x, p, v)", "y = Conv<pads=[1,1,1,1]>(a, w)"],
            {"x": (2, 3, 6, 7)},
            {
                "p": i64(0, 0, 1, 0, 0, 0, 2, 1),
                "v": np.float32(1.5),
                "w": random_weights(4, 3, 3, 3, sparsity=0.5),
            },
        )
    )
    cases.append(
        Case(
            "pad_into_average_pool",
            ["a = Pad(x, p)", "y = AveragePool<kernel_shape=[3,3], strides=[2,2]>(a)"],
            {"x": (2, 3, 6, 7)},
            {"p": i64(0, 0, 1, 1, 0, 0, 1, 1)},
        )
    )
    cases.append(
        Case(
            "pad_into_max_pool",
            ["a = Pad(x, p)", "y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(a)"],
            {"x": (2, 3, 6, 7)},
            {"p": i64(0, 0, 1, 1, 0, 0, 1, 1)},
            low=-5.0,
            high=-1.0,
        )
    )
    return cases


def gather_expand_cases() -> list[Case]:
    """Gather with constant indices; Expand; constants of shape."""
    cases = []
    for axis in (0, 1, 2, -1):
        for label, indices in (
            ("list", i64(1, 0, -1)),
            ("scalar", np.array(1)),
            ("table", np.array([[0, 1], [-2, 0]])),
        ):
            cases += moved(
                f"gather_{axis}_{label}", f"m = Gather<axis={axis}>(h, i)", (3, 4, 5), i=indices
            )
    cases += moved(
        "gather_int32", "m = Gather<axis=1>(h, i)", (2, 6, 5, 4), i=np.array([5, 5, 0], np.int32)
    )
    cases += moved("expand", "m = Expand(h, s)", (3, 1, 5), s=i64(2, 3, 4, 5))
    cases += moved("expand_keeps", "m = Expand(h, s)", (3, 4, 5), s=i64(1, 1, 1))
    cases += moved("expand_scalar", "m = Expand(h, s)", (), s=i64(3, 4))
    cases.append(
        Case(
            "expand_by_shape",
            ["s = Shape(b)", "m = Expand(a, s)", "y = Add(m, b)"],
            {"a": ["n", 1, 1], "b": ["n", 3, "h"]},
            tolerance=ROUNDED,
            sizes=[{"n": 1, "h": 4}, {"n": 3, "h": 17}],
        )
    )
    return cases


def dtype_cases() -> list[Case]:
    """Data movement of every type."""
    cases = []
    kinds = {
        "f16": TensorProto.FLOAT16,
        "f64": TensorProto.DOUBLE,
        "i8": TensorProto.INT8,
        "u8": TensorProto.UINT8,
        "i32": TensorProto.INT32,
        "i64": TensorProto.INT64,
        "bool": TensorProto.BOOL,
        "u16": TensorProto.UINT16,
        "u32": TensorProto.UINT32,
    }
    for label, kind in kinds.items():
        if label in ("f16", "f64"):  # converted to f32 and back; the ops stay the same
            nodes = ["t = Transpose<perm=[0,2,1]>(x)", "y = Reshape(t, r)"]
        else:
            nodes = [
                "t = Transpose<perm=[0,2,1]>(x)",
                "c = Concat<axis=1>(t, t)",
                "l = Slice(c, s, e, a)",
                "y = Reshape(l, r)",
            ]
        used = {"s": i64(1), "e": i64(7), "a": i64(1), "r": i64(2, -1)}
        cases.append(
            Case(
                f"move_{label}",
                nodes,
                {"x": (kind, (2, 3, 5))},
                {
                    k: v
                    for k, v in used.items()
                    if any(f" {k})" in n or f" {k}," in n for n in nodes)
                },
                tolerance=ROUNDED if label == "f64" else EXACT,
            )
        )
    return cases


CASES = unique(
    concat_split_cases()
    + slice_cases()
    + view_cases()
    + transpose_cases()
    + pad_cases()
    + gather_expand_cases()
    + dtype_cases()
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_movement(case: Case) -> None:
    check(case)
