"""The way of the data: any model in, a Model that runs (or a .sprt file) out."""

from __future__ import annotations

import mmap
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparsert.errors import (
    BackendError,
    ModelFormatError,
    UnsupportedOpError,
    describe_problems,
    unknown_level,
)
from sparsert.option_checks import OptionChecks, is_json, is_one_of
from sparsert.runtime.model import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from sparsert.modelfile import ModelFile
    from sparsert.report.forecast import Forecast

BACKENDS = ("native", "capi", "numba", "numpy")
# Those that run the C++ core.
NATIVE_BACKENDS = ("native", "capi")
WEIGHTS = ("f32", "f16")
MAGIC = b"\x89SPRT\r\n\x1a"


def load(
    src: Any,
    *,
    backend: str | None = None,
    threads: int | None = None,
    isa: str | None = None,
    tune: bool | str = "auto",
    strict: bool = False,
    level: str | None = None,
    keep_levels: bool = True,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
) -> Model:
    """Loads a model and makes it ready to run.

    Args:
        src: path to an .onnx or .sprt file, the bytes of one, an onnx.ModelProto, a
            torch.nn.Module (with example_inputs), a torch.export.ExportedProgram, or a Keras model.
            A .sprt file is mapped: while the model lives, nobody may write into it or cut it (the
            process would end, or outputs change). Replace it by another file under its name, as
            convert() and Model.save() do, or load its bytes: load(Path(name).read_bytes()).
            An input of an ONNX graph that has an initializer is a constant.
        backend: "native" (the C++ kernels), "capi" (the same in the C library), "numba" (kernels
            that Numba compiles, and NumPy for the other operators) or "numpy" (a slow interpreter,
            the reference). None: native, or, with a warning, the next of these that is there where
            the compiled extension is missing.
        threads: threads of one run; None: as many cores as this process may use.
        isa: force an instruction set ("scalar", "avx2", "avx512", "avx512vnni", "amx", "neon",
            "neondot"); None: $SPARSERT_ISA, else the best of this machine. Native kernels only.
        tune: True measures every candidate kernel of every layer here; "auto" only where the cost
            model sees a close race, within a second; False trusts the cost model. What was measured
            is kept on disk (docs/environment.md) and not measured again.
        strict: raise UnsupportedOpError when an operator is not native, instead of running it in
            a fallback engine with a warning. Operators registered with sparsert.kernels.custom_op
            run in their kernels either way, without a warning.
        level: of a .sprt file with levels, the one to run; None: the first, the densest. It can be
            changed at any time: `model.level = "fast"`.
        keep_levels: False frees the packed weights of a level when another is chosen: less memory,
            and a change of the level packs again.
        example_inputs: torch modules only: a tensor, a tuple or a dict of tensors.
        dynamic_shapes: torch modules only: as in torch.onnx.export.

    Returns:
        The model.

    Raises:
        ModelFormatError: the source is missing, corrupt or of an unknown type.
        UnsupportedOpError: an operator is not native (strict), or nothing here can run it.
        ShapeError: the graph's shapes contradict each other.
        BackendError: the backend, the instruction set or a package that reads the source is not
            available.
        LevelError: there is no such level.
        ValueError: an option is out of range.

    Example:
        >>> model = sparsert.load("resnet50-pruned.onnx", threads=2)  # doctest: +SKIP
        >>> y = model(x)                                             # doctest: +SKIP
    """
    _check_options(
        "load",
        backend=backend,
        threads=threads,
        isa=isa,
        tune=tune,
        level=level,
        strict=strict,
        keep_levels=keep_levels,
    )
    if backend is None:
        from sparsert.runtime.choose_backend import choose_backend

        backend = choose_backend(stacklevel=2)
    label = _label(src)
    options = {"backend": backend, "threads": threads, "isa": isa, "tune": tune, "strict": strict}
    options["keep_levels"] = keep_levels
    file = _read_sprt(src)
    if file is None:
        if level is not None:
            raise unknown_level(label, level, ())
        graph = _canonical(src, example_inputs, dynamic_shapes)
        problems = _native_problems(graph)
        unwanted = [str(problem) for problem in problems if not problem.is_custom]
        if unwanted and strict:
            raise UnsupportedOpError(describe_problems(label, unwanted))
        if problems and backend in NATIVE_BACKENDS:
            return Model(_hybrid(graph, problems, label, options), None, options)
        if problems:
            return Model(_python(graph, label, options), None, options)
        from sparsert.modelfile import write_aligned

        file = write_aligned(graph)
        del graph
    if backend not in NATIVE_BACKENDS:
        from sparsert.runtime.native_backend import aligned_bytes

        return Model(_python_of_sprt(file, label, level, options), aligned_bytes(file), options)
    from sparsert.runtime.native_backend import NativeBackend

    native = NativeBackend(
        file, label, threads, isa, tune, backend=backend, level=level, keep_levels=keep_levels
    )
    return Model(native, native.file, options)


