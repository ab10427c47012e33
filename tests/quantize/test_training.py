"""Training with rounded weights: torch's fake quantisation on top of the masks of a pruning."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from onnx import numpy_helper

import sparsert
from sparsert import prune
from tests.quantize.networks import (
    accuracy,
    digits,
    float_accuracy,
    integers,
    onnx_of,
    train,
    trained_cnn,
)
from tests.suite.harness import make_session

torch = pytest.importorskip("torch")
quantization = pytest.importorskip("torch.ao.quantization")
nn = torch.nn


def fake_quantise(module) -> None:
    """As docs/quantization.md shows."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            rounding = quantization.FakeQuantize(
                observer=quantization.MovingAveragePerChannelMinMaxObserver,
                averaging_constant=1.0,
                quant_min=-127,
                quant_max=127,
                dtype=torch.qint8,
                qscheme=torch.per_channel_symmetric,
                ch_axis=0,
            )
            nn.utils.parametrize.register_parametrization(layer, "weight", rounding)


def fake_quantise_inputs(module) -> list:
    """Rounds what layers read, as docs/quantization.md shows; returns what takes that off again."""
    handles = []
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            rounding = quantization.FakeQuantize(
                observer=quantization.MovingAverageMinMaxObserver,
                quant_min=0,
                quant_max=255,
                dtype=torch.quint8,
            )
            handles.append(
                layer.register_forward_pre_hook(lambda _, x, rounding=rounding: rounding(x[0]))
            )
    return handles


def make_module():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10)
    ).eval()


def test_fine_tuning_with_rounded_weights_keeps_masks_and_integers():
    module = make_module()
    x = torch.from_numpy(digits().train_x)
    train(module, 1, 3e-3)
    prune.prune(module, sparsity=0.8)
    held = prune.masks(module)
    fake_quantise(module)
    losses = train(module, 2, 1e-3)
    assert losses[-1] < losses[0]
    assert all(torch.equal(mask, held[name]) for name, mask in prune.masks(module).items())
    with torch.inference_mode():
        trained = module(x[:64]).numpy()
    prune.remove(module)
    for name, mask in held.items():
        assert not module.get_submodule(name).weight[~mask].any()

    model, report = sparsert.quantize(
        module, x[:64], example_inputs=x[:2], dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    # The integers are just those that the network was trained with.
    scales = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for name, weight in integers(model).items():
        trained_weight = module.get_submodule(name.removesuffix(".weight")).weight.detach().numpy()
        scale = scales[f"{name}_scale"].reshape(-1, *[1] * (weight.ndim - 1))
        np.testing.assert_allclose(weight * scale, trained_weight, rtol=1e-5, atol=1e-7)
        assert not weight[~held[name.removesuffix(".weight")].numpy()].any()
    assert [layer.sparsity >= 0.8 for layer in report.layers] == [True, True]
    (logits,) = make_session(model).run(None, {"input": x[:64].numpy()})
    assert (logits.argmax(1) == trained.argmax(1)).mean() > 0.98


def test_training_with_rounded_inputs_keeps_blocks_and_accuracy():
    module, data = copy.deepcopy(trained_cnn("1x4")), digits()
    masks = {
        name: layer.weight != 0
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    prune.apply_masks(module, masks)
    fake_quantise(module)
    hooks = fake_quantise_inputs(module)
    train(module, 1, 2e-4)
    for hook in hooks:
        hook.remove()
    prune.remove(module)
    model, report = sparsert.quantize(onnx_of(module), data.train_x[:200])
    assert report.quantised == 5
    assert all(layer.sparsity >= 0.79 for layer in report.layers[1:])
    for layer in report.layers:
        assert layer.zeros >= layer.zeros_before
    ours = sparsert.load(model, threads=1, tune=False)
    assert accuracy(ours) >= float_accuracy("cnn-1x4") - 0.01
    assert "in f32" not in str(ours.explain())
