"""Quantisation after training: a float model and some of its inputs in, an integer model out.

The module itself can be called: sparsert.quantize(model, data) is sparsert.quantize.quantize(...).
ONNX is imported when it is called.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sparsert.errors import BackendError
from sparsert.quantize.report import LayerPrecision, QuantizeReport

if TYPE_CHECKING:
    import onnx

    from sparsert.runtime.model import Model

__all__ = ["LayerPrecision", "QuantizeReport", "Quantized", "quantize"]


class Quantized(NamedTuple):
    """What quantize() returns.

    Attributes:
        model: QuantizeLinear and DequantizeLinear around float operators (QDQ), or dynamically
            quantised layers; sparsert.load() and ONNX Runtime run it.
        report: layer, precision, SQNR and ranges; prints as a table.
    """

    model: onnx.ModelProto
    report: QuantizeReport

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model as .onnx or, if the name ends so, as .sprt, atomically."""
        from sparsert.quantize.pipeline import write_model

        write_model(self.model, path)


def quantize(
    model: Any,
    calibration_data: Any = None,
    *,
    dynamic: bool = False,
    method: str = "minmax",
    percentile: float = 99.99,
    activation: str = "u8",
    per_channel: bool = True,
    reduce_range: bool = False,
    bias_correction: bool = False,
    op_types: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
    evaluate: Callable[[Model], float] | None = None,
    max_drop: float | None = None,
    min_sqnr: float | None = None,
    min_speedup: float | None = None,
    batch_size: int = 16,
    path: str | os.PathLike[str] | None = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    on_progress: Callable[[float], None] | None = None,
) -> Quantized:
    """Quantises a trained model to 8-bit integers; pruned weights stay zero.

    Batch norms are folded first. Activations get one scale and zero point per tensor, from the
    ranges that they take on the calibration data; 0 is always represented exactly. Weights are
    symmetric int8 with a scale per output channel, biases int32. Relu and Clip belong to the layer
    before them; MaxPool, Concat, Reshape and the like keep the scale of what they read. Nodes
    without weights compute in integers only between layers that do; the model's outputs come from
    floats.

    Args:
        model: path to an .onnx file, its bytes, an onnx.ModelProto, or a torch.nn.Module (with
            example_inputs).
        calibration_data: typical inputs, such as 100 to 500 samples of the training data: an array
            with samples along its first dimension (one input), a dict of such arrays by input name,
            or an iterable of feeds: arrays, tuples of arrays or dicts.
        dynamic: quantise linear layers without calibration data: each run finds the range of what
            a layer reads, and its result is f32. Of the other options, per_channel, reduce_range,
            op_types (Gemm, MatMul; also Conv) and exclude go with it.
        method: how a range is chosen: "minmax" of all values; "percentile" leaves out outliers;
            "mse" takes the least squared error; "entropy" the least KL divergence.
        percentile: of method "percentile": share of the values, in per cent, below the upper end
            (and above the lower one).
        activation: "u8" (0 to 255) or "s8" (-128 to 127).
        per_channel: a scale for each output channel of a weight, instead of one for all.
        reduce_range: weights from -64 to 64, so that ONNX Runtime does not saturate on x86 CPUs
            without VNNI.
        bias_correction: subtract each channel's mean error on the calibration data in the bias.
        op_types: operators that may compute in integers; None: Conv, ConvTranspose, Gemm, MatMul
            (with constant weights), Add, AveragePool, GlobalAveragePool, MaxPool, Concat. Also
            Mul, Sigmoid, Tanh, LeakyRelu, HardSwish, HardSigmoid.
        exclude: layers to leave in float: names of nodes, or of weights (with or without
            ".weight").
        evaluate: a function of a sparsert.Model that returns its accuracy, higher is better. When
            quantising everything loses more than `max_drop` of it, the layers that disturb the
            outputs most stay in float, as many as it takes.
        max_drop: see `evaluate`; None: 0.01.
        min_sqnr: leave layers in float whose signal to quantisation noise ratio on their own is
            below this, in decibels.
        min_speedup: leave layers in float that are less than this many times as fast in integers,
            as measured here on the first feed, where the whole model gains by it; 1 leaves those
            that lose time. None: speed does not matter.
        batch_size: samples of a run, for arrays of samples and a model that leaves it open.
        path: also write the model: .onnx or .sprt.
        example_inputs: torch modules only: a tensor, a tuple or a dict of tensors.
        dynamic_shapes: torch modules only: as in torch.onnx.export.
        on_progress: called with the share of the work that is done, 0 to 1.

    Returns:
        (model, report): an onnx.ModelProto, and a table of the layers.

    Raises:
        ModelFormatError: the source is missing, corrupt or of an unknown type.
        ShapeError: calibration data does not fit the model's inputs.
        BackendError: a package that is needed is not installed.
        ValueError: an option is out of range; no calibration data, or one with which a tensor is
            NaN, infinite or always zero; the model is quantised already or has nothing to quantise.

    Example:
        >>> model, report = sparsert.quantize("model.onnx", images[:200])  # doctest: +SKIP
        >>> model, report = sparsert.quantize("model.onnx", dynamic=True)  # doctest: +SKIP
        >>> print(report)                                                 # doctest: +SKIP
        >>> y = sparsert.load(model)(x)                                   # doctest: +SKIP
    """
    try:
        from sparsert.quantize.options import check_options
        from sparsert.quantize.pipeline import quantise_dynamic, quantise_model, write_model
    except ImportError as error:
        raise BackendError(
            f"quantising needs the packages onnx, onnx-ir and onnxscript ({error}); "
            'pip install "sparsert[onnx]"'
        ) from error
    options = check_options(
        method=method,
        percentile=percentile,
        activation=activation,
        per_channel=per_channel,
        reduce_range=reduce_range,
        bias_correction=bias_correction,
        op_types=op_types,
        exclude=exclude,
        evaluate=evaluate,
        max_drop=max_drop,
        min_sqnr=min_sqnr,
        min_speedup=min_speedup,
        batch_size=batch_size,
        dynamic=dynamic,
        has_data=calibration_data is not None,
        path=path,
        on_progress=on_progress,
    )
    if dynamic:
        result = Quantized(*quantise_dynamic(model, options, example_inputs, dynamic_shapes))
    else:
        result = Quantized(
            *quantise_model(
                model, calibration_data, options, example_inputs, dynamic_shapes, on_progress
            )
        )
    if path is not None:
        write_model(result.model, path)
    return result


class _CallableModule(types.ModuleType):
    """Lets sparsert.quantize be both this package and the function."""

    __call__ = staticmethod(quantize)


sys.modules[__name__].__class__ = _CallableModule