def convert(
    src: Any,
    path: str | os.PathLike[str],
    *,
    weights: str = "f32",
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Converts a model to a .sprt file, or to an ONNX file with sparse weights; atomically.

    Args:
        src: as in load(); or a mapping of level names to such sources, which become the levels of
            one file (docs/pruning.md): the same network with more and more zeros, each level's
            weights being some of those of the denser one. They may differ by one factor for each
            output channel, and in biases and other constants, as after norms of their own.
        path: the file to write; an existing file is replaced only when all went well. A name that
            ends in .onnx gives an ONNX file: the same graph as in `src` (not a .sprt file), but
            weights that are smaller so are ONNX's sparse initializers.
        weights: "f32", or "f16" to store the weights of convolutions and linear layers in half
            the bytes (they are computed with in f32). Not for ONNX files.
        example_inputs: torch modules only.
        dynamic_shapes: torch modules only.
        metadata: kept in the file as JSON.

    Raises:
        UnsupportedOpError: lists every operator that is not native.
        ModelFormatError: the source is missing, corrupt or of an unknown type; levels that are not
            the same graph, or not nested: names the node or tensor, and the level.
        BackendError: a package that reads the source is not installed.
        ValueError: unknown `weights`, f16 or levels for an ONNX file, or less than two levels.
        OSError: the file cannot be written.

    Example:
        >>> sparsert.convert("resnet50-pruned.onnx", "resnet50.sprt")  # doctest: +SKIP
    """
    checks = OptionChecks("convert")
    checks.word("weights", weights, WEIGHTS)
    checks.require(isinstance(path, str | os.PathLike), "path", path, "the path of a file")
    is_right = isinstance(metadata, Mapping) and is_json(dict(metadata))
    expected = "a dict that JSON holds, or None"
    checks.require(metadata is None or is_right, "metadata", metadata, expected)
    checks.refuse()
    from sparsert.modelfile import write_file

    if isinstance(src, Mapping):
        _convert_levels(src, path, weights, example_inputs, dynamic_shapes, metadata)
        return
    file = _read_sprt(src)
    if os.fspath(path).endswith(".onnx"):
        if weights != "f32":
            raise ValueError(f"weights={weights!r} is for .sprt files only, not for {path}")
        if file is not None:
            raise ModelFormatError(
                f"{_label(src)}: a .sprt file cannot become an ONNX file; convert the model that "
                "it was made of"
            )
        _write_sparse_onnx(src, path, example_inputs, dynamic_shapes, metadata)
        return
    write_file(_native_graph(src, file, example_inputs, dynamic_shapes), path, weights, metadata)


def forecast(
    src: Any,
    *,
    sparsity: float | Sequence[float] = (0.5, 0.8, 0.9),
    pattern: str | Sequence[str] = ("unstructured", "4x1"),
    dtype: str | Sequence[str] = "float32",
    exclude: str | Sequence[str] = (),
    all_layers: bool = False,
    feeds: Any = None,
    threads: int | None = None,
    isa: str | None = None,
    tune: bool | str = "auto",
    seed: int = 0,
    seconds: float = 2.0,
    runs: int | None = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    on_progress: Callable[[float], None] | None = None,
) -> Forecast:
    """Measures how fast and how small a model would be if it were pruned, before any training.

    The layers get random zeros (what a model was pruned to before is filled first) and run with the
    kernels of this machine, in turns with the dense model. Speed and size do not depend on the
    values of the weights, but a real pruning may spread its zeros less evenly over layers and rows;
    accuracy is not forecast. Pruning whole channels makes smaller dense layers and is not covered.

    Args:
        src: as in load(); all its operators must be native.
        sparsity: shares of zeros of each pruned layer, each at least 0 and less than 1.
        pattern: "unstructured" (any weight), or blocks that are zero as a whole: "4x1" and the like
            are rows x columns of the matrix [outputs, inputs * taps], 1 with 2, 4, 8 or 16. Kernels
            for blocks exist of 4x1 and 8x1; other blocks make the file smaller, and run with these
            or with the kernels for single weights. In int8, kernels skip 1x4: four input channels.
        dtype: "float32", "int8" or both: int8 models are compared with the dense float32 one. The
            source is quantised by the ranges of the feeds, which do for times and sizes alone, or
            is a quantised model already; a float .sprt file has no int8 forecast.
        exclude: layers to leave alone: names as explain() prints them, or names of their weights
            (with or without ".weight").
        all_layers: also prune the first convolution and depthwise convolutions, which hold few
            weights and are left alone otherwise.
        feeds: arrays by input name, one array for a model of one input, or a function that makes
            them from a list like Model.inputs; None: the example inputs, or random values, with 1
            for symbolic dimensions.
        threads: as in load().
        isa: as in load().
        tune: as in load(); False chooses the same formats every time.
        seed: of zeros and random feeds.
        seconds: about how long each pattern and sparsity is timed; at least 9 runs each.
        runs: timed runs of each, at least 7, instead of `seconds`.
        example_inputs: torch modules only.
        dynamic_shapes: torch modules only.
        on_progress: called with the share of the work that is done, 0 to 1.

    Returns:
        A table with a row for the dense model and one per pattern and sparsity, of each dtype:
        milliseconds, speedup, the ideal one, file bytes as f32 and f16, memory. `.layers` is the
        table per layer; `.to_dict()` and `.to_markdown()` have both.

    Raises:
        UnsupportedOpError: lists every operator that is not native.
        ModelFormatError: the source is missing, corrupt or of an unknown type.
        ShapeError: the feeds do not fit.
        BackendError: the instruction set or a package that reads the source is not available.
        ValueError: an option is out of range, a pattern or layer is unknown, or there are no
            weights to prune.

    Example:
        >>> print(sparsert.forecast("resnet50.onnx", sparsity=[0.8, 0.9]))  # doctest: +SKIP
    """
    from sparsert.report.forecast_run import check_conditions, measure_forecast

    _check_options("forecast", backend=None, threads=threads, isa=isa, tune=tune)
    conditions = check_conditions(
        sparsity,
        pattern,
        dtype,
        exclude,
        seconds,
        runs,
        on_progress,
        all_layers=all_layers,
        threads=threads,
        isa=isa,
        tune=tune,
        seed=seed,
    )
    label = _label(src)
    is_sprt = _read_sprt(src) is not None

    def quantise(arrays: dict[str, Any]) -> Any:
        from sparsert.quantize import quantize

        options = {"example_inputs": example_inputs, "dynamic_shapes": dynamic_shapes}
        model, _ = quantize(src, [arrays], **options)
        return _native_sprt(model, None, None)

    return measure_forecast(
        _native_sprt(src, example_inputs, dynamic_shapes),
        label,
        conditions,
        feeds,
        example_inputs,
        on_progress,
        None if is_sprt else quantise,
    )


def _check_options(
    function: str,
    *,
    backend: str | None,
    threads: int | None,
    isa: str | None,
    tune: bool | str,
    level: str | None = None,
    **flags: bool,
) -> None:
    checks = OptionChecks(function)
    is_known = backend is None or is_one_of(backend, BACKENDS)
    checks.require(is_known, "backend", backend, f"one of {', '.join(BACKENDS)}")
    checks.threads(threads)
    for name, value in (("isa", isa), ("level", level)):
        checks.require(value is None or isinstance(value, str), name, value, "a name or None")
    checks.tune(tune)
    checks.flags(**flags)
    checks.refuse()


def _label(src: Any) -> str:
    if isinstance(src, str | os.PathLike):
        return os.fspath(src)
    if isinstance(src, bytes | bytearray | memoryview):
        return "the model"
    return type(src).__qualname__


def _read_sprt(src: Any) -> Any:
    """Returns the bytes of a .sprt source, mapped if it is a file; None for other sources."""
    if isinstance(src, bytes | bytearray | memoryview):
        if bytes(src[: len(MAGIC)]) != MAGIC:
            return None
        return src if memoryview(src).readonly else bytes(src)
    if not isinstance(src, str | os.PathLike):
        return None
    path = os.fspath(src)
    try:
        with open(path, "rb") as file:
            named = path.endswith(".sprt")
            if not named and file.read(len(MAGIC)) != MAGIC:
                return None
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFormatError(f"{path}: {error.strerror or error}") from error


def _graph_of_sprt(file: Any, label: str) -> ir.Model:
    """Returns the canonical graph of a .sprt file's bytes; messages name `label`."""
    from sparsert.modelfile import read

    return _graph_of_content(read(bytes(file), label), label)


def _graph_of_content(content: ModelFile, label: str) -> ir.Model:
    from sparsert.modelfile import to_ir

    try:
        return to_ir(content)
    except ModelFormatError as error:
        raise ModelFormatError(f"{label}: {error}") from None


def native_graph(src: Any) -> ir.Model:
    """Returns the canonical graph of a source as in load(); all its operators are native.

    Raises:
        UnsupportedOpError: lists every operator that is not.
        ModelFormatError: the source is missing, corrupt or of an unknown type.
    """
    return _native_graph(src, _read_sprt(src), None, None)


def _native_graph(src: Any, file: Any, example_inputs: Any, dynamic_shapes: Any) -> ir.Model:
    """Returns the canonical graph of a source, whose .sprt bytes are `file`, if it has any."""
    if file is not None:
        graph = _graph_of_sprt(file, _label(src))
    else:
        graph = _canonical(src, example_inputs, dynamic_shapes)
    _require_native(graph, _label(src))
    return graph


def _convert_levels(
    sources: Mapping[str, Any],
    path: str | os.PathLike[str],
    weights: str,
    example_inputs: Any,
    dynamic_shapes: Any,
    metadata: dict[str, Any] | None,
) -> None:
    from sparsert.modelfile import write_level_file

    if os.fspath(path).endswith(".onnx"):
        raise ValueError(f"levels are for .sprt files only, not for {path}")
    graphs = {
        name: _native_graph(src, _read_sprt(src), example_inputs, dynamic_shapes)
        for name, src in sources.items()
    }
    write_level_file(graphs, path, weights, metadata)


def _write_sparse_onnx(
    src: Any,
    path: str | os.PathLike[str],
    example_inputs: Any,
    dynamic_shapes: Any,
    metadata: dict[str, Any] | None,
) -> None:
    from sparsert.modelfile import save_atomic

    try:
        from sparsert.importers import import_model
        from sparsert.importers.write_sparse import read_whole, write_sparse

        model = import_model(src, example_inputs, dynamic_shapes)  # says what is wrong with it
        save_atomic(path, write_sparse(read_whole(src, model), metadata))
    except ImportError as error:
        raise _needs_onnx(error) from error


def _needs_onnx(error: ImportError) -> BackendError:
    return BackendError(
        f"importing a model needs the packages onnx, onnx-ir and onnxscript ({error}); "
        'pip install "sparsert[onnx]". A .sprt file needs none of them.'
    )


def _canonical(src: Any, example_inputs: Any, dynamic_shapes: Any) -> ir.Model:
    try:
        from sparsert.importers import import_model
        from sparsert.passes import canonicalise

        return canonicalise(import_model(src, example_inputs, dynamic_shapes))
    except ImportError as error:
        raise _needs_onnx(error) from error
    except MemoryError as error:
        raise BackendError(f"{_label(src)}: not enough memory to import it: {error}") from error


def _native_problems(graph: ir.Model) -> list[Any]:
    from sparsert.passes import native_report

    return native_report(graph)


def _native_sprt(src: Any, example_inputs: Any, dynamic_shapes: Any) -> Any:
    """Returns the bytes of a .sprt source, or of what another source, or a level, converts to."""
    from sparsert.modelfile import has_levels, write_aligned

    file = _read_sprt(src)
    if file is not None and not has_levels(file):
        return file
    return write_aligned(_native_graph(src, file, example_inputs, dynamic_shapes))


def _require_native(graph: ir.Model, label: str) -> None:
    problems = _native_problems(graph)
    if problems:
        raise UnsupportedOpError(describe_problems(label, [str(p) for p in problems]))


def _python_of_sprt(file: Any, label: str, level: str | None, options: dict[str, Any]) -> Any:
    """Returns a backend in Python for a .sprt file's bytes."""
    from sparsert.modelfile import read
    from sparsert.runtime.graph_backend import LevelBackend

    content = read(bytes(file), label)
    if content.levels:
        return LevelBackend(content, label, level, lambda graph: _python(graph, label, options))
    backend = _python(_graph_of_content(content, label), label, options)
    if level is not None:
        backend.set_level(level)  # says that there is none
    return backend


def _python(graph: ir.Model, label: str, options: dict[str, Any]) -> Any:
    """Returns a backend in Python, numba or numpy, for a canonical graph."""
    isa, is_numba = options["isa"], options["backend"] == "numba"
    if isa is not None and is_numba:
        raise BackendError(
            f"isa={isa!r} is for native kernels; Numba compiles for this "
            "machine, or for what $NUMBA_CPU_NAME and $NUMBA_CPU_FEATURES say"
        )
    if isa is not None:
        raise BackendError(f"isa={isa!r} is for native kernels; NumPy chooses for itself")
    try:
        if is_numba:
            from sparsert.runtime.numba_backend import NumbaBackend

            return NumbaBackend(graph, label, options["threads"], options["tune"])
        from sparsert.runtime.graph_backend import OracleBackend

        return OracleBackend(graph, label)
    except MemoryError as error:
        raise BackendError(f"{label}: not enough memory to load it: {error}") from error


def _hybrid(graph: ir.Model, problems: list[Any], label: str, options: dict[str, Any]) -> Any:
    """Native segments with a fallback engine between them, and a warning that names the ops."""
    from sparsert.modelfile import write_aligned
    from sparsert.runtime.custom_segment import CustomSegment
    from sparsert.runtime.fallback import FallbackSegment, segment
    from sparsert.runtime.graph_backend import HybridBackend, specs_of
    from sparsert.runtime.native_backend import NativeBackend

    reasons = {problem.node: str(problem) for problem in problems if not problem.is_custom}
    parts: list[tuple[str | None, list[str], list[str], Any]] = []
    engines = set()
    for part in segment(graph, problems):
        if part.is_native:
            part.model.metadata_props.update(graph.metadata_props)
            native = NativeBackend(
                write_aligned(part.model),
                label,
                options["threads"],
                options["isa"],
                options["tune"],
                allow_empty=True,
                backend=options["backend"],
            )
            parts.append((None, part.inputs, part.outputs, native))
            continue
        if part.is_custom:
            parts.append((None, part.inputs, part.outputs, CustomSegment(part)))
            continue
        why = "; ".join(reasons[node.name] for node in part.model.graph if node.name in reasons)
        engine = FallbackSegment(part, options["threads"])
        engines.add(engine.engine)
        parts.append((why, part.inputs, part.outputs, engine))
    if reasons:
        warnings.warn(
            describe_problems(
                f"{label} runs partly by fallback ({', '.join(sorted(engines))}); strict=True "
                "makes this an error",
                list(reasons.values()),
            ),
            stacklevel=3,
        )
    return HybridBackend(parts, specs_of(graph.graph.inputs), specs_of(graph.graph.outputs), label)
