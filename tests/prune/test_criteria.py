"""Criteria against their formulas, on the worked example S9 of the article and on odd layers."""

from __future__ import annotations

import numpy as np
import pytest

from sparsert import prune
from sparsert.prune.criteria import CRITERIA, Job
from sparsert.prune.selection import measure

torch = pytest.importorskip("torch")
nn = torch.nn
F = nn.functional

# S9: three inputs, four hidden neurons with ReLU, two outputs; all biases are 0.
W1 = [[0.5, -0.1, 0.3], [0.15, 0.4, -0.6], [-0.2, 0.7, 0.05], [0.5, -0.35, 0.1]]
W2 = [[0.8, -0.14, 0.3, 0.0625], [-0.4, 0.1, 0.25, 0.5]]
X = [[1.0, 2.0, 1.0]]
# Hidden sums: 0.6, 0.35, 1.25, -0.1: the fourth neuron is at rest.
HIDDEN = [0.6, 0.35, 1.25, 0.0]


def worked_example():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        for layer, weight in ((model[0], W1), (model[2], W2)):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.zero_()
    return model.eval()


def total(outputs, targets):
    """L = sum over outputs of (y - target)."""
    return (outputs - targets).sum()


EXAMPLE_DATA = [(torch.tensor(X), torch.zeros(1, 2))]


def test_s9_weights_above_the_threshold_stay():
    model = worked_example()
    report = prune.prune(model, threshold=0.2)
    np.testing.assert_array_equal(
        model[0].weight.detach() != 0, [[1, 0, 1], [0, 1, 1], [0, 1, 0], [1, 1, 0]]
    )
    np.testing.assert_array_equal(model[2].weight.detach() != 0, [[1, 0, 1, 0], [1, 0, 1, 1]])
    assert (report.zeros, report.weights) == (5 + 3, 12 + 8)
    assert report.compression_ratio == pytest.approx(26 / 18)  # 20 weights, 6 biases
    # Hidden: 0.5 + 0.3, 0.8 - 0.6, 1.4, 0 (-0.2 before ReLU).
    expected = [[0.8 * 0.8 + 0.3 * 1.4, -0.4 * 0.8 + 0.25 * 1.4]]
    np.testing.assert_allclose(model(torch.tensor(X)).detach(), expected, rtol=1e-5)


def test_s9_gradients():
    # dL/da = column sums of W2: 0.4, -0.04, 0.55, 0.5625. dL/dW2[i, j] = a[j];
    # dL/dW1[j, k] = dL/da[j] x[k], where the neuron is not at rest.
    slopes = np.outer([0.4, 0.04, 0.55, 0], X[0])
    model = worked_example()
    prune.prune(model, "gradient", threshold=0.1, data=EXAMPLE_DATA, loss=total)
    np.testing.assert_array_equal(model[0].weight.detach() != 0, slopes > 0.1)
    np.testing.assert_array_equal(model[2].weight.detach() != 0, [np.array(HIDDEN) > 0.1] * 2)
    model = worked_example()
    report = prune.prune(
        model, "gradient", relative_threshold=0.5, data=EXAMPLE_DATA, loss=total, exclude=["2"]
    )
    np.testing.assert_array_equal(model[0].weight.detach() != 0, slopes > 0.5 * slopes.mean())
    assert report.layers[0].zeros == 6


def test_s9_neurons_by_gradient_and_by_sensitivity():
    model = worked_example()
    report = prune.prune(model, "activation-gradient", threshold=0.1, data=EXAMPLE_DATA, loss=total)
    # The second neuron's gradient is 0.04; the fourth, at rest, has 0.5625: it would matter.
    assert report.explanations[0].dead_outputs == [1]
    np.testing.assert_array_equal(prune.masks(model)["0.bias"], [True, False, True, True])
    model = worked_example()
    report = prune.prune(model, "activation-sensitivity", threshold=0.1, data=EXAMPLE_DATA)
    # Mean of abs(W1) in a row: 0.3, 0.383, 0.317; 0 at rest.
    assert report.explanations[0].dead_outputs == [3]
    scores = measure("activation-sensitivity", job_of(worked_example(), EXAMPLE_DATA))["0"]
    np.testing.assert_allclose(scores.mean(1), [0.3, 1.15 / 3, 0.95 / 3, 0], rtol=1e-5)


