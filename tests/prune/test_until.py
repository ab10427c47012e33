"""prune_until: the search, the loop on a made-up machine, kills, bad input, and one real run."""

from __future__ import annotations

import itertools
import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from sparsert import prune
from sparsert.cli_commands import sparsert as command
from sparsert.errors import SparsertError
from sparsert.prune import Recipe, RecipeError, Step, TargetError, prune_until
from sparsert.prune.until.search import Choice, choose, explore, least_cost
from sparsert.prune.until.sensitivity import Scores, WholeLoss, measure_losses
from sparsert.report import module_bench
from sparsert.report.cost_table import Cost, CostTable
from sparsert.report.module_bench import Measured
from sparsert.report.race import CalmRaces, Effort

torch = pytest.importorskip("torch")
nn = torch.nn

GAINS = {"unstructured": 0.6, "4x1": 0.9}  # share of a layer's time that all its zeros would save
DENSE = {"0": 1e-3, "2": 4e-3, "4": 1e-3}
OTHERS = 1e-4
BROKEN = (torch.full((4, 8), torch.nan), torch.zeros(4, dtype=torch.long))
TUNING = {"epochs": 2, "learning_rate": 1e-2, "trials": 3}


class MadeUpBench:
    """Times that follow from the zeros; the whole takes longer than the sum of its layers."""

    reference = "a made-up engine"

    def __init__(self, overhead=0.1):
        self._overhead = overhead
        self.calls = 0

    def table(self, layers, patterns, sparsities, on_progress=None):
        self.calls += 1
        costs = {
            name: {
                pattern: [
                    Cost(s, DENSE[name] * (1 - GAINS[pattern] * s), 4000 * (1 - s))
                    for s in (0.0, *sparsities)
                ]
                for pattern in patterns
            }
            for name in layers
        }
        return CostTable(costs, OTHERS, 500)

    def measure(self, module, careful=False):
        self.calls += 1
        seconds, size = OTHERS, 500
        for name, dense in DENSE.items():
            weight = module.get_submodule(name).weight.detach()
            zeros = float((weight == 0).float().mean())
            rows = (weight == 0).reshape(-1, 4, weight.shape[1]).float().mean(1)
            in_blocks = float((rows == 1).float().mean())
            gain = GAINS["4x1" if in_blocks > zeros - 1e-6 else "unstructured"]
            seconds += dense * (1 - gain * zeros + self._overhead * zeros)
            size += 4000 * (1 - zeros)
        dense = sum(DENSE.values()) + OTHERS
        return Measured(seconds, 0.01, 1.2 * dense / seconds, 1.2 * dense, 0.01, round(size))


def make_module():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    )


def make_batches():
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    return list(zip(x.split(16), x[:, :4].argmax(1).split(16), strict=True))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def zeros_of(module):
    weights = [module.get_submodule(name).weight for name in DENSE]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(state, other):
    assert set(state) == set(other)
    for name, value in state.items():
        assert torch.equal(value, other[name]), name


def test_the_search_finds_the_least_loss():
    generator = np.random.default_rng(0)
    for _ in range(20):
        options = {
            str(layer): [Choice("", 0.0, 10.0, 0.0)]
            + [Choice("p", s, float(c), float(h)) for s, c, h in generator.integers(1, 9, (4, 3))]
            for layer in range(4)
        }
        budget = float(generator.integers(8, 40))
        best = min(
            (
                sum(choice.loss for choice in picks)
                for picks in itertools.product(*options.values())
                if sum(choice.cost for choice in picks) <= budget * (1 - 4 / 5000)
            ),
            default=None,
        )
        found = choose(options, budget)
        if best is None:
            assert found is None or sum(c.cost for c in found.values()) <= budget
            continue
        assert sum(choice.cost for choice in found.values()) <= budget
        assert sum(choice.loss for choice in found.values()) <= best
    assert choose(options, least_cost(options) * 0.99) is None


def test_the_search_goes_by_the_harm_of_the_whole():
    """Layers a and b each harm little alone, but a lot together; c harms no more with them."""
    options = {
        name: [Choice("", 0.0, 10.0, 0.0), Choice("p", 0.5, 5.0, loss)]
        for name, loss in (("a", 1.0), ("b", 1.0), ("c", 1.5))
    }

    def harm(factors):
        scaled = {
            name: [replace(choice, loss=choice.loss * factors[name]) for choice in choices]
            for name, choices in options.items()
        }
        pruned = {name for name, choice in choose(scaled, 20.5).items() if choice.pattern}
        assert len(pruned) == 2
        return 10.0 if pruned == {"a", "b"} else 2.5

    assert harm(explore("abc", harm, 0, 0)) == 10
    factors = explore("abc", harm, 16, 0)
    assert harm(factors) == 2.5 and factors == explore("abc", harm, 16, 0)


