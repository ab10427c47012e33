"""Recipes: a whole pruning as data, written to and replayed from one YAML file.

PyYAML is imported when a file is read or written.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsert.errors import BackendError, SparsertError, describe_problems
from sparsert.prune.recipe_steps import STEPS, Kitchen, check_step, run_step
from sparsert.prune.report import PruneReport
from sparsert.prune.shrink_report import ShrinkReport
from sparsert.prune.torch_import import import_torch
from sparsert.runtime.table import Table

if TYPE_CHECKING:
    import torch

    from sparsert.prune.until.result import PruneUntilResult
    from sparsert.report.model_report import ModelReport

VERSION = 1


class RecipeError(SparsertError, ValueError):
    """A recipe is not valid; the message lists everything that is wrong with it."""


@dataclass(frozen=True)
class Step:
    """One step of a recipe.

    Attributes:
        kind: a key of STEPS, such as "prune".
        options: as given; what is left out has the defaults that docs/pruning.md lists.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Attributes:
        step: the step.
        reports: of its prunings, or of what it took out.
        losses: of its epochs.
        score: what `evaluate` returned after it; None: there was no such function.
        seconds: how long it took, without evaluating.
        until: what a step prune_until returned.
        measured: what a step report measured and wrote.
    """

    step: Step
    reports: Sequence[PruneReport | ShrinkReport]
    losses: Sequence[float]
    score: float | None
    seconds: float
    until: PruneUntilResult | None = None
    measured: ModelReport | None = None


@dataclass(frozen=True)
class RecipeResult:
    """What a recipe did; prints as a table.

    Attributes:
        steps: one for each step.
        score_before: what `evaluate` returned at first; None: there was no such function.
        levels: the module of each level that a step `levels` made; none without such a step.
    """

    steps: Sequence[StepResult]
    score_before: float | None
    levels: Mapping[str, torch.nn.Module] = field(default_factory=dict)

    @property
    def report(self) -> PruneReport | ShrinkReport | None:
        """The report of the last pruning, or of what was last taken out."""
        reports = [report for step in self.steps for report in step.reports]
        return reports[-1] if reports else None

    def table(self) -> Table:
        """Returns one row per step."""
        rows: list[Sequence[Any]] = [("before", "", None, None, _score(self.score_before), None)]
        for number, done in enumerate(self.steps, 1):
            sparsity = f"{100 * done.reports[-1].sparsity:.1f} %" if done.reports else None
            loss = f"{done.losses[-1]:.4g}" if done.losses else None
            options = ", ".join(f"{key} {value}" for key, value in done.step.options.items())
            title = f"{number} {done.step.kind}"
            rows.append((title, options, sparsity, loss, _score(done.score), done.seconds))
        columns = ["step", "options", "gone", "last loss", "score", "seconds"]
        records = [
            {
                "step": done.step.kind,
                "options": dict(done.step.options),
                "sparsity": done.reports[-1].sparsity if done.reports else None,
                "losses": list(done.losses),
                "score": done.score,
                "seconds": done.seconds,
            }
            for done in self.steps
        ]
        return Table("Recipe", columns, rows, records=records)

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers, unrounded, with one dictionary per step under "rows"."""
        return {**self.table().to_dict(), "score_before": self.score_before}

    def to_markdown(self) -> str:
        """Returns the table as Markdown."""
        return self.table().to_markdown()

    def __str__(self) -> str:
        return str(self.table())


