"""Patterns and scopes: what goes together, exact shares, and what cannot be reached."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sparsert import prune
from sparsert.prune.masking import PrunableLayer
from sparsert.prune.patterns import to_matrices

torch = pytest.importorskip("torch")
nn = torch.nn

LAYERS = {
    "linear": lambda: nn.Linear(13, 10),
    "conv": lambda: nn.Conv2d(8, 12, 3, groups=2),
    "transposed": lambda: nn.ConvTranspose1d(9, 8, 3),
    "one": lambda: nn.Linear(1, 17),
}


def views(module, mask):
    return to_matrices(PrunableLayer(module), mask).numpy()


@pytest.mark.parametrize(("rows", "columns"), [(4, 1), (8, 1), (1, 4), (1, 16), (2, 1)])
@pytest.mark.parametrize("layer", LAYERS)
def test_blocks_are_whole_and_the_least_go(layer, rows, columns):
    torch.manual_seed(0)
    module = LAYERS[layer]()
    size = views(module, module.weight.detach().abs())
    report = prune.prune(nn.Sequential(module), sparsity=0.6, pattern=f"{rows}x{columns}")
    mask = views(module, prune.masks(nn.Sequential(module))["0"])
    means = {}
    for group, row, tap, column in itertools.product(
        range(mask.shape[0]),
        range(0, mask.shape[1], rows),
        range(mask.shape[2]),
        range(0, mask.shape[3], columns),
    ):
        place = np.s_[group, row : row + rows, tap, column : column + columns]
        assert mask[place].all() or not mask[place].any()
        means.setdefault(bool(mask[place].all()), []).append(size[place].mean())
    assert max(means.get(False, [0])) <= min(means[True])
    assert abs(report.zeros - 0.6 * mask.size) <= rows * columns / 2 + 0.5 or layer == "one"


def test_blocks_of_input_channels_lie_at_one_tap():
    conv = nn.Conv2d(4, 1, 2)
    with torch.no_grad():
        conv.weight.copy_(1 + torch.arange(4.0).reshape(1, 1, 2, 2).expand(1, 4, 2, 2))
    prune.prune(nn.Sequential(conv), sparsity=0.5, pattern="1x4")
    expected = np.broadcast_to([[False, False], [True, True]], (1, 4, 2, 2))
    np.testing.assert_array_equal(conv.weight.detach() != 0, expected)


@pytest.mark.parametrize("layer", LAYERS)
def test_n_of_m(layer):
    module = LAYERS[layer]()
    size = views(module, module.weight.detach().abs())
    prune.prune(nn.Sequential(module), pattern="2:4")
    mask = views(module, prune.masks(nn.Sequential(module))["0"])
    for first in range(0, mask.shape[3], 4):
        here, sizes = mask[..., first : first + 4], size[..., first : first + 4]
        assert (here.sum(3) == min(2, here.shape[3])).all()
        lost = np.where(here, 0, sizes).max(3)
        assert (lost <= np.where(here, sizes, np.inf).min(3)).all()


def test_channels_go_with_their_biases_and_the_last_layer_stays():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 4, 1))
    model.append(nn.LSTM(5, 3)).append(nn.Linear(3, 4))
    report = prune.prune(model, sparsity=0.5, pattern="channel")
    assert [layer.sparsity for layer in report.layers] == [0.5, 0.5, 0, 0, 0]
    x = torch.randn(1, 2, 5)
    assert (model[0](x)[0].abs().sum(1) == 0).sum() == 3, "such a channel gives zeros"
    prune.remove(model)
    assert (model[0].bias == 0).sum() == 3
    with pytest.raises(ValueError, match=r"recurrent layers .*cannot go one by one: 3\.weight_ih"):
        prune.prune(model, sparsity={"3": 0.5}, pattern="channel")
    report = prune.prune(model, sparsity={"4": 0.25}, pattern="channel")
    assert report.layers[-1].zeros == 3


def test_the_scope_row_gives_every_row_its_share():
    torch.manual_seed(0)
    layer = nn.Linear(10, 4)
    with torch.no_grad():
        layer.weight[0] *= 0.01
    prune.prune(nn.Sequential(layer), sparsity=0.7, scope="row")
    assert (layer.weight == 0).sum(1).tolist() == [7, 7, 7, 7]


def test_a_global_target_leaves_no_layer_empty():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    with torch.no_grad():
        model[0].weight *= 1e-6
    report = prune.prune(model, sparsity=0.9, scope="global")
    assert [layer.weights - layer.zeros for layer in report.layers] == [1, 4]


@pytest.mark.parametrize("pattern", ["unstructured", "4x1", "1x4", "channel", "2:4"])
@pytest.mark.parametrize("method", prune.METHODS)
def test_every_method_takes_every_pattern_and_scope(method, pattern):
    torch.manual_seed(0)
    data = [(torch.randn(4, 4, 5, 5), torch.tensor([0, 1, 2, 0]))]
    for scope in prune.SCOPES:
        model = nn.Sequential(
            nn.Conv2d(4, 8, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(72, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
        )
        sparsity = None if pattern == "2:4" else 0.5
        if (pattern == "channel" and scope == "row") or (pattern == "2:4" and scope == "global"):
            with pytest.raises(ValueError, match=r"scope=.row.|of its own"):
                prune.prune(model, method, sparsity=sparsity, pattern=pattern, scope=scope)
            continue
        report = prune.prune(
            model, method, sparsity=sparsity, pattern=pattern, scope=scope, data=data
        )
        named = {e.name for e in report.explanations}
        assert named == ({"0", "3"} if pattern == "channel" else {"0", "3", "5"})
        chosen = [layer for layer in report.layers if layer.name in named]
        share = sum(layer.zeros for layer in chosen) / sum(layer.weights for layer in chosen)
        assert share == pytest.approx(0.5, abs=0.05)


def test_targets_out_of_reach_name_the_nearest():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"0.97 of '0' .*0.9167 can be reached[\s\S]*'1'.*0.8333"):
        prune.prune(model, sparsity=0.97)
    with pytest.raises(ValueError, match=r"some rows; 0.75 can be reached"):
        prune.prune(model, sparsity={"0": 0.95}, scope="row")
    with pytest.raises(ValueError, match=r"over all layers .* 0.8889 can be reached"):
        prune.prune(model, sparsity=0.95, scope="global")
    with pytest.raises(ValueError, match=r"'0' would leave nothing of the layer; 0.6667"):
        prune.prune(model, sparsity=0.9, pattern="channel")
    with pytest.raises(ValueError, match=r"always leaves 0.5: leave it out"):
        prune.prune(model, sparsity=0.9, pattern="2:4")
    assert prune.masks(model) == {}


@pytest.mark.parametrize("name", ["3x1", "4x4", "0x1", "4:2", "rows", "1x32", 7])
def test_unknown_patterns(name):
    with pytest.raises(ValueError, match=r"pattern is .*unstructured, channel, Rx1"):
        prune.prune(nn.Linear(4, 4), sparsity=0.5, pattern=name)


def test_zeros_that_are_there_count_and_stay_whatever_the_method():
    torch.manual_seed(0)
    layer = nn.Linear(10, 10)
    model = nn.Sequential(layer)
    with torch.no_grad():
        layer.weight[:3] = 0
    for method, pattern in (("random", "unstructured"), ("random", "4x1"), ("magnitude", "1x2")):
        prune.prune(model, method, sparsity=0.5, pattern=pattern, seed=1)
        assert not layer.weight[:3].any()
        assert int((layer.weight == 0).sum()) == pytest.approx(50, abs=2)
        prune.remove(model)


def test_the_explanation_says_what_went():
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1, 2, 3, 4], [0, 5, 6, 7], [0.1, 0.2, 0.3, 9]]))
    report = prune.prune(nn.Sequential(layer), threshold=3.5)
    (found,) = report.explanations
    assert (found.weights, found.zero_before, found.dropped) == (12, 1, 6)
    assert found.importance_kept == pytest.approx(31 / 37.6)
    assert (found.highest_dropped, found.lowest_kept) == (3, 4)
    assert sum(found.before) == 11 and sum(found.after) == 5
    assert all(a in (0, b) for a, b in zip(found.after, found.before, strict=True))
    assert found.edges[0] == pytest.approx(0.1) and found.edges[-1] == 9
    assert found.dead_inputs == [0] and found.dead_outputs == []
    text = str(report.explain())
    for part in ("importance: magnitude", "in each layer", "82.45 %", "pattern unstructured"):
        assert part in text
    assert report.explain().to_dict()["rows"][0]["dropped"] == 6
    assert report.to_dict()["explanations"][0]["lowest_kept"] == 4
