"""The demo: a small CNN trained on real images, pruned, fine-tuned, converted, run and measured.

Imports PyTorch, scikit-learn, ONNX and ONNX Runtime where they are used.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.demo_tables import DENSE_NAME, accuracy_table, memory_table, speed_table
from sparsert.errors import BackendError, SparsertError
from sparsert.report import (
    Document,
    Effort,
    Entrant,
    FrontPoint,
    ModelReport,
    Result,
    describe_machine,
    race,
)
from sparsert.report.race import max_relative_error
from sparsert.runtime.table import Table

if TYPE_CHECKING:
    import onnx
    import torch
    from rich.progress import Progress

    from sparsert.prune import PruneReport

NEEDED = ("torch", "sklearn", "onnx", "onnxruntime", "matplotlib", "jinja2")
PIXELS = 28
BATCH = 16  # images of a training step
CALIBRATION = 200  # training images that choose the ranges of int8
LEARNING_RATE = 2e-3
FINE_TUNING_RATE = 1e-3
TOLERANCE = 1e-4  # largest difference from ONNX Runtime over its largest output
TITLE = "Pruning a CNN: Conv32-Pool-Conv64-Pool-Dense64-Dense10 on handwritten digits"


@dataclass(frozen=True)
class Plan:
    """How much the demo does.

    Attributes:
        epochs: of the first training.
        fine_tuning_epochs: after each pruning.
        sparsities: shares of zeros; the first one's files are called "pruned".
        effort: of each race.
        report_seconds: of each engine and model in the report on the sparsest network.
    """

    epochs: int = 10
    fine_tuning_epochs: int = 5
    sparsities: Sequence[float] = (0.5, 0.8, 0.9)
    effort: Effort = field(default_factory=lambda: Effort(rounds=9, burst_seconds=0.2))
    report_seconds: float = 1.0


QUICK = Plan(
    epochs=1,
    fine_tuning_epochs=1,
    sparsities=(0.5, 0.9),
    effort=Effort(rounds=2, burst_seconds=0.02),
    report_seconds=0.05,
)


@dataclass
class Images:
    """The digits: float32 [count, 1, 28, 28], 0 to 1, and their int64 classes [count]."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


@dataclass
class Variant:
    """One network of the demo: dense, or pruned to a share of zeros.

    Attributes:
        accuracy_pruned: share of right answers on the test set before the fine-tuning.
        accuracy: after it, in PyTorch.
        accuracy_native: the same network run by sparsert.
        error: largest difference of sparsert's outputs from ONNX Runtime's, relative.
        pruning: what the pruning did; None of the dense network.
    """

    sparsity: float
    onnx: Path
    sprt: Path
    parameters: int
    nonzero: int
    accuracy_pruned: float
    accuracy: float
    accuracy_native: float = 0.0
    error: float = 0.0
    pruning: PruneReport | None = None

    @property
    def label(self) -> str:
        """As in the tables: "dense" or "50 % pruned"."""
        return f"{100 * self.sparsity:.0f} % pruned" if self.sparsity else "dense"


@dataclass
class DemoResult:
    """What the demo found.

    Attributes:
        tables: accuracy; parameters and run time; both from Keras; the other engines' files and
            memory; the sparsest network and the dense one in fp32 and int8.
        files: everything that was written.
        variants: the networks, the dense one first.
        keras_variants: the same from Keras; none if it is not installed.
    """

    tables: list[Table]
    files: list[Path]
    variants: list[Variant]
    keras_variants: list[Variant]


