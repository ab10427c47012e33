"""Inputs and outputs of the command line: .npy and .npz files, random arrays, summaries."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from sparsert.report.race import save_arrays
from sparsert.report.turns import storable
from sparsert.runtime.table import Table
from sparsert.runtime.types import TensorSpec


def read_inputs(specs: Sequence[TensorSpec], values: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads the files of --input.

    Args:
        specs: the model's inputs.
        values: each "NAME=FILE.npy"; "FILE.npy" for a model of one input; or "FILE.npz".

    Raises:
        click.BadParameter: a file that is missing or unreadable, or a name that is not given.
    """
    names = [spec.name for spec in specs]
    feeds: dict[str, np.ndarray] = {}
    for value in values:
        name, path = _split_input(value, names)
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise click.BadParameter(f"--input {value}: {error}") from error
        if isinstance(array, np.ndarray):
            if not name and len(names) != 1:
                raise click.BadParameter(f"--input {value}: write NAME=FILE; {_list(names)}")
            feeds[name or names[0]] = array
            continue
        if name:
            raise click.BadParameter(f"--input {value}: an .npz file holds the names itself")
        with array:
            feeds.update({key: array[key] for key in array.files})
    return feeds


def _split_input(value: str, names: Sequence[str]) -> tuple[str, str]:
    """Splits NAME=FILE; both may hold "=", so the model's own names come first."""
    for name in sorted(names, key=len, reverse=True):
        if value.startswith(f"{name}="):
            return name, value[len(name) + 1 :]
    if "=" in value and not Path(value).exists():
        raise click.BadParameter(f"--input {value}: no such input or file; {_list(names)}")
    return "", value


def _list(names: Sequence[str]) -> str:
    return f"the model's inputs: {', '.join(names) or 'none'}"


def read_data(values: Sequence[str]) -> Any:
    """Returns an array, or arrays by input name, with samples along the first dimension."""
    arrays: dict[str, np.ndarray] = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not separator or Path(value).exists():
            name, path = "", value
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise click.BadParameter(f"--data {value}: {error}") from error
        if isinstance(array, np.ndarray):
            arrays[name] = array
        elif name:
            raise click.BadParameter(f"--data {value}: an .npz file holds the names itself")
        else:
            with array:
                arrays.update({key: array[key] for key in array.files})
    if "" in arrays and len(arrays) > 1:
        raise click.BadParameter("--data: several files need names: NAME=FILE.npy")
    return arrays.get("", arrays)


def first_samples(data: Any, count: int | None) -> Any:
    """Returns the first samples of an array or of a dict of arrays; None: all."""
    if count is None:
        return data
    if isinstance(data, Mapping):
        return {name: array[:count] for name, array in data.items()}
    return data[:count]


