"""Networks trained on scikit-learn's digits that the tests of quantisation share."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sparsert import prune
from tests.suite.harness import build, make_session

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")
nn = torch.nn

BLOCK = 4  # input channels of a block
PATTERNS = ("dense", "unstructured", "1x4")


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images [count, 1, 8, 8] from 0 to 1 and their classes."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


@functools.cache
def digits() -> Digits:
    """A quarter is for testing."""
    data = datasets.load_digits()
    x = (data.images / 16).astype(np.float32)[:, None]
    y = data.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[len(y) // 4 :], order[: len(y) // 4]
    return Digits(x[train], y[train], x[test], y[test])


def accuracy(model: Any) -> float:
    """The share of right answers of anything with ONNX Runtime's run()."""
    (logits,) = model.run(None, {"x": digits().test_x})
    return float((logits.argmax(1) == digits().test_y).mean())


def train(module: Any, epochs: int, learning_rate: float) -> list[float]:
    """Trains in place, on one thread: so small a network is no faster on more; the losses."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x, y = torch.from_numpy(digits().train_x), torch.from_numpy(digits().train_y)
        batches = list(zip(torch.split(x, 32), torch.split(y, 32), strict=True))
        return prune.fine_tune(module, batches, epochs=epochs, learning_rate=learning_rate)
    finally:
        torch.set_num_threads(threads)
        module.eval()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norms beside the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Any) -> Any:
        """Relu(x + norm(conv(relu(norm(conv(x))))))."""
        y = torch.relu(self.norm1(self.first(x)))
        return torch.relu(x + self.norm2(self.second(y)))


def make_cnn() -> Any:
    """Conv16-block-Pool-Conv32-Dense10."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        ResidualBlock(16),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def block_mask(weight: Any, sparsity: float) -> Any:
    """Keeps the blocks of 4 successive input channels with the largest sums of magnitudes."""
    size = weight.abs()
    blocks = size.unflatten(1, (-1, BLOCK)).sum(2, keepdim=True)
    keep = torch.ones(blocks.numel(), dtype=torch.bool)
    keep[blocks.flatten().argsort(stable=True)[: round(sparsity * keep.numel())]] = False
    return keep.reshape(blocks.shape).expand(-1, -1, BLOCK, *size.shape[2:]).flatten(1, 2)


@functools.cache
def trained_cnn(pattern: str) -> Any:
    """The CNN, dense or pruned to 80 % but for the first convolution, and fine-tuned."""
    module = make_cnn()
    if pattern == "dense":
        train(module, 8, 2e-3)
        return module
    module.load_state_dict(trained_cnn("dense").state_dict())
    if pattern == "unstructured":
        prune.prune(module, sparsity=0.8, exclude=["0"])
    else:
        layers = dict(module.named_modules())
        names = ("2.first", "2.second", "4", "7")
        masks = {name: block_mask(layers[name].weight.detach(), 0.8) for name in names}
        prune.apply_masks(module, masks)
    train(module, 6, 1e-3)
    prune.remove(module)
    return module


def onnx_of(module: Any) -> onnx.ModelProto:
    """Exports a module with a symbolic batch; input x, output y."""
    x = torch.from_numpy(digits().test_x[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            module,
            (x,),
            dynamo=True,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            verbose=False,
        )
    return program.model_proto


@functools.cache
def cnn(pattern: str) -> onnx.ModelProto:
    """The trained CNN as ONNX, batch norms included."""
    state = {key: value.numpy() for key, value in trained_cnn(pattern).state_dict().items()}
    weights = {
        f"w{name.replace('.', '_')}": value
        for name, value in state.items()
        if "tracked" not in name
    }
    return build(
        [
            "a0 = Conv<pads=[1,1,1,1]>(x, w0_weight, w0_bias)",
            "a = Relu(a0)",
            "b0 = Conv<pads=[1,1,1,1]>(a, w2_first_weight)",
            f"b1 = BatchNormalization(b0, {_norm('w2_norm1')})",
            "b = Relu(b1)",
            "c0 = Conv<pads=[1,1,1,1]>(b, w2_second_weight)",
            f"c1 = BatchNormalization(c0, {_norm('w2_norm2')})",
            "c = Add(a, c1)",
            "d = Relu(c)",
            "e = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d)",
            "f0 = Conv<pads=[1,1,1,1]>(e, w4_weight, w4_bias)",
            "f = Relu(f0)",
            "g = Reshape(f, shape)",
            "y = Gemm<transB=1>(g, w7_weight, w7_bias)",
        ],
        {"x": ["n", 1, 8, 8]},
        {**weights, "shape": np.array([0, -1], np.int64)},
    )


def _norm(prefix: str) -> str:
    return ", ".join(
        f"{prefix}_{part}" for part in ("weight", "bias", "running_mean", "running_var")
    )


class TransformerBlock(nn.Module):
    """The eight rows of an image as tokens: attention, two linear layers, the mean, classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.place = nn.Parameter(torch.randn(8, 32) * 0.1)
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.mix = nn.Linear(32, 32)
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)
        self.classes = nn.Linear(32, 10)

    def forward(self, image: Any) -> Any:
        """Returns logits."""
        x = self.embed(image.squeeze(1)) + self.place
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 32**0.5
        x = self.norm1(x + self.mix(torch.softmax(scores, -1) @ self.value(x)))
        x = self.norm2(x + self.narrow(torch.nn.functional.gelu(self.wide(x))))
        return self.classes(x.mean(1))


@functools.cache
def transformer() -> onnx.ModelProto:
    """The transformer block, trained and pruned to half."""
    torch.manual_seed(0)
    module = TransformerBlock()
    train(module, 12, 3e-3)
    prune.prune(module, sparsity=0.5)
    train(module, 4, 1e-3)
    prune.remove(module)
    return onnx_of(module)


@functools.cache
def mlp() -> onnx.ModelProto:
    """Three linear layers, trained and pruned to 80 %."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    train(module, 8, 3e-3)
    prune.prune(module, sparsity=0.8)
    train(module, 5, 1e-3)
    prune.remove(module)
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    return build(
        [
            "f = Flatten(x)",
            "a = Gemm<transB=1>(f, w1, b1)",
            "b = Relu(a)",
            "c = Gemm<transB=1>(b, w3, b3)",
            "d = Relu(c)",
            "y = Gemm<transB=1>(d, w5, b5)",
        ],
        {"x": ["n", 1, 8, 8]},
        {
            f"{letter}{i}": state[f"{i}.{name}"]
            for i in (1, 3, 5)
            for letter, name in (("w", "weight"), ("b", "bias"))
        },
    )


NETWORKS = {
    **{f"cnn-{pattern}": functools.partial(cnn, pattern) for pattern in PATTERNS},
    "mlp": mlp,
    "transformer": transformer,
}


@functools.cache
def float_accuracy(name: str) -> float:
    """Of a network of NETWORKS, in ONNX Runtime."""
    return accuracy(make_session(NETWORKS[name]()))


def integers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The int8 weights of a quantised model, by the name of the float weight."""
    return {
        tensor.name.removesuffix("_int8"): numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name.endswith("_int8")
    }