def job_of(model, data, loss=None):
    from sparsert.prune.masking import prunable_layers, weight_of

    layers = prunable_layers(model)
    return Job(model, layers, {n: weight_of(layer) for n, layer in layers.items()}, data, loss)


def make_cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 9, 3),
    )


def make_batches(sizes=(5, 3)):
    torch.manual_seed(1)
    return [(torch.randn(n, 2, 5, 5), torch.randint(3, (n,))) for n in sizes]


def test_gradients_of_batches_weigh_by_their_samples():
    model, batches = make_cnn(), make_batches()
    slopes = []
    model.eval()
    for x, y in batches:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        slopes.append(model[0].weight.grad.clone())
    weight = model[0].weight.detach()
    model.zero_grad(set_to_none=True)
    model.train()
    mean = (5 * slopes[0].abs() + 3 * slopes[1].abs()) / 8
    joined = (5 * slopes[0] + 3 * slopes[1]) / 8
    job = job_of(model, batches)
    torch.testing.assert_close(measure("gradient", job)["0"], mean)
    torch.testing.assert_close(measure("taylor", job)["0"], mean * weight.abs())
    snip = measure("snip", job)
    assert sum(float(score.sum()) for score in snip.values()) == pytest.approx(1)
    ratio = snip["0"] / (joined * weight).abs()
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio.mean())))
    assert model.training and all(p.grad is None for p in model.parameters())


def test_masked_entries_have_gradients_too():
    model, batches = make_cnn(), make_batches()
    prune.prune(model, sparsity=0.5)
    model[0].requires_grad_(False)
    scores = measure("gradient", job_of(model, batches))["0"]
    assert (scores[~prune.masks(model)["0"]] > 0).all()
    assert not model[0].parametrizations.weight.original.requires_grad


def test_activations_are_those_behind_norm_and_relu():
    model, batches = make_cnn().eval(), make_batches()
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([3.0, -3.0, 0.2, 0.0]))
        a = torch.cat([model[:3](x) for x, _ in batches])
    job = job_of(model, batches)
    apoz = CRITERIA["apoz"].measure(job)
    torch.testing.assert_close(apoz["0"], (a > 0).float().mean((0, 2, 3)))
    slopes = []
    for x, y in batches:
        h = model[:3](x).detach().requires_grad_(True)
        slopes.append(torch.autograd.grad(F.cross_entropy(model[3:](h), y) * len(x), h)[0])
    expected = torch.cat(slopes).abs().mean((0, 2, 3))
    torch.testing.assert_close(CRITERIA["activation-gradient"].measure(job)["0"], expected)


def test_sensitivity_is_the_jacobian():
    model, batches = make_cnn().eval(), make_batches((2, 1))
    found = CRITERIA["activation-sensitivity"].measure(job_of(model, batches))
    x = torch.cat([x for x, _ in batches])
    slopes = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda v: model[:3](v).mean((2, 3))[0], x[i : i + 1])
            for i in range(3)
        ]
    )
    torch.testing.assert_close(found["0"], slopes.abs().mean((0, 2, 3, 4, 5)))


