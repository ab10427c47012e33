"""Schedules: when weights go, where zeros move to, and batch norms measured anew."""

from __future__ import annotations

import itertools

import pytest

from sparsert import prune

torch = pytest.importorskip("torch")
nn = torch.nn
F = nn.functional

X = torch.randn(16, 20, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 4


def make_module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 4))


def zeros(module, layer=0):
    return int((module[layer].weight == 0).sum())


def test_the_cubic_schedule_follows_its_formula_in_any_loop():
    module = make_module()
    schedule = prune.Gradual(module, sparsity=0.9, begin=2, end=10, every=4, initial=0.2)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    counts = []
    for _ in range(14):
        optimizer.zero_grad()
        F.cross_entropy(module(X), Y).backward()
        optimizer.step()
        schedule.step()
        counts.append(zeros(module))
    half = 0.9 + (0.2 - 0.9) * (1 - 4 / 8) ** 3
    steps = [0] * 2 + [160] * 4 + [round(800 * half)] * 4 + [720] * 4
    assert counts == steps
    assert schedule.finished and len(schedule.reports) == 3


def test_shapes_of_schedules():
    module = make_module()
    for shape, middle in (("cubic", 0.75 * 0.875), ("linear", 0.375), ("geometric", 0.5)):
        schedule = prune.Gradual(module, sparsity=0.75, end=8, shape=shape)
        assert schedule.sparsity_at(4) == pytest.approx(middle)
        assert (schedule.sparsity_at(0), schedule.sparsity_at(8)) == pytest.approx((0, 0.75))
    schedule = prune.Gradual(module, sparsity={"0": 0.5, "2": 0.75}, end=8, shape="linear")
    assert schedule.sparsity_at(4) == {"0": 0.25, "2": 0.375}
    schedule = prune.Gradual(module, sparsity=0.5, end=3, every=10)
    prune.fine_tune(module, [(X, Y)] * 4, after_batch=schedule.step)
    assert zeros(module) == 400, "the last pruning comes whatever `every` is"


def test_iterative_pruning_takes_the_same_share_each_round():
    module = make_module()
    seen = []
    reports = prune.iterative(
        module,
        lambda number: seen.append((number, zeros(module))),
        sparsity=0.875,
        rounds=3,
        method="taylor",
        data=[(X, Y)],
    )
    assert seen == [(0, 400), (1, 600), (2, 700)]
    assert reports[-1].sparsity == pytest.approx(0.875)


@pytest.mark.parametrize("pattern", ["unstructured", "4x1"])
def test_regrowth_moves_zeros_to_the_greatest_gradients(pattern):
    module = make_module()
    prune.prune(module, "random", sparsity=0.75, pattern=pattern)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    rigl = prune.Regrowth(module, optimizer, end=20, every=3, fraction=0.5, pattern=pattern)
    before = prune.masks(module)
    for step in range(1, 25):
        optimizer.zero_grad()
        F.cross_entropy(module(X), Y).backward()
        optimizer.step()
        if step == 3:
            size = module[0].weight.detach().abs()
        moved = rigl.step()
        if step == 3:
            after = prune.masks(module)
            grown, gone = after["0"] & ~before["0"], before["0"] & ~after["0"]
            assert moved >= int(grown.sum()) > 0
            assert grown.sum() == gone.sum()
            assert not module[0].weight[grown].any(), "what grows begins at 0"
            state = optimizer.state[module[0].parametrizations.weight.original]
            assert not state["exp_avg"][grown].any()
            if pattern == "unstructured":
                assert size[gone].max() <= size[before["0"]].sort().values[100]
        assert int(prune.masks(module)["0"].sum()) == int(before["0"].sum())
    assert len(rigl.moved) == 6 and rigl.moved[0] > rigl.moved[-1]
    assert bool(module[0].weight[grown].any()), "and learns"
    # A block stays whole.
    mask = prune.masks(module)["0"]
    if pattern == "4x1":
        assert (mask.unflatten(0, (-1, 4)).sum(1) % 4 == 0).all()


