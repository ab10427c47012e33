"""Model: what sparsert.load() returns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sparsert.errors import ShapeError, UnsupportedOpError
from sparsert.runtime.table import Table
from sparsert.runtime.torch_arrays import as_tensor, has_tensors
from sparsert.runtime.types import Backend, Level, NodeArg, TensorSpec, check_feeds


class Model:
    """A network ready to run. Safe to call from many threads at once; can be pickled.

    Made by sparsert.load(), not directly.

    Attributes:
        inputs: name, shape (ints, and strs for symbolic dimensions) and dtype of each input.
        outputs: the same of each output.
    """

    def __init__(self, backend: Backend, file: np.ndarray | None, options: dict[str, Any]) -> None:
        self._backend = backend
        self._run_again = getattr(backend, "run_again", _never)
        self._file = file  # the .sprt bytes; None when parts of the graph are not native
        self._options = options

    @property
    def inputs(self) -> list[TensorSpec]:
        """Name, shape and dtype of each input."""
        return self._backend.inputs

    @property
    def outputs(self) -> list[TensorSpec]:
        """Name, shape and dtype of each output."""
        return self._backend.outputs

    @property
    def levels(self) -> list[Level]:
        """The levels of the file, the densest first; none of most models.

        The first time, this reads the weights to count their zeros.
        """
        return [Level(**facts) for facts in self._backend.levels()]

    @property
    def level(self) -> str | None:
        """The name of the level in use; None for a model without levels.

        Setting it switches: runs that begin from now on are of that level, runs of other threads
        end on theirs. The file is not read again; a level packs its weights when it is used for
        the first time, and they stay in memory unless load() got keep_levels=False.

        Raises:
            LevelError: there is no such level.

        Example:
            >>> model.level = "fast"  # doctest: +SKIP
        """
        return self._backend.level

    @level.setter
    def level(self, name: str) -> None:
        self._backend.set_level(name)

    def __call__(self, *args: Any, **feeds: Any) -> Any:
        """Runs the model.

        Args:
            *args: arrays in the order of `inputs`; or one dict by input name.
            **feeds: arrays by input name.

        Returns:
            The output, or a tuple of them when there are several: NumPy arrays, or torch tensors
            when an input was one (but for strings, which torch does not have).

        Raises:
            ShapeError: a feed is missing, unknown, or of the wrong dtype or shape.

        Example:
            >>> y = model(x)  # doctest: +SKIP
        """
        if len(args) == 1 and not feeds:
            again = self._run_again(args[0])
            if again is not None:
                return again[0] if len(again) == 1 else tuple(again)
        if len(args) == 1 and isinstance(args[0], Mapping):
            feeds = {**args[0], **feeds}
        elif len(args) > len(self.inputs):
            raise ShapeError(f"feeds: {len(args)} arrays for {len(self.inputs)} inputs")
        else:
            named = {spec.name: x for spec, x in zip(self.inputs, args, strict=False)}
            twice = sorted(set(named) & set(feeds))
            if twice:
                raise ShapeError(f"feeds: given twice: {', '.join(twice)}")
            feeds = {**named, **feeds}
        as_torch = has_tensors(feeds.values())
        results: dict[str, Any] = dict(self._run(feeds))
        if as_torch:
            results = {name: as_tensor(y) for name, y in results.items()}
        return self._outputs(results)

    def _outputs(self, results: Mapping[str, Any]) -> Any:
        outputs = tuple(results[spec.name] for spec in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any] | None = None,
        run_options: None = None,
        *,
        feeds: Mapping[str, Any] | None = None,
    ) -> list[np.ndarray]:
        """Runs the model with the signature of onnxruntime.InferenceSession.run.

        Args:
            output_names: which outputs, in which order; None or none at all: every one.
            input_feed: arrays by input name.
            run_options: None, since there are none.
            feeds: another name of input_feed.

        Returns:
            One NumPy array per name.

        Raises:
            ShapeError: a feed is missing, unknown, or of the wrong dtype or shape; or an output
                name is unknown.
            ValueError: run_options is not None.
        """
        feeds = input_feed if feeds is None else feeds
        if output_names is None and type(feeds) is dict and run_options is None:
            again = self._run_again(feeds)
            if again is not None:
                return again
        if run_options is not None:
            raise ValueError(
                f"run: run_options is {run_options!r}, expected None: what a run does is said by "
                "the options of sparsert.load()"
            )
        known = [spec.name for spec in self.outputs]
        names = _checked_names(output_names, known)
        if not isinstance(feeds, Mapping):
            raise ShapeError(
                f"feeds: input_feed is of type {type(feeds).__name__}, expected a dict of arrays "
                f"by input name; the model's inputs: {_quoted([s.name for s in self.inputs])}"
            )
        results = self._run(feeds)
        return [results[name] for name in names or known]

    def get_inputs(self) -> list[NodeArg]:
        """Returns the name, type and shape of each input, as ONNX Runtime's sessions do."""
        return [NodeArg.of(spec) for spec in self.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """Returns the name, type and shape of each output, as ONNX Runtime's sessions do."""
        return [NodeArg.of(spec) for spec in self.outputs]

    def explain(self) -> Table:
        """Says, per layer, how it is stored and computed, by which kernel, and why."""
        return self._backend.explain()

    def profile(self, feeds: Mapping[str, Any] | Any = None, runs: int = 10) -> Table:
        """Times each layer.

        Args:
            feeds: arrays by input name, or one array for a model of one input; None: ones, or
                empty strings (with 1 for symbolic dimensions).
            runs: how many runs to take the median of, after one to warm up.

        Returns:
            A table with the median time of each layer.
        """
        if runs < 1:
            raise ValueError(f"runs is {runs}, expected at least 1")
        if feeds is None:
            feeds = {spec.name: _ones(spec) for spec in self.inputs}
        elif not isinstance(feeds, Mapping):
            feeds = {self.inputs[0].name: feeds}
        return self._backend.profile(check_feeds(self.inputs, feeds), runs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model as a .sprt file, atomically.

        Raises:
            UnsupportedOpError: parts of the graph are not native; such a model has no .sprt form.
            OSError: the file cannot be written.
        """
        from sparsert.modelfile import save_atomic

        save_atomic(path, self._native_file())

    def _native_file(self) -> np.ndarray:
        if self._file is None:
            raise UnsupportedOpError(
                "this model runs some operators by fallback or in kernels of yours (explain() "
                "names them); a .sprt file holds native operators only"
            )
        return self._file

    def _run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return self._backend.run(check_feeds(self.inputs, feeds))

    def __reduce__(self) -> Any:
        options = {**self._options, "level": self.level}
        return _unpickle, (self._native_file().tobytes(), options)

    def __copy__(self) -> Model:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        if self._file is None:
            return self  # it never changes: without a file there are no levels to choose from
        make, arguments = self.__reduce__()
        return make(*arguments)

    def __repr__(self) -> str:
        def side(specs: list[TensorSpec]) -> str:
            return ", ".join(f"{s.name}{list(s.shape or ())}" for s in specs)

        return f"<sparsert.Model {side(self.inputs)} -> {side(self.outputs)}>"


def _ones(spec: TensorSpec) -> np.ndarray:
    shape = [dim if isinstance(dim, int) else 1 for dim in spec.shape or ()]
    return np.full(shape, "", object) if spec.dtype == object else np.ones(shape, spec.dtype)


def _checked_names(names: Any, known: list[str]) -> list[str]:
    if names is not None and (isinstance(names, str) or not isinstance(names, Iterable)):
        raise ShapeError(
            f"output_names is {names!r}, expected None or a list of names; the model's outputs: "
            f"{_quoted(known)}"
        )
    asked = list(names or ())
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise ShapeError(
            f"there is no output {_quoted(unknown)}; the model's outputs: {_quoted(known)}"
        )
    return asked


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _never(feeds: Any) -> None:
    """Stands for the run_again of a backend without one."""


def _unpickle(file: bytes, options: dict[str, Any]) -> Model:
    from sparsert.api import load

    return load(file, **options)
