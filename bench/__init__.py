"""Benchmarks: models and their layer shapes, pytest-benchmark suites, and races against peers."""