def test_what_a_batch_norm_makes_good_is_no_harm():
    """All inputs are alike: what is left of each row gives the same but for a factor."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([1.0, 0.5]).repeat(4, 4))
    before, modes = state_of(module), [part.training for part in module.modules()]
    harms = []
    for samples in (64, 4):  # four are too few for statistics of their own
        batches = [torch.randn(64, 1).expand(64, 8).split(samples)[0]]
        scores = Scores(module, ["0"], "magnitude", batches, None, 0)
        wanted = {"0": [("unstructured", 0.5)]}
        losses = measure_losses(module, scores, wanted, batches, lambda: 0, lambda _: None)
        harms.append(losses["0"]["unstructured"][0][1])
        assert WholeLoss(module, scores, batches)({"0": ("unstructured", 0.5)}) == harms[-1]
    assert harms[0] < 1e-4 < 0.01 < harms[1]
    assert_equal(state_of(module), before)
    assert [part.training for part in module.modules()] == modes
    assert module[1].track_running_stats


def test_costs_between_those_measured():
    rows = [Cost(0.0, 10.0, 100), Cost(0.5, 12.0, 60), Cost(0.9, 2.0, 20, "csr")]
    table = CostTable({"a": {"unstructured": rows}}, 1.0, 5)
    for sparsity, seconds, size in ((0, 10, 100), (0.5, 10, 60), (0.7, 6, 40), (0.9, 2, 20)):
        cost = table.cost("a", "unstructured", sparsity)
        assert (cost.seconds, cost.file_bytes) == pytest.approx((seconds, size))
    assert CostTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    assert "2000000.0 csr" in table.table().to_markdown()


@pytest.mark.parametrize(
    ("kind", "value", "reach"),
    [
        ("target_speedup", 3.0, lambda m: m.speedup / 3),
        ("target_latency", 2e-3, lambda m: 2e-3 / m.seconds),
        ("target_bytes", 3000, lambda m: 3000 / m.file_bytes),
    ],
)
def test_a_target_is_reached_by_the_measured_whole(kind, value, reach):
    module, stages = make_module(), []
    result = prune_until(
        module,
        lambda m: 1 - zeros_of(m) / 10,
        data=make_batches(),
        bench=MadeUpBench(),
        patterns=("unstructured", "4x1"),
        on_progress=lambda stage, share: stages.append((stage, share)),
        **{kind: value},
        **TUNING,
    )
    assert result.is_reached and result.chosen == len(result.points) - 1 == 3
    assert reach(result.point.measured) == pytest.approx(1, abs=0.025)
    assert result.point.drop == pytest.approx(zeros_of(module) / 10)
    shares = {layer.name: layer.sparsity for layer in result.report.layers}
    for name, choice in result.point.layers.items():
        assert shares[name] == pytest.approx(choice.sparsity, abs=0.06)
    assert set(prune.masks(module)) == {n for n, c in result.point.layers.items() if c.pattern}
    assert result.front[-1] == result.point and result.points[0] in result.front
    points = result.front_points()
    assert [p.label for p in points if p.is_chosen] == ["round 3"]
    assert points[-1].accuracy == result.point.score
    for stage in ("sensitivity, round 3", "search, round 3"):
        assert (stage, 0.0) in stages and (stage, 1.0) in stages
    assert ("timing each layer", 0.0) in stages
    facts = json.loads(json.dumps(result.to_dict()))
    assert facts["plot"]["points"][3]["is_chosen"] and facts["goal"][kind] == value
    assert set(facts["plot"]["sensitivity"]) == set(facts["plot"]["costs"]) == set(DENSE)
    assert "| round 3 |" in result.to_markdown() and "a made-up engine" in str(result)
    replayed = make_module()
    result.recipe().run(replayed, make_batches())
    assert zeros_of(replayed) == zeros_of(module)
    result.restore(module, result.points[0])
    assert_equal(state_of(module), state_of(make_module()))


@pytest.mark.parametrize(("careful", "rounds"), [(0.9, 1), (1.06, 2)])
def test_a_trained_module_that_is_faster_or_slower_than_its_choices(careful, rounds):
    """Too fast: the round is done again with fewer zeros; too slow: another one follows."""

    class Drifting(MadeUpBench):
        def measure(self, module, is_careful=False):
            found = super().measure(module)
            factor = careful if is_careful and zeros_of(module) else 1.0
            return replace(found, seconds=found.seconds * factor, speedup=found.speedup / factor)

    module = make_module()
    options = {"target_speedup": 2.5, "rounds": 1, "patterns": tuple(GAINS), **TUNING}
    bench = Drifting()
    result = prune_until(module, lambda m: 1.0, data=make_batches(), bench=bench, **options)
    assert result.is_reached and len(result.points) == 1 + rounds
    assert result.point.measured.speedup == pytest.approx(2.5, rel=0.06)
    assert ("again" in result.point.state) == (careful < 1)
    restored = make_module()
    result.restore(restored, result.point)
    assert_equal(state_of(restored), state_of(module))


def test_the_time_goes_where_zeros_pay():
    module = make_module()
    options = {"data": make_batches(), "bench": MadeUpBench(), "target_speedup": 2.5, **TUNING}
    result = prune_until(module, lambda _m: 1.0, patterns=("unstructured", "4x1"), **options)
    layers = result.point.layers
    assert layers["2"].pattern == "4x1"  # most of the time
    assert layers["2"].sparsity >= max(layers["0"].sparsity, layers["4"].sparsity)
    result = prune_until(make_module(), lambda _m: 1.0, patterns=["4x1"], exclude=["4"], **options)
    assert set(result.point.layers) == {"0", "2"}


def test_a_model_that_was_pruned_before_keeps_its_zeros():
    module = make_module()
    prune.prune(module, "random", sparsity=0.5, pattern="4x1")
    before = prune.masks(module)
    options = {"data": make_batches(), "bench": MadeUpBench(), "patterns": ["4x1"], **TUNING}
    result = prune_until(module, lambda _m: 1.0, target_speedup=3.5, **options)
    assert result.is_reached
    for name, mask in prune.masks(module).items():
        assert not module.get_submodule(name).weight[~before[name]].any()
        assert not (mask & ~before[name]).any()
    assert zeros_of(module) > 0.6


@pytest.mark.parametrize("target", [{}, {"target_speedup": 4}])
def test_what_loses_too_much_is_rolled_back(target):
    module = make_module()
    result = prune_until(
        module,
        lambda m: float(zeros_of(m) < 0.6),
        max_drop=0.1,
        data=make_batches(),
        bench=MadeUpBench(),
        patterns=("4x1",),
        **target,
        **TUNING,
    )
    assert result.is_reached is not bool(target) and result.point.drop == 0
    assert [p.is_accepted for p in result.points].count(False) >= 1
    assert len(next(p for p in result.points if not p.is_accepted).losses) == 4  # trained once more
    assert 0.3 < zeros_of(module) < 0.6
    state = state_of(module)
    result.restore(module, result.point)
    assert_equal(state, state_of(module))
    assert "rolled back" in str(result) and "a faster model lost more" in result.reason


def test_a_target_out_of_reach_is_said_at_once():
    def evaluate(_module):
        raise AssertionError("nothing is to be evaluated")

    options = {"data": make_batches(), "patterns": ["4x1"]}
    with pytest.raises(TargetError, match=r"target_speedup 50 cannot be reached: \d") as caught:
        prune_until(make_module(), evaluate, target_speedup=50, bench=MadeUpBench(), **options)
    nearest = caught.value.nearest
    assert 5 < nearest < 50
    result = prune_until(
        make_module(), lambda _m: 1, target_speedup=nearest, bench=MadeUpBench(0), **options
    )
    assert result.is_reached
    with pytest.raises(TargetError, match=r"target_bytes 100 cannot be reached: 1,0\d\d"):
        prune_until(make_module(), evaluate, target_bytes=100, bench=MadeUpBench(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_speedup": 2, "max_drop": -0.1}, r"max_drop is -0\.1, expected a number of at l"),
        ({"target_speedup": 2, "target_bytes": 9}, "one target at a time"),
        ({}, "there is no goal"),
        ({"target_latency": float("nan")}, "target_latency is nan"),
        ({"max_drop": 0.1, "patterns": ["2:4"], "rounds": 0}, r"2:4[\s\S]*rounds is 0"),
        ({"max_drop": 0.1, "sparsities": [0.9, 0.5]}, "ascending"),
        ({"max_drop": 0.1, "method": "wand"}, "method is 'wand'"),
        ({"max_drop": 0.1, "exclude": ["5"]}, "there is no layer '5'; .*0, 2, 4"),
        ({"max_drop": 0.1, "exclude": ["0", "2", "4"]}, "no layer to prune"),
        ({"max_drop": 0.1, "trials": -1}, "trials is -1, expected a whole number of at least 0"),
        ({"max_drop": 0.1, "data": None}, "give data, or train"),
        ({"max_drop": 0.1, "data": iter([])}, "data is an iterator"),
        ({"max_drop": 0.1, "data": []}, "data is empty"),
        ({"max_drop": 1, "data": [BROKEN], "patterns": ["4x1"], "trials": 0}, "loss of batch 0 in"),
        ({"max_drop": 0.1, "data": None, "train": print, "method": "wanda"}, "needs data"),
    ],
)
def test_bad_arguments(options, message):
    options = {"data": make_batches(), "bench": MadeUpBench(), **options}
    with pytest.raises(ValueError, match=message):
        prune_until(make_module(), lambda _m: 1.0, **options)


def run(folder, evaluate, module=None, **options):
    module = make_module() if module is None else module
    defaults = {"target_speedup": 3.0, "patterns": ("unstructured", "4x1"), **TUNING}
    bench = options.pop("bench", None) or MadeUpBench()
    options = {**defaults, **options}
    result = prune_until(
        module, evaluate, data=Shuffled(), bench=bench, state=folder, seed=1, **options
    )
    return module, result


class Shuffled:
    """Batches in an order of torch's own generator, as a DataLoader's."""

    def __iter__(self):
        batches = make_batches()
        return iter([batches[i] for i in torch.randperm(len(batches))])


def score(module):
    batches = make_batches()
    right = [float((module(x).argmax(1) == y).float().mean()) for x, y in batches]
    return sum(right) / len(right)


def dies_at(call, how):
    """Returns an evaluate that goes wrong at a call."""
    calls = itertools.count()

    def evaluate(module):
        if next(calls) == call:
            return how()
        return score(module)

    return evaluate


def test_it_goes_on_after_a_kill(tmp_path):
    whole, expected = run(None, score)
    for call in (1, 2):  # of round 1 and of round 2 or its second training
        child = os.fork()
        if child == 0:
            run(tmp_path, dies_at(call, lambda: os.kill(os.getpid(), signal.SIGKILL)))
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    bench = MadeUpBench()
    module, result = run(tmp_path, score, bench=bench)
    assert [p.to_dict() for p in result.points] == [p.to_dict() for p in expected.points]
    assert_equal(state_of(module), state_of(whole))
    assert 0 < bench.calls < 5  # the table and the first rounds were there
    idle = {"bench": bench, "on_progress": lambda stage, _share: pytest.fail(stage)}
    again, result = run(tmp_path, dies_at(0, lambda: 1 / 0), **idle)  # nothing is left to do
    assert_equal(state_of(again), state_of(whole))
    with pytest.raises(SparsertError, match="another run, with other goal"):
        run(tmp_path, score, target_speedup=2.0)
    with pytest.raises(SparsertError, match="another run, with other model"):
        run(tmp_path, score, module=nn.Sequential(*make_module(), nn.Linear(4, 4)))
    (tmp_path / "round-1-training-0.pt").write_bytes(b"PK")
    with pytest.raises(SparsertError, match=r"round-1-training-0\.pt: cannot be read"):
        run(tmp_path, score)
    (tmp_path / "journal.json").write_text("[]")
    with pytest.raises(SparsertError, match="not a journal"):
        run(tmp_path, score)


def test_evaluate_that_fails_leaves_the_last_round_that_held(tmp_path):
    module = make_module()
    with pytest.raises(ValueError, match=r"evaluate returned nan \(round 2"):
        run(tmp_path, dies_at(2, lambda: float("nan")), module)
    assert 0.1 < zeros_of(module) < 0.5
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, dies_at(0, lambda: 1 / 0))
    whole, _ = run(None, score)
    module, _ = run(tmp_path, score)
    assert_equal(state_of(module), state_of(whole))


def test_a_training_loop_of_ones_own_and_no_data():
    rates = []

    def train(_model, *, epochs, learning_rate, after_batch):
        rates.append((epochs, learning_rate))
        after_batch()

    batches = []
    result = prune_until(
        make_module(),
        score,
        target_speedup=2.5,
        train=train,
        bench=MadeUpBench(),
        patterns=["4x1"],
        after_batch=lambda: batches.append(1),
    )
    assert result.is_reached and len(batches) == len(rates) == len(result.points) - 1
    assert set(rates) == {(2, 1e-4)}


class Recurrent(nn.Module):
    """Layers whose names an export does not keep."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.norm(self.lstm(x)[0])[:, -1])


