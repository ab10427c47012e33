"""The budget of cores that the models of a process share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import sparsert
from sparsert.runtime import native_backend
from sparsert.runtime.native_backend import import_core, process_budget, usable_cores
from tests.api.models import image, small_cnn_file
from tests.api.test_threads import in_child
from tests.suite.harness import EXACT, SUM, assert_close, build, random_weights


@pytest.fixture
def make_budget(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Gives this process a budget of so many cores, until the test ends."""

    def make(cores: int) -> Any:
        budget = import_core().Budget(cores)
        monkeypatch.setattr(native_backend, "_budget", budget)
        return budget

    return make


def model_and_input(threads: int, seed: int) -> tuple[sparsert.Model, np.ndarray]:
    """Some layers that are worth sharing among threads."""
    nodes = ["a0 = Relu(x)"]
    nodes += [f"a{i + 1} = Conv<pads=[1,1,1,1]>(a{i}, w)" for i in range(4)]
    nodes.append("y = Relu(a4)")
    weights = random_weights(32, 32, 3, 3) * (1 + seed)
    proto = build(nodes, {"x": (1, 32, 32, 32)}, {"w": weights})
    model = sparsert.load(proto, threads=threads, tune=False)
    return model, image(1, 32, 32, 32, seed=seed)


def test_a_process_has_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_backend, "_budget", None)
    budget = process_budget()
    assert budget.cores == usable_cores()
    assert process_budget() is budget
    assert process_budget(1) is budget
    assert budget.cores == usable_cores()
    sparsert.load(small_cnn_file(), threads=usable_cores() + 2, tune=False)
    assert process_budget() is budget
    assert budget.cores == usable_cores() + 2


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_one_model_uses_the_whole_budget(make_budget: Callable[[int], Any], cores: int) -> None:
    budget = make_budget(cores)
    model, x = model_and_input(threads=cores, seed=0)
    model(x)
    assert budget.peak == cores
    assert budget.busy == 0
    budget.cores = 1  # as if others had taken the cores
    budget.after_fork()
    model(x)
    assert budget.peak == 1


@pytest.mark.parametrize("models", [1, 3])
def test_many_callers_never_take_more_than_the_budget(
    make_budget: Callable[[int], Any], models: int
) -> None:
    cores, callers = 4, 3
    budget = make_budget(cores)
    loaded = [model_and_input(threads=cores, seed=seed) for seed in range(models)]
    wanted = [model(x) for model, x in loaded]
    budget.after_fork()
    begin = threading.Barrier(callers)

    def call(number: int) -> None:
        model, x = loaded[number % models]
        begin.wait()
        for _ in range(40):
            assert_close(model(x), wanted[number % models], SUM)

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(callers)))
    # A caller does not wait: it may be one too many until the others' steps end.
    assert callers <= budget.peak <= cores + callers - 1
    assert budget.busy == 0
    for (model, x), want in zip(loaded, wanted, strict=True):
        assert_close(model(x), want, EXACT)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_counts_anew(make_budget: Callable[[int], Any]) -> None:
    budget = make_budget(2)
    model, x = model_and_input(threads=2, seed=0)
    want = model(x)
    done = threading.Event()

    def hammer() -> None:
        while not done.is_set():
            model(x)

    def work() -> None:
        assert budget.busy == 0, "the parent's runs are counted"
        assert_close(model(x), want, SUM)
        assert budget.peak == 2, "the child's run found no core"
        other, y = model_and_input(threads=2, seed=1)
        other(y)
        assert budget.busy == 0

    runner = threading.Thread(target=hammer)
    runner.start()
    try:
        for _ in range(10):
            in_child(work)
    finally:
        done.set()
        runner.join()
    assert budget.busy == 0
