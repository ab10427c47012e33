"""What pruning costs in accuracy on real images; make pruning measures every method and pattern."""

from __future__ import annotations

import copy

import pytest

from sparsert import prune
from tests.quantize.networks import digits, train, trained_cnn

torch = pytest.importorskip("torch")


def accuracy(module):
    with torch.inference_mode():
        logits = module(torch.from_numpy(digits().test_x)).numpy()
    return float((logits.argmax(1) == digits().test_y).mean())


@pytest.mark.parametrize(
    ("method", "sparsity", "pattern", "epochs", "most"),
    [
        *((name, 0.5, None, 2, 0.01) for name in ("taylor", "snip", "second-order")),
        *((name, 0.5, None, 4, 0.01) for name in ("activation-gradient", "activation-sensitivity")),
        *((name, 0.8, "1x4", 2, 0.02) for name in ("magnitude", "wanda")),
    ],
)
def test_little_is_lost_after_fine_tuning(method, sparsity, pattern, epochs, most):
    dense = trained_cnn("dense").eval()
    module = copy.deepcopy(dense)
    x, y = torch.from_numpy(digits().train_x), torch.from_numpy(digits().train_y)
    count = 1 if method == "activation-sensitivity" else 4  # a backward pass for every channel
    data = list(zip(x.split(32), y.split(32), strict=True))[:count]
    exclude = ["0"] if pattern else []  # it has one input channel
    prune.prune(module, method, sparsity=sparsity, pattern=pattern, data=data, exclude=exclude)
    held = prune.masks(module)
    train(module, epochs, 1e-3)
    assert accuracy(dense) - accuracy(module) <= most
    for name, mask in held.items():
        if not name.endswith("bias"):
            assert not module.get_submodule(name).weight[~mask].any()
