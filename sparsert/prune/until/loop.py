"""The loop of prune_until(): search, prune, measure, train, evaluate; go on, or roll back.

Imports torch at its top: imported only when a pruning function runs.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from sparsert.prune.torch_import import import_torch

torch = import_torch()

from torch import nn  # noqa: E402

from sparsert.prune.calibration import eval_mode  # noqa: E402
from sparsert.prune.criteria import CRITERIA  # noqa: E402
from sparsert.prune.masking import prunable_layers, shared_names, weight_of  # noqa: E402
from sparsert.prune.patterns import UNSTRUCTURED  # noqa: E402
from sparsert.prune.report import PruneReport  # noqa: E402
from sparsert.prune.selection import (  # noqa: E402
    Options,
    check_names,
    count_parameters,
    count_zeros,
    expand_names,
    prune_model,
)
from sparsert.prune.until.goals import (  # noqa: E402
    Goal,
    Settings,
    TargetError,
    check_settings,
    refuse,
)
from sparsert.prune.until.journal import Journal, digest, restore  # noqa: E402
from sparsert.prune.until.result import (  # noqa: E402
    LayerChoice,
    Point,
    PruneUntilResult,
    describe_goal,
)
from sparsert.prune.until.search import Choice, choose, explore, least_cost  # noqa: E402
from sparsert.prune.until.sensitivity import (  # noqa: E402
    Losses,
    Scores,
    Wanted,
    WholeLoss,
    count_units,
    loss_at,
    measure_losses,
    scale_losses,
)
from sparsert.report.cost_table import CostTable  # noqa: E402
from sparsert.report.machine import describe_machine  # noqa: E402
from sparsert.report.module_bench import Measured  # noqa: E402

STEP = 0.7  # of the cost of one round that the next one is to have, where no target says more
LOOK_AHEAD = 2  # rounds for which the patterns are chosen then
CORRECTIONS = 4  # at most, of a round's choices
ROUGH = 0.1  # how near a round on the way comes to its part of the way
BEYOND = 0.02  # the target, by so much, a round that reaches it is done again
REPEATS = 2  # at most
PRIOR = 0.5  # weight of 1 in the mean of what trained modules cost of what their choices did
EXTRA_ROUNDS = 2  # for a target that the last measurement found missed
NARROW = 1.05  # ratio of costs between which there is nothing to try any more
FINE = 0.02  # between the sparsities that are chosen from, at most
MIN_STEPS = 4  # between two that are measured
SETTLED = 1e-9
DENSE_WEIGHTS = "dense weights"

Progress = Callable[[str, float], None]
Plan = Mapping[str, LayerChoice]
Train = Callable[[Callable[[float], None]], Sequence[float]]  # told the share -> losses


class Bench(Protocol):
    """What measures: sparsert.report.module_bench.ModuleBench, or what stands in for it."""

    reference: str

    def table(
        self,
        layers: Sequence[str],
        patterns: Sequence[str],
        sparsities: Sequence[float],
        on_progress: Callable[[float], None] | None = None,
    ) -> CostTable:
        """Returns what each layer costs."""

    def measure(self, module: nn.Module, careful: bool = False) -> Measured:
        """Returns what a module costs as a whole."""


class Loop:
    """One run of prune_until(), which documents the arguments."""

    def __init__(
        self,
        model: nn.Module,
        evaluate: Callable[[nn.Module], float],
        train: Train,
        bench: Bench,
        goal: Goal,
        settings: Settings,
        *,
        data: Any,
        loss: Any,
        state: Path | None,
        on_progress: Progress | None,
    ) -> None:
        refuse([*check_settings(settings), *_missing(settings, data)])
        self._model = model
        self._evaluate = evaluate
        self._train = train
        self._bench = bench
        self._goal = goal
        self._settings = settings
        self._data = data
        self._loss = loss
        self._report: Progress = on_progress or (lambda _stage, _share: None)
        layers = prunable_layers(model)
        exclude = expand_names(layers, settings.exclude)
        check_names(list(layers), shared_names(model), exclude)
        self._names = [name for name in layers if name not in exclude]
        refuse([] if self._names else ["the module has no layer to prune"])
        self._grids = {
            name: {p: self._grid(count_units(layers[name], p)) for p in settings.patterns}
            for name in self._names
        }
        run = {"goal": asdict(goal), **asdict(settings), "model": digest(model)}
        self._journal = Journal(state, run)
        self._points: list[Point] = []
        self._accepted = 0
        self._drifts: list[float] = []
        self._journal.train(DENSE_WEIGHTS, model, lambda: True)

    def run(self) -> PruneUntilResult:
        """Does it; the model is left at the chosen point, its masks held."""
        with torch.random.fork_rng(devices=[]):
            try:
                self._begin()
                reason, is_reached = self._go()
            finally:
                self._roll_back()
        return self._result(reason, is_reached)

    def _roll_back(self) -> None:
        """Leaves the model as it was after the last round that held, or as it was given."""
        state = self._points[self._accepted].state if self._points else DENSE_WEIGHTS
        restore(self._model, self._journal.state(state))

    # ---- before the first round -----------------------------------------------------------------
    def _begin(self) -> None:
        journal, settings = self._journal, self._settings
        stage = "timing each layer"

        def compute() -> dict[str, Any]:
            self._report(stage, 0.0)
            table = self._bench.table(
                self._names,
                settings.patterns,
                settings.sparsities,
                lambda share: self._report(stage, share),
            )
            return table.to_dict()

        self._costs = CostTable.from_dict(journal.once("costs", compute))
        self._names = [name for name in self._names if name in self._costs.layers]
        refuse([] if self._names else ["none of the module's layers was found in its file"])
        dense = self._measure("dense", is_careful=True)
        self._dense = dense
        self._target = self._goal.target(dense)
        others = self._costs.other_bytes if self._goal.is_size else self._costs.other_seconds
        self._others = others
        plan = dict.fromkeys(self._names, LayerChoice())
        cost = self._goal.cost_of(dense, dense)
        self._factor = cost / self._predict(plan)
        self._floor = self._check_target(plan)
        self._start_score = self._score("dense")
        self._points.append(
            Point(0, plan, self._start_score, 0.0, dense, self._predict(plan), state=DENSE_WEIGHTS)
        )

    def _check_target(self, plan: Plan) -> float:
        """Returns the least cost that can be reached; refuses a target below it."""
        cheapest = least_cost(self._options(plan, None)) + self._others
        floor = cheapest * self._factor
        if self._target is not None and self._target < floor:
            nearest = self._goal.value_at(floor, self._dense)
            # Rounded to the side that can be reached.
            nearest *= 0.999 if self._goal.value > nearest else 1.001
            raise TargetError(
                f"prune_until: {self._goal.kind} {self._goal.text(self._goal.value)} cannot be "
                f"reached: {self._goal.text(nearest)} is the nearest that can, with "
                f"{100 * self._settings.sparsities[-1]:g} % zeros in every layer "
                f"({self._bench.reference}: {1e3 * self._dense.reference_seconds:.3f} ms, this "
                f"model before pruning: {1e3 * self._dense.seconds:.3f} ms)",
                nearest,
            )
        return floor

    # ---- the rounds -----------------------------------------------------------------------------
    def _go(self) -> tuple[str, bool]:
        """Returns why it stopped, and whether the target was reached."""
        failed: float | None = None  # cost of the cheapest round that lost too much
        retries = 0
        for number in itertools.count(1):
            cost = self._cost(self._points[self._accepted])
            limit = None if self._target is None else self._target * (1 + self._settings.tolerance)
            if limit is not None and cost <= limit:
                return f"reached {describe_goal(self._goal)}", True
            if failed is None:
                aim = self._next_aim(cost)
            elif retries < self._settings.retries and cost / failed > NARROW:
                aim = math.sqrt(cost * failed)
                retries += 1
            else:
                return self._stopped("a faster model lost more"), self._target is None
            if aim is None:
                if self._target is None:
                    return self._stopped("every layer has the most zeros that were timed"), True
                return self._stopped("the measured time of the whole model stayed above"), False
            is_rough = failed is None and aim != self._target
            point = self._round(number, aim, ROUGH if is_rough else self._settings.tolerance)
            if point is None:
                return self._stopped("no layer can get more zeros"), self._target is None
            self._points.append(point)
            if point.is_accepted:
                self._accepted = len(self._points) - 1
            else:
                failed = self._cost(point)
                self._roll_back()
        raise AssertionError("unreachable")

    def _next_aim(self, cost: float) -> float | None:
        """Returns the cost that the next round aims at: part of the way, alike in each."""
        if self._target is None:
            return max(cost * STEP, self._floor) if cost > self._floor * NARROW else None
        done = len(self._points) - 1
        left = self._settings.rounds - done
        if left > 1:
            return float(cost * (self._target / cost) ** (1 / left))
        return self._target if left > -EXTRA_ROUNDS else None

    def _round(self, number: int, aim: float, tolerance: float) -> Point | None:
        """Prunes, measures, corrects and trains; None if no layer can get more zeros.

        A round that was to reach the target, and went well beyond it, is done again with other
        shares of zeros: the time of a trained module is not exactly that of the choices.
        """
        start = self._points[self._accepted]
        losses = self._losses(number, start.layers)
        losses = self._weigh(number, start.layers, losses, aim)
        patterns = self._look_ahead(start.layers, losses, aim)
        options = self._options(start.layers, losses, patterns)
        best: Point | None = None
        for attempt in range(1 + REPEATS):
            label = f"round {number}" + " again" * attempt
            plan = self._fit_choices(label, start, options, aim, tolerance)
            if plan is None or (best is not None and dict(plan.layers) == dict(best.layers)):
                break
            point = self._retrain(label, plan)
            is_final = point.is_accepted and aim == self._target
            if is_final:
                point = self._measure_again(label, point)
            if best is None or self._is_nearer(point, best, aim):
                best = point
            if not is_final or self._cost(best) >= aim * (1 - BEYOND):
                break
        if best is not None:
            restore(self._model, self._journal.state(best.state))
        return best

    def _fit_choices(
        self,
        label: str,
        start: Point,
        options: Mapping[str, Sequence[Choice]],
        aim: float,
        tolerance: float,
    ) -> Point | None:
        """Prunes the module so that it takes what it is to take; None if nothing is to be pruned.

        The point has no score yet.
        """
        tries: list[tuple[float, Plan, Measured, float]] = []
        for attempt in range(CORRECTIONS + 1):
            chosen = self._choose(options, aim)
            if dict(chosen) == dict(start.layers):
                break
            predicted = self._predict(chosen) * self._factor
            if any(dict(plan) == dict(chosen) for _, plan, _, _ in tries):
                break
            restore(self._model, self._journal.state(start.state))
            self._apply(start.layers, chosen)
            measured = self._measure(f"{label} {attempt}")
            cost = self._goal.cost_of(measured, self._dense) * self._drift
            self._factor *= cost / predicted
            tries.append((abs(cost / aim - 1), chosen, measured, predicted))
            if tries[-1][0] <= tolerance:
                break
        if not tries:
            return None
        _, chosen, measured, predicted = min(tries, key=lambda found: found[0])
        restore(self._model, self._journal.state(start.state))
        self._apply(start.layers, chosen)
        number = len(self._points)
        return Point(number, chosen, 0.0, 0.0, measured, predicted, len(tries) - 1)

    def _measure_again(self, label: str, point: Point) -> Point:
        """Measures a trained point for longer; what is chosen next is corrected by that."""
        careful = self._measure(f"{label} in the end", is_careful=True)
        cost = self._goal.cost_of(careful, self._dense)
        self._factor *= cost / (self._cost(point) * self._drift)
        self._drifts.append(math.log(cost / self._cost(point)))
        return replace(point, measured=careful)

    @property
    def _drift(self) -> float:
        """What a trained module costs of what its choices did: the mean so far, drawn to 1.

        That is partly chance, such as which kernels were tried while something else ran.
        """
        return math.exp(sum(self._drifts) / (len(self._drifts) + PRIOR))

    def _is_nearer(self, point: Point, best: Point, aim: float) -> bool:
        """Whether a point that was tried again is to take the place of the one before it."""
        if not point.is_accepted:
            return False
        off, best_off = (self._cost(p) / aim - 1 for p in (point, best))
        return off <= self._settings.tolerance and abs(off) < abs(best_off)

    def _retrain(self, label: str, point: Point) -> Point:
        """Trains, and once more if it lost too much."""
        losses: list[float] = []
        for attempt in range(2):
            name = f"{label} training {attempt}"
            losses += self._journal.train(name, self._model, functools.partial(self._fit, name))
            score = self._score(name)
            drop = self._start_score - score
            is_accepted = self._goal.max_drop is None or drop <= self._goal.max_drop + SETTLED
            if is_accepted:
                break
        return replace(
            point, score=score, drop=drop, losses=losses, is_accepted=is_accepted, state=name
        )

    def _fit(self, name: str) -> list[float]:
        self._report(name, 0.0)
        torch.manual_seed(zlib.crc32(f"{self._settings.seed} {name}".encode()))
        return [float(loss) for loss in self._train(lambda share: self._report(name, share))]

    # ---- choices --------------------------------------------------------------------------------
    def _options(
        self, plan: Plan, losses: Losses | None, patterns: Mapping[str, str] | None = None
    ) -> dict[str, list[Choice]]:
        """Returns what each layer may become: what it is, or more zeros in the same pattern.

        Args:
            plan: how the layers are pruned now.
            losses: None: of no account.
            patterns: of those that are to be pruned; None: any.
        """
        options = {}
        for name in self._names:
            now = plan[name]
            found = [self._option(name, now, 0.0)]
            for pattern in self._settings.patterns:
                if now.pattern not in ("", pattern):
                    continue
                if patterns is not None and pattern != patterns.get(name, now.pattern):
                    continue
                for sparsity in self._grids[name][pattern]:
                    if sparsity <= now.sparsity:
                        continue
                    loss = 0.0
                    if losses is not None:
                        loss = loss_at(losses[name][pattern], sparsity, now.sparsity)
                    found.append(self._option(name, LayerChoice(pattern, sparsity), loss))
            options[name] = found
        return options

    def _option(self, name: str, choice: LayerChoice, loss: float) -> Choice:
        cost = self._layer_cost(name, choice)
        return Choice(choice.pattern, choice.sparsity, cost, loss + 1e-6 * choice.sparsity)

    def _grid(self, units: int) -> list[float]:
        """Returns the sparsities to choose from: those measured and steps between, whole units."""
        shares = self._settings.sparsities
        grid = [shares[0]]
        for low, high in itertools.pairwise(shares):
            steps = max(math.ceil((high - low) / FINE), MIN_STEPS)
            grid += [low + (high - low) * i / steps for i in range(1, steps + 1)]
        counts = dict.fromkeys(min(int(share * units + SETTLED), units - 1) for share in grid)
        return [count / units for count in counts if count]

    def _losses(self, number: int, plan: Plan) -> Losses:
        """Returns how much harm each layer's zeros would do to the model as it is now."""
        settings = self._settings
        stage = f"sensitivity, round {number}"

        def compute() -> Losses:
            self._report(stage, 0.0)
            batches = self._batches()
            method = settings.method
            scores = Scores(self._model, self._names, method, batches, self._loss, settings.seed)
            wanted: Wanted = {
                name: [
                    (pattern, share)
                    for pattern in settings.patterns
                    if plan[name].pattern in ("", pattern)
                    for share in self._measured(self._grids[name][pattern])
                    if share > plan[name].sparsity
                ]
                for name in self._names
            }
            return measure_losses(
                self._model,
                scores,
                wanted,
                batches,
                lambda: self._checked_score(f"round {number}"),
                lambda share: self._report(stage, share),
            )

        found: Losses = self._journal.once(stage, compute)
        return found

    def _weigh(self, number: int, plan: Plan, losses: Losses, aim: float) -> Losses:
        """Returns the losses times the factors that make the choices harm the whole least."""
        settings = self._settings
        stage = f"search, round {number}"

        def compute() -> dict[str, float]:
            self._report(stage, 0.0)
            batches = self._batches()
            if not batches or not settings.trials or len(self._names) < 2:
                return {}
            method, tried = settings.method, itertools.count(1)
            scores = Scores(self._model, self._names, method, batches, self._loss, settings.seed)
            whole = WholeLoss(self._model, scores, batches)
            known: dict[tuple[LayerChoice, ...], float] = {}

            def harm(factors: Mapping[str, float]) -> float:
                scaled = scale_losses(losses, factors)
                patterns = self._look_ahead(plan, scaled, aim)
                chosen = self._choose(self._options(plan, scaled, patterns), aim)
                key = tuple(chosen.values())
                if key not in known:
                    more = {n: (c.pattern, c.sparsity) for n, c in chosen.items() if c != plan[n]}
                    known[key] = whole(more)
                self._report(stage, min(next(tried) / (settings.trials + 1), 1.0))
                return known[key]

            seed = zlib.crc32(f"{settings.seed} {stage}".encode())
            return explore(self._names, harm, settings.trials, seed)

        return scale_losses(losses, self._journal.once(stage, compute))

    def _measured(self, grid: Sequence[float]) -> list[float]:
        """Returns the sparsities of a layer's grid that are nearest to those of the table."""
        if not grid:
            return []
        near = (min(grid, key=lambda s: abs(s - share)) for share in self._settings.sparsities)
        return sorted({*near, grid[-1]})

    def _look_ahead(self, plan: Plan, losses: Losses, aim: float) -> dict[str, str]:
        """Returns the patterns to use on the way, since zeros of one do not fit another later."""
        goal = self._target
        if goal is None:
            goal = max(aim * STEP**LOOK_AHEAD, self._floor)
        goal = min(goal, aim)
        chosen = self._choose(self._options(plan, losses), goal)
        return {name: choice.pattern for name, choice in chosen.items()}

    def _choose(self, options: Mapping[str, Sequence[Choice]], aim: float) -> Plan:
        """Returns the best choices within a limit, or the cheapest if there is nothing within."""
        chosen = choose(options, aim / self._factor - self._others)
        if chosen is None:
            chosen = {
                name: min(choices, key=lambda choice: choice.cost)
                for name, choices in options.items()
            }
        return {name: LayerChoice(c.pattern, c.sparsity) for name, c in chosen.items()}

    def _predict(self, plan: Plan) -> float:
        """Returns the sum of the table's costs."""
        return self._others + sum(self._layer_cost(name, plan[name]) for name in self._names)

    def _layer_cost(self, name: str, choice: LayerChoice) -> float:
        pattern = choice.pattern or next(iter(self._costs.layers[name]))
        return self._goal.cost_of_layer(self._costs.cost(name, pattern, choice.sparsity))

    def _apply(self, before: Plan, plan: Plan) -> None:
        """Prunes the layers that get more zeros."""
        settings = self._settings
        for pattern in settings.patterns:
            shares = {
                name: choice.sparsity
                for name, choice in plan.items()
                if choice.pattern == pattern and choice.sparsity > before[name].sparsity
            }
            if not shares:
                continue
            prune_model(
                self._model,
                Options(
                    method=settings.method,
                    sparsity=shares,
                    pattern=pattern,
                    data=self._batches() or None,
                    loss=self._loss,
                    seed=settings.seed,
                ),
            )

    # ---- measuring ------------------------------------------------------------------------------
    def _batches(self) -> list[Any]:
        return list(itertools.islice(self._data or (), self._settings.batches))

    def _cost(self, point: Point) -> float:
        return self._goal.cost_of(point.measured, self._dense)

    def _measure(self, name: str, is_careful: bool = False) -> Measured:
        stage = f"timing the whole, {name}"

        def compute() -> dict[str, Any]:
            self._report(stage, 0.0)
            return self._bench.measure(self._model, is_careful).to_dict()

        return Measured(**self._journal.once(stage, compute))

    def _score(self, name: str) -> float:
        stage = f"evaluating, {name}"

        def compute() -> float:
            self._report(stage, 0.0)
            return self._checked_score(name)

        return float(self._journal.once(stage, compute))

    def _checked_score(self, name: str) -> float:
        with eval_mode(self._model), torch.no_grad():
            score = float(self._evaluate(self._model))
        if not math.isfinite(score):
            raise ValueError(f"prune_until: evaluate returned {score} ({name})")
        return score

    # ---- the end --------------------------------------------------------------------------------
    def _stopped(self, why: str) -> str:
        how = "stopped short of" if self._target is not None else "as fast as can be with"
        return f"{how} {describe_goal(self._goal)}: {why}"

    def _result(self, reason: str, is_reached: bool) -> PruneUntilResult:
        layers = prunable_layers(self._model)
        settings = self._settings
        first = "sensitivity, round 1"
        plan = self._points[self._accepted].layers.values()
        used = [p for p in settings.patterns if p in {choice.pattern for choice in plan}]
        return PruneUntilResult(
            points=self._points,
            chosen=self._accepted,
            is_reached=is_reached,
            reason=reason,
            goal=self._goal,
            costs=self._costs,
            sensitivity=self._journal.once(first, dict) if len(self._points) > 1 else {},
            report=PruneReport(
                method=settings.method,
                scope="layer",
                layers=[count_zeros(name, weight_of(layer)) for name, layer in layers.items()],
                parameters=count_parameters(self._model),
                pattern=", ".join(used) or UNSTRUCTURED,
            ),
            reference=self._bench.reference,
            machine=describe_machine(),
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            journal=self._journal,
        )


def _missing(settings: Settings, data: Any) -> list[str]:
    criterion = CRITERIA.get(settings.method)
    if data is None and criterion is not None and criterion.needs != "nothing":
        return [f"method {settings.method!r} needs data"]
    return []
