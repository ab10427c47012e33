"""Kernels compiled by Numba over compressed and dense weights; they know arrays, not graphs.

Those of a user are registered here: custom_op for operators, kernel for layers with weights.
"""

from sparsert.kernels.check import check
from sparsert.kernels.custom_ops import Dim, Spec, custom_op
from sparsert.kernels.user_kernels import (
    Bitmask,
    Blocks,
    Csr,
    Dense,
    Window,
    kernel,
    unregister,
)

__all__ = [
    "Bitmask",
    "Blocks",
    "Csr",
    "Dense",
    "Dim",
    "Spec",
    "Window",
    "check",
    "custom_op",
    "kernel",
    "unregister",
]
