"""Keras models with torch as their backend: pruned, held at zero by fit(), exported and run."""

from __future__ import annotations

import os

import numpy as np
import pytest

import sparsert
from sparsert import prune

torch = pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip(f"Keras runs on {keras.backend.backend()}", allow_module_level=True)

from tests.quantize.networks import digits  # noqa: E402

to_numpy = keras.ops.convert_to_numpy


@pytest.fixture(autouse=True)
def one_thread():
    """So small networks are no faster on more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_cnn():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="first"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="wide"),
            layers.Dense(10, name="classes"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    return model


def make_lstm():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8), name="rows"),
            layers.LSTM(16, return_sequences=True, name="lstm"),
            layers.GRU(12, name="gru"),
            layers.Dense(10, name="classes"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2, weight_decay=0.1), loss)
    return model


def images(count=None):
    data = digits()
    return data.train_x[:count].transpose(0, 2, 3, 1), data.train_y[:count]


def accuracy(logits):
    return float((np.asarray(logits).argmax(1) == digits().test_y).mean())


def kernels(model):
    return {v.path: to_numpy(v) for v in model.variables if v.path.endswith("kernel")}


def zeros(model):
    return sum(int((kernel == 0).sum()) for kernel in kernels(model).values())


def make_mixed():
    """Convolutions with batch norms, an LSTM over the rows of what is left, and a dense layer."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="first"),
            layers.BatchNormalization(momentum=0.9, name="norm1"),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, padding="same", use_bias=False, name="second"),
            layers.BatchNormalization(momentum=0.9, name="norm2"),
            layers.ReLU(),
            layers.Reshape((4, 128)),
            layers.LSTM(32, name="lstm"),
            layers.Dense(10, name="classes"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    return model


def test_s10_the_digits_from_keras(tmp_path):
    model = make_mixed()
    x, y = images()
    model.fit(x, y, epochs=3, batch_size=64, verbose=0)
    test_x = digits().test_x.transpose(0, 2, 3, 1)

    def predict():
        return model.predict(test_x, batch_size=len(test_x), verbose=0)

    dense = accuracy(predict())
    assert dense > 0.9
    order = np.random.default_rng(0).permutation(len(x))
    batches = [(torch.from_numpy(x[i]), torch.from_numpy(y[i])) for i in np.array_split(order, 12)]
    recipe = prune.Recipe(
        [
            prune.Step("prune", {"method": "taylor", "sparsity": 0.5, "batches": 1}),
            prune.Step("fine_tune", {"epochs": 1, "learning_rate": 3e-3}),
        ]
    )
    mean = to_numpy(model.get_layer("norm1").moving_mean)
    report = recipe.run(model, batches).report
    assert (to_numpy(model.get_layer("norm1").moving_mean) != mean).any()
    names = ["first", "second", "lstm/lstm_cell.weight_ih", "lstm/lstm_cell.weight_hh", "classes"]
    assert [layer.name for layer in report.layers] == names
    assert report.layers[1].shape == (32, 16, 3, 3)
    assert zeros(model) == report.zeros == report.weights // 2
    before = kernels(model)
    model.optimizer.learning_rate = 1e-3
    model.fit(x, y, epochs=1, batch_size=64, verbose=0)
    assert zeros(model) == report.zeros
    for path, kernel in kernels(model).items():
        assert (kernel != before[path]).any() and not kernel[before[path] == 0].any()
    wanted = predict()
    assert dense - accuracy(wanted) <= 0.02
    model.export(str(tmp_path / "m.onnx"), format="onnx", verbose=False)
    sparsert.convert(tmp_path / "m.onnx", tmp_path / "m.sprt")
    runner = sparsert.load(tmp_path / "m.sprt", strict=True, threads=1)
    found = np.concatenate([runner(image[None]) for image in test_x])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
    rows = [row for row in runner.explain().to_dict()["rows"] if row.get("weights")]
    # Keras' exporter writes the steps of an LSTM one by one, with the same weights.
    counts = {(row["weights"], row["nonzeros"]) for row in rows}
    assert len(counts) == len(names)
    assert sum(weights - nonzeros for weights, nonzeros in counts) == report.zeros


def test_recurrent_models_from_keras(tmp_path):
    model = make_lstm()
    x = digits().train_x[:64, 0]
    y = digits().train_y[:64]
    report = prune.prune(model, sparsity=0.8, pattern="4x1")
    names = [layer.name for layer in report.layers]
    assert names == [
        *("lstm/lstm_cell.weight_ih", "lstm/lstm_cell.weight_hh"),
        *("gru/gru_cell.weight_ih", "gru/gru_cell.weight_hh", "classes"),
    ]
    kernel = to_numpy(model.get_layer("lstm").cell.kernel) != 0  # [inputs, 4 gates of 16 units]
    blocks = kernel.reshape(8, 4, 4, 4)
    assert (blocks.all(3) == blocks.any(3)).all() and 0.15 < kernel.mean() < 0.25
    before = zeros(model)
    model.fit(x, y, epochs=2, verbose=0)
    batches = [(torch.from_numpy(x), torch.from_numpy(y))]
    losses = prune.fine_tune(model, batches, epochs=4, learning_rate=1e-2)
    assert losses[-1] < losses[0] and zeros(model) == before == report.zeros
    wanted = model.predict(x[:1], verbose=0)
    runner = sparsert.load(model, strict=True, threads=1)
    found = runner.run(None, {runner.inputs[0].name: x[:1]})[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_view_computes_what_keras_does():
    from sparsert.prune.keras_view import KerasView

    layers = keras.layers
    inputs = keras.Input((8, 8, 6))
    y = layers.Conv2D(8, 3, groups=2, padding="same", activation="relu")(inputs)
    y = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(y)
    y = layers.BatchNormalization()(y)
    y = layers.Conv2DTranspose(4, 2, strides=2)(y)
    y = layers.TimeDistributed(layers.Dense(5))(layers.Reshape((32, 32))(y))
    y = layers.Bidirectional(layers.GRU(6))(y)
    model = keras.Model(inputs, layers.Dense(3)(y))
    view = KerasView(model)
    x = torch.randn(2, 8, 8, 6)
    wanted = model(x).detach()
    torch.testing.assert_close(view(x).detach(), wanted)
    assert len(dict(view.named_children())) == 8  # seven layers and the rest of the parameters
    before = [to_numpy(v) for v in model.variables]
    view.write_back()
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), old)
    report = prune.prune(model, "gradient", sparsity=0.5, data=[(x, torch.tensor([0, 1]))])
    assert zeros(model) == report.zeros
    pruned = model(x).detach()
    torch.testing.assert_close(KerasView(model)(x).detach(), pruned)
    assert not torch.equal(pruned, wanted)


