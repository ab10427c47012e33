"""No pass test may make onnx_ir warn, as it does where it cannot infer the shapes of a graph."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_warnings_of_onnx_ir(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    warned = [r for r in caplog.get_records("call") if r.name.startswith("onnx_ir")]
    assert not [r.getMessage() for r in warned if r.levelno >= logging.WARNING]
