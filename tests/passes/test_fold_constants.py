"""fold_constants: constants and static shape arithmetic are evaluated; weights stay lazy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.passes.pass_checks import apply, assert_same, build, node, ops, weights


def test_static_shape_arithmetic():
    proto = build(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Unsqueeze", ["n", "axes"], ["u"]),
            node("Concat", ["u", "rest"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        {"x": (2, 3, 4)},
        ["y"],
        {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([12])},
    )
    model = apply(proto, "fold_constants", "tidy_graph")
    assert ops(model) == ["Reshape"]
    assert_same(proto, model)


def test_large_weights_are_transposed_lazily():
    proto = build(
        [node("Transpose", ["w"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"])],
        {"x": (2, 300)},
        ["y"],
        {"w": weights(400, 300)},
    )
    model = apply(proto)
    assert ops(model) == ["sparsert.Linear"]
    stored = next(iter(model.graph)).inputs[1].const_value
    assert isinstance(stored, ir.LazyTensor)
    assert stored.shape == (400, 300)
    assert_same(proto, model)


def test_standardised_weights_are_folded():
    """Torch standardises weights by a batch norm in training, whose other outputs nobody reads."""
    proto = build(
        [
            node(
                "BatchNormalization",
                ["v", "g", "b", "b", "b"],
                ["n", "mean", "var"],
                training_mode=1,
            ),
            node("Reshape", ["n", "shape"], ["w"]),
            node("Conv", ["x", "w"], ["y"]),
        ],
        {"x": (1, 3, 6, 6)},
        ["y"],
        {
            "v": weights(1, 8, 27),
            "g": weights(8, seed=1, sparsity=0),
            "b": np.zeros(8, np.float32),
            "shape": np.array([8, 3, 3, 3]),
        },
    )
    model = apply(proto)
    assert ops(model) == ["sparsert.Conv"]
    assert_same(proto, model)


def test_weight_normalisation_is_folded():
    proto = build(
        [
            node("ReduceL2", ["v", "axes"], ["n"], keepdims=1),
            node("Div", ["v", "n"], ["u"]),
            node("Mul", ["u", "g"], ["w"]),
            node("Conv", ["x", "w"], ["y"]),
        ],
        {"x": (1, 64, 6, 6)},
        ["y"],
        {
            "v": weights(128, 64, 3, 3),
            "axes": np.array([1, 2, 3]),
            "g": weights(128, 1, 1, 1, seed=1, sparsity=0),
        },
    )
    model = apply(proto)
    assert ops(model) == ["sparsert.Conv"]
    assert_same(proto, model)


def test_the_first_of_several_outputs_is_folded():
    proto = build(
        [node("LayerNormalization", ["w", "s", "b"], ["n"]), node("Mul", ["x", "n"], ["y"])],
        {"x": (1, 300)},
        ["y"],
        {"w": weights(400, 300), "s": weights(300, seed=1), "b": weights(300, seed=2)},
    )
    model = apply(proto)
    assert ops(model) == ["Mul"]
    assert_same(proto, model)


def test_products_of_constants_are_folded_unless_they_grow():
    # Learned positions through a layer's own weights: a table. A low-rank weight stays two factors.
    proto = build(
        [
            node("MatMul", ["table", "w"], ["t"]),
            node("Add", ["t", "b"], ["u"]),
            node("Mul", ["x", "u"], ["v"]),
            node("MatMul", ["left", "right"], ["p"]),
            node("Mul", ["v", "p"], ["y"]),
        ],
        {"x": (1, 300)},
        ["y"],
        {
            "table": weights(300, 256),
            "w": weights(256, 300, seed=1),
            "b": weights(300, seed=2),
            "left": weights(300, 230, seed=3)[:, :100],
            "right": weights(100, 300, seed=4),
        },
    )
    model = apply(proto)
    assert sorted(ops(model)) == ["MatMul", "Mul", "Mul"]
    assert_same(proto, model)


def test_parts_of_a_weight_are_weights():
    # The projections of cross-attention, whose queries come from elsewhere.
    proto = build(
        [
            node("Split", ["w", "sizes"], ["q", "kv"]),
            node("Transpose", ["q"], ["qt"]),
            node("Transpose", ["kv"], ["kvt"]),
            node("MatMul", ["x", "qt"], ["a"]),
            node("MatMul", ["x", "kvt"], ["b"]),
        ],
        {"x": (5, 1, 192)},
        ["a", "b"],
        {"w": weights(576, 192), "sizes": np.array([192, 384])},
    )
    model = apply(proto)
    assert ops(model) == ["sparsert.Linear", "sparsert.Linear"]
    assert_same(proto, model)
