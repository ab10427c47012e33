"""Kernels in Python: those of the numba backend, and those of users."""

from sparsert.kernels.custom_ops import Dim, Spec, custom_op

__all__ = ["Dim", "Spec", "custom_op"]
