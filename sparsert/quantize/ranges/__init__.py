"""Methods that choose the range of a tensor: a module each, with one function `choose`.

choose(histogram, levels) returns the least and the greatest value that `levels` integers stand for;
0 lies between them. The ends go into a scale and a zero point in sparsert/quantize/numbers.py.
"""

from __future__ import annotations

from collections.abc import Callable

from sparsert.quantize.ranges import entropy, minmax, mse, percentile
from sparsert.quantize.ranges.histogram import Histogram

__all__ = ["METHODS", "Histogram"]

METHODS: dict[str, Callable[..., tuple[float, float]]] = {
    "minmax": minmax.choose,
    "percentile": percentile.choose,
    "mse": mse.choose,
    "entropy": entropy.choose,
}
