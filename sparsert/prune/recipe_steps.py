"""The steps of recipes: their options, the checks of those, and what each does."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparsert.prune.criteria import CRITERIA
from sparsert.prune.fine_tuning import fine_tune, recalibrate_batch_norms
from sparsert.prune.levels import check_levels, fine_tune_levels
from sparsert.prune.report import PruneReport
from sparsert.prune.schedules import SHAPES, Gradual, Regrowth, iterative
from sparsert.prune.selection import SCOPES, Options, check_options, prune_model

if TYPE_CHECKING:
    import torch

    Done = tuple[Sequence[PruneReport], Sequence[float]]

MEASURED_BATCHES = 16  # of the data, that criteria see


@dataclass
class Kitchen:
    """What all steps work with; Recipe.run() documents it."""

    model: torch.nn.Module
    data: Iterable[Any] | None
    loss: Any
    train: Any
    after_batch: Callable[[], None] | None
    seed: int
    levels: dict[str, torch.nn.Module] = field(default_factory=dict)

    def fit(self, given: Mapping[str, Any], schedule: Any = None, optimizer: Any = None) -> Any:
        """Trains by the user's loop or fine_tune(); returns the losses."""

        def after_batch() -> None:
            if schedule is not None:
                schedule.step()
            if self.after_batch is not None:
                self.after_batch()

        options = {name: given[name] for name in ("epochs", "learning_rate")}
        if self.train is not None:
            return list(self.train(self.model, after_batch=after_batch, **options) or ())
        assert self.data is not None
        return fine_tune(
            self.model,
            self.data,
            loss=self.loss,
            after_batch=after_batch,
            optimizer=optimizer,
            **options,
        )

    def count_steps(self, epochs: int) -> int:
        """Returns the steps of a training.

        Raises:
            ValueError: the data does not say how many batches it has.
        """
        try:
            return epochs * len(self.data)  # type: ignore[arg-type]
        except TypeError:
            raise ValueError("the data has no length: give a list or a DataLoader") from None

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns arguments of prune(), data included where the method wants it."""
        names = Options.__dataclass_fields__
        options = {name: value for name, value in given.items() if name in names}
        if _measures_data(given):
            data = self.data if self.data is not None else ()
            options["data"] = list(itertools.islice(data, given["batches"]))
        return {**options, "loss": self.loss, "seed": self.seed}


@dataclass(frozen=True)
class Field:
    """An option of a step.

    Attributes:
        check: value -> what is wrong, or "".
        default: None and not `is_needed`: left out.
        is_needed: whether it must be given.
    """

    check: Callable[[Any], str]
    default: Any = None
    is_needed: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of step.

    Attributes:
        fields: its options.
        run: does it.
        trains: whether it takes steps of an optimizer.
        prunes: whether the options of prune() are among its own.
        reads: whether it reads the data in any case.
    """

    fields: Mapping[str, Field]
    run: Callable[[Kitchen, dict[str, Any]], Done]
    trains: bool = False
    prunes: bool = False
    reads: bool = False

    def needs_data(self, given: Mapping[str, Any], has_train: bool) -> bool:
        """Whether a step of the kind with these options reads the data."""
        trains = self.trains and (not has_train or "every" in self.fields)
        return self.reads or trains or (self.prunes and _measures_data(given))


def _measures_data(given: Mapping[str, Any]) -> bool:
    criterion = CRITERIA.get(given.get("method", "magnitude"))
    return bool(given.get("reconstruct")) or (
        criterion is not None and criterion.needs != "nothing"
    )


# ---- checks of values ---------------------------------------------------------------------------
def _between(low: float, high: float = float("inf"), includes_low: bool = True) -> Any:
    def check(value: Any) -> str:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return "expected a number"
        if value < low or value >= high or value != value or (value == low and not includes_low):
            least = f"{'at least' if includes_low else 'more than'} {low:g}"
            return f"expected {least}" + (f" and less than {high:g}" if high < 1e9 else "")
        return ""

    return check


def _whole(low: int) -> Any:
    def check(value: Any) -> str:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return "" if is_whole and value >= low else f"expected a whole number of at least {low}"

    return check