LAYERS = {
    "linear": (nn.Linear(6, 5), (3, 2, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (2, 4, 11)),
    "conv2d-same": (nn.Conv2d(2, 3, (3, 2), padding="same", padding_mode="circular"), (2, 2, 5, 4)),
    "conv3d": (nn.Conv3d(2, 2, 2, padding=1, groups=2), (1, 2, 3, 4, 3)),
    "unbatched": (nn.Conv2d(2, 3, 3), (2, 5, 6)),
    "transposed1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7)),
    "transposed2d": (
        nn.ConvTranspose2d(
            2, 3, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), dilation=(2, 1)
        ),
        (2, 2, 4, 3),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_inputs_times_weights_are_the_outputs(name):
    from sparsert.prune.layer_inputs import columns_of
    from sparsert.prune.masking import PrunableLayer
    from sparsert.prune.patterns import from_matrices, to_matrices

    layer, shape = LAYERS[name]
    torch.manual_seed(0)
    x = torch.randn(shape)
    place = PrunableLayer(layer)
    matrices = to_matrices(place, layer.weight.detach())
    assert torch.equal(from_matrices(place, matrices, layer.weight.shape), layer.weight)
    rows = columns_of(layer, x) @ matrices.flatten(2).transpose(1, 2)  # [groups, n, rows]
    y = layer(x).detach()
    if name == "linear":
        expected = (y - layer.bias.detach()).flatten(0, -2)
    else:
        bias = layer.bias.detach().reshape(-1, *[1] * (layer.weight.ndim - 2))
        y = y if y.ndim == layer.weight.ndim else y[None]
        expected = (y - bias).flatten(2).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(rows.transpose(0, 1).flatten(1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_inputs_of_recurrent_layers(kind):
    from sparsert.prune.layer_inputs import recurrent_inputs

    torch.manual_seed(0)
    module = kind(3, 4, 2, bidirectional=True, batch_first=True)
    x, state = torch.randn(2, 5, 3), torch.randn(4, 2, 4)
    state = (state, torch.randn(4, 2, 4)) if kind is nn.LSTM else state
    y = module(x, state)[0].detach().transpose(0, 1)
    found = recurrent_inputs(module, (x,), {"hx": state})
    assert set(found) == {n for n, _ in module.named_parameters() if n.startswith("weight")}
    torch.testing.assert_close(found["weight_hh_l1"][1:], y[:-1, :, :4])
    torch.testing.assert_close(found["weight_hh_l1_reverse"][1:], y.flip(0)[:-1, :, 4:])
    first = state[0] if kind is nn.LSTM else state
    torch.testing.assert_close(found["weight_hh_l1"][0], first[2])
    assert found["weight_ih_l1"].shape == (5, 2, 8)


def test_wanda_is_weight_times_norm_of_its_input():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.LSTM(5, 3))
    x = torch.randn(4, 2, 6)
    job = job_of(model, [x[:3], x[3:]])
    scores = measure("wanda", job)
    norm = x.flatten(0, 1).norm(dim=0)
    torch.testing.assert_close(scores["0"], model[0].weight.detach().abs() * norm)
    hidden = model[0](x).detach()
    expected = model[1].weight_ih_l0.detach().abs() * hidden.flatten(0, 1).norm(dim=0)
    torch.testing.assert_close(scores["1.weight_ih_l0"], expected)


def test_second_order_is_the_error_after_the_best_repair():
    from sparsert.prune.reconstruction import damped_grams

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 2, bias=False))
    x = torch.randn(40, 5) @ torch.randn(5, 5)
    job = job_of(model, [x])
    gram = damped_grams(job)["0"][0].double()
    weight = job.weights["0"].double()
    scores = measure("second-order", job)["0"]
    for row, column in ((0, 1), (1, 4)):
        kept = [i for i in range(5) if i != column]
        w = weight[row]
        v = torch.zeros(5, dtype=torch.float64)
        v[kept] = torch.linalg.solve(gram[kept][:, kept], gram[kept] @ w)
        error = float((w - v) @ gram @ (w - v))
        assert float(scores[row, column]) == pytest.approx(error, rel=1e-3)
    prune.prune(model, "second-order", sparsity=0.4, data=[x])
    after = model[0].weight.detach().double()
    for row in range(2):
        kept = after[row].nonzero().flatten()
        best = torch.linalg.solve(gram[kept][:, kept], gram[kept] @ weight[row])
        torch.testing.assert_close(after[row][kept], best, rtol=1e-3, atol=1e-4)


def test_any_method_can_reconstruct():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2))
    x = torch.randn(8, 3, 9, 9)
    y = model(x)
    errors = {}
    for repairs in (False, True):
        copied = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2))
        copied.load_state_dict(model.state_dict())
        prune.prune(copied, sparsity=0.5, data=[x], reconstruct=repairs)
        errors[repairs] = float((copied(x) - y).detach().norm())
        assert all(layer.sparsity == 0.5 for layer in prune.prune(copied, sparsity=0.1).layers)
    assert errors[True] < 0.9 * errors[False]


