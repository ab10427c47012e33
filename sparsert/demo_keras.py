"""The demo's network from Keras (torch is its backend): trained, pruned, fitted again, exported.

Imports Keras where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsert.demo import BATCH, FINE_TUNING_RATE, LEARNING_RATE, PIXELS, Variant

if TYPE_CHECKING:
    from sparsert.demo import Images, Plan

SPARSITY = 0.5
TITLE = "from Keras"


def find_problem() -> str:
    """Returns why there can be nothing from Keras; "" if there can."""
    if find_spec("keras") is None:
        return 'Keras is not installed (pip install "sparsert[keras]"): no tables from Keras.'
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    backend = keras.backend.backend()
    return "" if backend == "torch" else f"Keras runs on {backend}, not torch: no tables from it."


def build_network(seed: int) -> Any:
    """Returns the network of the demo with new weights: float32 [n, 28, 28, 1] -> [n, 10]."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((PIXELS, PIXELS, 1), name="image"),
            layers.Conv2D(32, 3, activation="relu", name="conv1"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Dense(10, name="classes"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss)
    return model


def as_keras(images: np.ndarray) -> np.ndarray:
    """Returns images [n, 1, height, width] as Keras has them: [n, height, width, 1]."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def make_variants(
    images: Images, plan: Plan, output: Path, seed: int, task: Callable[[str, int], Any]
) -> list[Variant]:
    """Returns the network, dense and with half of its weights pruned, exported by Keras.

    Args:
        images: the digits.
        plan: how long to train.
        output: folder of the files.
        seed: of weights and batches.
        task: shows the progress of a training of so many epochs.
    """
    import keras

    from sparsert import prune

    model = build_network(seed)
    x, test_x = as_keras(images.train_x), as_keras(images.test_x)

    def accuracy() -> float:
        logits = model.predict(test_x, batch_size=len(test_x), verbose=0)
        return float((np.asarray(logits).argmax(1) == images.test_y).mean())

    def fit(name: str, epochs: int) -> None:
        with task(name, epochs) as advance:
            shown = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: advance())
            options = {"epochs": epochs, "batch_size": BATCH, "verbose": 0, "callbacks": [shown]}
            model.fit(x, images.train_y, **options)

    def save(stem: str, sparsity: float, before: float) -> Variant:
        path = output / f"{stem}.onnx"
        model.export(str(path), format="onnx", verbose=False)
        weights: Sequence[np.ndarray] = model.get_weights()
        return Variant(
            sparsity=sparsity,
            onnx=path,
            sprt=path.with_suffix(".sprt"),
            parameters=sum(weight.size for weight in weights),
            nonzero=sum(int(np.count_nonzero(weight)) for weight in weights),
            accuracy_pruned=before,
            accuracy=accuracy(),
        )

    fit("training in Keras", plan.epochs)
    variants = [save("digits-cnn-keras", 0.0, accuracy())]
    pruning = prune.prune(model, sparsity=SPARSITY)
    before = accuracy()
    model.optimizer.learning_rate = FINE_TUNING_RATE
    fit("fine-tuning in Keras", plan.fine_tuning_epochs)
    variants.append(save("digits-cnn-keras-pruned", SPARSITY, before))
    variants[-1].pruning = pruning
    return variants
