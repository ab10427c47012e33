"""Levels: nested masks, one training for all of them, and what it costs in accuracy."""

from __future__ import annotations

import copy
import itertools
import json

import numpy as np
import pytest
from click.testing import CliRunner

import sparsert
from sparsert import prune
from sparsert.cli_commands import sparsert as command
from sparsert.prune import Recipe, RecipeError, Step
from tests.prune.test_digits import accuracy
from tests.quantize.networks import digits, train, trained_cnn

torch = pytest.importorskip("torch")
nn = torch.nn

SHARES = {"fast": 0.9, "accurate": 0.5, "balanced": 0.8}


def small_batches():
    x = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
    return list(zip(x.split(6), (torch.arange(24) % 4).split(6), strict=True))


def make_module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def zeros_of(module):
    return [(part.weight == 0) for part in module.modules() if isinstance(part, nn.Linear)]


def test_digits_lose_little(tmp_path):
    """Each level is within 0.02 of a network that was pruned and fine-tuned for it alone."""
    x, y = torch.from_numpy(digits().train_x), torch.from_numpy(digits().train_y)
    batches = list(zip(x.split(32), y.split(32), strict=True))
    module = copy.deepcopy(trained_cnn("dense"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = {"exclude": ["0"], "epochs": 1, "learning_rate": 1e-3}
        levels = prune.fine_tune_levels(module, SHARES, batches, **options)
    finally:
        torch.set_num_threads(threads)
    assert list(levels.modules) == ["accurate", "balanced", "fast"]
    assert len(levels.losses) == 1
    path = tmp_path / "m.sprt"
    images = torch.from_numpy(digits().test_x)
    sparsert.convert(levels.modules, path, example_inputs=images)
    model = sparsert.load(path, tune=False)
    sizes = {}
    for name, module in levels.modules.items():
        if name in ("accurate", "fast"):
            alone = copy.deepcopy(trained_cnn("dense"))
            prune.prune(alone, sparsity=SHARES[name], exclude=["0"])
            train(alone, 1, 1e-3)
            assert accuracy(alone) - accuracy(module.eval()) <= 0.02
        assert levels.reports[name].sparsity == pytest.approx(SHARES[name], abs=0.01)
        sparsert.convert(module, tmp_path / "alone.sprt", example_inputs=images)
        sizes[name] = (tmp_path / "alone.sprt").stat().st_size
        model.level = name
        want = sparsert.load(tmp_path / "alone.sprt", tune=False)(digits().test_x)
        # Norms of its own are factors of the rows: weights differ in their last bit.
        np.testing.assert_allclose(model(digits().test_x), want, rtol=1e-5, atol=1e-5)
    assert path.stat().st_size <= 1.1 * sizes["accurate"] + 4096


@pytest.mark.parametrize(("pattern", "scope"), [(None, "global"), ("4x1", "layer")])
def test_masks_are_nested(pattern, scope):
    module = make_module()
    shares = {"a": 0.25, "b": 0.5, "c": 0.75}
    levels = prune.fine_tune_levels(
        module, shares, small_batches(), pattern=pattern, scope=scope, method="taylor",
        data=small_batches(), learning_rate=1e-3, epochs=2,
    )  # fmt: skip
    modules = list(levels.modules.values())
    for denser, sparser in itertools.pairwise(modules):
        for a, b in zip(zeros_of(denser), zeros_of(sparser), strict=True):
            assert bool((a <= b).all())
            assert int(b.sum()) > int(a.sum()) or scope == "global"
        # Weights are shared, norms are not.
        for p, q in zip(denser.parameters(), sparser.parameters(), strict=True):
            assert torch.equal(torch.where(q == 0, q, p), q)
        assert not torch.equal(denser[1].running_var, sparser[1].running_var)
    held = prune.masks(module)
    for name, mask in held.items():
        assert torch.equal(mask, modules[0].get_submodule(name).weight != 0)
    for wrong, part in (
        ({"a": 0.5}, "1 levels"),
        ({"a": 0.5, "b": 0.5}, "the same sparsity"),
        ({"": 0.5, "b": 0.6}, "name"),
        ({"a": 0.5, "b": 1.5}, "sparsity is 1.5"),
    ):
        with pytest.raises(ValueError, match=part):
            prune.fine_tune_levels(make_module(), wrong, small_batches())


def test_recipe_and_command(tmp_path):
    pytest.importorskip("yaml")
    options = {"sparsity": {"slow": 0.5, "quick": 0.75}, "epochs": 2, "learning_rate": 1e-3}
    recipe = Recipe([Step("levels", options)])
    module = make_module()
    result = recipe.run(module, small_batches())
    assert list(result.levels) == ["slow", "quick"]
    assert result.report.sparsity == pytest.approx(0.75, abs=0.02)
    with pytest.raises(RecipeError, match=r"step 1 \(levels\): expected to be the last step"):
        Recipe([Step("levels", options), Step("remove")])
    with pytest.raises(RecipeError, match="expected a share for each level"):
        Recipe([Step("levels", {"sparsity": 0.5})])
    with pytest.raises(ValueError, match="leave out train="):
        recipe.run(make_module(), small_batches(), train=lambda *_a, **_k: [])

    recipe.save(tmp_path / "r.yaml")
    net = tmp_path / "net.py"
    net.write_text(
        "from tests.prune.test_levels import make_module as build, small_batches as batches\n"
    )
    runner = CliRunner()
    arguments = ["prune", "--recipe", str(tmp_path / "r.yaml"), "--model", f"{net}:build"]
    arguments += ["--data", f"{net}:batches", "--output"]
    refused = runner.invoke(command, [*arguments, str(tmp_path / "m.onnx")])
    assert refused.exit_code == 2
    path = str(tmp_path / "m.sprt")
    done = runner.invoke(command, [*arguments, path])
    assert done.exit_code == 0, done.output
    shown = runner.invoke(command, ["inspect", path, "--level", "quick", "--json"])
    facts = json.loads(shown.output)
    assert [row["name"] for row in facts["levels"]["rows"]] == ["slow", "quick"]
    assert any("level 'quick'" in note for note in facts["layers"]["notes"])
    ran = runner.invoke(command, ["run", path, "--random", "--level", "slow", "--dim", "batch=2"])
    assert ran.exit_code == 0, ran.output
    unknown = runner.invoke(command, ["bench", path, "--level", "none", "--runs", "7"])
    assert unknown.exit_code == 1
    assert "its levels: 'slow', 'quick'" in unknown.output
