"""Small BERT encoders as torch's exporters write them: dynamic batch and sequence, strict."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest

import sparsert
from bench.models.bert import STYLES, TINY, build_bert, random_feeds
from sparsert.errors import BackendError, ShapeError
from tests.suite.harness import ENGINES, NETWORK, Engine, assert_close, make_session

# Batch, tokens: rows, feature-major columns, and their tails.
SIZES = [(1, 1), (1, 5), (1, 16), (1, 35), (2, 7), (2, 70), (3, 64)]


@functools.cache
def model(style: str, sparsity: float) -> onnx.ModelProto:
    return build_bert(TINY, sparsity, style)[0]


@functools.cache
def reference(style: str, sparsity: float) -> list[list[np.ndarray]]:
    session = make_session(model(style, sparsity))
    return [session.run(None, random_feeds(TINY, *size)) for size in SIZES]


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("style", STYLES)
def test_bert(style: str, sparsity: float, engine: Engine) -> None:
    loaded = sparsert.load(model(style, sparsity), strict=True, **dict(engine.options))
    for size, wanted in zip(SIZES, reference(style, sparsity), strict=True):
        found = loaded.run(None, random_feeds(TINY, *size))
        for got, want in zip(found, wanted, strict=True):
            assert_close(got, want, NETWORK, f"{size}")


@pytest.mark.parametrize("style", STYLES)
def test_round_trip(style: str, tmp_path) -> None:
    path = tmp_path / "bert.sprt"
    sparsert.load(model(style, 0.9), strict=True).save(path)
    feeds = random_feeds(TINY, 2, 9)
    want = make_session(model(style, 0.9)).run(None, feeds)
    for got, wanted in zip(sparsert.load(path).run(None, feeds), want, strict=True):
        assert_close(got, wanted, NETWORK)


@pytest.mark.parametrize("style", STYLES)
def test_no_tokens_and_unknown_ones(style: str) -> None:
    """Errors that name what is wrong; the model still runs afterwards."""
    loaded = sparsert.load(model(style, 0.9), strict=True, threads=1, tune=False)
    with pytest.raises(ShapeError, match="a dimension of size 0"):
        loaded.run(None, random_feeds(TINY, 1, 0))
    feeds = random_feeds(TINY, 2, 9)
    for bad in (TINY.vocabulary, -TINY.vocabulary - 1):
        wrong = {**feeds, "input_ids": feeds["input_ids"].copy()}
        wrong["input_ids"][1, 3] = bad
        with pytest.raises(BackendError, match=f"index {bad} of 'input_ids'"):
            loaded.run(None, wrong)
    with pytest.raises(ShapeError):
        loaded.run(None, {**feeds, "attention_mask": feeds["attention_mask"][:, :5]})
    want = make_session(model(style, 0.9)).run(None, feeds)
    for got, wanted in zip(loaded.run(None, feeds), want, strict=True):
        assert_close(got, wanted, NETWORK)
