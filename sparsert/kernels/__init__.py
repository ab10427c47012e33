"""Kernels compiled by Numba over compressed and dense weights; they know arrays, not graphs."""
