"""Every encoding gives the array back, the chosen one is the smallest, bad bytes are errors."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsert.errors import ModelFormatError
from sparsert.formats import (
    F16,
    F32,
    I8,
    Encoded,
    Encoding,
    IndexKind,
    decode,
    encode_bitmask,
    encode_block,
    encode_dense,
    encode_smallest,
    fits_f16,
)
from sparsert.formats.layout import BLOCK_SHAPES, matrix_shape

VALUE_TYPES = {F32: np.dtype("<f4"), F16: np.dtype("<f2")}
SHAPES = [
    (),
    (1,),
    (7,),
    (1, 1),
    (3, 5),
    (17, 13),
    (1, 1000),
    (1000, 1),
    (5, 70001),
    (33, 600),
    (16, 256),
    (31, 3, 3, 3),
    (2, 300, 7),
]
DENSITIES = [0.0, 0.0005, 0.02, 0.1, 0.5, 1.0]


def sparse_array(shape: tuple[int, ...], density: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < density, array, np.float32(0))


def all_encodings(array: np.ndarray, value_dtype: int) -> list[Encoded]:
    found = [encode_dense(array, value_dtype), encode_bitmask(array, value_dtype)]
    for block in BLOCK_SHAPES:
        for kind in (None, *IndexKind):
            too_wide = matrix_shape(array.shape)[1] > block[1] << 16
            if kind == IndexKind.U16 and too_wide:
                with pytest.raises(ValueError, match="u16"):
                    encode_block(array, *block, value_dtype, kind)
            else:
                found.append(encode_block(array, *block, value_dtype, kind))
    return found


def decoded(encoded: Encoded) -> np.ndarray[Any, Any]:
    data = np.frombuffer(encoded.tobytes(), np.uint8)
    assert data.size == encoded.nbytes
    return decode(encoded.layout, data, VALUE_TYPES[encoded.value_dtype])


@pytest.mark.parametrize("value_dtype", [F32, F16])
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_round_trip_and_smallest(shape: tuple[int, ...], density: float, value_dtype: int) -> None:
    array = sparse_array(shape, density)
    expected = array.astype(VALUE_TYPES[value_dtype]).reshape(matrix_shape(shape))
    encodings = all_encodings(array, value_dtype)
    for encoded in encodings:
        np.testing.assert_array_equal(decoded(encoded), expected, str(encoded.layout))
    smallest = encode_smallest(array, value_dtype)
    np.testing.assert_array_equal(decoded(smallest), expected)
    if array.ndim >= 2:
        assert smallest.nbytes == min(encoded.nbytes for encoded in encodings)
    else:
        assert smallest.layout.encoding == Encoding.DENSE


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=9),
        elements=st.sampled_from([0.0, 0.0, -0.0, 1.0, np.nan, np.inf, 1e-30, 1e-8, 7e4]),
    ),
    st.sampled_from([F32, F16]),
)
def test_any_values(array: np.ndarray, value_dtype: int) -> None:
    with np.errstate(over="ignore"):
        expected = array.astype(VALUE_TYPES[value_dtype]).reshape(matrix_shape(array.shape))
    for encoded in all_encodings(array, value_dtype):
        np.testing.assert_array_equal(decoded(encoded), expected)


def test_empty_rows_and_empty_arrays() -> None:
    array = np.zeros((7, 300), np.float32)
    array[3, 299] = 1
    for block in BLOCK_SHAPES:
        np.testing.assert_array_equal(decoded(encode_block(array, *block)), array)
    for shape in [(0, 4), (4, 0), (0,)]:
        encoded = encode_smallest(np.zeros(shape, np.float32))
        assert encoded.layout.encoding == Encoding.DENSE
        assert encoded.nbytes == 0


@pytest.mark.parametrize("gap", [254, 255, 256, 509, 510, 511, 65535, 65536, 70000])
def test_column_gaps(gap: int) -> None:
    array = np.zeros((3, 2 * gap + 3), np.float32)
    array[0, [0, gap]] = 1, 2
    array[1, gap] = 3
    array[2, [gap - 1, gap, 2 * gap + 2]] = 4, 5, 6
    for kind in IndexKind:
        if kind == IndexKind.U16 and array.shape[1] > 1 << 16:
            continue
        np.testing.assert_array_equal(decoded(encode_block(array, index_kind=kind)), array)


def test_minus_zero_is_stored_by_dense_only() -> None:
    array = np.array([[-0.0, 1.0]], np.float32)
    assert np.signbit(decoded(encode_dense(array))[0, 0])
    assert not np.signbit(decoded(encode_bitmask(array))[0, 0])
    assert encode_block(array).layout.stored_values == 1


def test_nan_and_infinity_are_stored() -> None:
    array = np.zeros((4, 64), np.float32)
    array[1, 2], array[2, 3], array[3, 4] = np.nan, np.inf, -np.inf
    for value_dtype in (F32, F16):
        np.testing.assert_array_equal(decoded(encode_smallest(array, value_dtype)), array)


def test_f16_drops_what_rounds_to_zero() -> None:
    array = np.array([[2.0**-25, np.nextafter(np.float32(2.0**-25), np.float32(1)), 0]], np.float32)
    encoded = encode_block(array, value_dtype=F16)
    assert encoded.layout.stored_values == 1
    np.testing.assert_array_equal(decoded(encoded), array.astype(np.float16))


def test_fits_f16() -> None:
    assert fits_f16(np.array([[65519.0, np.inf, np.nan]], np.float32))
    assert not fits_f16(np.array([[0, -65520.0]], np.float32))


@pytest.mark.parametrize("block", [(4, 1), (16, 1), (1, 8)])
def test_blocks_win_where_zeros_come_in_blocks(block: tuple[int, int]) -> None:
    kept = sparse_array((256 // block[0], 512 // block[1]), 0.1) != 0
    array = np.kron(kept, np.ones(block)).astype(np.float32)
    layout = encode_smallest(array).layout
    assert layout.encoding == Encoding.BLOCK
    assert (layout.block_rows, layout.block_cols) == block


def test_strided_and_big_endian_arrays() -> None:
    array = sparse_array((40, 60), 0.2)
    expected = decoded(encode_smallest(np.ascontiguousarray(array.T)))
    np.testing.assert_array_equal(decoded(encode_smallest(array.T)), expected)
    np.testing.assert_array_equal(decoded(encode_smallest(array.astype(">f4"))), array)


def test_dense_f32_is_a_view() -> None:
    array = sparse_array((64, 64), 1.0)
    assert np.shares_memory(encode_smallest(array).parts[0], array)


def test_resnet50_sizes_and_speed() -> None:
    shapes = resnet50_shapes()
    weights = [sparse_array(shape, 0.1, seed) for seed, shape in enumerate(shapes)]
    dense = sum(array.nbytes for array in weights)
    for value_dtype, most in ((F32, 0.135), (F16, 0.085)):
        start = time.perf_counter()
        size = sum(encode_smallest(array, value_dtype).nbytes for array in weights)
        seconds = time.perf_counter() - start
        assert size <= most * dense
        assert seconds < 5


def resnet50_shapes() -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7)]
    channels = 64
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(planes, channels, 1, 1), (planes, planes, 3, 3), (4 * planes, planes, 1, 1)]
            if block == 0:
                shapes.append((4 * planes, channels, 1, 1))
            channels = 4 * planes
    return [*shapes, (1000, 2048)]


def test_bad_streams_are_errors() -> None:
    array = sparse_array((33, 600), 0.05)
    rng = np.random.default_rng(1)
    for encoded in all_encodings(array, F32):
        data = np.frombuffer(encoded.tobytes(), np.uint8)
        with pytest.raises(ModelFormatError):
            decode(encoded.layout, data[:-4], VALUE_TYPES[F32])
        for _ in range(30):
            mutated = data.copy()
            mutated[rng.integers(max(1, encoded.layout.values_offset))] ^= 1 << rng.integers(8)
            try:
                assert decode(encoded.layout, mutated, VALUE_TYPES[F32]).shape == array.shape
            except ModelFormatError:
                pass


def test_unknown_blocks_are_refused() -> None:
    for block in [(2, 2), (3, 1), (1, 32), (0, 1)]:
        with pytest.raises(ValueError, match="block"):
            encode_block(np.ones((4, 4), np.float32), *block)


@pytest.mark.parametrize("shape", [(1, 1), (17, 13), (33, 600), (31, 3, 3, 16)])
@pytest.mark.parametrize("density", DENSITIES)
def test_bytes(shape: tuple[int, ...], density: float) -> None:
    rng = np.random.default_rng(5)
    array = rng.integers(-128, 128, shape).astype(np.int8)
    array[rng.random(shape) >= density] = 0
    found = all_encodings(array, I8)
    for encoded in found:
        data = np.frombuffer(encoded.tobytes(), np.uint8)
        values = decode(encoded.layout, data, np.dtype("|i1"))
        np.testing.assert_array_equal(values, array.reshape(matrix_shape(shape)))
    assert encode_smallest(array, I8).nbytes == min(encoded.nbytes for encoded in found)


@pytest.mark.parametrize(("zeros", "block", "share"), [(0.9, 1, 0.055), (0.8, 4, 0.068)])
def test_bytes_are_small(zeros: float, block: int, share: float) -> None:
    rng = np.random.default_rng(6)
    kept = rng.random((256, 2304 // block)) >= zeros
    array = rng.integers(1, 128, (256, 2304)).astype(np.int8) * np.repeat(kept, block, axis=1)
    assert encode_smallest(array, I8).nbytes <= share * 4 * array.size
