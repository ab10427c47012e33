"""lower_einsums: products, sums, transpositions and diagonals, of any number of operands."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import sparsert
from sparsert.passes import native_report
from sparsert.passes.lower_einsums import parse
from tests.passes.pass_checks import apply, assert_same, build, node

EQUATIONS = {
    "ij,jk->ik": ((3, 4), (4, 5)),
    "ij,jk": ((3, 4), (4, 5)),
    "bij,bjk->bik": ((2, 3, 4), (2, 4, 5)),
    "bhqd,bhkd->bhqk": ((2, 3, 5, 4), (2, 3, 6, 4)),
    "bqhd,bkhd->bhqk": ((2, 5, 3, 4), (2, 6, 3, 4)),
    "bhqk,bkhd->bqhd": ((2, 3, 5, 6), (2, 6, 3, 4)),
    "...ij,...jk->...ik": ((2, 3, 4, 5), (2, 3, 5, 6)),
    "nchw->nhwc": ((2, 3, 4, 5),),
    "ijk->": ((2, 3, 4),),
    "ij->j": ((3, 4),),
    "ji": ((3, 4),),
    "i,i->": ((7,), (7,)),
    "i,j->ij": ((3,), (4,)),
    "i,j->ji": ((3,), (4,)),
    "ij,ij->ij": ((3, 4), (3, 4)),
    "ij,ij->": ((3, 4), (3, 4)),
    "abcd,cd->ab": ((2, 3, 4, 5), (4, 5)),
    "abcd,efcd->abef": ((2, 3, 4, 5), (6, 2, 4, 5)),
    "ab,cd,bd->ac": ((2, 3), (4, 5), (3, 5)),
    "a,b,c->abc": ((2,), (3,), (4,)),
    "ij,k->i": ((3, 4), (5,)),
    "ii->i": ((4, 4),),
    "ii->": ((4, 4),),
    "...ii->...i": ((2, 3, 3),),
    "b i j , b j k -> b i k": ((2, 3, 4), (2, 4, 5)),
    "...,...->...": ((2, 3), (2, 3)),
    "->": ((),),
    ",->": ((), ()),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_equation(equation: str) -> None:
    shapes = EQUATIONS[equation]
    names = [f"x{i}" for i in range(len(shapes))]
    proto = build(
        [node("Einsum", names, ["y"], equation=equation)],
        dict(zip(names, shapes, strict=True)),
        ["y"],
    )
    model = apply(proto)
    assert native_report(model) == []
    assert_same(proto, model)


@pytest.mark.parametrize(
    "equation", ["bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "abcd,efcd->abef", "abc,dbc->ad"]
)
def test_symbols(equation: str) -> None:
    """Sizes that only a run knows, natively, for two sets of them."""
    left, _ = equation.split("->")
    terms = left.split(",")
    names = [f"x{i}" for i in range(len(terms))]
    proto = build(
        [node("Einsum", names, ["y"], equation=equation)],
        {name: list(term) for name, term in zip(names, terms, strict=True)},
        ["y"],
    )
    model = sparsert.load(proto, strict=True, threads=1)
    rng = np.random.default_rng(1)
    for base in (2, 1):
        sizes = {label: base + index for index, label in enumerate(sorted(set("".join(terms))))}
        feeds = {
            name: rng.standard_normal([sizes[c] for c in term]).astype(np.float32)
            for name, term in zip(names, terms, strict=True)
        }
        wanted = np.einsum(equation, *feeds.values())
        np.testing.assert_allclose(model.run(None, feeds)[0], wanted, rtol=1e-4, atol=1e-4)


def test_weights_become_a_linear_layer() -> None:
    """A product with constant weights packs them, sparse if they are."""
    rng = np.random.default_rng(2)
    w = (rng.standard_normal((6, 8)) * (rng.random((6, 8)) < 0.3)).astype(np.float32)
    proto = build(
        [node("Einsum", ["x", "w"], ["y"], equation="btd,df->btf")],
        {"x": (2, 5, 6)},
        ["y"],
        {"w": w},
    )
    assert_same(proto, apply(proto))
    model = sparsert.load(proto, strict=True)
    assert [row["op"] for row in model.explain().to_dict()["rows"]] == ["Linear"]


def test_broadcast_is_left_alone() -> None:
    proto = build(
        [node("Einsum", ["a", "b"], ["y"], equation="ij,jk->ik")],
        {"a": (3, 1), "b": (4, 5)},
        ["y"],
    )
    assert len(native_report(apply(proto))) == 1


@pytest.mark.parametrize(
    ("equation", "ranks"),
    [("ij,jk->ik", [2]), ("ij->ii", [2]), ("ij->k", [2]), ("ijk->i", [2]), ("...ij->i", [1])],
)
def test_what_does_not_fit(equation: str, ranks: list[int]) -> None:
    assert parse(equation, ranks) is None


def test_other_types_are_left_alone() -> None:
    proto = build(
        [node("Einsum", ["x"], ["y"], equation="ij->ji")],
        {"x": (2, 3)},
        ["y"],
        dtype=onnx.TensorProto.INT32,
    )
    assert len(native_report(apply(proto))) == 1
