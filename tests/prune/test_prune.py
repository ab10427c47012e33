"""sparsert.prune: which weights go (S1, S2 of the article), and that they stay gone."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import sparsert.prune
from sparsert.prune import apply_masks, fine_tune, hold_zeros, masks, prune, remove

torch = pytest.importorskip("torch")
nn = torch.nn


def make_module(seed: int = 0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 4, 12), nn.Linear(12, 4)
    ).eval()


def weights(module) -> dict[str, np.ndarray]:
    return {
        name: part.weight.detach().numpy().copy()
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d)
    }


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.2, 10.0])
def test_s1_threshold_keeps_what_is_above(threshold):
    module = make_module()
    before = weights(module)
    prune(module, threshold=threshold)
    for name, after in weights(module).items():
        expected = np.where(np.abs(before[name]) > threshold, before[name], 0)
        np.testing.assert_array_equal(after, expected)


def test_s1_weight_at_the_threshold_goes():
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.2, -0.2, 0.3, -0.5]]))
    prune(nn.Sequential(layer), threshold=float(np.float32(0.2)))
    np.testing.assert_array_equal(layer.weight.detach() != 0, [[False, False, True, True]])


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.97])
def test_s2_sparsity_per_layer_is_exact_and_drops_the_smallest(sparsity):
    module = make_module()
    before = weights(module)
    report = prune(module, sparsity=sparsity)
    after = weights(module)
    for layer in report.layers:
        kept, was = after[layer.name] != 0, np.abs(before[layer.name])
        assert layer.zeros == round(sparsity * layer.weights) == (~kept).sum()
        assert layer.shape == was.shape
        if 0 < layer.zeros < layer.weights:
            assert was[~kept].max() <= was[kept].min()
        np.testing.assert_array_equal(after[layer.name][kept], before[layer.name][kept])


def test_s2_global_scope_reaches_the_sparsity_over_all_layers():
    module = make_module()
    with torch.no_grad():
        module[3].weight *= 100
    before = np.concatenate([w.ravel() for w in weights(module).values()])
    report = prune(module, sparsity=0.5, scope="global")
    after = np.concatenate([w.ravel() for w in weights(module).values()])
    assert report.zeros == round(0.5 * before.size)
    kept = np.sort(np.abs(before[after != 0]))  # the two other layers keep their best weight
    assert kept[1] < np.abs(before[after == 0]).max() <= kept[2]
    zeros = {layer.name: layer.sparsity for layer in report.layers}
    assert zeros["0"] > 0.9 > 0.5 > zeros["3"]


def test_equal_magnitudes_still_give_the_exact_count():
    layer = nn.Linear(10, 10)
    nn.init.constant_(layer.weight, 1.0)
    assert prune(nn.Sequential(layer), sparsity=0.37).zeros == 37


def test_a_sparsity_per_layer_leaves_the_others_alone():
    module = make_module()
    report = prune(module, sparsity={"3": 0.75})
    assert [layer.sparsity for layer in report.layers] == [0.0, 0.75, 0.0]
    assert list(masks(module)) == ["3"]


def test_exclude():
    report = prune(make_module(), sparsity=0.5, exclude=["0"])
    assert [layer.zeros > 0 for layer in report.layers] == [False, True, True]


def test_a_second_pruning_only_adds_zeros():
    module = make_module()
    prune(module, sparsity=0.5)
    first = masks(module)
    assert prune(module, sparsity=0.2).sparsity == pytest.approx(0.5, abs=0.01)
    prune(module, sparsity=0.8)
    for name, mask in masks(module).items():
        assert not bool((mask & ~first[name]).any())
        assert float((~mask).float().mean()) == pytest.approx(0.8, abs=0.02)


def test_fine_tuning_holds_the_zeros_and_moves_the_rest():
    module = make_module()
    prune(module, sparsity=0.8)
    before, held = weights(module), masks(module)
    x, y = torch.randn(32, 1, 6, 6), torch.randint(4, (32,))
    steps = []
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    losses = fine_tune(
        module, [(x, y)], epochs=10, optimizer=optimizer, after_batch=lambda: steps.append(1)
    )
    assert len(losses) == len(steps) == 10
    assert losses[-1] < losses[0]
    assert not module.training
    for name, after in weights(module).items():
        np.testing.assert_array_equal(after[~held[name].numpy()], 0)
        assert (after != before[name]).any()


def test_fine_tuning_without_batches_is_an_error():
    with pytest.raises(ValueError, match="batches is empty"):
        fine_tune(make_module(), [])


def test_remove_bakes_the_masks_in():
    module = make_module()
    keys = list(module.state_dict())
    prune(module, sparsity=0.5)
    before = weights(module)
    remove(module)
    assert sorted(module.state_dict()) == sorted(keys)
    assert masks(module) == {}
    assert all(isinstance(p, nn.Parameter) for p in module.parameters())
    for name, after in weights(module).items():
        np.testing.assert_array_equal(after, before[name])


def test_masks_move_between_copies():
    module, other = make_module(), make_module()
    prune(module, sparsity=0.5)
    apply_masks(other, masks(module))
    for name, after in weights(other).items():
        np.testing.assert_array_equal(after, weights(module)[name])
    clone = copy.deepcopy(module)
    prune(clone, sparsity=0.9)
    assert float((weights(module)["3"] == 0).mean()) == pytest.approx(0.5, abs=0.01)


def test_hold_zeros_of_a_model_pruned_elsewhere():
    module = make_module()
    prune(module, sparsity=0.5)
    remove(module)
    hold_zeros(module)
    fine_tune(module, [(torch.randn(8, 1, 6, 6), torch.randint(4, (8,)))], learning_rate=0.1)
    assert (weights(module)["3"] == 0).mean() == pytest.approx(0.5, abs=0.01)


def test_bad_masks_are_all_named():
    module = make_module()
    bad = {"nowhere": torch.ones(1, dtype=torch.bool), "3": torch.ones(2, 2, dtype=torch.bool)}
    bad["4"] = torch.ones(4, 12)
    with pytest.raises(ValueError, match=r"(?s)nowhere.*'3'.*\[2, 2\].*'4'.*float32"):
        apply_masks(module, bad)
    assert masks(module) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either sparsity or threshold"),
        ({"sparsity": 0.5, "threshold": 0.1}, "either sparsity or threshold"),
        ({"sparsity": 1.0}, "sparsity is 1.0"),
        ({"sparsity": -0.1}, "sparsity is -0.1"),
        ({"sparsity": float("nan")}, "sparsity is nan"),
        ({"sparsity": {"3": 1.5}}, "sparsity of '3' is 1.5"),
        ({"sparsity": {"9": 0.5}}, "no layer '9'"),
        ({"sparsity": {"3": 0.5}, "scope": "global"}, "one per layer"),
        ({"threshold": float("inf")}, "threshold is inf"),
        ({"threshold": -1.0}, "threshold is -1.0"),
        ({"sparsity": 0.5, "scope": "model"}, "scope is 'model'"),
        ({"sparsity": 0.5, "method": "magic"}, "method is 'magic'"),
        ({"sparsity": 0.5, "exclude": ["7"]}, "no layer '7'"),
        ({"sparsity": 0.5, "exclude": ["0", "3", "4"]}, "no convolution, linear or"),
    ],
)
def test_bad_options(arguments, message):
    module = make_module()
    with pytest.raises(ValueError, match=message):
        prune(module, **arguments)
    assert masks(module) == {}


def test_weights_that_are_not_finite_are_refused():
    module = make_module()
    with torch.no_grad():
        module[4].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite: 4"):
        prune(module, sparsity=0.5)


def test_a_module_without_layers():
    with pytest.raises(ValueError, match="no convolution, linear or recurrent layer"):
        prune(nn.ReLU(), sparsity=0.5)


def test_the_report_says_what_is_left():
    report = prune(make_module(), sparsity=0.5)
    biases = 6 + 12 + 4
    assert report.parameters == report.weights + biases
    assert report.compression_ratio == report.parameters / (report.parameters - report.zeros)
    assert report.to_dict()["rows"][0]["sparsity"] == 0.5
    assert "50.0 %" in str(report)
    assert report.to_markdown().count("|---") == 5


def test_the_package_can_be_called():
    assert sparsert.prune(make_module(), sparsity=0.5).sparsity == 0.5
    assert sparsert.prune.prune is prune


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 7, 2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(14, 6, batch_first=True)
        self.cell = nn.RNNCell(6, 4)

    def forward(self, x):
        return self.cell(self.gru(self.lstm(x)[0])[0][:, -1])


def make_recurrent():
    torch.manual_seed(0)
    return Recurrent().eval()


def test_recurrent_layers():
    module = make_recurrent()
    x = torch.randn(2, 4, 5)
    before = module(x)
    names = [name for name, _ in module.named_parameters() if ".weight_" in name]
    report = prune(module, sparsity=0.8)
    assert [layer.name for layer in report.layers] == names
    assert all(layer.zeros == round(0.8 * layer.weights) for layer in report.layers)
    pruned = module(x)
    assert not torch.equal(pruned, before)
    torch.testing.assert_close(copy.deepcopy(module)(x), pruned)
    zeros = {name: weight == 0 for name, weight in masks(module).items()}
    old = module.lstm.weight_hh_l1_reverse.detach().clone()
    fine_tune(module, [(x, torch.tensor([0, 1]))] * 3, learning_rate=1e-2)
    tuned = module(x)
    assert not torch.equal(module.lstm.weight_hh_l1_reverse, old)
    remove(module)
    torch.testing.assert_close(module(x), tuned)
    parameters = dict(module.named_parameters())
    assert set(parameters) == set(dict(make_recurrent().named_parameters()))
    for name, gone in zeros.items():
        torch.testing.assert_close(parameters[name] == 0, gone)
    with torch.no_grad():
        module.lstm.weight_hh_l0.zero_()
    assert not torch.equal(module(x), tuned), "the layer computes with its parameters again"


def test_the_name_of_a_recurrent_module_stands_for_its_weights():
    report = prune(make_recurrent(), sparsity={"gru": 0.5})
    assert {layer.name for layer in report.layers if layer.zeros} == {
        "gru.weight_ih_l0",
        "gru.weight_hh_l0",
    }
    report = prune(make_recurrent(), sparsity=0.5, exclude=["lstm", "cell.weight_ih"])
    assert {layer.name for layer in report.layers if layer.zeros} == {
        "gru.weight_ih_l0",
        "gru.weight_hh_l0",
        "cell.weight_hh",
    }
    prune(nn.LSTM(2, 3), sparsity=0.5)
    with pytest.raises(ValueError, match="no layer 'rnn'"):
        prune(make_recurrent(), sparsity=0.5, exclude=["rnn"])


@pytest.mark.parametrize("is_baked", [True, False])
def test_a_pruned_recurrent_module_runs_in_sparsert(is_baked):
    module = make_recurrent()
    prune(module, sparsity=0.8)
    if is_baked:
        remove(module)
    x = torch.randn(2, 4, 5)
    model = sparsert.load(module, example_inputs=x, threads=1, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(model(x), module(x), rtol=1e-4, atol=1e-5)
    rows = [row for row in model.explain().to_dict()["rows"] if row["op"] == "Recurrent"]
    assert len(rows) == 5
    assert all(row["nonzeros"] < 0.3 * row["weights"] for row in rows)


@pytest.mark.parametrize("is_baked", [True, False])
def test_a_pruned_module_runs_in_sparsert(is_baked):
    module = make_module()
    prune(module, sparsity=0.9)
    if is_baked:
        remove(module)
    x = torch.randn(1, 1, 6, 6)
    model = sparsert.load(module, example_inputs=x, threads=1)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), module(x), rtol=1e-4, atol=1e-5)
    nonzeros = sum(record["nonzeros"] for record in model.explain().records)
    assert nonzeros == sum(np.count_nonzero(w) for w in weights(module).values())


@pytest.mark.parametrize("model", ["m.onnx", None, 3])
def test_what_is_no_module_is_refused(model):
    for options in ({}, {"sparsity": 0.5}):
        with pytest.raises(ValueError, match="expected a torch module or a Keras model"):
            sparsert.prune(model, **options)