def test_regrowth_takes_gradients_at_the_zeros():
    module = make_module()
    prune.prune(module, sparsity=0.9)
    dense = make_module()
    with torch.no_grad():
        dense[0].weight.copy_(module[0].weight)
        dense[2].weight.copy_(module[2].weight)
    F.cross_entropy(dense(X), Y).backward()
    slope = dense[0].weight.grad.abs()
    before = prune.masks(module)["0"]
    rigl = prune.Regrowth(module, end=100, every=1, fraction=0.2)
    F.cross_entropy(module(X), Y).backward()
    rigl.step()
    after = prune.masks(module)["0"]
    grown = after & ~before
    assert int(grown.sum()) > 0
    assert slope[grown].min() >= slope[~before & ~after].max()


def test_erdos_renyi_reaches_the_sparsity_and_keeps_small_layers():
    module = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3), nn.Linear(64, 10))
    shares = prune.erdos_renyi(module, 0.9)
    counts = {"0": 3 * 64 * 9, "1": 64 * 64 * 9, "2": 640}
    kept = sum((1 - shares[name]) * count for name, count in counts.items())
    assert kept == pytest.approx(0.1 * sum(counts.values()))
    assert shares["1"] > shares["0"] and shares["2"] == 0
    prune.prune(module, "random", sparsity=shares)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: prune.Gradual(m, sparsity=0.5, end=5, begin=9), "begin is 9 and end 5"),
        (lambda m: prune.Gradual(m, sparsity=0.5, end=5, every=0), "every is 0"),
        (lambda m: prune.Gradual(m, sparsity=0.5, end=5, initial=0.6), "more than the final"),
        (lambda m: prune.Gradual(m, sparsity=0.5, end=5, shape="square"), "expected one of cubic"),
        (lambda m: prune.Gradual(m, sparsity=1.5, end=5), "sparsity is 1.5"),
        (lambda m: prune.Gradual(m, sparsity=0.5, end=5, pattern="2:4"), "single share"),
        (lambda m: prune.Gradual(m, sparsity=0.5, end=5, method="wanda"), "needs data"),
        (lambda m: prune.iterative(m, print, sparsity=0.5, rounds=0), "rounds is 0"),
        (lambda m: prune.Regrowth(m, end=5), "no mask is held"),
        (lambda m: prune.Regrowth(m, end=0, fraction=2), r"end 0[\s\S]*fraction is 2"),
        (lambda m: prune.Regrowth(m, end=5, pattern="2:4"), "does not regrow"),
        (lambda m: prune.erdos_renyi(m, 1), "sparsity is 1"),
    ],
)
def test_bad_schedules(make, message):
    module = make_module()
    with pytest.raises(ValueError, match=message):
        make(module)
    assert prune.masks(module) == {}


def test_regrowth_without_or_with_broken_gradients():
    module = make_module()
    prune.prune(module, sparsity=0.5)
    rigl = prune.Regrowth(module, end=9, every=1)
    with pytest.raises(ValueError, match="no backward pass reached '0', '2'"):
        rigl.step()
    (module(X) * float("nan")).sum().backward()
    with pytest.raises(ValueError, match="gradient of '0' is not finite"):
        rigl.step()


def test_fine_tuning_stops_when_the_loss_is_not_finite():
    module = make_module()
    with pytest.raises(ValueError, match="the loss of batch 0 in epoch 0 is nan"):
        prune.fine_tune(module, [(X * float("nan"), Y)])


def test_batch_norms_are_measured_anew():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(20, 8), nn.BatchNorm1d(8, momentum=0.3), nn.Dropout(0.9), nn.Linear(8, 4)
    )
    module.eval()
    weight = module[0].weight.detach().clone()
    assert prune.recalibrate_batch_norms(module, itertools.repeat((X, Y)), most=2) == 1
    inner = module[0](X).detach()
    torch.testing.assert_close(module[1].running_mean, inner.mean(0))
    torch.testing.assert_close(module[1].running_var, inner.var(0))
    assert module[1].momentum == 0.3 and not module[1].training
    assert torch.equal(module[0].weight, weight)
    with pytest.raises(ValueError, match="batches is empty"):
        prune.recalibrate_batch_norms(module, [])
    assert prune.recalibrate_batch_norms(make_module(), []) == 0
