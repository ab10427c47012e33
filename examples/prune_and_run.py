"""Prunes a PyTorch module, fine-tunes it with the zeros held, and runs it: prune_and_run.py."""

import numpy as np
import torch
from torch import nn

import sparsert
import sparsert.prune

torch.manual_seed(0)
module = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(64, 10),
).eval()
# Made-up images of two classes; use your own DataLoader.
classes = torch.arange(64) % 2
images = torch.randn(64, 3, 32, 32) + classes[:, None, None, None]
batches = list(zip(images.split(16), classes.split(16), strict=True))

report = sparsert.prune.prune(module, sparsity={"2": 0.9, "6": 0.5})
print(report)
losses = sparsert.prune.fine_tune(module, batches, epochs=3, learning_rate=1e-3)
print("loss of each epoch:", ", ".join(f"{loss:.3f}" for loss in losses))
sparsert.prune.remove(module)

model = sparsert.load(module, example_inputs=images[:1])
print(model.explain())
with torch.inference_mode():
    expected = module(images[:1]).numpy()
difference = np.abs(model(images[:1]).numpy() - expected).max()
print(f"largest difference from PyTorch: {difference:.1e}")
