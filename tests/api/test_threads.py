"""Many threads, the GIL, forks, spawned workers, pickles, and the cache of plans."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsert
from sparsert.runtime.native_backend import MAX_PLANS
from tests.api.models import expected, image, small_cnn, small_cnn_file
from tests.suite.harness import EXACT, SUM, assert_close, build, random_weights

SHAPES = [(1, 3, 8, 8), (2, 3, 9, 7), (3, 3, 5, 5), (1, 3, 17, 4)]


def heavy_model(threads: int) -> tuple[sparsert.Model, np.ndarray]:
    """A model that runs for some 10 ms or more."""
    nodes = ["a0 = Relu(x)"]
    nodes += [f"a{i + 1} = Conv<pads=[1,1,1,1]>(a{i}, w)" for i in range(6)]
    nodes.append("y = Relu(a6)")
    proto = build(nodes, {"x": (1, 64, 64, 64)}, {"w": random_weights(64, 64, 3, 3)})
    return sparsert.load(proto, threads=threads, tune=False), image(1, 64, 64, 64)


@pytest.mark.parametrize("threads", [1, 2])
def test_eight_threads_on_one_model(threads: int) -> None:
    model = sparsert.load(small_cnn_file(), threads=threads)
    inputs = [image(*shape, seed=seed) for seed in range(3) for shape in SHAPES]
    wanted = [expected(small_cnn, x)[0] for x in inputs]

    def hammer(seed: int) -> int:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            i = int(rng.integers(len(inputs)))
            assert_close(model(inputs[i]), wanted[i], SUM)
        return 60

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(hammer, range(8))) == 480


def test_threads_load_explain_and_run_at_once() -> None:
    model = sparsert.load(small_cnn_file(), threads=2)
    x = image(1, 3, 8, 8)
    want = expected(small_cnn, x)[0]

    def work(number: int) -> None:
        for _ in range(10):
            assert_close(model(x), want, SUM)
            assert len(model.explain().rows) > 3
            assert len(model.profile({"x": x}, runs=1).rows) > 3
            assert_close(sparsert.load(small_cnn_file(), threads=1)(x), want, SUM)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@pytest.mark.parametrize("threads", [1, 2])
def test_results_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    x = image(3, 3, 33, 31)
    one = sparsert.load(small_cnn_file(), threads=1, tune=False)(x)
    assert_close(sparsert.load(small_cnn_file(), threads=threads, tune=False)(x), one, SUM)
    again = sparsert.load(small_cnn_file(), threads=threads, tune=False)
    assert_close(again(x), again(x), EXACT)


def test_the_gil_is_released_while_running() -> None:
    model, x = heavy_model(1)
    begin = time.perf_counter()
    model(x)
    one_run = time.perf_counter() - begin
    done = threading.Event()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0)

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        during = 0
        for _ in range(max(3, int(0.3 / one_run))):
            before = ticks
            model(x)
            during += ticks - before
    finally:
        done.set()
        ticker.join()
    # A thread that could run only between two runs would tick a few times for each.
    assert during > 100


@pytest.mark.parametrize("what", ["weight_bytes", "levels"])
def test_the_gil_is_released_while_a_plan_is_waited_for(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What asks the core about weights waits until they are packed; other threads need not."""
    monkeypatch.setenv("SPARSERT_CACHE_DIR", str(tmp_path))  # else choices that are measured stay
    nodes = [f"a{i + 1} = Conv<pads=[1,1,1,1]>(a{i}, w)" for i in range(4)]
    dense = random_weights(64, 64, 3, 3)
    levels = {
        name: build(["a0 = Relu(x)", *nodes, "y = Relu(a4)"], {"x": ["n", 64, 64, 64]}, {"w": w})
        for name, w in (("dense", dense), ("sparse", np.where(np.abs(dense) < 0.04, 0, dense)))
    }
    sparsert.convert(levels, tmp_path / "m.sprt")
    backend: Any = sparsert.load(tmp_path / "m.sprt", threads=1, tune=True)._backend
    side_by_side = False
    for n in range(1, 9):
        planner = threading.Thread(target=backend._plan, args=([(n, 64, 64, 64)],))
        asker = threading.Thread(target=getattr, args=(backend._model, what))
        planner.start()
        time.sleep(0.02)
        asker.start()
        time.sleep(0.02)
        side_by_side |= planner.is_alive() and asker.is_alive()
        planner.join()
        asker.join()
    assert side_by_side


