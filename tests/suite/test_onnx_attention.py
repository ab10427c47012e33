"""ONNX's Attention: forms, groups of heads, masks, what is cached; fused where that is right."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, inliner
from onnx.reference import ReferenceEvaluator

import sparsert
from sparsert.importers import import_model
from sparsert.passes import canonicalise, native_report
from tests.suite.harness import (
    ENGINES,
    FUNCTION,
    Case,
    Engine,
    assert_close,
    build,
    op_text,
    unique,
)

SIZE, VALUE_SIZE = 8, 5
SIZES = [
    {"n": 1, "s": 1, "t": 1, "p": 1, "r": 2},
    {"n": 2, "s": 7, "t": 5, "p": 3, "r": 8},
    {"n": 1, "s": 65, "t": 130, "p": 4, "r": 134},
]
BOOL = TensorProto.BOOL
MASKS: dict[str, object] = {
    "shared": ["s", "t"],
    "heads": [4, "s", "t"],
    "one_head": ["n", 1, "s", "t"],
    "all": ["n", 4, "s", "t"],
    "bool": (BOOL, ["s", "t"]),
    "bool_one_head": (BOOL, ["n", 1, "s", "t"]),
    "bool_all": (BOOL, ["n", 4, "s", "t"]),
    "keys": (BOOL, ["t"]),
}


def case(
    name: str,
    rank: int,
    groups: int = 4,
    inputs: dict[str, object] | None = None,
    outputs: str = "y",
    opset: int = 24,
    **attributes: object,
) -> Case:
    """An Attention of 4 heads, `groups` of keys and values, all sizes unknown but those."""
    if rank == 3:
        shapes = {
            "q": ["n", "s", 4 * SIZE],
            "k": ["n", "t", groups * SIZE],
            "v": ["n", "t", groups * VALUE_SIZE],
        }
        attributes = {"q_num_heads": 4, "kv_num_heads": groups, **attributes}
    else:
        shapes = {
            "q": ["n", 4, "s", SIZE],
            "k": ["n", groups, "t", SIZE],
            "v": ["n", groups, "t", VALUE_SIZE],
        }
    inputs = dict(inputs or {})
    if "pk" in inputs:
        inputs |= {"pk": ["n", groups, "p", SIZE], "pv": ["n", groups, "p", VALUE_SIZE]}
    names = [name if name in inputs else "" for name in ("m", "pk", "pv", "lengths")]
    while names and not names[-1]:
        names.pop()
    attributes.setdefault("is_causal", 0)
    text = op_text("Attention", ", ".join(["q", "k", "v", *names]), **attributes)
    return Case(
        f"{name}_{rank}d_{groups}",
        [f"{outputs} = {text}"],
        {**shapes, **inputs},
        outputs=[output for output in outputs.split(", ") if output],
        opset=opset,
        sizes=SIZES,
        tolerance=FUNCTION,
    )


def cases() -> list[Case]:
    """Each mask and attribute in both forms; groups of heads with every other one."""
    found = []
    for rank in (3, 4):
        for groups in (4, 2, 1):
            found.append(case("plain", rank, groups))
            found.append(case("causal", rank, groups, is_causal=1))
            found.append(case("softcap", rank, groups, softcap=1.5, scale=0.7))
            past = {"pk": [], "pv": []}
            found.append(case("past", rank, groups, past, "y, pk2, pv2", is_causal=1))
        for number, (name, mask) in enumerate(MASKS.items()):
            groups = 2 if number % 2 else 4
            found.append(case(name, rank, groups, {"m": mask}))
            found.append(case(f"{name}_causal", rank, groups, {"m": mask}, is_causal=1))
            found.append(case(f"{name}_softcap", rank, groups, {"m": mask}, softcap=2.0))
        for mode in range(4):
            found.append(
                case(
                    f"scores_{mode}",
                    rank,
                    2,
                    {"m": MASKS["all"]},
                    "y, , , scores",
                    softcap=3.0,
                    qk_matmul_output_mode=mode,
                )
            )
        short = {"m": ["s", 1]}
        found.append(case("short_mask", rank, inputs=short))
        found.append(case("present", rank, 2, None, "y, pk2, pv2"))
        past_mask = {"pk": [], "pv": [], "m": (BOOL, ["n", 1, "s", "r"])}
        found.append(case("past_mask", rank, 2, past_mask, "y, pk2, pv2"))
        for name, windows in {
            "left": {"left_window_size": 2},
            "both": {"left_window_size": 1, "right_window_size": 3},
            "causal_left": {"left_window_size": 2, "is_causal": 1},
        }.items():
            found.append(case(f"window_{name}", rank, 2, opset=25, **windows))
    return found


CASES = unique(cases())


@functools.cache
def definition(name: str) -> ReferenceEvaluator:
    """The operators that ONNX defines Attention by.

    They know windows, which ONNX Runtime does not, and rows of a mask that hide all keys.
    """
    (one,) = (case for case in CASES if case.name == name)
    if "v, ," in one.nodes[0]:  # onnx's inliner refuses a gap; its own version is as good there
        return ReferenceEvaluator(one.proto)
    return ReferenceEvaluator(
        inliner.inline_selected_functions(
            one.proto, [("", "Attention")], inline_schema_functions=True
        )
    )


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the definition's Softmax
@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention(case: Case, engine: Engine) -> None:
    model = case.load(engine)
    for number, sizes in enumerate(case.sizes):
        feeds = case._random_feeds(sizes, number)
        wanted = definition(case.name).run(None, feeds)
        for got, want in zip(model.run(None, feeds), wanted, strict=True):
            assert_close(got, want, case.tolerance, case.name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_fused(case: Case) -> None:
    """Unless its scores are capped or an output; nothing but the mask is made beside it."""
    ops = [node.op_type for node in canonicalise(import_model(case.proto)).graph]
    spelled_out = "softcap" in case.name or "scores" in case.name
    assert ops.count("Attention") == (0 if spelled_out else 1)
    assert ops.count("Softmax") == (1 if spelled_out else 0)
    if "plain" in case.name:
        assert ops == ["Attention"]


def lengths_case(opset: int, **attributes: object) -> onnx.ModelProto:
    """An Attention over a cache of keys of which only some are filled."""
    text = op_text("Attention", "q, k, v, , , , lengths", is_causal=1, **attributes)
    shapes = {"q": ["n", 4, "s", 8], "k": ["n", 2, "t", 8], "v": ["n", 2, "t", 8]}
    return build([f"y = {text}"], {**shapes, "lengths": (TensorProto.INT64, ["n"])}, opset=opset)


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_filled_part_of_a_cache(softcap: float, engine: Engine) -> None:
    proto = lengths_case(24, softcap=softcap)
    evaluator = ReferenceEvaluator(proto)
    model = sparsert.load(proto, strict=True, **dict(engine.options))
    rng = np.random.default_rng(1)
    for queries, lengths in ((1, [5, 9]), (3, [3, 7]), (4, [2, 9])):
        feeds = {
            name: rng.standard_normal((2, heads, tokens, 8)).astype(np.float32)
            for name, heads, tokens in (("q", 4, queries), ("k", 2, 9), ("v", 2, 9))
        }
        feeds["lengths"] = np.array(lengths)
        (want,) = evaluator.run(None, feeds)
        assert_close(model.run(None, feeds)[0], want, FUNCTION)


def test_unknown_heads_are_left_alone() -> None:
    shapes = {name: ["n", "h", name, 8] for name in "qkv"}
    proto = build(["y = Attention(q, k, v)"], shapes, opset=23)
    assert "Attention" in str(native_report(canonicalise(import_model(proto)))[0])