def run_demo(
    output: Path,
    *,
    seed: int = 0,
    epochs: int | None = None,
    quick: bool = False,
    progress: Progress | None = None,
) -> DemoResult:
    """Runs the demo and writes its models, report.md and report.html.

    report.md has the tables of all networks; report.html is sparsert.report() on the sparsest.

    Args:
        output: folder, made when it is missing.
        seed: of weights, split and batches.
        epochs: of the first training; None: 10, or 1 when quick.
        quick: less training, fewer timings.
        progress: shows the steps.

    Raises:
        BackendError: a package that the demo needs is not installed.
        SparsertError: sparsert's answers differ from ONNX Runtime's.
        OSError: the folder cannot be written.
    """
    _check_packages()
    start = time.monotonic()
    plan = QUICK if quick else Plan()
    if epochs is not None:
        plan = replace(plan, epochs=epochs)
    command = ["sparsert", "demo", "--seed", str(seed), "--epochs", str(plan.epochs)]
    command += ["--quick"] if quick else []
    output.mkdir(parents=True, exist_ok=True)
    step = _Steps(progress)
    images = load_digits(seed)
    with tempfile.TemporaryDirectory(prefix="sparsert-demo-") as folder:
        weights = Path(folder, "dense.pt")
        with _one_torch_thread():
            variants = _make_variants(images, plan, output, weights, seed, step)
            keras_variants, problem = _make_keras_variants(images, plan, output, seed, step)
        feeds = {"image": images.test_x}
        for variant in step.over("converting and checking", variants):
            _convert_and_check(variant, feeds, images)
        torch = Entrant(
            "torch, dense", "torch", weights, {"factory": "sparsert.demo:build_network"}
        )
        races = _race_all(variants, feeds, plan.effort, step, torch)
    keras_tables = _keras_tables(keras_variants, images, plan, step)
    sparsest = _report_on_sparsest(variants, races["batch 1"], images, plan, command, step)
    tables = [
        accuracy_table(variants, plan, len(images.test_y)),
        speed_table(variants, races, len(images.test_y)),
        *keras_tables,
        memory_table(races["batch 1"]),
        sparsest.table,
    ]
    if problem:
        tables[1].notes.append(problem)
    report = output / "report.md"
    _report(tables, command, time.monotonic() - start, plan).write(report)
    page = output / "report.html"
    sparsest.save(page)
    made = [path for v in (*variants, *keras_variants) for path in (v.onnx, v.sprt)]
    return DemoResult(tables, [*made, report, page], variants, keras_variants)


def load_digits(seed: int) -> Images:
    """Returns scikit-learn's 8x8 digits scaled to 28x28, a quarter of them for testing."""
    import torch
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    digits = load()
    small = torch.from_numpy((digits.images / 16).astype(np.float32))[:, None]
    large = torch.nn.functional.interpolate(small, (PIXELS, PIXELS), mode="bilinear").numpy()
    classes = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        large, classes, test_size=0.25, random_state=seed, stratify=classes
    )
    return Images(train_x, train_y, test_x, test_y)


def build_network() -> torch.nn.Module:
    """Returns the network of the demo with new weights: float32 [n, 1, 28, 28] -> [n, 10]."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 5 * 5, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class _Steps:
    """Progress of the demo, or nothing when there is nowhere to show it."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    @contextlib.contextmanager
    def task(self, name: str, total: int) -> Iterator[Any]:
        """Shows a bar; yields a function to call `total` times."""
        if self._progress is None:
            yield lambda: None
            return
        bar = self._progress.add_task(name, total=total)
        yield lambda: self._progress.advance(bar) if self._progress else None

    def over(self, name: str, items: Sequence[Any]) -> Iterator[Any]:
        """Yields the items and shows how far it is."""
        with self.task(name, len(items)) as advance:
            for item in items:
                yield item
                advance()


def _check_packages() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BackendError(f'the demo needs {", ".join(missing)}; pip install "sparsert[demo]"')


@contextlib.contextmanager
def _one_torch_thread() -> Iterator[None]:
    """So small a network trains no faster on two threads, and far slower when cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _make_variants(
    images: Images, plan: Plan, output: Path, weights: Path, seed: int, step: _Steps
) -> list[Variant]:
    """Trains, prunes and fine-tunes; the dense network's PyTorch weights go to `weights`."""
    import torch

    from sparsert import prune

    torch.manual_seed(seed)
    module = build_network().eval()
    data = _Batches(images.train_x, images.train_y, seed)
    with step.task("training", plan.epochs * len(data)) as advance:
        prune.fine_tune(
            module, data, epochs=plan.epochs, learning_rate=LEARNING_RATE, after_batch=advance
        )
    trained = {name: value.clone() for name, value in module.state_dict().items()}
    torch.save(trained, weights)
    for _ in step.over("exporting to ONNX", [None]):
        # Once: the pruned networks differ in the values of their weights alone.
        exported = export_network(module)
    accuracy = _accuracy(module, images)
    variants = [_save(module, exported, output / "digits-cnn", 0.0, accuracy, accuracy)]
    for sparsity in plan.sparsities:
        module.load_state_dict(trained)
        pruning = prune.prune(module, sparsity=sparsity)
        accuracy_pruned = _accuracy(module, images)
        steps = plan.fine_tuning_epochs * len(data)
        with step.task(f"fine-tuning at {100 * sparsity:.0f} % zeros", steps) as advance:
            prune.fine_tune(
                module,
                data,
                epochs=plan.fine_tuning_epochs,
                learning_rate=FINE_TUNING_RATE,
                after_batch=advance,
            )
        prune.remove(module)
        is_first = sparsity == plan.sparsities[0]
        stem = "digits-cnn-pruned" + ("" if is_first else f"-{100 * sparsity:.0f}")
        accuracy = _accuracy(module, images)
        variant = _save(module, exported, output / stem, sparsity, accuracy_pruned, accuracy)
        variants.append(replace(variant, pruning=pruning))
    return variants


