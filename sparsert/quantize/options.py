"""The options of a quantisation, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsert.option_checks import OptionChecks, is_between, is_count, is_number
from sparsert.quantize.numbers import ACTIVATIONS
from sparsert.quantize.ranges import METHODS
from sparsert.quantize.structure import (
    DEFAULT_DYNAMIC_OP_TYPES,
    DEFAULT_OP_TYPES,
    DYNAMIC_OP_TYPES,
    OP_TYPES,
)

if TYPE_CHECKING:
    from sparsert.runtime.model import Model

DEFAULT_MAX_DROP = 0.01


@dataclass(frozen=True)
class Options:
    """What sparsert.quantize() takes besides a model and data; it says what each means."""

    method: str
    percentile: float
    activation: str
    per_channel: bool
    reduce_range: bool
    bias_correction: bool
    op_types: tuple[str, ...]
    exclude: tuple[str, ...]
    evaluate: Callable[[Model], float] | None
    max_drop: float
    min_sqnr: float | None
    min_speedup: float | None
    batch_size: int
    dynamic: bool


def check_options(
    *,
    method: str,
    percentile: float,
    activation: str,
    per_channel: bool,
    reduce_range: bool,
    bias_correction: bool,
    op_types: str | Sequence[str] | None,
    exclude: str | Sequence[str],
    evaluate: Any,
    max_drop: float | None,
    min_sqnr: float | None,
    min_speedup: float | None,
    batch_size: int,
    dynamic: bool,
    has_data: bool,
    path: Any = None,
    on_progress: Any = None,
) -> Options:
    """Returns the options.

    Raises:
        ValueError: lists everything that is out of range or does not go together.
    """
    checks = OptionChecks("quantize")
    problems = checks.problems
    checks.word("method", method, METHODS)
    checks.word("activation", activation, ACTIVATIONS)
    is_share = is_number(percentile) and 50 < percentile <= 100
    checks.require(is_share, "percentile", percentile, "more than 50 and at most 100")
    checks.flags(
        dynamic=dynamic,
        per_channel=per_channel,
        reduce_range=reduce_range,
        bias_correction=bias_correction,
    )
    known_op_types = DYNAMIC_OP_TYPES if dynamic else OP_TYPES
    default_op_types = DEFAULT_DYNAMIC_OP_TYPES if dynamic else DEFAULT_OP_TYPES
    types = checks.names("op_types", default_op_types if op_types is None else op_types)
    excluded = checks.names("exclude", exclude)
    unknown = [op for op in types if op not in known_op_types]
    if unknown:
        problems.append(
            f"op_types has {', '.join(map(repr, unknown))}, expected some of "
            f"{', '.join(known_op_types)}"
        )
    if dynamic:
        superfluous = {
            "calibration_data": has_data,
            "method": method != "minmax",
            "activation": activation != "u8",
            "bias_correction": bias_correction,
            "evaluate": evaluate is not None,
            "min_sqnr": min_sqnr is not None,
            "min_speedup": min_speedup is not None,
        }
        given = [name for name, is_given in superfluous.items() if is_given]
        if given:
            problems.append(f"dynamic=True needs no calibration: leave out {', '.join(given)}")
    elif not has_data:
        problems.append(
            "there is no calibration data; without any, dynamic=True quantises linear layers"
        )
    if evaluate is not None and not callable(evaluate):
        problems.append("evaluate is not a function of a model that returns its accuracy")
    checks.functions(on_progress=on_progress)
    if evaluate is None and max_drop is not None:
        problems.append("max_drop needs evaluate, a function that returns a model's accuracy")
    if evaluate is not None and min_sqnr is not None:
        problems.append("give either evaluate or min_sqnr")
    for name, value, is_right, expected in (
        ("max_drop", max_drop, _is_drop(max_drop), "a number of at least 0"),
        ("min_sqnr", min_sqnr, is_between(min_sqnr, -1000, 1000), "decibels such as 20"),
        (
            "min_speedup",
            min_speedup,
            is_between(min_speedup, 0, 1000),
            "a positive factor such as 1",
        ),
    ):
        checks.require(value is None or is_right, name, value, expected)
    checks.require(is_count(batch_size, 1), "batch_size", batch_size, "an integer of at least 1")
    checks.path("path", path)
    checks.refuse()
    return Options(
        method=method,
        percentile=percentile,
        activation=activation,
        per_channel=bool(per_channel),
        reduce_range=bool(reduce_range),
        bias_correction=bool(bias_correction),
        op_types=types,
        exclude=excluded,
        evaluate=evaluate,
        max_drop=DEFAULT_MAX_DROP if max_drop is None else max_drop,
        min_sqnr=min_sqnr,
        min_speedup=min_speedup,
        batch_size=int(batch_size),
        dynamic=bool(dynamic),
    )


def _is_drop(value: Any) -> bool:
    return is_number(value) and 0 <= value < float("inf")
