"""Times a torch module in our engine: each layer with random zeros, and the whole in a race."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsert.report.cost_table import Cost, CostTable
from sparsert.report.forecast import DENSE, Forecast
from sparsert.report.race import Effort, Entrant, race

if TYPE_CHECKING:
    import torch

QUICK = Effort(rounds=7, burst_seconds=0.06)
CAREFUL = Effort(rounds=15, burst_seconds=0.15)
DENSE_ORT, DENSE_OWN = "ONNX Runtime, dense", "sparsert, dense"


@dataclass(frozen=True)
class Measured:
    """A whole module's run, timed in turns with the reference engine.

    Attributes:
        seconds: median of its runs.
        spread: distance of the quartiles over the median.
        speedup: median over the rounds of the reference's time divided by this one's.
        reference_seconds, reference_spread: of the dense module in the reference engine.
        file_bytes: of the .sprt file.
    """

    seconds: float
    spread: float
    speedup: float
    reference_seconds: float
    reference_spread: float
    file_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the arguments that make it again."""
        return asdict(self)


class ModuleBench:
    """Measures copies of one module that differ in their weights.

    What stands here in for another machine, or for a test, has `reference`, table() and measure().

    Args:
        module: the dense one.
        example_inputs: as in sparsert.load().
        threads: of a run, in each engine.
        tune: as in sparsert.load().
        seed: of random zeros.
        seconds: about how long to time each pattern and sparsity of the table.

    Attributes:
        reference: what the module is compared with.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        example_inputs: Any,
        *,
        threads: int = 1,
        tune: bool | str = "auto",
        seed: int = 0,
        seconds: float = 0.4,
    ) -> None:
        self._example = example_inputs
        self._threads = threads
        self._tune = tune
        self._seed = seed
        self._seconds = seconds
        self.reference = DENSE_OWN if find_spec("onnxruntime") is None else DENSE_ORT
        self._folder = tempfile.TemporaryDirectory(prefix="sparsert-bench-")
        self._dense = copy.deepcopy(module)  # what it is compared with, whatever becomes of it

    def table(
        self,
        layers: Sequence[str],
        patterns: Sequence[str],
        sparsities: Sequence[float],
        on_progress: Callable[[float], None] | None = None,
    ) -> CostTable:
        """Times every layer at every pattern and sparsity, as sparsert.forecast() does.

        Args:
            layers: names as in sparsert.prune(); others are left out.
            patterns: see sparsert.forecast().
            sparsities: ascending, between 0 and 1.
            on_progress: called with the share that is done.
        """
        from sparsert.api import forecast
        from sparsert.modelfile import write_aligned

        marked, marks = self._mark_layers(layers)
        file = bytes(write_aligned(self._canonical(marked)))
        nodes = _find_marks(file, marks)
        result = forecast(
            file,
            sparsity=sparsities,
            pattern=patterns,
            all_layers=True,
            feeds=lambda specs: self._feeds(specs),
            threads=self._threads,
            tune=self._tune,
            seed=self._seed,
            seconds=self._seconds,
            on_progress=on_progress,
        )
        return _to_costs(result, nodes, layers)

    def measure(self, module: torch.nn.Module, careful: bool = False) -> Measured:
        """Races a module against the dense one in the reference engine.

        Args:
            module: with the weights to measure; its masks may be held.
            careful: measure longer.

        Raises:
            SparsertError: an engine failed.
        """
        from sparsert.api import convert
        from sparsert.errors import SparsertError
        from sparsert.runtime.native_backend import NativeBackend

        path = Path(self._folder.name, "module.sprt")
        convert(module, path, example_inputs=self._example)
        file = path.read_bytes()
        feeds = self._feeds(NativeBackend(file, "the module", self._threads, tune=False).inputs)
        own = Entrant("sparsert", "sparsert", path, {"tune": self._tune})
        effort = CAREFUL if careful else QUICK
        base, sparse = race([self._reference(), own], feeds, threads=self._threads, effort=effort)
        for result in (base, sparse):
            if result.error:
                raise SparsertError(f"{result.name} failed: {result.error}")
        return Measured(
            seconds=sparse.median,
            spread=sparse.spread,
            speedup=sparse.speedup_over(base) or 0.0,
            reference_seconds=base.median,
            reference_spread=base.spread,
            file_bytes=len(file),
        )

    def close(self) -> None:
        """Removes its files."""
        self._folder.cleanup()

    def _feeds(self, specs: Any) -> Any:
        from sparsert.report.forecast_run import make_feeds

        return make_feeds(specs, None, self._example, self._seed)

    def _reference(self) -> Entrant:
        is_own = self.reference == DENSE_OWN
        path = Path(self._folder.name, "dense.sprt" if is_own else "dense.onnx")
        if not path.exists():
            if is_own:
                from sparsert.api import convert

                convert(self._dense, path, example_inputs=self._example)
            else:
                import onnx_ir

                from sparsert.importers import import_model

                onnx_ir.save(import_model(self._dense, self._example, None), path)
        if is_own:
            return Entrant(self.reference, "sparsert", path, {"tune": self._tune})
        return Entrant(self.reference, "onnxruntime", path)

    def _canonical(self, module: torch.nn.Module) -> Any:
        from sparsert.importers import import_model
        from sparsert.passes import canonicalise

        return canonicalise(import_model(module, self._example, None))

    def _mark_layers(
        self, names: Sequence[str]
    ) -> tuple[torch.nn.Module, dict[tuple[int, int], str]]:
        """Returns a copy without zeros but for a number of them of its own in each layer.

        Names do not always survive an export; zeros do. The marks: (weights, zeros) -> layer.
        """
        import torch

        from sparsert.prune.masking import bake_masks, parameter_of, prunable_layers

        module = copy.deepcopy(self._dense)
        bake_masks(module)
        marks = {}
        with torch.no_grad():
            for number, (name, layer) in enumerate(prunable_layers(module).items(), 1):
                weight = parameter_of(layer)
                assert weight is not None
                zeros = min(number, weight.numel() - 1)
                flat = weight.detach().clone().reshape(-1)
                flat[flat == 0] = 1e-3
                flat[:zeros] = 0
                weight.copy_(flat.reshape(weight.shape))
                if name in names:
                    marks[weight.numel(), zeros] = name
        return module, marks


def _find_marks(file: bytes, marks: dict[tuple[int, int], str]) -> dict[str, list[int]]:
    """Returns the nodes that use each layer's weight."""
    from sparsert.runtime.native_backend import NativeBackend

    nodes: dict[str, list[int]] = {}
    records = NativeBackend(file, "the module", 1, None, tune=False).explain().records
    for number, node in enumerate(records):
        name = marks.get((node["weights"], node["weights"] - node["nonzeros"]))
        if name is not None:
            nodes.setdefault(name, []).append(number)
    return nodes


