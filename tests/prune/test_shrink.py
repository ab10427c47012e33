"""Structured removal (S6): random, layer-wise, greedy; channels, heads and blocks go physically."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import sparsert
from sparsert import prune

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")
nn = torch.nn
F = nn.functional


@pytest.fixture(autouse=True)
def one_thread():
    """So small networks are no faster on more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Residual(nn.Module):
    """conv - block - conv - linear; the block adds its input."""

    def __init__(self, width=32, middle=32):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.block = Block(width, middle)
        self.wide = nn.Conv2d(width, 48, 3, stride=2)
        self.fc = nn.Linear(48 * 9, 10)

    def forward(self, x):
        y = self.block(torch.relu(self.stem(x)))
        return self.fc(torch.relu(self.wide(y)).flatten(1))


class Block(nn.Module):
    def __init__(self, width, middle):
        super().__init__()
        self.first = nn.Conv2d(width, middle, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(middle)
        self.second = nn.Conv2d(middle, width, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))


class Joined(nn.Module):
    """Concatenation, a depthwise, a grouped and a transposed convolution, and a GRU."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(3, 12, 3, padding=1)
        self.depthwise = nn.Conv1d(20, 20, 3, padding=1, groups=20)
        self.mix = nn.Conv1d(20, 16, 1)
        self.grouped = nn.Conv1d(16, 16, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose1d(16, 8, 2, stride=2)
        self.gru = nn.GRU(8, 6, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        y = self.depthwise(torch.relu(torch.cat([self.left(x), self.right(x)], 1)))
        y = torch.relu(self.up(self.grouped(torch.relu(self.mix(y)))))
        return self.fc(self.gru(y.transpose(1, 2))[0][:, -1])


class Attention(nn.Module):
    """Attention of linear layers, with a number of heads that it keeps."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(12, 32) for _ in range(3))
        self.mix = nn.Linear(32, 12)
        self.num_heads, self.all_head_size = 4, 32

    def forward(self, x):
        q, k, v = (
            part(x).view(len(x), -1, self.num_heads, 8).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.mix(y.reshape(len(x), -1, self.all_head_size))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.layer(self.embed(x)).mean(1))


def make(kind, seed=0):
    torch.manual_seed(seed)
    module = kind().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean)
            nn.init.uniform_(part.bias)
    return module


X = {
    Residual: torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
    Joined: torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0)),
    Attention: torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0)),
    Encoder: torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)),
}
DATA = [(X[Residual], torch.tensor([1, 2])), (X[Residual] + 1, torch.tensor([3, 4]))]


def group(report, name):
    return next(change for change in report.groups if change.name == name)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("method", ["random", "magnitude", "taylor", "apoz"])
def test_s6_layerwise_and_random_removal(method):
    module = make(Residual)
    report = prune.shrink(module, X[Residual], method, channels=0.5, data=DATA)
    assert module.block.first.weight.shape == (16, 16, 3, 3)
    assert module.block.norm.num_features == module.stem.out_channels == 16
    assert module.wide.weight.shape == (32, 16, 3, 3)  # 24 of 48, to the nearest multiple of 16
    assert module.fc.weight.shape == (10, 32 * 9)
    assert report.parameters == size(module) and report.parameters_before == size(make(Residual))
    assert group(report, "fc").reason == "left alone: they are the model's outputs"
    assert report.error < 1e-5
    if method == "magnitude":
        model = sparsert.load(module, example_inputs=X[Residual], strict=True, threads=1)
        torch.testing.assert_close(model(X[Residual]), module(X[Residual]), rtol=1e-4, atol=1e-5)
    losses = prune.fine_tune(module, DATA, epochs=3, learning_rate=1e-3)
    assert losses[-1] < losses[0]