def test_random_depends_on_the_seed_alone():
    masks = []
    for seed in (0, 0, 1):
        model = make_cnn()
        prune.prune(model, "random", sparsity=0.5, seed=seed)
        masks.append(prune.masks(model)["5"])
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_a_method_of_ones_own():
    @prune.register("small-index")
    def small_index(job):
        return {n: torch.arange(w.numel()).reshape(w.shape) for n, w in job.weights.items()}

    try:
        model = make_cnn()
        prune.prune(model, "small-index", sparsity=0.25)
        assert prune.masks(model)["5"].flatten().nonzero().min() == 27
        with pytest.raises(ValueError, match="a method 'small-index' already"):
            prune.register("small-index")(small_index)
    finally:
        del CRITERIA["small-index"]


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize("method", [name for name, c in CRITERIA.items() if c.needs != "nothing"])
def test_bad_data_of_every_method(method):
    batches = [(torch.randn(2, 4), torch.tensor([0, 2]))]
    for data, message in (
        (None, f"method '{method}' needs data"),
        ([], "data is empty"),
        (iter(()), "data is empty"),
        (["text"], "a batch is a str"),
        (batches, "does not reach: unused; exclude them"),
    ):
        model = Unused()
        with pytest.raises(ValueError, match=message):
            prune.prune(model, method, sparsity={"used": 0.5, "unused": 0.5}, data=data)
        assert prune.masks(model) == {}
    model = Unused()
    bad = [(torch.full((2, 4), torch.nan), torch.tensor([0, 2]))]
    with pytest.raises(ValueError, match=r"nan|not finite: used"):
        prune.prune(model, method, sparsity={"used": 0.5}, data=batches + bad)
    assert prune.masks(model) == {} and model.training


def test_losses_and_inputs_that_do_not_fit():
    model, x = worked_example(), torch.tensor(X)
    for data, loss, message in (
        ([x], None, "has no targets"),
        ([(x, x)], lambda y, t: y, r"the loss has shape \[1, 2\]"),
        ([(x, x)], lambda y, t: (y / 0).sum(), "the loss is"),
        ([(x, x)], lambda y, t: ((y - y.detach()) ** 0.5).sum(), "gradients of batch 0 .* not fin"),
    ):
        with pytest.raises(ValueError, match=message):
            prune.prune(model, "gradient", sparsity=0.5, data=data, loss=loss)
    embedding = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="no input of floats"):
        prune.prune(embedding, "activation-sensitivity", sparsity=0.5, data=[torch.tensor([[1]])])


class Named(nn.Module):
    """Takes keywords and returns its loss, as models of some libraries do."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, values, labels):
        return {"loss": F.cross_entropy(self.fc(values), labels)}


def test_batches_of_keywords():
    model = Named()
    batch = {"values": torch.randn(6, 4), "labels": torch.randint(3, (6,))}
    assert prune.prune(model, "taylor", sparsity=0.5, data=[batch]).zeros == 6
    before = model.fc.weight.detach().clone()
    prune.fine_tune(model, [batch], learning_rate=0.1)
    assert not torch.equal(before, model.fc.weight)
