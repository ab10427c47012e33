"""What every backend must stand: many callers of a model at once, and a fork."""

from __future__ import annotations

import os
import threading

import numpy as np

import sparsert


def expect_from_many_callers_and_a_fork(
    model: sparsert.Model, x: np.ndarray, want: bytes, runs: int
) -> None:
    """Expects the same bits in each of `runs` runs of four threads, and in a child process."""
    wrong: list[int] = []

    def call(number: int) -> None:
        if any(model(x).tobytes() != want for _ in range(runs)):
            wrong.append(number)

    callers = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
    child = os.fork()
    if child == 0:
        os._exit(0 if model(x).tobytes() == want else 1)
    assert os.waitpid(child, 0)[1] == 0
