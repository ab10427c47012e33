"""Recipes: YAML in and out, errors that list everything, and the command that replays them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import sparsert
from sparsert import prune
from sparsert.cli_commands import sparsert as command
from sparsert.prune import Recipe, RecipeError, Step
from sparsert.report.model_report import VARIANTS

torch = pytest.importorskip("torch")
pytest.importorskip("yaml")
nn = torch.nn

TEXT = """
# Everything that the API does.
version: 1
seed: 3
steps:
  - prune: {method: random, sparsity: 0.25, shares: erdos-renyi}
  - regrow: {epochs: 2, every: 1, learning_rate: 1e-3}
  - gradual: {method: wanda, sparsity: 0.5, initial: 0.25, epochs: 2, updates: 3, batches: 1}
  - iterative: {sparsity: 0.75, rounds: 2, initial: 0.5, pattern: unstructured}
  - fine_tune: {epochs: 2, learning_rate: 0.01}
  - recalibrate_batch_norms: {batches: 1}
  - hold_zeros
  - remove
"""


def make_module():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4)
    )


def make_batches():
    x = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
    return list(zip(x.split(6), (torch.arange(24) % 4).split(6), strict=True))


def test_a_file_replays_the_whole(tmp_path):
    recipe = Recipe.parse(TEXT)
    assert recipe.steps[1].options["learning_rate"] == 1e-3
    path = tmp_path / "r.yaml"
    recipe.save(path)
    assert Recipe.load(path) == recipe
    states, calls = [], []
    for each in (recipe, Recipe.load(path)):
        module = make_module()
        torch.rand(len(states))  # the state of torch's own generator plays no part
        result = each.run(
            module,
            make_batches(),
            evaluate=lambda m: float((m[0].weight == 0).float().mean()),
            on_step=lambda number, step: calls.append((number, step.kind)),
        )
        states.append(module.state_dict())
    assert set(states[0]) == set(make_module().state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=0)
    assert [done.score for done in result.steps] == [0.375, 0.375, 0.5] + [0.75] * 5
    assert result.report.sparsity == 0.75 and len(result.steps[1].losses) == 2
    assert calls[:2] == [(1, "prune"), (2, "regrow")] and len(calls) == 16
    text = str(result)
    for part in ("before", "3 gradual", "method wanda", "75.0 %", "0.7500"):
        assert part in text


def test_a_recipe_takes_channels_and_blocks_out():
    pytest.importorskip("torch_pruning")
    text = """
steps:
  - prune: {sparsity: 0.25, pattern: channel}
  - shrink_zeros
  - shrink: {parameters: 0.3, strategy: greedy, method: taylor, align: 1, batches: 2}
  - shrink: {channels: {"0": 0.5}, align: 2}
  - fine_tune