def _one_of(names: Iterable[str]) -> Any:
    def check(value: Any) -> str:
        known = list(names)
        if value in known:
            return ""
        near = difflib.get_close_matches(str(value), known, 1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        return f"expected one of {', '.join(known)}{guess}"

    return check


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else "expected text"


def _names(value: Any) -> str:
    is_list = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return "" if is_list else "expected a list of layers' names, in quotes if they are numbers"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "expected true or false"


def _shares(value: Any) -> str:
    check = _between(0, 1)
    if not isinstance(value, Mapping):
        problem: str = check(value)
        return problem
    problems = (f"{name}: {check(share)}" for name, share in value.items() if check(share))
    return "; ".join(problems)


def _level_shares(value: Any) -> str:
    if not isinstance(value, Mapping) or _shares(value):
        return _shares(value) if isinstance(value, Mapping) else "expected a share for each level"
    return "; ".join(check_levels(value))


# ---- the steps ----------------------------------------------------------------------------------
_CHOICE = {
    "method": Field(_one_of(CRITERIA), "magnitude"),
    "scope": Field(_one_of(SCOPES), "layer"),
    "pattern": Field(_text),
    "exclude": Field(_names, ()),
    "reconstruct": Field(_flag),
    "batches": Field(_whole(1), MEASURED_BATCHES),
}
_TRAINING = {
    "epochs": Field(_whole(1), 1),
    "learning_rate": Field(_between(0, includes_low=False), 1e-4),
}


def _prune(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    return [prune_model(kitchen.model, Options(**kitchen.options(given)))], []


def _fine_tune(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    return [], kitchen.fit(given)


def _gradual(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    end = max(1, round(given["until"] * kitchen.count_steps(given["epochs"])) - 1)
    schedule = Gradual(
        kitchen.model,
        end=end,
        every=max(1, end // given["updates"]),
        initial=given["initial"],
        shape=given["shape"],
        **kitchen.options(given),
    )
    losses = kitchen.fit(given, schedule)
    if not schedule.finished:
        raise ValueError("the training ended before the last pruning: call after_batch every step")
    return schedule.reports, losses


def _iterative(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    losses: list[float] = []
    reports = iterative(
        kitchen.model,
        lambda _round: losses.extend(kitchen.fit(given)),
        rounds=given["rounds"],
        initial=given["initial"],
        shape=given["shape"],
        **kitchen.options(given),
    )
    return reports, losses


def _regrow(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    import torch

    optimizer = None
    if kitchen.train is None:
        optimizer = torch.optim.Adam(kitchen.model.parameters(), lr=given["learning_rate"])
    schedule = Regrowth(
        kitchen.model,
        optimizer,
        end=max(1, round(given["until"] * kitchen.count_steps(given["epochs"]))),
        every=given["every"],
        fraction=given["fraction"],
        pattern=given["pattern"],
    )
    return [], kitchen.fit(given, schedule, optimizer)


def _recalibrate(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    assert kitchen.data is not None
    recalibrate_batch_norms(kitchen.model, kitchen.data, most=given["batches"])
    return [], []


def _levels(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    if kitchen.train is not None:
        raise ValueError("levels have a training of their own: leave out train=")
    assert kitchen.data is not None
    options = kitchen.options(given)
    training = {name: given[name] for name in _TRAINING}
    result = fine_tune_levels(
        kitchen.model, batches=kitchen.data, after_batch=kitchen.after_batch, **options, **training
    )
    kitchen.levels.update(result.modules)
    return list(result.reports.values()), result.losses


def _hold_zeros(kitchen: Kitchen, _given: dict[str, Any]) -> Done:
    from sparsert.prune.masking import hold_present_zeros

    hold_present_zeros(kitchen.model)
    return [], []


def _remove(kitchen: Kitchen, _given: dict[str, Any]) -> Done:
    from sparsert.prune.masking import bake_masks

    bake_masks(kitchen.model)
    return [], []


STEPS: dict[str, Kind] = {
    "prune": Kind(
        {
            "sparsity": Field(_shares),
            "threshold": Field(_between(0)),
            "relative_threshold": Field(_between(0)),
            **_CHOICE,
        },
        _prune,
        prunes=True,
    ),
    "fine_tune": Kind(_TRAINING, _fine_tune, trains=True),
    "gradual": Kind(
        {
            "sparsity": Field(_shares, is_needed=True),
            "initial": Field(_between(0, 1), 0.0),
            "shape": Field(_one_of(SHAPES), "cubic"),
            "updates": Field(_whole(1), 10),
            "until": Field(_between(0, 1.001, includes_low=False), 0.7),
            **_CHOICE,
            **_TRAINING,
        },
        _gradual,
        trains=True,
        prunes=True,
        reads=True,
    ),
    "iterative": Kind(
        {
            "sparsity": Field(_shares, is_needed=True),
            "rounds": Field(_whole(1), is_needed=True),
            "initial": Field(_between(0, 1), 0.0),
            "shape": Field(_one_of(SHAPES), "geometric"),
            **_CHOICE,
            **_TRAINING,
        },
        _iterative,
        trains=True,
        prunes=True,
    ),
    "regrow": Kind(
        {
            "every": Field(_whole(1), 100),
            "fraction": Field(_between(0, 1.001, includes_low=False), 0.3),
            "until": Field(_between(0, 1.001, includes_low=False), 0.75),
            "pattern": Field(_text, "unstructured"),
            **_TRAINING,
        },
        _regrow,
        trains=True,
        reads=True,
    ),
    "levels": Kind(
        {
            "sparsity": Field(_level_shares, is_needed=True),
            **{name: f for name, f in _CHOICE.items() if name != "reconstruct"},
            **_TRAINING,
        },
        _levels,
        trains=True,
        reads=True,
    ),
    "recalibrate_batch_norms": Kind({"batches": Field(_whole(1))}, _recalibrate, reads=True),
    "hold_zeros": Kind({}, _hold_zeros),
    "remove": Kind({}, _remove),
}


def check_step(kind: str, options: Mapping[str, Any]) -> list[str]:
    """Returns all that is wrong with a step."""
    if kind not in STEPS:
        return [f"there is no such step: {_one_of(STEPS)(kind)}"]
    fields = STEPS[kind].fields
    problems = []
    for name, value in options.items():
        if name not in fields:
            what = _one_of(fields)(name) if fields else "it has none"
            problems.append(f"there is no option {name!r}: {what}")
        elif fields[name].check(value):
            problems.append(f"{name} is {value!r}, {fields[name].check(value)}")
    problems += [
        f"{name} is missing" for name, f in fields.items() if f.is_needed and name not in options
    ]
    if STEPS[kind].prunes and not problems:
        names = Options.__dataclass_fields__
        given = {name: value for name, value in options.items() if name in names}
        try:
            check_options(Options(data=(), **given))
        except ValueError as error:
            problems.append(str(error).removeprefix("prune: "))
    return problems


def run_step(kind: str, options: Mapping[str, Any], kitchen: Kitchen) -> Done:
    """Does a step; returns the reports of its prunings and the losses of its epochs."""
    defaults = {name: f.default for name, f in STEPS[kind].fields.items()}
    return STEPS[kind].run(kitchen, {**defaults, **options})
