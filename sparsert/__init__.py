"""sparsert: sparse inference for pruned neural networks on CPUs.

>>> import sparsert
>>> model = sparsert.load("model.onnx")  # doctest: +SKIP
>>> y = model(x)                         # doctest: +SKIP
>>> print(model.explain())               # doctest: +SKIP
"""

from sparsert import errors, kernels, prune, quantize, report
from sparsert.api import convert, forecast, load
from sparsert.runtime.model import Model

__all__ = [
    "Model",
    "convert",
    "errors",
    "forecast",
    "kernels",
    "load",
    "prune",
    "quantize",
    "report",
]
__version__ = "0.1.0"
