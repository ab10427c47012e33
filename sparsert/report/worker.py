"""One engine in one process; answers the commands of a race, one JSON object a line.

Each engine's code is imported before memory is measured, so that only the model counts.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsert.report import serve
from sparsert.report.kernel_bench import load_kernels
from sparsert.report.turns import storable

Arrays = dict[str, np.ndarray]


class SparsertEngine:
    """A model of any source of sparsert.load()."""

    def __init__(self, path: str, threads: int, options: Mapping[str, Any]) -> None:
        import sparsert
        from sparsert.runtime import native_backend

        native_backend.import_core()
        options = dict(options)
        load_kernels([Path(file) for file in options.pop("kernels_from", ())])
        if not path.endswith(".sprt"):
            _import_converter()
        self._load = lambda: sparsert.load(path, threads=threads, **options)

    def load(self) -> None:
        """Loads the model."""
        self.model = self._load()

    def run(self, feeds: Arrays) -> list[np.ndarray]:
        """Computes all outputs."""
        return self.model.run(None, feeds)

    def facts(self) -> dict[str, Any]:
        """What the engine tells of itself: bytes of packed weights, and a line on memory."""
        table = self.model.explain()
        packed = sum(record.get("packed_bytes", 0) for record in table.records)
        note = next((line for line in table.notes if line.startswith("memory:")), "")
        return {"packed_bytes": packed, "memory_note": note}


class NumbaEngine(SparsertEngine):
    """A model in sparsert's Numba backend."""

    def __init__(self, path: str, threads: int, options: Mapping[str, Any]) -> None:
        from sparsert.runtime import numba_backend

        numba_backend.import_kernels()
        _import_converter()
        super().__init__(path, threads, {"backend": "numba"})


def _import_converter() -> None:
    """Loads a tiny ONNX model: the only way to import all that a conversion imports."""
    import onnx
    from onnx import helper

    import sparsert

    sides = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", sides[:1], sides[1:])
    opset = helper.make_opsetid("", 20)
    sparsert.load(helper.make_model(graph, opset_imports=[opset]), threads=1, tune=False)


class OnnxRuntimeEngine:
    """ONNX Runtime's CPU provider with every graph optimisation."""

    def __init__(self, path: str, threads: int, options: Mapping[str, Any]) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        self._load = lambda: onnxruntime.InferenceSession(
            path, settings, providers=["CPUExecutionProvider"]
        )

    def load(self) -> None:
        """Loads the model."""
        self.session = self._load()

    def run(self, feeds: Arrays) -> list[np.ndarray]:
        """Computes all outputs."""
        return list(self.session.run(None, feeds))

    def facts(self) -> dict[str, Any]:
        """ONNX Runtime tells nothing."""
        return {}


class TorchEngine:
    """PyTorch: a module made by options["factory"] ("package.module:function"), or a .pt2 file.

    The file is an exported program, whose arguments are options["inputs"] in this order.
    """

    def __init__(self, path: str, threads: int, options: Mapping[str, Any]) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self._path = path
        self._inputs = options.get("inputs")
        if path.endswith(".pt2"):
            _import_program_loader()
        if "factory" in options:
            module, _, function = options["factory"].partition(":")
            self._make = getattr(importlib.import_module(module), function)

    def load(self) -> None:
        """Makes the module and loads its weights."""
        if self._path.endswith(".pt2"):
            self.module = self._torch.export.load(self._path).module()
            return
        self.module = self._make()
        self.module.load_state_dict(self._torch.load(self._path, weights_only=True))
        self.module.eval()

    def run(self, feeds: Arrays) -> list[np.ndarray]:
        """Computes all outputs."""
        names = self._inputs or list(feeds)
        arguments = [self._torch.from_numpy(feeds[name]) for name in names]
        with self._torch.inference_mode():
            outputs = self.module(*arguments)
        several = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        return [y.numpy() for y in several]

    def facts(self) -> dict[str, Any]:
        """PyTorch tells nothing."""
        return {}


def _import_program_loader() -> None:
    """Loads a tiny program: the only way to import all that loading one imports."""
    import io

    import torch

    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(1),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    torch.export.load(buffer).module()


ENGINES: dict[str, Any] = {
    "sparsert": SparsertEngine,
    "numba": NumbaEngine,
    "onnxruntime": OnnxRuntimeEngine,
    "torch": TorchEngine,
}


class Worker(serve.Worker):
    """The commands: load, check, burst, describe."""

    def load(
        self,
        engine: str,
        path: str,
        threads: int,
        options: Mapping[str, Any],
        feeds: str,
        chunk: int | None,
    ) -> dict[str, Any]:
        """Loads the model and the feeds, cut into pieces of `chunk` rows (None: whole)."""
        with np.load(feeds, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        self.feeds = [arrays] if chunk is None else split_feeds(arrays, chunk)
        self.engine = ENGINES[engine](path, threads, options)
        return {"load_seconds": self.time_load(self.engine.load)}

    def check(self, out: str) -> dict[str, Any]:
        """Runs once and writes the outputs, joined over the pieces, as arrays 0, 1, ..."""
        pieces = [self.engine.run(feeds) for feeds in self.feeds]
        joined = [
            np.concatenate(parts) if len(parts) > 1 else parts[0]
            for parts in zip(*pieces, strict=True)
        ]
        joined = [storable(y) for y in joined]
        np.savez(out, **{str(i): y for i, y in enumerate(joined)})  # type: ignore[arg-type]
        return {}

    def describe(self) -> dict[str, Any]:
        """Growth of the peak of resident memory over load and runs; the engine's own facts."""
        return {**super().describe(), **self.engine.facts()}


def split_feeds(arrays: Arrays, chunk: int) -> list[Arrays]:
    """Cuts feeds along their first dimension; the last piece may be smaller."""
    count = len(next(iter(arrays.values())))
    return [
        {name: array[i : i + chunk] for name, array in arrays.items()}
        for i in range(0, count, chunk)
    ]


if __name__ == "__main__":
    serve.serve(Worker())