def _make_keras_variants(
    images: Images, plan: Plan, output: Path, seed: int, step: _Steps
) -> tuple[list[Variant], str]:
    """Returns the networks from Keras, or why there are none."""
    from sparsert import demo_keras

    problem = demo_keras.find_problem()
    if problem:
        return [], problem
    return demo_keras.make_variants(images, plan, output, seed, step.task), ""


def _keras_tables(variants: list[Variant], images: Images, plan: Plan, step: _Steps) -> list[Table]:
    """Returns both tables of the networks from Keras; none if there are none."""
    if not variants:
        return []
    from sparsert.api import load
    from sparsert.demo_keras import TITLE, as_keras

    feeds: dict[str, np.ndarray] = {}
    for variant in step.over("converting and checking, Keras", variants):
        feeds = {load(variant.onnx, tune=False).inputs[0].name: as_keras(images.test_x)}
        _convert_and_check(variant, feeds, images)
    races = _race_all(variants, feeds, plan.effort, step)
    count = len(images.test_y)
    tables = [accuracy_table(variants, plan, count), speed_table(variants, races, count)]
    return [replace(table, title=f"{table.title}, {TITLE}") for table in tables]


class _Batches:
    """Shuffled batches, in a new order in every epoch."""

    def __init__(self, x: np.ndarray, y: np.ndarray, seed: int) -> None:
        import torch

        self._x, self._y = torch.from_numpy(x), torch.from_numpy(y)
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self._y) // BATCH)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        import torch

        order = torch.randperm(len(self._y), generator=self._generator)
        for picked in torch.split(order, BATCH):
            yield self._x[picked], self._y[picked]


def _accuracy(module: torch.nn.Module, images: Images) -> float:
    import torch

    with torch.inference_mode():
        return _share_right(module(torch.from_numpy(images.test_x)).numpy(), images)


def _share_right(logits: np.ndarray, images: Images) -> float:
    return float((logits.argmax(1) == images.test_y).mean())


def export_network(module: torch.nn.Module) -> onnx.ModelProto:
    """Exports a network of images [n, 1, 28, 28], with any n, to ONNX."""
    import torch

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (torch.zeros(2, 1, PIXELS, PIXELS),),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _save(
    module: torch.nn.Module,
    exported: onnx.ModelProto,
    stem: Path,
    sparsity: float,
    accuracy_pruned: float,
    accuracy: float,
) -> Variant:
    """Writes the module's weights into the exported graph, as an ONNX file."""
    import onnx
    from onnx import numpy_helper

    state = {name: value.numpy() for name, value in module.state_dict().items()}
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    named = {tensor.name: tensor for tensor in model.graph.initializer}
    absent = sorted(set(state) - set(named))
    if absent:
        raise SparsertError(f"torch.onnx.export renamed the weights {', '.join(absent)}")
    for name, value in state.items():
        named[name].CopyFrom(numpy_helper.from_array(value, name))
    path = stem.with_name(f"{stem.name}.onnx")
    onnx.save(model, path)
    return Variant(
        sparsity=sparsity,
        onnx=path,
        sprt=path.with_suffix(".sprt"),
        parameters=sum(value.size for value in state.values()),
        nonzero=sum(int(np.count_nonzero(value)) for value in state.values()),
        accuracy_pruned=accuracy_pruned,
        accuracy=accuracy,
    )


