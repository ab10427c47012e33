"""The steps of recipes: their options, the checks of those, and what each does."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sparsert.prune.criteria import CRITERIA
from sparsert.prune.fine_tuning import fine_tune, recalibrate_batch_norms
from sparsert.prune.levels import check_levels, fine_tune_levels
from sparsert.prune.recipe_report import ENGINES, SECONDS, check_report, write_report
from sparsert.prune.report import PruneReport
from sparsert.prune.schedules import SHAPES, Gradual, Regrowth, erdos_renyi, iterative
from sparsert.prune.selection import SCOPES, Options, check_options, prune_model
from sparsert.prune.shrink_report import ShrinkReport
from sparsert.prune.shrinking import (
    ALIGNMENT,
    STRATEGIES,
    ShrinkOptions,
    check_shrink_options,
    shrink_model,
    shrink_zero_channels,
)
from sparsert.prune.until import prune_until
from sparsert.prune.until.goals import (
    PATTERNS,
    SPARSITIES,
    TARGETS,
    Settings,
    check_goal,
    check_settings,
)

if TYPE_CHECKING:
    import torch

    from sparsert.prune.until.result import PruneUntilResult
    from sparsert.report.model_report import FrontPoint, ModelReport

    Done = tuple[Sequence[PruneReport | ShrinkReport], Sequence[float]]

SHARES = ("even", "erdos-renyi")  # of the layers: the same, or those of erdos_renyi()
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
    evaluate: Callable[[torch.nn.Module], float] | None = None
    on_progress: Callable[[str, float], None] | None = None
    until: PruneUntilResult | None = None  # of the step, if it is a prune_until
    levels: dict[str, torch.nn.Module] = field(default_factory=dict)
    dense: torch.nn.Module | None = None  # the model before the first step, if a step needs it
    last_pruning: PruneReport | None = None
    front: Sequence[FrontPoint] = ()  # of the last prune_until
    measured: ModelReport | None = None  # of the step, if it is a report

    def fit(self, given: Mapping[str, Any], schedule: Any = None, optimizer: Any = None) -> Any:
        """Trains by the user's loop or fine_tune(); returns the losses."""

        def after_batch() -> None:
            if schedule is not None:
                schedule.step()
            if self.after_batch is not None:
                self.after_batch()

        callback = None if schedule is None and self.after_batch is None else after_batch
        options = {name: given[name] for name in ("epochs", "learning_rate")}
        if self.train is not None:
            return list(self.train(self.model, after_batch=after_batch, **options) or ())
        assert self.data is not None
        return fine_tune(
            self.model,
            self.data,
            loss=self.loss,
            after_batch=callback,
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
            options["data"] = self.first_batches(given["batches"])
        return {**options, "loss": self.loss, "seed": self.seed}

    def first_batches(self, count: int) -> list[Any]:
        """Returns some batches of the data."""
        return list(itertools.islice(self.data if self.data is not None else (), count))

    def example_inputs(self) -> Any:
        """Returns the inputs of the first batch.

        Raises:
            ValueError: there is none.
        """
        from sparsert.prune.calibration import split_batch

        batches = self.first_batches(1)
        if not batches:
            raise ValueError("data is empty")
        args, kwargs, _ = split_batch(batches[0])
        return kwargs or args


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
        check: raises ValueError for options that do not go together.
        evaluates: whether it cannot do without a function that measures the model.
        compares: whether it needs the model as it was before the first step.
    """

    fields: Mapping[str, Field]
    run: Callable[[Kitchen, dict[str, Any]], Done]
    trains: bool = False
    prunes: bool = False
    reads: bool = False
    check: Callable[[Mapping[str, Any]], Any] | None = None
    evaluates: bool = False
    compares: bool = False

    def needs_data(self, given: Mapping[str, Any], has_train: bool) -> bool:
        """Whether a step of the kind with these options reads the data."""
        trains = self.trains and (not has_train or "every" in self.fields)
        return self.reads or trains or (self.prunes and _measures_data(given))

    def needs_evaluate(self, given: Mapping[str, Any]) -> bool:
        """Whether a step of the kind with these options calls the user's evaluate()."""
        return self.evaluates or bool(given.get("accuracy"))


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


def _numbers(value: Any) -> str:
    is_list = isinstance(value, list | tuple) and not any(_between(0, 1)(share) for share in value)
    return "" if is_list else "expected a list of numbers of at least 0 and less than 1"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "expected true or false"


def _sizes(value: Any) -> str:
    is_fine = isinstance(value, Mapping) and not any(map(_whole(1), value.values()))
    return "" if is_fine else "expected a whole number of at least 1 for each layer"


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
    options = kitchen.options(given)
    if given["shares"] != SHARES[0]:
        options["sparsity"] = erdos_renyi(kitchen.model, given["sparsity"])
    return [prune_model(kitchen.model, Options(**options))], []


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


def _shrink(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    options = _shrink_options(given, data=kitchen.first_batches(given["batches"]))
    options = replace(options, loss=kitchen.loss, seed=kitchen.seed)
    return [shrink_model(kitchen.model, kitchen.example_inputs(), options)], []


def _shrink_options(given: Mapping[str, Any], data: Any = ()) -> ShrinkOptions:
    names = ShrinkOptions.__dataclass_fields__
    return ShrinkOptions(data=data, **{k: v for k, v in given.items() if k in names})


def _shrink_zeros(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    return [shrink_zero_channels(kitchen.model, kitchen.example_inputs(), given["align"])], []


def _skip_blocks(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    from sparsert.prune.blocks import skip_residual_blocks

    report = skip_residual_blocks(
        kitchen.model,
        kitchen.example_inputs(),
        given["count"],
        method=given["method"],
        exclude=given["exclude"],
        data=kitchen.first_batches(given["batches"]),
        loss=kitchen.loss,
        seed=kitchen.seed,
    )
    return [report], []


def _check_prune(given: Mapping[str, Any]) -> None:
    has_own_shares = given.get("shares", SHARES[0]) != SHARES[0]
    if has_own_shares and (given.get("exclude") or not isinstance(given.get("sparsity"), float)):
        raise ValueError(f"prune: shares {SHARES[1]} go with one sparsity, and without exclude")
    names = Options.__dataclass_fields__
    check_options(Options(data=(), **{k: v for k, v in given.items() if k in names}))


def _prune_until(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    assert kitchen.evaluate is not None
    result = prune_until(
        kitchen.model,
        kitchen.evaluate,
        data=kitchen.data,
        train=kitchen.train,
        loss=kitchen.loss,
        seed=kitchen.seed,
        on_progress=kitchen.on_progress,
        after_batch=kitchen.after_batch,
        **given,
    )
    kitchen.until = result
    kitchen.front = result.front_points()
    return [result.report], [loss for point in result.points for loss in point.losses]


def _check_until(given: Mapping[str, Any]) -> None:
    goal = {name: given.get(name) for name in ("max_drop", *TARGETS)}
    settings = Settings(**{k: v for k, v in given.items() if k in Settings.__dataclass_fields__})
    problems = check_goal(**goal)[1] + check_settings(settings)
    if problems:
        raise ValueError(f"prune_until: {'; '.join(problems)}")


def _report(kitchen: Kitchen, given: dict[str, Any]) -> Done:
    kitchen.measured = write_report(kitchen, given)
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
            "shares": Field(_one_of(SHARES), SHARES[0]),
            **_CHOICE,
        },
        _prune,
        prunes=True,
        check=_check_prune,
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
        check=_check_prune,
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
        check=_check_prune,
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
    "prune_until": Kind(
        {
            "max_drop": Field(_between(0)),
            **{name: Field(_between(0, includes_low=False)) for name in TARGETS},
            "method": Field(_one_of(CRITERIA), Settings.method),
            "patterns": Field(_names, PATTERNS),
            "sparsities": Field(_numbers, SPARSITIES),
            "exclude": Field(_names, ()),
            "epochs": Field(_whole(1), Settings.epochs),
            "learning_rate": Field(_between(0, includes_low=False), Settings.learning_rate),
            "rounds": Field(_whole(1), Settings.rounds),
            "retries": Field(_whole(0), Settings.retries),
            "tolerance": Field(_between(0, includes_low=False), Settings.tolerance),
            "batches": Field(_whole(1), Settings.batches),
            "trials": Field(_whole(0), Settings.trials),
            "threads": Field(_whole(1), Settings.threads),
            "state": Field(_text),
        },
        _prune_until,
        trains=True,
        reads=True,
        evaluates=True,
        check=_check_until,
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
    "shrink": Kind(
        {
            "channels": Field(_shares),
            "parameters": Field(_between(0, 1)),
            "method": _CHOICE["method"],
            "strategy": Field(_one_of(STRATEGIES), STRATEGIES[0]),
            "align": Field(_whole(1), ALIGNMENT),
            "head_sizes": Field(_sizes),
            "exclude": _CHOICE["exclude"],
            "batches": _CHOICE["batches"],
        },
        _shrink,
        reads=True,
        check=lambda given: check_shrink_options(_shrink_options(given)),
    ),
    "shrink_zeros": Kind({"align": Field(_whole(1), 1)}, _shrink_zeros, reads=True),
    "skip_blocks": Kind(
        {
            "count": Field(_whole(1), is_needed=True),
            "method": Field(_one_of(CRITERIA)),
            "exclude": _CHOICE["exclude"],
            "batches": _CHOICE["batches"],
        },
        _skip_blocks,
        reads=True,
    ),
    "report": Kind(
        {
            "path": Field(_text, is_needed=True),
            "accuracy": Field(_flag, False),
            "against": Field(_names, ENGINES),
            "threads": Field(_whole(1), 1),
            "seconds": Field(_between(0, includes_low=False), SECONDS),
            "batches": _CHOICE["batches"],
        },
        _report,
        reads=True,
        check=check_report,
        compares=True,
    ),
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
    check = STEPS[kind].check
    if check is not None and not problems:
        try:
            check(options)
        except ValueError as error:
            problems.append(str(error).partition(": ")[2])
    return problems


def run_step(kind: str, options: Mapping[str, Any], kitchen: Kitchen) -> Done:
    """Does a step; returns the reports of its prunings and the losses of its epochs."""
    defaults = {name: f.default for name, f in STEPS[kind].fields.items()}
    return STEPS[kind].run(kitchen, {**defaults, **options})