def in_child(work: Callable[[], None], timeout: float = 60.0) -> None:
    """Runs `work` in a forked child; its exit code says how it went."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    pytest.fail("the child hangs")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_runs_the_model(threads: int) -> None:
    model = sparsert.load(small_cnn_file(), threads=threads)
    x = image(2, 3, 40, 40)
    other = image(1, 3, 12, 12)
    want, want_other = expected(small_cnn, x)[0], expected(small_cnn, other)[0]
    assert_close(model(x), want, SUM)

    def work() -> None:
        for _ in range(5):
            assert_close(model(x), want, SUM)
        assert_close(model(other), want_other, SUM)  # a plan made in the child
        assert_close(sparsert.load(small_cnn_file(), threads=threads)(x), want, SUM)

    in_child(work)
    in_child(lambda: in_child(work))
    assert_close(model(x), want, SUM)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_other_threads_run() -> None:
    model = sparsert.load(small_cnn_file(), threads=2)
    x = image(2, 3, 40, 40)
    want = expected(small_cnn, x)[0]
    done = threading.Event()

    def hammer() -> None:
        seed = 0
        while not done.is_set():
            seed += 1
            model(image(1, 3, 8 + seed % 30, 9))

    runners = [threading.Thread(target=hammer) for _ in range(2)]
    for runner in runners:
        runner.start()
    try:
        for _ in range(5):
            in_child(lambda: assert_close(model(x), want, SUM))
    finally:
        done.set()
        for runner in runners:
            runner.join()


def run_in_worker(model: sparsert.Model, x: np.ndarray) -> np.ndarray:
    """Called in a spawned process."""
    return model(x)


def test_a_spawned_worker_runs_the_model() -> None:
    model = sparsert.load(small_cnn_file(), threads=2)
    x = image(2, 3, 8, 8)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(run_in_worker, (model, x))
    assert_close(found, expected(small_cnn, x)[0], SUM)


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_pickle(backend: str) -> None:
    model = sparsert.load(small_cnn(), backend=backend, threads=1, tune=False)
    x = image(2, 3, 8, 8)
    data = pickle.dumps(model)
    copy = pickle.loads(data)
    assert copy.inputs == model.inputs
    assert copy.outputs == model.outputs
    assert_close(copy(x), model(x), EXACT)
    del model
    assert_close(pickle.loads(data)(x), copy(x), EXACT)


def test_pickle_keeps_the_options() -> None:
    model = sparsert.load(small_cnn_file(), isa="scalar", threads=1)
    note = pickle.loads(pickle.dumps(model)).explain().notes[0]
    assert "isa scalar, 1 thread" in note


def test_the_cache_of_plans_is_bounded() -> None:
    model = sparsert.load(small_cnn_file(), threads=1)
    sizes = list(range(4, 4 + 2 * MAX_PLANS))
    inputs = {size: image(1, 3, size, 6) for size in sizes}
    wanted = {size: expected(small_cnn, x)[0] for size, x in inputs.items()}
    for _ in range(2):
        for size in sizes:
            assert_close(model(inputs[size]), wanted[size], SUM)
            assert len(model._backend._plans) <= MAX_PLANS  # type: ignore[attr-defined]


def test_plans_share_their_weights() -> None:
    model = sparsert.load(small_cnn_file(), threads=1, tune=False)
    for size in (8, 9):
        model(image(1, 3, size, size))
    first = model._backend._model.weight_bytes  # type: ignore[attr-defined]
    for size in range(10, 40):
        model(image(1, 3, size, size))
    # Some sizes may choose another packing, but not each its own.
    assert model._backend._model.weight_bytes < 6 * first + 4096  # type: ignore[attr-defined]


def test_models_come_and_go() -> None:
    x = image(1, 3, 8, 8)
    want = expected(small_cnn, x)[0]
    for _ in range(30):
        model = sparsert.load(small_cnn_file(), threads=2)
        assert_close(model(x), want, SUM)
        del model
