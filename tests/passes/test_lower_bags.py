"""lower_bags: the loop that torch's exporter makes of an EmbeddingBag becomes native operators."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

import sparsert
from tests.passes.pass_checks import apply, ops

MEAN_OF_REST = """q = ReduceSum(r, zero)  m = Sub(rows, s)  g = Greater(m, zero)
    p = If<then_branch = a () => (float[1, 5] u) { f = CastLike(m, w)  u = Div(q, f) },
           else_branch = b () => (float[1, 5] h) { h = Identity(q) }>(g)"""
RESULTS = {
    "sum": "r = Slice(w, s, e)  y = ReduceSum(r, zero)",
    "mean": f"""l = Equal(i, last)  r = Slice(w, s, e)
        y = If<then_branch = t () => (float[1, 5] p) {{ {MEAN_OF_REST} }},
               else_branch = o () => (float[1, 5] n) {{ n = ReduceMean(r, zero) }}>(l)""",
    "max": """l = Equal(i, last)
        r = If<then_branch = t () => (float[a, 5] p) { p = Slice(w, s, rows) },
               else_branch = o () => (float[b, 5] q) { q = Slice(w, s, e) }>(l)
        y = ReduceMax(r, zero)""",
}
# Bags of three whose number is known, of three in a batch of any size, and as offsets say.
OFFSETS = {
    "known": (4, "bags = Identity(four)  offsets = Identity(of_four)"),
    "batch": (
        "n",
        """first = Shape<start = 0, end = 1>(x)  count = Squeeze(first)  limit = Mul(count, three)
        o = Range(none, limit, three)  bags = Size(o)  offsets = Concat<axis = 0>(o, rows)""",
    ),
    "given": ("n", "bags = Size(starts)  offsets = Concat<axis = 0>(starts, rows)"),
    "with_end": ("n", "all = Size(starts)  bags = Sub(all, unit)  offsets = Identity(starts)"),
}


def model_of(result: str, batch: int | str, offsets: str, step: str = "one") -> onnx.ModelProto:
    """The mean, say, of each bag of rows of a table."""
    proto = parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        g (int64[{batch}, 3] x, int64[b] starts) => (float[z, 5] out)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64 none = {{0}},
         int64 unit = {{1}}, int64 three = {{3}}, int64 four = {{4}}, float[1] weight = {{1.0}},
         int64[5] of_four = {{0, 3, 6, 9, 12}}, int64[1] at = {{-1}}, int64[{batch}] o,
         float[1, 5] nothing = {{0, 0, 0, 0, 0}}>
        {{ ids = Reshape(x, at)  rows = Shape(ids)  v = Gather(table, ids)
        c = Expand(weight, rows)  d = Unsqueeze(c, one)  w = Mul(v, d)
        {offsets}  last = Sub(bags, unit)  empty = SequenceEmpty()  go = Less(none, bags)
        found, end = Loop<body = body (int64 k, bool on, seq(float[1, 5]) old, int64 i)
            => (bool again, seq(float[1, 5]) new, int64 next) {{
            j = Reshape(i, at)  j1 = Add(j, {step})  j2 = Add(j, two)
            s = Slice(offsets, j, j1)  e = Slice(offsets, j1, j2)  is_none = Equal(s, e)
            row = If<then_branch = then () => (float[1, 5] y0) {{ y0 = Identity(nothing) }},
                     else_branch = other () => (float[1, 5] y) {{ {RESULTS[result]} }}>(is_none)
            new = SequenceInsert(old, row)  next = Add(i, unit)  again = Less(next, bags)
            }}>(, go, empty, none)
        out = ConcatFromSequence<axis = 0>(found) }}"""
    )
    table = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(table, "table"))
    return proto


def assert_bags(proto: onnx.ModelProto, starts: list[int]) -> None:
    feeds = {"x": np.arange(12).reshape(4, 3) % 9, "starts": np.array(starts)}
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    found = sparsert.load(proto, strict=True, threads=1).run(None, feeds)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6)


@pytest.mark.parametrize("offsets", ["known", "batch", "given"])
@pytest.mark.parametrize("result", RESULTS)
def test_bags(result, offsets):
    proto = model_of(result, *OFFSETS[offsets])
    found = ops(apply(proto))
    assert ("ScatterND" in found) == (offsets == "given")
    assert not {"Mul", "Range", "Loop"} & {*found}
    assert_bags(proto, [0, 2, 2, 7, 12, 12])


def test_rows_before_the_first_bag_and_after_the_last_belong_to_none():
    proto = model_of("sum", *OFFSETS["with_end"])
    assert_bags(proto, [1, 2, 2, 9])
    # The mean of the last bag is not that of its rows then.
    assert "Loop" in ops(apply(model_of("mean", *OFFSETS["with_end"])))


def test_other_loops_are_left_alone():
    assert "Loop" in ops(apply(model_of("sum", *OFFSETS["given"], step="two")))
