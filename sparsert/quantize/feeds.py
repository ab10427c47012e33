"""Calibration data in any of the forms that are accepted, as feeds of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sparsert.errors import ShapeError
from sparsert.runtime.types import TensorSpec, check_feeds

Feeds = list[dict[str, np.ndarray]]


def make_feeds(specs: Sequence[TensorSpec], data: Any, batch_size: int) -> Feeds:
    """Returns the feeds of all runs.

    Args:
        specs: the model's inputs.
        data: an array with samples along its first dimension, or a dict of such arrays; or an
            iterable of feeds: a dict, an array for a model of one input, or a tuple of arrays each.
        batch_size: samples of a run, where the model leaves its first dimension open.

    Raises:
        ValueError: there are none, or `data` is of another type.
        ShapeError: a feed does not fit; the message says which.
    """
    if _is_array(data):
        data = {specs[0].name: data} if len(specs) == 1 else data
    if isinstance(data, Mapping):
        items: Iterator[Any] = _slices(specs, data, batch_size)
    elif _is_array(data) or isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise ValueError(
            f"calibration_data is {type(data).__qualname__}, expected an array for a model of one "
            "input, a dict of arrays by input name, or an iterable of feeds"
        )
    else:
        items = iter(data)
    feeds = []
    for index, item in enumerate(items):
        try:
            feeds.append(check_feeds(list(specs), _named(specs, item)))
        except ShapeError as error:
            raise ShapeError(f"calibration_data, feed {index}: {error}") from None
    if not feeds:
        raise ValueError("calibration_data is empty (an iterator can be used once only)")
    return feeds


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or callable(getattr(value, "detach", None))


def _named(specs: Sequence[TensorSpec], item: Any) -> dict[str, Any]:
    if isinstance(item, Mapping):
        return dict(item)
    arrays = [item] if _is_array(item) else item
    if not isinstance(arrays, tuple | list) or len(arrays) != len(specs):
        count = len(arrays) if isinstance(arrays, tuple | list) else type(item).__qualname__
        names = ", ".join(repr(spec.name) for spec in specs)
        raise ShapeError(
            f"{count} for the inputs {names}; give a dict, or one array for each input (of pairs "
            "with targets, the inputs alone)"
        )
    return {spec.name: array for spec, array in zip(specs, arrays, strict=True)}


def _slices(
    specs: Sequence[TensorSpec], data: Mapping[str, Any], batch_size: int
) -> Iterator[dict[str, Any]]:
    """Cuts arrays of samples into batches; samples that do not fill a fixed batch are left out."""
    sizes = {spec.shape[0] for spec in specs if spec.shape}
    fixed = {size for size in sizes if isinstance(size, int)}
    if len(fixed) > 1:
        raise ValueError(
            "calibration_data: the inputs differ in their first dimension, so that it is not one "
            "of samples; give an iterable of feeds"
        )
    size = fixed.pop() if fixed else batch_size
    counts = {name: len(array) if np.ndim(array) else 0 for name, array in data.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise ValueError(
            f"calibration_data: the arrays differ in their number of samples: {listed}"
        )
    count = next(iter(counts.values()), 0)
    is_fixed = any(isinstance(size, int) for size in sizes)
    if is_fixed and 0 < count < size:
        raise ValueError(f"calibration_data: {count} samples, but the model takes {size} at a time")
    for start in range(0, count - size + 1 if is_fixed else count, size):
        yield {name: array[start : start + size] for name, array in data.items()}
