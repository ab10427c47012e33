"""Times one layer on one kernel, and prints what share of the machine's peak each one reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench.kernels.rows import Row, describe, one_layer
from bench.layers import activation_bytes, machine_peaks
from bench.models.network import LayerShape
from sparsert.runtime.table import Table

COLUMNS = ["layer", "zeros", "kernel", "us", "dense-equivalent GFLOP/s", "effective GFLOP/s"]
COLUMNS += ["% of peak", "GB/s", "% of memory's"]
TimeLayer = Callable[..., None]  # (layer, sparsity, row, force=True, block=(1, 1))
RESULTS = pytest.StashKey[list[tuple[Any, ...]]]()


@pytest.fixture(scope="session")
def peaks() -> dict[str, float]:
    """The faster of two measurements, each of some seconds."""
    first, second = machine_peaks(), machine_peaks()
    return {name: max(value, second[name]) for name, value in first.items()}


@pytest.fixture
def time_layer(
    benchmark: Any,
    monkeypatch: pytest.MonkeyPatch,
    peaks: dict[str, float],
    request: pytest.FixtureRequest,
) -> TimeLayer:
    """Returns the function that loads a layer on a kernel, checks it against NumPy and times it."""

    def run(
        layer: LayerShape,
        sparsity: float,
        row: Row,
        force: bool = True,
        block: tuple[int, int] = (1, 1),
    ) -> None:
        # Loaded here: the rest of this file works without the compiled extension.
        sparsert = pytest.importorskip("sparsert")
        if force:
            monkeypatch.setenv("SPARSERT_FORMAT", row.format)
        proto = one_layer(layer, sparsity, block)
        try:
            model = sparsert.load(proto, threads=1, isa=row.isa, tune=False)
        except sparsert.errors.BackendError as error:
            pytest.skip(str(error))
        (node,) = (r for r in model.explain().to_dict()["rows"] if r["weights"])
        if node["compute_format"] != row.format:
            pytest.skip(f"this layer runs as {node['compute_format']}")
        shape = model.inputs[0].shape
        x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        expected = sparsert.load(proto, backend="numpy")(x)
        assert np.abs(model(x) - expected).max() <= 1e-4 * np.abs(expected).max()
        benchmark.group = f"{describe(layer)} {sparsity:.0%} zeros {row.isa}"
        benchmark.pedantic(model.run, (None, {"x": x}), rounds=7, warmup_rounds=2)
        seconds = benchmark.stats.stats.median
        gflops = 2e-9 * layer.macs / seconds
        effective = gflops * node["nonzeros"] / node["weights"]
        size = activation_bytes(layer) + (node["packed_bytes"] or node["storage_bytes"])
        gigabytes = 1e-9 * size / seconds
        cells = (
            *(describe(layer), f"{sparsity:.0%}", node["kernel"], 1e6 * seconds, gflops, effective),
            *(100 * effective / peaks[row.isa], gigabytes, 100 * gigabytes / peaks["read"]),
        )
        benchmark.extra_info.update(zip(COLUMNS[2:], cells[2:], strict=True))
        request.config.stash.setdefault(RESULTS, []).append(cells)

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints one line per kernel and layer."""
    results = config.stash.get(RESULTS, [])
    if results:
        terminalreporter.section("kernels against the peak of one core")
        note = (
            "effective: multiply-adds with weights that are not zero. Bytes: activations and "
            "packed weights once each; more than 100 % of memory's bandwidth comes from caches, "
            "which are warm here."
        )
        terminalreporter.write_line(str(Table("", COLUMNS, results, [note])))
