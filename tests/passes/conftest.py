"""No pass test may leave a graph whose shapes onnx cannot infer; onnx_ir only warns of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _shapes_are_inferred(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    logger = "onnx_ir.passes.common.shape_inference"
    found = [r for r in caplog.get_records("call") if r.name == logger]
    texts = [f"{r.getMessage()} {r.exc_info}" for r in found if r.levelno >= logging.WARNING]
    # Of sequences it tells onnx the wrong type.
    assert [text for text in texts if "ConcatFromSequence" not in text] == []
