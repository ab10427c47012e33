"""Malformed files of layers in int8: each is refused with a clear error, or runs."""

from __future__ import annotations

import functools
import os
import struct
import time
import zlib

import numpy as np
import pytest

import sparsert
from sparsert.errors import SparsertError
from sparsert.modelfile.tables import Section
from tests.suite.random_quantised import QuantisedGraph

_MOST_ELEMS = 1 << 20
_ODD_WORDS = np.array(
    [0, 1, 255, 256, 0x7FC00000, 0x7F800000, 0xFF800000, 0x00000001, 0x7F7FFFFF, 0xFFFFFFFF],
    np.uint32,
)


@functools.cache
def int8_file(seed: int) -> np.ndarray:
    """The bytes of a random quantised graph's file."""
    model = sparsert.load(QuantisedGraph(seed).model(), backend="numpy", strict=True)
    return np.frombuffer(bytes(model._native_file()), np.uint8)


def mutant(rng: np.random.Generator) -> bytes:
    """A file with some bytes of its tables or words of its data changed, and the right checksum."""
    whole = int8_file(int(rng.integers(6))).copy()
    data = int(struct.unpack_from("<Q", whole.data, 32 + 16 * Section.DATA)[0])
    if data < whole.size - 4 and rng.random() < 0.3:
        place = data + 4 * int(rng.integers((whole.size - data) // 4))
        struct.pack_into("<I", whole.data, place, int(rng.choice(_ODD_WORDS)))
    elif rng.random() < 0.5:
        whole[rng.integers(32, data, 2)] = rng.integers(256, size=2)
    else:
        place = 32 + 4 * int(rng.integers((data - 32) // 4))
        struct.pack_into("<I", whole.data, place, int(rng.choice(_ODD_WORDS)))
    struct.pack_into("<I", whole.data, 24, zlib.crc32(whole[32:].data))
    return whole.tobytes()


def check(seed: int) -> None:
    """Loads a mutant, and runs it where that is small enough."""
    rng = np.random.default_rng(seed)
    try:
        model = sparsert.load(mutant(rng), threads=1, tune=False)
        feeds = {}
        for spec in model.inputs:
            shape = [size if isinstance(size, int) else 2 for size in spec.shape or ()]
            if np.prod(shape, dtype=np.float64) > _MOST_ELEMS:
                return
            feeds[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        model.run(None, feeds)
        model.explain()
    except SparsertError:
        pass


@pytest.mark.parametrize("block", range(4))
def test_mutants_are_refused_or_run(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        check(seed)


@pytest.mark.fuzz
def test_more_mutants_are_refused_or_run() -> None:
    end = time.monotonic() + float(os.environ.get("SPARSERT_FUZZ_SECONDS", "1"))
    seed = 1000
    while time.monotonic() < end:
        check(seed)
        seed += 1
