"""MultiheadAttention: in_proj_weight is pruned, masked, trained and exported as any weight."""

from __future__ import annotations

import pytest

import sparsert
from sparsert import prune
from sparsert.prune.calibration import visit_inputs
from sparsert.prune.criteria import CRITERIA, Job
from sparsert.prune.masking import prunable_layers, weight_of

torch = pytest.importorskip("torch")
nn = torch.nn
NAMES = ["attention.in_proj_weight", "attention.out_proj", "fc"]


class Attending(nn.Module):
    """Queries of x, keys and values of what lies beside it, or of x too."""

    def __init__(self, is_crossed=False, **options):
        super().__init__()
        self.is_crossed = is_crossed
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        beside = x.flip(1)[:, 1:] if self.is_crossed else x
        return self.fc(self.attention(x, beside, beside, need_weights=False)[0].mean(1))


X = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))
DATA = [(X, torch.tensor([0, 1, 2, 0]))]


def make(**options):
    torch.manual_seed(0)
    return Attending(**options).eval()


@pytest.mark.parametrize("method", CRITERIA)
def test_every_method_prunes_an_attention(method):
    for is_crossed in (False, True):
        module = make(is_crossed=is_crossed)
        report = prune.prune(module, method, sparsity=0.5, data=DATA, pattern="4x1")
        done = [layer.name for layer in report.layers if layer.zeros]
        assert done == ([] if CRITERIA[method].measures_channels else NAMES[:2]) + ["fc"]
        assert all(layer.sparsity == 0.5 for layer in report.layers[:2] if layer.zeros)
    if not CRITERIA[method].measures_channels:
        report = prune.prune(make(), method, sparsity=0.5, data=DATA, pattern="channel")
        assert report.layers[0].zeros == 0  # of queries, keys and values none goes by itself
    with pytest.raises(ValueError, match="recurrent layers and attentions cannot go one by one"):
        prune.prune(make(), sparsity={"attention": 0.5}, pattern="channel")


@pytest.mark.parametrize("is_crossed", [False, True])
def test_inputs_times_weights_are_queries_keys_and_values(is_crossed):
    module = make(is_crossed=is_crossed)
    layers = prunable_layers(module)
    assert list(layers) == NAMES
    seen = {}
    weights = {name: weight_of(layer) for name, layer in layers.items()}
    visit_inputs(Job(module, layers, weights, DATA), seen.__setitem__)
    rows = X.flatten(0, 1)
    beside = X.flip(1)[:, 1:].flatten(0, 1) if is_crossed else rows
    found = seen["attention.in_proj_weight"]
    torch.testing.assert_close(found[0], rows)
    torch.testing.assert_close(found[-1][: len(beside)], beside)
    assert not found[-1][len(beside) :].any()
    # What out_proj is multiplied with gives, through it, what the attention gives.
    mixed = seen["attention.out_proj"][0].unflatten(0, (4, 5))
    last = module.attention.out_proj
    torch.testing.assert_close(
        module.fc(nn.functional.linear(mixed, last.weight, last.bias).mean(1)), module(X)
    )
    torch.testing.assert_close(seen["fc"][0], last(mixed).mean(1))


def test_widths_of_keys_and_values_of_their_own():
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)
    layers = prunable_layers(module)
    assert list(layers) == ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj"]
    arguments = {"query": X, "key": X[..., :6], "value": X[..., :4]}
    report = prune.prune(module, "wanda", sparsity=0.5, data=[arguments])
    assert all(layer.sparsity == 0.5 for layer in report.layers)


def test_zeros_are_held_saved_and_exported(tmp_path):
    torch.manual_seed(0)
    module = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    prune.prune(module, "second-order", sparsity=0.5, data=[X])
    assert set(prune.masks(module)) == {"self_attn.in_proj_weight", "self_attn.out_proj"} | {
        *("linear1", "linear2"),
    }
    before = module.self_attn.in_proj_weight.detach().clone()
    head = nn.Sequential(module, nn.Flatten(), nn.Linear(40, 3))
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.05, weight_decay=0.1)
    prune.fine_tune(head, DATA, epochs=3, optimizer=optimizer)
    mask = prune.masks(module)["self_attn.in_proj_weight"]
    after = module.self_attn.in_proj_weight
    assert not after[~mask].any() and not torch.equal(after, before) and int(mask.sum()) == 96
    fresh = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    prune.load_state(fresh, module.state_dict())
    y = module.eval()(X).detach()
    torch.testing.assert_close(fresh(X), y)
    sparsert.convert(module, tmp_path / "m.sprt", example_inputs=X)
    prune.remove(module)
    torch.testing.assert_close(module(X), y)
    model = sparsert.load(tmp_path / "m.sprt", threads=1, strict=True)
    torch.testing.assert_close(model(X), y, rtol=1e-4, atol=1e-5)
    rows = [row for row in model.explain().to_dict()["rows"] if row.get("weights")]
    assert sum(row["weights"] - row["nonzeros"] for row in rows) == (4 * 64 + 2 * 128) // 2