"""
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    recipe = Recipe.parse(text)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    result = recipe.run(module, make_batches())
    assert [report.groups[0].before for done in result.steps[1:4] for report in done.reports] == [
        *(16, 12, 8),
    ]
    assert module[2].in_features == 4 and result.report.groups[0].kept == 4
    assert "50.0 %" in str(result.report) and "3 shrink" in str(result)
    with pytest.raises(RecipeError, match=r"step 2 \(shrink_zeros\) needs data"):
        recipe.run(module)
    with pytest.raises(ValueError, match=r"step 1 .*count is 1, but 0 residual blocks"):
        Recipe([Step("skip_blocks", {"count": 1})]).run(module, make_batches())


def test_a_recipe_does_what_the_functions_do():
    recipe = Recipe(
        [
            Step("prune", {"method": "taylor", "sparsity": 0.5, "batches": 2}),
            Step("fine_tune", {"learning_rate": 0.01}),
        ]
    )
    module, other = make_module(), make_module()
    module[3].p = other[3].p = 0.0
    recipe.run(module, make_batches())
    prune.prune(other, "taylor", sparsity=0.5, data=make_batches()[:2])
    prune.fine_tune(other, make_batches(), learning_rate=0.01)
    for name, value in other.state_dict().items():
        assert torch.equal(module.state_dict()[name], value)


def test_a_training_loop_of_ones_own():
    calls = []

    def train(model, *, epochs, learning_rate, after_batch):
        calls.append((epochs, learning_rate))
        for _ in range(epochs * len(make_batches())):
            after_batch()
        return [0.5] * epochs

    recipe = Recipe([Step("gradual", {"sparsity": 0.5, "epochs": 2}), Step("fine_tune", {})])
    module = make_module()
    result = recipe.run(module, make_batches(), train=train)
    assert calls == [(2, 1e-4), (1, 1e-4)]
    assert result.steps[0].losses == [0.5, 0.5]
    assert result.report.sparsity == 0.5
    with pytest.raises(ValueError, match=r"step 1 \(gradual\): the training ended before"):
        recipe.run(make_module(), make_batches(), train=lambda *_args, **_options: None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "not YAML"),
        ("- prune", "expected a mapping with the key steps"),
        ("steps: []", "steps is missing or empty"),
        (
            "version: 2\nseed: x\ntypo: 1\nsteps: [remove]",
            r"no key 'typo'[\s\S]*version[\s\S]*seed",
        ),
        ("steps: [prun: {}]", r"step 1 \(prun\): there is no such step: .*did you mean 'prune'"),
        ("steps: [prune]", "give either sparsity or threshold"),
        ("steps: [prune: 0.5]", "has 0.5, expected options"),
        ("steps: [[prune]]", r"is \['prune'\], expected one name: options"),
        ("steps: [prune: {sparsty: 0.5}]", "no option 'sparsty': .*did you mean 'sparsity'"),
        (
            "steps: [prune: {sparsity: 2, method: wand, exclude: fc}, gradual: {epochs: 0}]",
            r"sparsity is 2[\s\S]*mean 'wanda'[\s\S]*exclude is 'fc'[\s\S]*step 2 .*epochs is 0"
            r"[\s\S]*sparsity is missing",
        ),
        ("steps: [prune: {sparsity: 0.5, pattern: 3x3}]", "pattern is '3x3'"),
        ("steps: [prune: {sparsity: {fc: high}}]", "fc: expected a number"),
        ("steps: [fine_tune: {learning_rate: fast}]", "learning_rate is 'fast', expected a number"),
        ("steps: [shrink]", "give either channels or parameters"),
        (
            "steps: [shrink: {channels: 0.5, strategy: greedy}, shrink: {head_sizes: 8}]",
            r"step 1 .*takes parameters, not channels[\s\S]*step 2 .*head_sizes is 8, expected",
        ),
        ("steps: [skip_blocks: {method: magic}]", r"method is 'magic'[\s\S]*count is missing"),
        ("steps: [remove: {all: true}]", "no option 'all': it has none"),
        (
            "steps: [report: {path: r.pdf}]",
            r"path is 'r\.pdf', expected a name that ends in \.html",
        ),
        (
            "steps: [report: {accuracy: 1, against: [tflite]}]",
            r"accuracy is 1, expected true or false[\s\S]*path is missing",
        ),
        ("steps: [prune: {sparsity: {a: 0.5}, shares: erdos-renyi}]", "go with one sparsity"),
        ("steps: [report: {path: r.md, against: [tflite]}]", "against is 'tflite'"),
    ],
)
def test_bad_recipes(text, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.parse(text)


def test_a_recipe_that_cannot_run_says_so_before_it_begins():
    recipe = Recipe(
        [Step("prune", {"sparsity": 0.5}), Step("prune", {"sparsity": 0.6, "method": "wanda"})]
    )
    module = make_module()
    with pytest.raises(RecipeError, match=r"step 2 \(prune\) needs data"):
        recipe.run(module)
    report = Recipe([Step("report", {"path": "r.md", "accuracy": True})])
    with pytest.raises(RecipeError, match=r"step 1 \(report\) needs data[\s\S]*needs evaluate"):
        report.run(module)
    with pytest.raises(RecipeError, match="data is an iterator"):
        recipe.run(module, iter(make_batches()))
    assert prune.masks(module) == {}
    with pytest.raises(ValueError, match=r"step 1 \(prune\): .*no layer '9'"):
        Recipe([Step("prune", {"sparsity": {"9": 0.5}})]).run(module)
    with pytest.raises(RecipeError, match=r"step 1 .*did you mean 'remove'"):
        Recipe([Step("removed")])


MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

def score(model):
    x, y = batches()[0]
    return float((model(x).argmax(1) == y).float().mean())

def batches():
    return [(torch.ones(6, 8), torch.zeros(6, dtype=torch.long))]

number = 7
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs sparsert prune in a folder with a model and data; checks the exit code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "r.yaml").write_text(
        "steps:\n- prune: {method: gradient, sparsity: 0.5}\n- fine_tune: {epochs: 1}\n"
        "- report: {path: r.json, accuracy: true, against: [], seconds: 0.02}\n"
    )
    generator = np.random.default_rng(0)
    x = generator.standard_normal((24, 8)).astype(np.float32)
    np.savez("data.npz", x=x, y=np.arange(24) % 4)

    def run(*arguments, code=0):
        result = CliRunner().invoke(command, ["prune", *arguments], prog_name="sparsert")
        assert result.exit_code == code, result.output
        return result

    return run


def test_the_command_replays_a_recipe(call, tmp_path):
    text = call(
        *("--recipe", "r.yaml", "--model", "net.py:build", "--data", "data.npz", "-o", "m.sprt"),
        *("--evaluate", "net.py:score", "--explain"),
    ).stdout
    parts = ("1 prune", "2 fine_tune", "3 report", "Which weights went", "wrote r.json")
    for part in (*parts, "what pruning gained", "wrote m.sprt"):
        assert part in text
    rows = json.loads(Path("r.json").read_text())["rows"]
    assert {(row["weights"], row["dtype"]) for row in rows} == set(VARIANTS)
    assert {row["accuracy"] for row in rows} <= {0.0, 1.0}
    x = np.load("data.npz")["x"]
    model = sparsert.load("m.sprt", threads=1)
    assert model(x[:5]).shape == (5, 4)
    rows = model.explain().to_dict()["rows"]
    assert sum(row["nonzeros"] or 0 for row in rows) == (8 * 16 + 16 * 4) // 2


def test_the_command_prunes_in_one_step(call, tmp_path):
    call(
        *("--model", "net.py:build", "--sparsity", "0.75", "--pattern", "4x1", "-o", "m.pt"),
        *("--exclude", "2", "--save-recipe", "saved.yaml"),
    )
    state = torch.load("m.pt", weights_only=True)
    assert int((state["0.weight"] == 0).sum()) == 96
    assert Recipe.load("saved.yaml").steps[0].options["exclude"] == ["2"]
    result = call(
        *("--model", "net.py:build", "--weights", "m.pt", "--recipe", "saved.yaml", "--json"),
    )
    facts = json.loads(result.stdout)
    assert facts["report"]["zeros"] == 96 and facts["recipe"]["steps"]


def test_mistakes_at_the_command(call):
    assert "Example:" in call("--help").output
    for arguments, code, message in (
        (["--model", "net.py:build"], 2, "either --recipe or --method"),
        (["--model", "net", "--sparsity", "0.5"], 2, "expected FILE.py:FUNCTION"),
        (["--model", "no.py:build", "--sparsity", "0.5"], 2, "No such file"),
        (["--model", "net.py:number", "--sparsity", "0.5"], 2, "has no function number"),
        (["--model", "net.py:build", "--sparsity", "7"], 1, "sparsity is 7"),
        (["--model", "net.py:build", "--method", "wanda", "--sparsity", "0.5"], 1, "needs data"),
        (["--model", "net.py:build", "--recipe", "r.yaml", "--data", "net.py:x"], 2, "function x"),
        (["--model", "net.py:build", "--sparsity", "0.5", "-o", "m.zip"], 2, "ends in .pt/.onnx"),
        (["--model", "net.py:build", "--sparsity", "0.5", "-o", "m.sprt"], 2, "needs --data"),
        (["--model", "net.py:build", "--sparsity", "0.999"], 1, "can be reached"),
    ):
        assert message in call(*arguments, code=code).output