def test_what_goes_is_the_least_important():
    module = make(Residual)
    stem, second = module.stem.weight, module.block.second.weight
    means = (stem.abs().mean((1, 2, 3)) + second.abs().mean((1, 2, 3))).detach()
    gone = sorted(means.argsort()[:16].tolist())
    kept = [i for i in range(32) if i not in gone]
    expected = stem[kept].detach()
    report = prune.shrink(module, X[Residual], channels={"stem": 0.5})
    change = group(report, "stem")
    assert change.gone == gone and change.makers == ["stem", "block.second"]
    assert change.readers == ["block.first", "wide"]
    torch.testing.assert_close(module.stem.weight.detach(), expected)
    assert change.highest_gone == pytest.approx(float(means[gone].max()))
    assert change.importance_kept == pytest.approx(float(means[kept].sum() / means.sum()))
    assert group(report, "wide").reason == "left alone: not named"
    text = str(report.explain())
    for part in ("16: ", "block.first", "the least of its group", "importance: magnitude"):
        assert part in text
    assert "stem + block.second" in str(report)
    assert report.to_dict()["rows"][0]["kept"] == change.kept


def test_greedy_removal_takes_what_the_loss_needs_least():
    module = make(Residual)
    with torch.no_grad():  # nothing depends on the middle of the block
        module.block.second.weight.zero_()
    before, near = size(module), (X[Residual], module(X[Residual]).detach())
    report = prune.shrink(
        module, X[Residual], parameters=0.1, strategy="greedy", data=[near], loss=F.mse_loss
    )
    assert report.sparsity >= 0.1 and size(module) == report.parameters < before
    assert [c.name for c in report.groups if c.gone] == ["block.first"]
    calls = []

    def evaluate(model):
        calls.append(1)
        return -float(model(X[Residual]).abs().sum())

    other = make(Residual)
    report = prune.shrink(
        other, X[Residual], parameters=0.5, strategy="greedy", evaluate=evaluate, align=8
    )
    assert len(calls) > 5 and 0.5 <= report.sparsity < 0.6
    assert all(change.kept % 8 == 0 for change in report.groups if change.gone)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_a_share_of_the_parameters(share):
    module = make(Residual)
    report = prune.shrink(module, X[Residual], parameters=share, align=2)
    assert share <= report.sparsity < share + 0.06
    assert report.parameters == size(module)
    with pytest.raises(ValueError, match=r"0.99 of the parameters cannot go, at most 0\.\d+"):
        prune.shrink(make(Residual), X[Residual], parameters=0.99)


def test_concatenations_groups_and_recurrent_readers():
    module = make(Joined)
    y = module(X[Joined])
    report = prune.shrink(module, X[Joined], channels=0.5, align=1)
    assert module.left.out_channels == 4 and module.right.out_channels == 6
    assert module.depthwise.groups == module.mix.in_channels == 10
    assert module.up.out_channels == module.gru.input_size == 4
    assert group(report, "mix").reason == "left alone: a grouped convolution (grouped)"
    assert module(X[Joined]).shape == y.shape and report.error < 1e-5
    assert report.parameters == size(module)
    model = sparsert.load(module, example_inputs=X[Joined], threads=1)
    torch.testing.assert_close(model(X[Joined]), module(X[Joined]), rtol=1e-4, atol=1e-5)


def test_heads_of_torchs_attention():
    module, x = make(Encoder), X[Encoder]
    attention = module.layer.self_attn
    with torch.no_grad():  # heads 1 and 3 are small: taking them out changes little
        for part in (1, 3, 5, 7, 9, 11):
            attention.in_proj_weight[part * 8 : part * 8 + 8] *= 1e-3
        attention.out_proj.weight[:, 8:16] = attention.out_proj.weight[:, 24:] = 0
    y = module(x).detach()
    report = prune.shrink(module, x, channels=0.5, exclude=["layer.linear1"])
    assert group(report, "layer.self_attn").gone == [1, 3]
    fewer = module.layer.self_attn
    assert fewer.in_proj_weight.shape == (48, 32) and fewer.out_proj.weight.shape == (32, 16)
    torch.testing.assert_close(module(x), y, rtol=1e-4, atol=1e-5)
    model = sparsert.load(module, example_inputs=x, strict=True, threads=1)
    torch.testing.assert_close(model(x), y, rtol=1e-4, atol=1e-5)
    again = prune.shrink(module, x, channels={"layer.self_attn": 0.5})
    assert again.parameters == size(module) and module.layer.self_attn.num_heads == 1
    prune.prune(module, "wanda", sparsity=0.5, data=[x])
    assert int((module.layer.self_attn.in_proj_weight == 0).sum()) == 24 * 32 // 2


