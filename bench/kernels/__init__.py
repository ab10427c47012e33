"""Benchmarks of single kernels on the layer shapes of real networks."""