def test_layers_are_found_by_their_zeros():
    bench = module_bench.ModuleBench(Recurrent().eval(), torch.zeros(1, 6, 16), seconds=0.02)
    names = ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "head"]
    costs = bench.table([*names, "none"], ["4x1"], [0.5])
    bench.close()
    assert list(costs.layers) == names
    assert costs.notes == ["not found in the file, so left alone: none"]
    sizes = [costs.layers[name]["4x1"][0].file_bytes for name in names]
    assert sizes == [4 * 64 * 16, 4 * 64 * 16, 4 * 64]
    for name in names:
        assert costs.cost(name, "4x1", 0.5).file_bytes < costs.cost(name, "4x1", 0).file_bytes


NET = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(4, 32, 3, padding=1), nn.BatchNorm1d(32), nn.ReLU(), nn.Flatten(),
        nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 4),
    )


def evaluate(model):
    return -float(sum((p == 0).float().mean() for p in model.parameters()))
"""


def test_a_recipe_from_the_shell_on_this_machine(tmp_path, monkeypatch):
    pytest.importorskip("yaml")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(module_bench, "CAREFUL", Effort(rounds=2, burst_seconds=0.01))
    monkeypatch.setattr(module_bench, "QUICK", Effort(rounds=2, burst_seconds=0.01))
    monkeypatch.setattr(module_bench, "CalmRaces", lambda _patience, **rest: CalmRaces(0.0, **rest))
    (tmp_path / "net.py").write_text(NET)
    x = np.random.default_rng(0).standard_normal((8, 4, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(8) % 4)
    net, out, state = f"{tmp_path}/net.py", tmp_path / "out.sprt", str(tmp_path / "s")
    shared = ["--model", f"{net}:build", "--data", str(tmp_path / "data.npz")]
    shared += ["--evaluate", f"{net}:evaluate", "-o", str(out)]
    asked = ["--target-bytes", "14000", "--rounds", "1", "--pattern", "4x1", "--epochs", "1"]
    asked += ["--sparsity", "0.5", "--sparsity", "0.9", "--state", state]
    done = CliRunner().invoke(command, ["prune-until", *shared, *asked])
    assert done.exit_code == 0, done.output
    assert "reached a file of 14,000 bytes" in done.output and "ONNX Runtime" in done.output
    assert out.stat().st_size == pytest.approx(14000, rel=0.1)
    options = {"target_bytes": 14000.0, "rounds": 1, "patterns": ["4x1"], "epochs": 1}
    options |= {"sparsities": [0.5, 0.9], "state": state}
    Recipe([Step("prune_until", options)]).save(tmp_path / "r.yaml")
    monkeypatch.delattr(module_bench.ModuleBench, "measure")  # everything is in the journal
    again = [*shared[:-1], str(tmp_path / "out.pt"), "--recipe", str(tmp_path / "r.yaml")]
    done = CliRunner().invoke(command, ["prune", *again, "--json"])
    assert done.exit_code == 0, done.output
    weights = torch.load(tmp_path / "out.pt", weights_only=True)
    zeros = sum(int((value == 0).sum()) for value in weights.values() if value.ndim > 1)
    assert json.loads(done.output)["report"]["zeros"] == zeros > 3000
    asked[1] = "-7"
    done = CliRunner().invoke(command, ["prune-until", *shared, *asked])
    assert done.exit_code == 1 and "target_bytes is -7" in done.output


def test_recipes_check_the_step():
    with pytest.raises(RecipeError, match=r"step 1 \(prune_until\): .*there is no goal"):
        Recipe([Step("prune_until", {})])
    with pytest.raises(RecipeError, match="one target at a time"):
        Recipe([Step("prune_until", {"target_bytes": 1, "target_speedup": 2})])
    recipe = Recipe([Step("prune_until", {"max_drop": 0.1})])
    with pytest.raises(RecipeError, match="needs evaluate"):
        recipe.run(make_module(), make_batches())
