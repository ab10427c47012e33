"""What the steps of a run share: memory that is used again, and threads for their tasks."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Any

import numpy as np

# Kernels read whole tiles: so many bytes behind the last element of an array may be read.
SLACK_BYTES = 1024
LINE_BYTES = 64
# To wake a thread and wait for it takes as long as so many products of vectors.
_WORK_OF_THREADS = 100_000


def _references_of_free() -> int:
    """What sys.getrefcount() says of a block in a list that a loop looks at, and nothing else."""
    blocks = [np.empty(1)]
    for block in blocks:
        return sys.getrefcount(block)
    return 0


_FREE = _references_of_free()


class Room:
    """The memory of one run at a time.

    Arrays of a run are parts of blocks that are kept. A block is free again when nothing refers to
    it: an output that the caller keeps, or a view of one, is never overwritten.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._blocks: list[np.ndarray] = []
        # By the id of each block, where its first cache line begins.
        self._firsts: dict[int, int] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return sum(block.nbytes for block in self._blocks)

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """Returns an array of any values, with slack behind it."""
        dtype = np.dtype(dtype)
        count = 1
        for size in shape:
            count *= size
        need = count * dtype.itemsize + SLACK_BYTES + LINE_BYTES
        best = None
        for block in self._blocks:
            if sys.getrefcount(block) == _FREE and block.nbytes >= need:
                if best is None or block.nbytes < best.nbytes:
                    best = block
        if best is None or best.nbytes > 4 * need + 65536:
            best = np.empty(-(-need // 4096) * 4096, np.uint8)
            self._blocks.append(best)
            self._firsts[id(best)] = -best.ctypes.data % LINE_BYTES
        first = self._firsts[id(best)]
        return best[first : first + count * dtype.itemsize].view(dtype).reshape(shape)

    def flat(self, x: np.ndarray) -> np.ndarray:
        """Returns an array as kernels take it: one dimension, with slack behind its end."""
        if not x.flags.carray or id(x.base) not in self._firsts:
            copied = self.empty(x.shape, x.dtype)
            np.copyto(copied, x)
            x = copied
        return x.reshape(-1)

    def plain(self, x: np.ndarray) -> np.ndarray:
        """Returns an array of one dimension that is contiguous, aligned and may be written to."""
        return (x if x.flags.carray else np.array(x, order="C")).reshape(-1)

    def launch(
        self,
        kernel: Any,
        arguments: tuple[Any, ...],
        tasks: int,
        work: int = _WORK_OF_THREADS,
    ) -> None:
        """Runs kernel(*arguments, begin, end) over all tasks, on the model's threads.

        Args:
            kernel: what Numba compiled.
            arguments: all but the last two.
            tasks: how many there are.
            work: about how many vectors it reads or computes: whether threads are worth it.
        """
        if tasks <= 0:
            return
        if work < _WORK_OF_THREADS or tasks == 1:
            kernel(*arguments, 0, tasks)
        else:
            self._crew.run(kernel, arguments, tasks)


class Crew:
    """The threads of a model. Kernels release the interpreter's lock, so that they run at once.

    Numba's own threads are not used: with some of its threading layers they end the process when
    two runs overlap or after a fork.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        _alive.add(self)

    def run(self, kernel: Any, arguments: tuple[Any, ...], tasks: int) -> None:
        """Runs all tasks; alone, where another run of the model has the threads."""
        count = min(self.threads, tasks)
        if count == 1 or not self._lock.acquire(blocking=False):
            kernel(*arguments, 0, tasks)
            return
        try:
            while len(self._workers) < self.threads - 1:
                self._workers.append(_Worker())
            busy = self._workers[: count - 1]
            for i, worker in enumerate(busy, 1):
                part = (tasks * i // count, tasks * (i + 1) // count)
                worker.begin(kernel, (*arguments, *part))
            try:
                kernel(*arguments, 0, tasks // count)
            finally:
                problems = [worker.wait() for worker in busy]
            for problem in problems:
                if problem is not None:
                    raise problem
        finally:
            self._lock.release()

    def after_fork(self) -> None:
        """Forgets the threads, which a child of a fork does not have."""
        self._lock = threading.Lock()
        self._workers = []

    def __del__(self) -> None:
        for worker in self._workers:
            worker.end()


class _Worker:
    """A thread that waits for one call at a time."""

    def __init__(self) -> None:
        self._go, self._done = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._done.acquire()
        self._call: list[Any] = [None, None]
        self._problem: list[BaseException | None] = [None]
        target = (self._go, self._done, self._call, self._problem)
        threading.Thread(target=_serve, args=target, name="sparsert-numba", daemon=True).start()

    def begin(self, kernel: Any, arguments: tuple[Any, ...]) -> None:
        self._call[:] = kernel, arguments
        self._go.release()

    def wait(self) -> BaseException | None:
        self._done.acquire()
        return self._problem[0]

    def end(self) -> None:
        self._call[:] = None, None
        self._go.release()


def _serve(go: Any, done: Any, call: list[Any], problem: list[BaseException | None]) -> None:
    while True:
        go.acquire()
        kernel, arguments = call
        if kernel is None:
            return
        problem[0] = None
        try:
            kernel(*arguments)
        except BaseException as error:  # handed to the thread that waits
            problem[0] = error
        call[:] = None, None
        del kernel, arguments
        done.release()


_alive: weakref.WeakSet[Crew] = weakref.WeakSet()


def _after_fork() -> None:
    for crew in list(_alive):
        crew.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