def class_accuracy(labels: Path, data: Any) -> Callable[[Any], float]:
    """Returns a function of a model: the share of right classes among samples.

    Args:
        labels: an .npy file with the class of each sample.
        data: an array of samples, or a dict of arrays by input name.

    Raises:
        click.BadParameter: the file does not fit.
    """
    try:
        classes = np.load(labels, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise click.BadParameter(f"--labels {labels}: {error}") from error
    samples = len(next(iter(data.values())) if isinstance(data, Mapping) else data)
    if not isinstance(classes, np.ndarray) or classes.dtype.kind not in "iu" or classes.ndim != 1:
        raise click.BadParameter(f"--labels {labels}: expected one integer per sample")
    if len(classes) < samples:
        raise click.BadParameter(f"--labels {labels}: {len(classes)} for {samples} samples")
    classes = classes[:samples]

    def evaluate(model: Any) -> float:
        first = model.inputs[0]
        arrays = data if isinstance(data, Mapping) else {first.name: data}
        fixed = first.shape[0] if first.shape else None
        step = fixed if isinstance(fixed, int) else 64
        right = seen = 0
        for start in range(0, samples, step):
            part = slice(start, start + step)
            expected = classes[part]
            if len(expected) == fixed or step != fixed:  # no part of a batch
                scores = model.run(None, {name: array[part] for name, array in arrays.items()})[0]
                right += int((scores.argmax(-1).reshape(-1) == expected).sum())
                seen += len(expected)
        return right / max(seen, 1)

    return evaluate


def parse_dims(values: Sequence[str]) -> dict[str, int]:
    """Reads the options --dim SYMBOL=SIZE."""
    sizes = {}
    for value in values:
        symbol, _, size = value.rpartition("=")
        if not symbol or not size.isdigit() or int(size) < 1:
            raise click.BadParameter(f"--dim {value}: expected SYMBOL=SIZE, such as batch=8")
        sizes[symbol] = int(size)
    return sizes


def random_inputs(
    specs: Sequence[TensorSpec], dims: Mapping[str, int], batch: int | None, seed: int
) -> dict[str, np.ndarray]:
    """Makes an array for every input.

    Args:
        specs: the model's inputs.
        dims: sizes of symbolic dimensions; 1 for the others.
        batch: size of the first dimension of every input; None: as `dims` says.
        seed: of the values: normal for floats, 0 or 1 for integers and booleans.

    Raises:
        click.BadParameter: a symbol or a batch that the inputs do not have; an input of unknown
            rank or of strings.
    """
    symbols = {dim for spec in specs for dim in spec.shape or () if isinstance(dim, str)}
    unknown = sorted(set(dims) - symbols)
    if unknown:
        raise click.BadParameter(
            f"--dim {unknown[0]}: the inputs have no such dimension, only "
            f"{', '.join(sorted(symbols)) or 'fixed ones'}"
        )
    sizes = dict(dims)
    if batch is not None:
        for spec in specs:
            first = (spec.shape or (None,))[0]
            if isinstance(first, str):
                sizes.setdefault(first, batch)
            if first is not None and sizes.get(str(first), first) != batch:
                raise click.BadParameter(
                    f"--batch {batch}: the first dimension of input {spec.name!r} is "
                    f"{sizes.get(str(first), first)}"
                )
    from sparsert.report.forecast_run import random_feeds

    for spec in specs:
        if spec.shape is None:
            raise click.BadParameter(f"input {spec.name!r} is of unknown rank: no random values")
        if spec.dtype == object:
            raise click.BadParameter(f"input {spec.name!r} is of strings: no random values")
    return random_feeds(specs, seed, sizes)


def summary_table(title: str, arrays: Mapping[str, np.ndarray]) -> Table:
    """Returns one row per array: shape, dtype, smallest, mean and largest value."""
    rows: list[Sequence[Any]] = []
    for name, array in arrays.items():
        has_numbers = array.dtype != object and array.size > 0
        values = array.astype(np.float64) if has_numbers else np.zeros(array.size)
        facts = (values.min(), values.mean(), values.max()) if has_numbers else (None,) * 3
        rows.append(
            (
                name,
                "x".join(map(str, array.shape)) or "scalar",
                str(array.dtype),
                *(None if fact is None else f"{float(fact):.6g}" for fact in facts),
                int(array.size - np.isfinite(values).sum()),
            )
        )
    columns = ["output", "shape", "dtype", "min", "mean", "max", "not finite"]
    return Table(title, columns, rows)


def write_outputs(path: Path, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Writes FILE.npz, or one .npy file per array into a folder; returns the files' names."""
    if path.suffix == ".npz":
        save_arrays(path, {name: storable(array) for name, array in arrays.items()})
        return [str(path)]
    path.mkdir(parents=True, exist_ok=True)
    written: list[str] = []
    for i, (name, array) in enumerate(arrays.items()):
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or f"output{i}"
        target = path / f"{stem}.npy"
        if str(target) in written:
            target = path / f"{stem}-{i}.npy"
        np.save(target, storable(array), allow_pickle=False)
        written.append(str(target))
    return written
