"""Masks: every optimizer, copies, state dicts, exports, shared weights, models pruned elsewhere."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import sparsert
from sparsert import prune

torch = pytest.importorskip("torch")
nn = torch.nn
F = nn.functional


class Mixed(nn.Module):
    """A grouped and a transposed convolution, an LSTM and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose1d(8, 8, 2, stride=2)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        y = torch.relu(self.up(torch.relu(self.conv(x))))
        return self.fc(self.lstm(y.transpose(1, 2))[0][:, -1])


X = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3])


def make_mixed(pattern="unstructured", sparsity=0.75):
    torch.manual_seed(0)
    module = Mixed().eval()
    prune.prune(module, sparsity=sparsity, pattern=pattern)
    return module


def zeros(module):
    from sparsert.prune.masking import prunable_layers, weight_of

    return {n: int((weight_of(p) == 0).sum()) for n, p in prunable_layers(module).items()}


OPTIMIZERS = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "SparseAdam", "Muon")  # for sparse gradients; below
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_survive_every_optimizer(name):
    module = make_mixed()
    before, held = module.fc.weight.detach().clone(), prune.masks(module)
    kind = getattr(torch.optim, name)
    extra = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    if name not in ("LBFGS", "Rprop", "Adafactor", "ASGD"):
        extra["weight_decay"] = 0.1
    optimizer = kind(module.parameters(), lr=0.05, **extra)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(module(X), Y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    assert not torch.equal(module.fc.weight, before)
    for layer, mask in held.items():
        part, _, parameter = layer.rpartition(".")
        weight = (
            getattr(module.get_submodule(part), parameter)
            if parameter.startswith("weight")
            else module.get_submodule(layer).weight
        )
        assert not weight[~mask].any() and bool(weight[mask].any())


def test_zeros_survive_muon():
    torch.manual_seed(0)  # it moves matrices only
    module = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))
    prune.prune(module, sparsity=0.75)
    before, held = module[0].weight.detach().clone(), prune.masks(module)
    optimizer = torch.optim.Muon(module.parameters(), lr=0.05, weight_decay=0.1)
    prune.fine_tune(module, [(X[:, :, 0], Y)], epochs=3, optimizer=optimizer)
    assert not torch.equal(module[0].weight, before)
    for name, mask in held.items():
        weight = module.get_submodule(name).weight
        assert not weight[~mask].any() and bool(weight[mask].any())


def test_state_dicts_and_copies_keep_them():
    module = make_mixed()
    y = module(X)
    clone = copy.deepcopy(module)
    fresh = Mixed().eval()
    prune.load_state(fresh, module.state_dict())
    for other in (clone, fresh):
        torch.testing.assert_close(other(X), y)
        prune.fine_tune(other, [(X, Y)], learning_rate=0.1)
        assert zeros(other) == zeros(module)
    prune.prune(clone, sparsity={"fc": 0.9}, pattern="channel")  # masks of its bias, too
    prune.remove(clone)
    torch.testing.assert_close(module(X), y)
    assert not prune.masks(clone) and prune.masks(module)
    plain = Mixed().eval()
    prune.remove(module)
    prune.load_state(plain, module.state_dict())
    torch.testing.assert_close(plain(X), y)
    assert prune.masks(plain) == {}
    with pytest.raises(RuntimeError, match="fc"):
        prune.load_state(nn.Sequential(), module.state_dict())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_masked_weights_keep_their_strides(layout):
    """Those of a mask made by matrices would go on to what is computed and exported."""
    module = nn.Conv2d(8, 8, 3).to(memory_format=layout)
    strides = module.weight.stride()
    prune.prune(module, sparsity=0.5, pattern="4x1")
    assert module.weight.stride() == strides
    prune.remove(module)
    assert module.weight.stride() == strides


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
def test_zeros_of_a_module_are_those_of_its_file(tmp_path):
    module = make_mixed("4x1", 0.5)
    expected = module(X).detach()
    program = torch.export.export(module, (X,))
    torch.testing.assert_close(program.module()(X), expected)
    path = tmp_path / "m.sprt"
    sparsert.convert(module, path, example_inputs=X)
    model = sparsert.load(path, threads=1, strict=True)
    torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-5)
    rows = [row for row in model.explain().to_dict()["rows"] if row.get("weights")]
    counted = sum(row["weights"] - row["nonzeros"] for row in rows)
    assert counted == sum(zeros(module).values()) > 0


