"""restore_tokens: tokens that an optimiser has reshaped to rows of a Gemm."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.pass_checks import apply
from tests.passes.quantised_checks import Layers, assert_units, names


def layers(
    x: tuple[int | str, ...], back: tuple[int, ...], flip: bool = False, **attributes: float
) -> Layers:
    """Two Gemms of reshaped x, each between quantisers as onnxruntime leaves them."""
    made = Layers().start()
    made.constants["rows"] = np.array([-1, x[-1]])
    made.constants["back"] = np.array(back)
    made.add("Reshape", ["xd", "rows"], "r")
    made.add("QuantizeLinear", ["r", "xs", "xz"], "rq")
    made.add("DequantizeLinear", ["rq", "xs", "xz"], "rd")
    scale = np.linspace(0.003, 0.005, 7)
    made.weight((7, x[-1]) if flip else (x[-1], 7), scale=scale, axis=0 if flip else 1)
    made.bias(7).add("Gemm", ["rd", "wd", "b"], "g", transB=int(flip), **attributes)
    made.middle("g", "h").add("Relu", ["h"], "a").middle("a", "ad")
    made.weight((7, back[-1]), "v").add("Gemm", ["ad", "vd"], "k")
    return made.middle("k", "kd").add("Reshape", ["kd", "back"], "t").end("t")


@pytest.mark.parametrize(
    ("shape", "back", "flip"),
    [
        ((1, 17, 12), (1, 17, 5), False),
        ((3, 16, 9), (3, 16, 5), True),
        ((1, "T", 8), (1, -1, 5), True),
    ],
)
def test_rows_are_tokens(shape: tuple[int | str, ...], back: tuple[int, ...], flip: bool) -> None:
    proto = layers(shape, back, flip).model({"x": shape})
    model = assert_units(proto, at_most=2, sizes={"T": 19})
    products = [n.outputs[0] for n in model.graph if n.op_type == "QConv"]
    wanted = [str(shape[0]), "2", str(shape[1])]
    assert [[str(dim) for dim in y.shape] for y in products] == [wanted, wanted]
    assert "Reshape" not in [n.op_type for n in model.graph]
    assert names(model).count("DequantizePacked") == 1


@pytest.mark.parametrize(
    ("shape", "back", "attributes"),
    [
        ((4, 3, 12), (4, 3, 5), {}),  # short sequences
        ((1, 17, 12), (1, 17, 5), {"alpha": 0.5}),
        ((1, 17, 12), (17, 5), {"beta": 0.5}),
    ],
)
def test_other_products_stay_rows(shape, back, attributes) -> None:
    model = apply(layers(shape, back, **attributes).model({"x": shape}))
    first = next(n for n in model.graph if n.op_type in ("QConv", "Linear", "Gemm"))
    assert first.outputs[0].shape[0] == int(np.prod(shape[:-1]))