def _to_costs(result: Forecast, nodes: dict[str, list[int]], layers: Sequence[str]) -> CostTable:
    """Puts the layers of a forecast into a table.

    Times are relative to those of the dense model, which was timed again with each level.
    """
    dense = result.levels[0]
    known = {layer.node for layer in result.prunable if not layer.left_alone}
    found: dict[str, dict[str, list[Cost]]] = {}
    used: set[int] = set()
    for name in layers:
        mine = [node for node in nodes.get(name, ()) if node in known]
        if not mine:
            continue
        used.update(mine)
        seconds = sum(dense.layers[node].ns for node in mine) / 1e9
        size = sum(dense.layers[node].file_bytes for node in mine)
        first = Cost(0.0, seconds, size, dense.layers[mine[0]].format)
        patterns = found.setdefault(name, {})
        for level in result.levels[1:]:
            if level.pattern == DENSE:
                continue
            times = [level.layers[node] for node in mine]
            ratio = sum(t.ns for t in times) / max(sum(t.dense_ns for t in times), 1e-9)
            cost = Cost(
                level.sparsity, seconds * ratio, sum(t.file_bytes for t in times), times[0].format
            )
            patterns.setdefault(level.pattern, [first]).append(cost)
    missing = [name for name in layers if name not in found]
    notes = [f"not found in the file, so left alone: {', '.join(missing)}"] if missing else []
    all_ns = sum(time.ns for time in dense.layers.values())
    used_ns = sum(dense.layers[node].ns for node in used)
    used_bytes = sum(dense.layers[node].file_bytes for node in used)
    return CostTable(found, (all_ns - used_ns) / 1e9, dense.file_bytes - used_bytes, notes)