def test_fewer_heads_compute_what_torch_does():
    from sparsert.prune.attention import FewerHeads

    torch.manual_seed(0)
    for batch_first in (True, False):
        full = nn.MultiheadAttention(12, 3, batch_first=batch_first).eval()
        with torch.no_grad():
            full.out_proj.weight[:, 4:8] = 0  # what head 1 gives is not read
            nn.init.uniform_(full.in_proj_bias)
        fewer = FewerHeads(full, [0, 2])
        q, k = (torch.randn(n, 2, 12) for n in (4, 5))
        if batch_first:
            q, k = q.transpose(0, 1), k.transpose(0, 1)
        every = torch.randn(6, 4, 5).relu()
        padding = torch.tensor([[False] * 5, [True] + [False] * 4])
        for options in (
            {},
            {"need_weights": False},
            {"attn_mask": torch.ones(4, 5, dtype=torch.bool).triu(2)},
            {"attn_mask": every, "need_weights": False},
            {"attn_mask": every, "key_padding_mask": padding.float() * -1e9},
            {"key_padding_mask": padding, "need_weights": False},
        ):
            wanted, _ = full(q, k, k, **options)
            found, shares = fewer(q, k, k, **options)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
            assert shares is None or shares.shape == (2, 4, 5)
        one = fewer(q[0], k[0], k[0])[0]
        torch.testing.assert_close(one, full(q[0], k[0], k[0])[0], rtol=1e-4, atol=1e-5)


def test_heads_of_linear_layers_go_whole():
    module, x = make(Attention), X[Attention]
    report = prune.shrink(module, x, channels=0.5, align=4, head_sizes={"query": 8})
    gone = np.reshape(group(report, report.groups[0].name).gone, (2, 8))
    assert (gone == gone[:, :1] + np.arange(8)).all() and (gone[:, 0] % 8 == 0).all()
    assert module.key.out_features == module.mix.in_features == module.all_head_size == 16
    assert module.num_heads == 2 and module(x).shape == x.shape
    module = make(Attention)
    with pytest.raises(ValueError, match=r"nothing can go[\s\S]*does not run without it"):
        prune.shrink(module, x, channels=0.5, align=1)
    assert module.num_heads == 4 and module.key.out_features == 32


def test_masks_and_flags_are_held_on():
    module = make(Residual)
    prune.prune(module, sparsity=0.75)
    module.stem.bias.requires_grad_(False)
    module.train()
    report = prune.shrink(module, X[Residual], channels=0.5)
    assert module.training and not module.stem.bias.requires_grad
    assert module.wide.weight.requires_grad
    held = prune.masks(module)
    assert set(held) == {"stem", "block.first", "block.second", "wide", "fc"}
    assert held["block.first"].shape == (16, 16, 3, 3)
    prune.fine_tune(module, DATA, learning_rate=0.1)
    for name, mask in held.items():
        assert not module.get_submodule(name).weight[~mask].any()
    assert report.parameters < report.parameters_before


def test_channels_of_zeros_change_no_output():
    module = make(Residual)
    prune.prune(module, sparsity={"wide": 0.25, "stem": 0.5}, pattern="channel")
    prune.remove(module)
    with torch.no_grad():
        module.block.second.weight[:, 5:9] = 0  # nobody reads the channels 5 to 8 of the first
    y = module(X[Residual]).detach()
    report = prune.shrink_zeros(module, X[Residual])
    assert group(report, "wide").kept == module.wide.out_channels == 36
    assert group(report, "block.first").gone == [5, 6, 7, 8]
    assert group(report, "stem").gone == []  # the block still adds to the stem's zeros
    torch.testing.assert_close(module(X[Residual]), y, rtol=1e-5, atol=1e-6)
    assert report.error < 1e-6 and size(module) == report.parameters
    module = make(Residual)
    prune.prune(module, sparsity={"block.first": 0.5}, pattern="channel")
    report = prune.shrink_zeros(module, X[Residual])
    assert "constants behind a norm" in group(report, "block.first").reason
    assert module.block.first.out_channels == 32
    module = make(Residual)
    prune.prune(module, sparsity={"wide": 0.25}, pattern="channel")
    prune.shrink_zeros(module, X[Residual], align=16)
    assert module.wide.out_channels == 48  # 36 are not a multiple of 16
    assert set(prune.masks(module)) == {"wide", "wide.bias"}


