"""Times a torch module in our engine: each layer with random zeros, and the whole in a race."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.report.cost_table import Cost, CostTable
from sparsert.report.forecast import DENSE, Forecast
from sparsert.report.race import CalmRaces, Effort, Entrant, Result

if TYPE_CHECKING:
    import onnx
    import torch

    Zeros = dict[str, np.ndarray]  # True at zeros, by layer

# Short turns: what disturbs the machine comes and goes within tenths of a second.
QUICK = Effort(rounds=50, least_rounds=7, burst_seconds=0.02)
CAREFUL = Effort(rounds=150, least_rounds=15, burst_seconds=0.02)
FILLING = 1e-3  # in the place of zeros
DENSE_ORT, DENSE_OWN = "ONNX Runtime, dense", "sparsert, dense"


@dataclass(frozen=True)
class Measured:
    """A whole module's run, timed in turns with the reference engine.

    The turns count in which the machine was calm, each by its fastest run: what else runs on the
    host lengthens the others, and not alike in both engines. See CalmRaces.

    Attributes:
        seconds: median over these turns.
        spread: of all runs, the distance of the quartiles over the median.
        speedup: median over these turns of the reference's time divided by this one's.
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
        patience: seconds to wait in all for a calm machine, see CalmRaces.
        on_wait: called while it waits so, with the seconds of patience left.

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
        patience: float = 300.0,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self._example = example_inputs
        self._threads = threads
        self._tune = tune
        self._seed = seed
        self._seconds = seconds
        self._races = CalmRaces(patience, on_wait=on_wait)
        self.reference = DENSE_OWN if find_spec("onnxruntime") is None else DENSE_ORT
        self._folder = tempfile.TemporaryDirectory(prefix="sparsert-bench-")
        self._dense = _plain_copy(module)  # what it is compared with, whatever becomes of it
        self._exported: onnx.ModelProto | None = None

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

        zeros, marks = _mark_layers(self._dense, layers)
        path = Path(self._folder.name, "marked.sprt")
        self._convert(_with_zeros(self._dense, zeros), zeros, path)
        file = path.read_bytes()
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
            careful: measure longer, and the module as it is; otherwise the dense one with its
                zeros, which is exported but once.

        Raises:
            SparsertError: an engine failed.
        """
        from sparsert.errors import SparsertError
        from sparsert.runtime.native_backend import NativeBackend

        path = Path(self._folder.name, "module.sprt")
        zeros = _zeros_of(module)
        self._convert(module, None if careful and zeros else zeros, path)
        file = path.read_bytes()
        feeds = self._feeds(NativeBackend(file, "the module", self._threads, tune=False).inputs)
        own = Entrant("sparsert", "sparsert", path, {"tune": self._tune})
        effort = CAREFUL if careful else QUICK
        base, sparse = self._races.race(
            [self._reference(), own], feeds, threads=self._threads, effort=effort
        )
        for result in (base, sparse):
            if result.error:
                raise SparsertError(f"{result.name} failed: {result.error}")
        return to_measured(sparse, base)

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
                self._convert(self._dense, {}, path)
            else:
                import onnx

                onnx.save(self._export(), path)
        if is_own:
            return Entrant(self.reference, "sparsert", path, {"tune": self._tune})
        return Entrant(self.reference, "onnxruntime", path)

    def _export(self) -> onnx.ModelProto:
        """Returns the dense module as ONNX."""
        if self._exported is None:
            import onnx_ir

            from sparsert.importers import import_model

            exported = import_model(self._dense, self._example, None)
            self._exported = onnx_ir.to_proto(exported)
        return self._exported

    def _convert(self, module: torch.nn.Module, zeros: Zeros | None, path: Path) -> None:
        """Writes a module, or with `zeros` the dense one with these, if all are found in it."""
        from sparsert.api import convert

        changed = None if zeros is None else _put_zeros(self._export(), self._dense, zeros)
        if changed is None:
            convert(_plain_copy(module), path, example_inputs=self._example)
        else:
            convert(changed, path)


def to_measured(result: Result, reference: Result) -> Measured:
    """Returns what counts of two results of one race."""
    return Measured(
        seconds=result.undisturbed,
        spread=result.spread,
        speedup=result.undisturbed_speedup_over(reference) or 0.0,
        reference_seconds=reference.undisturbed,
        reference_spread=reference.spread,
        file_bytes=result.file_bytes or 0,
    )


def _plain_copy(module: torch.nn.Module) -> torch.nn.Module:
    from sparsert.prune.masking import bake_masks

    plain = copy.deepcopy(module).cpu()
    bake_masks(plain)
    return plain


def _zeros_of(module: torch.nn.Module) -> Zeros:
    """Returns where the zeros of each layer are that has any."""
    from sparsert.prune.masking import prunable_layers, weight_of

    weights = {name: weight_of(layer) for name, layer in prunable_layers(module).items()}
    zeros = {name: (weight == 0).cpu().numpy() for name, weight in weights.items()}
    return {name: where for name, where in zeros.items() if where.any()}


def _with_zeros(module: torch.nn.Module, zeros: Zeros) -> torch.nn.Module:
    """Returns a copy with these zeros, and no others in these layers."""
    import torch

    from sparsert.prune.masking import parameter_of, prunable_layers

    module = copy.deepcopy(module)
    layers = prunable_layers(module)
    with torch.no_grad():
        for name, where in zeros.items():
            weight = parameter_of(layers[name])
            assert weight is not None
            weight[weight == 0] = FILLING
            weight[torch.from_numpy(where)] = 0
    return module


def _put_zeros(
    exported: onnx.ModelProto, module: torch.nn.Module, zeros: Zeros
) -> onnx.ModelProto | None:
    """Returns an exported module with zeros in its layers, and no others in these.

    None if the exporter did not leave the name and shape of some. What it folded into a weight, as
    batch norms, scales it and moves no zero.
    """
    import onnx
    from onnx import numpy_helper

    from sparsert.prune.masking import join, prunable_layers, shared_names

    layers = prunable_layers(module)
    changed = onnx.ModelProto()
    changed.CopyFrom(exported)
    named = {tensor.name: tensor for tensor in changed.graph.initializer}
    for name, where in zeros.items():
        parameter = layers[name].parameter
        full = name if layers[name].is_recurrent else join(name, parameter)
        tensor = named.get(full)
        if tensor is None or tuple(tensor.dims) != where.shape or shared_names(module):
            return None
        weight = numpy_helper.to_array(tensor)
        filled = np.where(weight == 0, weight.dtype.type(FILLING), weight)
        tensor.CopyFrom(numpy_helper.from_array(np.where(where, 0, filled), full))
    return changed


def _mark_layers(
    module: torch.nn.Module, names: Sequence[str]
) -> tuple[Zeros, dict[tuple[int, int], str]]:
    """Returns a number of zeros of its own for each layer, and which layer that marks.

    Names do not always survive an export; zeros do. The marks: (weights, zeros) -> layer.
    """
    from sparsert.prune.masking import prunable_layers, weight_of

    zeros, marks = {}, {}
    for number, (name, layer) in enumerate(prunable_layers(module).items(), 1):
        weight = weight_of(layer)
        count = min(number, weight.numel() - 1)
        where = np.arange(weight.numel()) < count
        zeros[name] = where.reshape(weight.shape)
        if name in names:
            marks[weight.numel(), count] = name
    return zeros, marks


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