def test_masks_of_keras_models():
    model = make_cnn()
    model.get_layer("wide").kernel.constraint = keras.constraints.MaxNorm(0.5)
    prune.prune(model, sparsity={"wide": 0.5}, pattern="channel")
    held = prune.masks(model)
    assert set(held) == {"wide", "wide.bias"} and held["wide"].shape == (32, 512)
    other = make_cnn()
    other.set_weights(model.get_weights())
    assert prune.masks(other) == {}
    prune.hold_zeros(other)
    assert torch.equal(prune.masks(other)["wide"], held["wide"])
    third = make_cnn()
    prune.apply_masks(third, held)
    gone = ~held["wide.bias"].numpy()
    third.fit(*images(64), verbose=0)
    assert not to_numpy(third.get_layer("wide").kernel)[:, gone].any()
    assert not to_numpy(third.get_layer("wide").bias)[gone].any()
    model.fit(*images(64), verbose=0)
    assert np.linalg.norm(to_numpy(model.get_layer("wide").kernel), axis=0).max() <= 0.501
    prune.remove(model)
    assert isinstance(model.get_layer("wide").kernel.constraint, keras.constraints.MaxNorm)
    assert prune.masks(model) == {}


def test_mistakes_with_keras_models():
    with pytest.raises(ValueError, match="'wanda' measures activations, which a Keras model"):
        prune.prune(make_cnn(), "wanda", sparsity=0.5, data=[torch.zeros(1, 8, 8, 1)])
    with pytest.raises(ValueError, match=r"no layer 'third'; .*: first, second, wide, classes"):
        prune.prune(make_cnn(), sparsity={"third": 0.5})
    with pytest.raises(ValueError, match="no weights yet: call it once"):
        prune.prune(keras.Sequential([keras.layers.Dense(3)]), sparsity=0.5)
    with pytest.raises(ValueError, match="takes no torch optimizer"):
        prune.fine_tune(make_cnn(), [], after_batch=lambda: None)
    model, x = make_cnn(), torch.zeros(2, 8, 8, 1)
    for function in (
        lambda: prune.shrink(model, x, channels=0.5),
        lambda: prune.shrink_zeros(model, x),
        lambda: prune.skip_blocks(model, x, 1),
        lambda: prune.fine_tune_levels(model, {"a": 0.5, "b": 0.8}, [x]),
        lambda: prune.prune_until(model, accuracy, target_speedup=2, data=[x]),
        lambda: prune.Regrowth(model, end=2),
    ):
        with pytest.raises(ValueError, match=r"a Keras model is not a torch module .*prune\(\)"):
            function()
    shares = prune.erdos_renyi(model, 0.5)
    assert list(shares) == ["first", "second", "wide", "classes"]
    assert prune.prune(model, sparsity=shares).sparsity == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match=r"norms of a Keras model move in its fit\(\)"):
        prune.recalibrate_batch_norms(make_cnn(), [])
