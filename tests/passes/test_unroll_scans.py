"""unroll_scans: the iterations of a Scan of known length are written out."""

from __future__ import annotations

import onnx
import pytest
from onnx import parser

from sparsert.passes import native_report
from tests.passes.pass_checks import apply, assert_same, ops

BODY = """body = b (float[n, 4] s, float[n, 4] r) => (float[n, 4] t, float[n, 4] u)
    { d = Mul(s, half)  e = Add(r, z)  t = Sub(d, e)  f = Add(t, s)  u = Tanh(f) }"""


def scan(attributes: str, x: str, y: str) -> onnx.ModelProto:
    """A Scan of one state, one sequence x and one output y, that reads z from outside."""
    return parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[n, 4] i, float[{x}] x, float[n, 4] w) => (float[n, 4] last, float[{y}] y)
        <float half = {{0.5}}>
        {{ z = Relu(w)  last, y = Scan<num_scan_inputs = 1{attributes}, {BODY}>(i, x) }}"""
    )


CASES = {
    "plain": ("", "5, n, 4", "5, n, 4"),
    "one_step": ("", "1, n, 4", "1, n, 4"),
    "axes": (", scan_input_axes = [1], scan_output_axes = [-1]", "n, 3, 4", "n, 4, 3"),
    "backward": (
        ", scan_input_directions = [1], scan_output_directions = [1]",
        "5, n, 4",
        "5, n, 4",
    ),
    "back_and_forth": (", scan_input_directions = [1]", "5, n, 4", "5, n, 4"),
}


@pytest.mark.parametrize("name", CASES)
def test_known_length(name):
    proto = scan(*CASES[name])
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model, {"n": 2})


@pytest.mark.parametrize("length", ["k", "0", "129"])
def test_other_lengths_are_left_alone(length):
    proto = scan("", f"{length}, n, 4", f"{length}, n, 4")
    assert "Scan" in ops(apply(proto))


def test_a_state_that_is_handed_on_unchanged():
    proto = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[4] i, float[3, 4] x) => (float[4] last, float[3, 4] y)
        { last, y = Scan<num_scan_inputs = 1,
            body = b (float[4] s, float[4] r) => (float[4] t, float[4] u)
            { t = Identity(s)  u = Identity(r) }>(i, x) }"""
    )
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)