class Tied(nn.Module):
    """An embedding, two linear layers and the output share one matrix."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 12)
        self.first = nn.Linear(12, 12)
        self.second = nn.Linear(12, 12)
        self.first.weight = self.second.weight = self.embed.weight

    def forward(self, x):
        return self.second(self.first(self.embed(x)))


def test_shared_weights_are_one_layer_and_zero_everywhere():
    torch.manual_seed(0)
    module = Tied()
    x, y = torch.arange(12), torch.arange(12)
    report = prune.prune(module, "gradient", sparsity=0.5, data=[(x, y)])
    assert [(layer.name, layer.zeros) for layer in report.layers] == [("first", 72)]
    assert report.parameters == 144 + 24
    first = prune.masks(module)["first"]
    prune.prune(module, "taylor", sparsity=0.75, data=[(x, y)])
    mask = prune.masks(module)["first"]
    assert int(mask.sum()) == 36 and not (mask & ~first).any()
    clone = copy.deepcopy(module)
    prune.fine_tune(clone, [(x, y)], learning_rate=0.1)
    for part in (clone.embed, clone.first, clone.second):
        assert torch.equal(part.weight, clone.embed.weight)
        assert not part.weight[~mask].any()
    fresh = Tied()
    prune.load_state(fresh, clone.state_dict())
    torch.testing.assert_close(fresh(x), clone(x))
    before = module(x)
    prune.remove(module)
    torch.testing.assert_close(module(x), before)
    assert module.first.weight is module.embed.weight is module.second.weight
    assert sum(p.numel() for p in module.parameters()) == 144 + 24
    with pytest.raises(ValueError, match="'second' has the weight of 'first': name that one"):
        prune.prune(module, sparsity={"second": 0.5})


def test_a_module_that_runs_twice_is_one_layer():
    layer = nn.Linear(6, 6)
    module = nn.Sequential(layer, nn.ReLU(), layer)
    report = prune.prune(module, "wanda", sparsity=0.5, data=[torch.randn(3, 6)])
    assert [entry.name for entry in report.layers] == ["0"]


def test_masks_of_torch_itself_must_come_off_first():
    from torch.nn.utils import prune as torch_prune

    module = nn.Sequential(nn.Linear(8, 8))
    torch_prune.l1_unstructured(module[0], "weight", 0.5)
    with pytest.raises(ValueError, match=r"weight of '0' is not a parameter .*prune.remove"):
        prune.prune(module, sparsity=0.75)
    torch_prune.remove(module[0], "weight")
    assert prune.prune(module, "random", sparsity=0.75).zeros == 48
    with pytest.raises(ValueError, match="no shape yet: run the module once"):
        prune.prune(nn.LazyLinear(3), sparsity=0.5)


def test_a_mask_on_top_of_another_parametrization():
    torch.manual_seed(0)
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)))
    prune.prune(module, sparsity=0.5)
    prune.fine_tune(module, [(torch.randn(4, 6), torch.tensor([0, 1, 2, 3]))], learning_rate=0.1)
    weight = module[0].weight.detach().clone()
    assert int((weight == 0).sum()) == 18
    with pytest.raises(ValueError, match="'0' has a parametrization besides its mask"):
        prune.prune(module, "second-order", sparsity=0.6, data=[torch.randn(4, 6)])
    prune.remove(module)
    np.testing.assert_array_equal(module[0].weight.detach(), weight)