def _score(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


@dataclass(frozen=True)
class Recipe:
    """Steps of pruning and training, and the seed of what is random in them.

    Attributes:
        steps: in their order.
        seed: of the whole run: random criteria, dropout, the order of a DataLoader.

    Example:
        >>> recipe = sparsert.prune.Recipe(                                # doctest: +SKIP
        ...     [
        ...         Step("prune", {"method": "wanda", "sparsity": 0.5}),
        ...         Step("fine_tune", {"epochs": 3}),
        ...     ]
        ... )
        >>> recipe.save("recipe.yaml")                                     # doctest: +SKIP
        >>> sparsert.prune.Recipe.load("recipe.yaml").run(model, batches)  # doctest: +SKIP
    """

    steps: Sequence[Step]
    seed: int = 0

    def __post_init__(self) -> None:
        _refuse("recipe", _step_problems(self.steps))

    @classmethod
    def from_dict(cls, content: Any, source: str = "recipe") -> Recipe:
        """Makes a recipe of what its file holds.

        Raises:
            RecipeError: lists everything that is wrong, with the step's number.
        """
        if not isinstance(content, Mapping):
            raise RecipeError(f"{source}: expected a mapping with the key steps")
        problems = [
            f"there is no key {key!r}, only version, seed, steps"
            for key in content
            if key not in ("version", "seed", "steps")
        ]
        version, seed = content.get("version", VERSION), content.get("seed", 0)
        if version != VERSION:
            problems.append(f"version is {version!r}, this sparsert reads {VERSION}")
        if not isinstance(seed, int) or isinstance(seed, bool):
            problems.append(f"seed is {seed!r}, expected a whole number")
        given = content.get("steps")
        steps: list[Step] = []
        if not isinstance(given, list) or not given:
            problems.append("steps is missing or empty, expected a list such as - prune: {...}")
        else:
            for number, item in enumerate(given, 1):
                if isinstance(item, str):
                    item = {item: {}}
                if not isinstance(item, Mapping) or len(item) != 1:
                    problems.append(f"step {number} is {item!r}, expected one name: options")
                    continue
                ((kind, options),) = item.items()
                options = {} if options is None else options
                if not isinstance(options, Mapping):
                    problems.append(f"step {number} ({kind}) has {options!r}, expected options")
                    continue
                steps.append(Step(str(kind), {str(k): _number(v) for k, v in options.items()}))
                problems += [f"step {number} {problem}" for problem in _problems_of(steps[-1])]
        _refuse(source, problems)
        return cls(steps, seed)

    @classmethod
    def parse(cls, text: str, source: str = "recipe") -> Recipe:
        """Makes a recipe of YAML text; the errors are those of from_dict()."""
        yaml = _import_yaml()
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"{source}: not YAML: {error}") from error
        return cls.from_dict(content, source)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Reads a recipe from a YAML file.

        Raises:
            OSError: the file cannot be read.
            RecipeError: lists everything that is wrong with it.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: not text: {error}") from error
        return cls.parse(text, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Returns what the file holds."""
        steps = [
            {step.kind: _plain(step.options)} if step.options else step.kind for step in self.steps
        ]
        return {"version": VERSION, "seed": self.seed, "steps": steps}

    def to_yaml(self) -> str:
        """Returns the text of the file."""
        text: str = _import_yaml().safe_dump(self.to_dict(), sort_keys=False)
        return text

    def save(self, path: str | Path) -> None:
        """Writes the YAML file.

        Raises:
            OSError: it cannot be written.
        """
        Path(path).write_text(self.to_yaml(), encoding="utf-8")

    def run(
        self,
        model: torch.nn.Module,
        data: Iterable[Any] | None = None,
        *,
        loss: Callable[[Any, Any], torch.Tensor] | None = None,
        evaluate: Callable[[torch.nn.Module], float] | None = None,
        train: Callable[..., Sequence[float] | None] | None = None,
        on_step: Callable[[int, Step], None] | None = None,
        after_batch: Callable[[], None] | None = None,
        on_progress: Callable[[str, float], None] | None = None,
    ) -> RecipeResult:
        """Does the steps.

        Args:
            model: changed in place; its masks are held until a step `remove`.
            data: batches, as in prune() and fine_tune(), that can be gone through again and again:
                a list or a DataLoader, not an iterator.
            loss: (outputs, targets) -> scalar; None: cross entropy.
            evaluate: measures the model in eval mode, before the first and after each step.
            train: your own training loop in the place of fine_tune(): called with the model and
                the keywords epochs, learning_rate and after_batch, which it must call after each
                step of its optimizer; may return the losses.
            on_step: called before each step with its number, from 1.
            after_batch: called after each batch of training, for progress bars.
            on_progress: of prune_until(): called with what is being done and the share of it.

        Returns:
            What each step did.

        Raises:
            RecipeError: steps need data or evaluate, and there is none.
            ValueError: a step failed; the message names it.
            BackendError: PyTorch is not installed.
        """
        torch = import_torch()
        if iter(data if data is not None else ()) is data:
            raise RecipeError("recipe: data is an iterator, which can be used once: give a list")
        problems = [] if data is not None else self._steps_that_need_data(train is not None)
        if evaluate is None:
            problems += [
                f"step {number} ({step.kind}) needs evaluate"
                for number, step in enumerate(self.steps, 1)
                if STEPS[step.kind].needs_evaluate(step.options)
            ]
        _refuse("recipe", problems)
        kitchen = Kitchen(model, data, loss, train, after_batch, self.seed, evaluate, on_progress)
        if any(STEPS[step.kind].compares for step in self.steps):
            kitchen.dense = copy.deepcopy(model)
        from sparsert.prune.calibration import eval_mode

        def score() -> float | None:
            if evaluate is None:
                return None
            with eval_mode(model), torch.no_grad():
                return float(evaluate(model))

        results = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            before = score()
            for number, step in enumerate(self.steps, 1):
                if on_step is not None:
                    on_step(number, step)
                start = time.monotonic()
                try:
                    reports, losses = run_step(step.kind, step.options, kitchen)
                except SparsertError:
                    raise
                except ValueError as error:
                    raise ValueError(f"step {number} ({step.kind}): {error}") from error
                seconds = time.monotonic() - start
                prunings = [report for report in reports if isinstance(report, PruneReport)]
                kitchen.last_pruning = prunings[-1] if prunings else kitchen.last_pruning
                until, kitchen.until = kitchen.until, None
                measured, kitchen.measured = kitchen.measured, None
                results.append(StepResult(step, reports, losses, score(), seconds, until, measured))
        return RecipeResult(results, before, kitchen.levels)

    def _steps_that_need_data(self, has_train: bool) -> list[str]:
        return [
            f"step {number} ({step.kind}) needs data"
            for number, step in enumerate(self.steps, 1)
            if STEPS[step.kind].needs_data(step.options, has_train)
        ]


def _problems_of(step: Step) -> list[str]:
    return [f"({step.kind}): {problem}" for problem in check_step(step.kind, step.options)]


def _step_problems(steps: Sequence[Step]) -> list[str]:
    problems = [
        f"step {number} {problem}"
        for number, step in enumerate(steps, 1)
        for problem in _problems_of(step)
    ]
    early = [number for number, step in enumerate(steps[:-1], 1) if step.kind == "levels"]
    return problems + [f"step {number} (levels): expected to be the last step" for number in early]


def _refuse(source: str, problems: Sequence[str]) -> None:
    if problems:
        raise RecipeError(describe_problems(source, problems))


def _number(value: Any) -> Any:
    """YAML reads 1e-3, which lacks a point, as text."""
    if isinstance(value, Mapping):
        return {str(key): _number(part) for key, part in value.items()}
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() and value[:1] in "+-.0123456789" else value
        except ValueError:
            return value
    return value


def _plain(value: Any) -> Any:
    """Returns what YAML can hold."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value


def _import_yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise BackendError(
            f'recipes need PyYAML ({error}); pip install "sparsert[torch]"'
        ) from error
    return yaml