class Deep(nn.Module):
    """Three blocks, the second of which does nothing."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(8, 8) for _ in range(3)))
        self.plain = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.plain(self.blocks(torch.relu(self.stem(x)))).mean((2, 3)))


def test_whole_blocks_go_where_that_costs_least():
    module = make(Deep)
    with torch.no_grad():
        module.blocks[1].second.weight *= 1e-6
        module.blocks[1].second.bias.zero_()
    y = module(X[Residual]).detach()
    data = {"data": [(X[Residual], y)], "loss": F.mse_loss}
    for options in (data, {"method": "magnitude"}, {"evaluate": score_against(y)}):
        shrunk = copy.deepcopy(module)
        report = prune.skip_blocks(shrunk, X[Residual], 1, **options)
        assert [c.name for c in report.groups] == ["blocks.0", "blocks.1", "blocks.2"]
        assert [c.name for c in report.groups if c.gone] == ["blocks.1"]
        torch.testing.assert_close(shrunk(X[Residual]), y, rtol=1e-4, atol=1e-4)
        assert report.parameters == size(shrunk) == size(module) - size(module.blocks[0])
    assert "score" in str(report.explain())
    prune.skip_blocks(shrunk, X[Residual], 1, data=DATA, exclude=["blocks.0"])
    assert size(shrunk.blocks[2]) == 0 and size(shrunk.blocks[0]) > 0
    encoder = make(Encoder)
    prune.skip_blocks(encoder, X[Encoder], 1, method="random")
    sparsert.load(encoder, example_inputs=X[Encoder], strict=True)
    for options, message in (
        ({"data": DATA}, "count is 4, but 3 residual blocks can be skipped"),
        ({"data": DATA, "exclude": ["plain"]}, "no residual block 'plain'; the module has blocks"),
        ({}, "give data, evaluate or a method"),
        ({"method": "wanda"}, "'wanda' needs data"),
    ):
        with pytest.raises(ValueError, match=message):
            prune.skip_blocks(make(Deep), X[Residual], 4, **options)


def score_against(y):
    return lambda model: -float((model(X[Residual]) - y).abs().max())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either channels or parameters"),
        ({"channels": 0.5, "parameters": 0.5}, "either channels or parameters"),
        ({"channels": 1.0, "align": 0}, r"channels is 1.0[\s\S]*align is 0"),
        ({"channels": {"stem": 2}}, "stem is 2, expected"),
        ({"channels": {"fc": 0.5}}, "'fc' cannot shrink: they are the model's outputs"),
        ({"channels": {"steam": 0.5}}, "no layer 'steam'; those with channels or heads: block"),
        ({"channels": 0.5, "exclude": ["x"]}, "no layer 'x'"),
        ({"channels": 0.5, "method": "wand"}, "method is 'wand'"),
        ({"channels": 0.5, "method": "wanda"}, "'wanda' needs data"),
        ({"channels": 0.5, "strategy": "best"}, "strategy is 'best', expected one of layerwise"),
        ({"channels": 0.5, "strategy": "greedy"}, r"takes parameters[\s\S]*needs data or evaluate"),
        ({"parameters": 0.5, "strategy": "greedy", "data": []}, "data is empty"),
        ({"channels": 0.5, "align": 64}, r"nothing can go[\s\S]*fewer than 2 x 64 channels"),
        (
            {"parameters": 0.1, "strategy": "greedy", "evaluate": lambda _m: float("nan")},
            "evaluate returned nan",
        ),
    ],
)
def test_bad_options_leave_the_module_alone(options, message):
    module = make(Residual)
    prune.prune(module, sparsity=0.5)
    state = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=message):
        prune.shrink(module, X[Residual], **options)
    assert state.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name])


def test_modules_that_cannot_shrink_say_why():
    with pytest.raises(ValueError, match=r"nothing can go[\s\S]*weights of first, second are shar"):
        prune.shrink(Tied(), torch.randn(2, 32), channels=0.5)
    normed = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.Linear(32, 4))
    with pytest.raises(ValueError, match=r"a norm over all channels \(1\)"):
        prune.shrink(normed, torch.randn(2, 32), channels=0.5)
    nn.utils.parametrizations.weight_norm(normed[0])
    with pytest.raises(ValueError, match="0 have parametrizations besides masks"):
        prune.shrink(normed, torch.randn(2, 32), channels=0.5)