def _convert_and_check(variant: Variant, feeds: dict[str, np.ndarray], images: Images) -> None:
    """Converts, runs the test set natively, and compares with ONNX Runtime."""
    import onnxruntime

    from sparsert.api import convert, load

    convert(variant.onnx, variant.sprt)
    logits = load(variant.sprt, threads=1).run(None, feeds)[0]
    session = onnxruntime.InferenceSession(variant.onnx, providers=["CPUExecutionProvider"])
    reference = session.run(None, feeds)[0]
    variant.error = max_relative_error(logits, reference)
    variant.accuracy_native = _share_right(logits, images)
    if variant.error > TOLERANCE:
        raise SparsertError(
            f"{variant.sprt}: outputs differ from ONNX Runtime's by {variant.error:.1e} of the "
            f"largest, more than {TOLERANCE:.0e}"
        )


def _race_all(
    variants: list[Variant],
    feeds: dict[str, np.ndarray],
    effort: Effort,
    step: _Steps,
    *others: Entrant,
) -> dict[str, list[Result]]:
    """Races the engines over the test set, image by image and as one batch."""
    dense, pruned = variants[0], variants[1]
    entrants = [
        Entrant(DENSE_NAME, "onnxruntime", dense.onnx),
        Entrant(f"onnxruntime, {pruned.label}", "onnxruntime", pruned.onnx),
        *others,
        *(Entrant(f"sparsert, {v.label}", "sparsert", v.sprt) for v in variants),
    ]
    count = len(next(iter(feeds.values())))
    races = {}
    for name, chunk in (("batch 1", 1), (f"batch {count}", count)):
        total = len(entrants) * (1 + effort.rounds)
        with step.task(f"measuring, {name}", total) as advance:
            races[name] = race(entrants, feeds, chunk=chunk, effort=effort, on_turn=advance)
    failed = [f"{r.name}: {r.error}" for results in races.values() for r in results if r.error]
    if failed:
        raise SparsertError(f"an engine failed: {'; '.join(failed)}")
    return races


def _report_on_sparsest(
    variants: list[Variant],
    results: list[Result],
    images: Images,
    plan: Plan,
    command: list[str],
    step: _Steps,
) -> ModelReport:
    """Reports on the sparsest network beside the dense one, with all networks as the front."""
    import sparsert

    dense, sparsest = variants[0], variants[-1]
    count = len(images.test_y)
    front = [
        FrontPoint(v.label, result.median / count, v.accuracy_native, v.sprt.stat().st_size)
        for result in results
        for v in variants
        if result.name == f"sparsert, {v.label}"
    ]
    with step.task("reporting on the sparsest", 100) as advance:
        return sparsert.report.report(
            sparsest.onnx,
            dense=dense.onnx,
            calibration_data=images.train_x[:CALIBRATION],
            feeds=images.test_x[:1],
            evaluate=lambda model: _share_right(model(images.test_x), images),
            pruning=sparsest.pruning,
            front=front,
            against="onnxruntime",
            seconds=plan.report_seconds,
            command=command,
            on_progress=_in_hundredths(advance),
        )


def _in_hundredths(advance: Callable[[], None]) -> Callable[[float], None]:
    """Turns a share of the work into calls, one for each hundredth of it."""
    done = 0

    def report(share: float) -> None:
        nonlocal done
        while done < int(100 * share):
            done += 1
            advance()

    return report


def _report(tables: list[Table], command: list[str], seconds: float, plan: Plan) -> Document:
    document = Document(TITLE)
    document.paragraph(
        "scikit-learn's digits, scaled from 8x8 to 28x28 pixels, trained in PyTorch, pruned by",
        "magnitude in every layer, fine-tuned with the pruned weights held at zero, converted and",
        "run by sparsert. Every number below was measured by this command:",
    )
    document.command(command)
    for table in tables:
        document.table(table)
    document.heading("How it was measured")
    document.bullets(
        [
            *describe_machine().lines(),
            f"The whole demo took {seconds:.0f} s.",
            f"Each engine ran in a process of its own; they took turns, one at a time, "
            f"{plan.effort.rounds} turns each.",
        ]
    )
    return document
