"""Runs an ONNX file where ONNX Runtime ran it: replace_onnxruntime.py MODEL.onnx."""

import sys

import numpy as np

import sparsert

path = sys.argv[1]

# Was: session = onnxruntime.InferenceSession(path)
session = sparsert.load(path)

generator = np.random.default_rng(0)
feeds = {}
for spec in session.inputs:  # was: session.get_inputs()
    shape = [dim if isinstance(dim, int) else 1 for dim in spec.shape or ()]
    feeds[spec.name] = generator.standard_normal(shape).astype(spec.dtype)

outputs = session.run(None, feeds)  # as before
for spec, y in zip(session.outputs, outputs, strict=True):
    print(f"{spec.name}: {y.dtype} {list(y.shape)}, mean {y.mean():.4g}")
