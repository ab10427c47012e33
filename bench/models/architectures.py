"""The networks of the benchmarks, by name: their layers and their feeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray

from bench.models.bert import BERT_BASE, build_bert, random_feeds
from bench.models.network import LayerShape, Network
from bench.models.unseen import audio_cnn, densenet121, efficientnet_b0, unet

# A residual branch adds a tenth of the signal's power, so that sixteen of them do not add up.
BRANCH_GAIN = 0.1


def resnet50(net: Network) -> str:
    """ResNet-50 v1.5: the stride is in the 3x3 convolution (He et al., 2015)."""
    x = net.relu(net.conv("input", "conv1", 64, 7, stride=2, dense=True))
    x = net.max_pool(x, 3, 2, pad=1)
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            prefix = f"layer{stage}.{block}"
            y = net.relu(net.conv(x, f"{prefix}.conv1", width, 1))
            y = net.relu(net.conv(y, f"{prefix}.conv2", width, 3, stride=stride))
            y = net.conv(y, f"{prefix}.conv3", 4 * width, 1, gain=BRANCH_GAIN)
            if block == 0:
                x = net.conv(x, f"{prefix}.downsample.0", 4 * width, 1, stride=stride, gain=1.5)
            x = net.relu(net.add(y, x))
    return net.linear(net.flatten(net.global_average_pool(x)), "fc", 1000)


def mobilenet_v1(net: Network) -> str:
    """MobileNetV1, width 1 (Howard et al., 2017)."""
    x = net.relu(net.conv("input", "stem", 32, 3, stride=2, dense=True))
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    plan += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for i, (channels, stride) in enumerate(plan):
        groups = net.shapes[x][1]
        x = net.conv(x, f"block{i}.dw", groups, 3, stride=stride, groups=groups, dense=True)
        x = net.relu(x)
        x = net.relu(net.conv(x, f"block{i}.pw", channels, 1))
    return net.linear(net.flatten(net.global_average_pool(x)), "classifier", 1000)


def mobilenet_v2(net: Network) -> str:
    """MobileNetV2, width 1 (Sandler et al., 2018)."""
    x = net.relu6(net.conv("input", "stem", 32, 3, stride=2, dense=True))
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    plan += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    index = 0
    for expand, channels, repeats, first_stride in plan:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            in_channels = net.shapes[x][1]
            residual = stride == 1 and in_channels == channels
            y, hidden, prefix = x, in_channels * expand, f"block{index}"
            if expand != 1:
                y = net.relu6(net.conv(y, f"{prefix}.expand", hidden, 1))
            y = net.conv(y, f"{prefix}.dw", hidden, 3, stride=stride, groups=hidden, dense=True)
            y = net.relu6(y)
            y = net.conv(y, f"{prefix}.project", channels, 1, gain=0.3 if residual else 1.0)
            x = net.add(x, y) if residual else y
            index += 1
    x = net.relu6(net.conv(x, "head", 1280, 1))
    return net.linear(net.flatten(net.global_average_pool(x)), "classifier", 1000)


def vgg16(net: Network) -> str:
    """VGG-16, configuration D, without batch normalisation unless asked (Simonyan et al., 2014)."""
    x = "input"
    index = 0
    for channels, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            x = net.conv(x, f"features.{index}", channels, 3, dense=index == 0, bn=net.with_bn)
            x = net.relu(x)
            index += 1
        x = net.max_pool(x, 2, 2)
    x = net.flatten(x)
    x = net.relu(net.linear(x, "classifier.0", 4096))
    x = net.relu(net.linear(x, "classifier.3", 4096))
    return net.linear(x, "classifier.6", 1000)


def small_cnn(net: Network) -> str:
    """Conv32-Pool-Conv64-Pool-Dense64-Dense10 on 28x28x1 images."""
    x = net.relu(net.conv("input", "conv1", 32, 3, pad=0, dense=True, bn=net.with_bn))
    x = net.max_pool(x, 2, 2)
    x = net.relu(net.conv(x, "conv2", 64, 3, pad=0, bn=net.with_bn))
    x = net.flatten(net.max_pool(x, 2, 2))
    return net.linear(net.relu(net.linear(x, "dense1", 64)), "dense2", 10)


def mlp(net: Network) -> str:
    """Two hidden layers of 4096."""
    x = net.relu(net.linear("input", "fc0", 4096))
    x = net.relu(net.linear(x, "fc1", 4096))
    return net.linear(x, "fc2", 1000)


def lstm(net: Network) -> str:
    """Two layers of 512, as torch exports nn.LSTM(512, 512, 2, batch_first=True)."""
    return _recurrent(net, "LSTM")


def gru(net: Network) -> str:
    """Two layers of 512, as torch exports nn.GRU(512, 512, 2, batch_first=True)."""
    return _recurrent(net, "GRU")


def _recurrent(net: Network, op: str) -> str:
    x = net.transpose("input", [1, 0, 2])
    for layer in range(2):
        x = net.recurrent(op, x, f"layer{layer}", 512)
    return net.transpose(x, [1, 0, 2])


# Name -> (layers, shape of one input).
Models = dict[str, tuple[Callable[[Network], str], tuple[int, ...]]]
MODELS: Models = {
    "resnet50": (resnet50, (3, 224, 224)),
    "mobilenet_v1": (mobilenet_v1, (3, 224, 224)),
    "mobilenet_v2": (mobilenet_v2, (3, 224, 224)),
    "vgg16": (vgg16, (3, 224, 224)),
    "small_cnn": (small_cnn, (1, 28, 28)),
}
# Networks that no kernel and no cost was tuned on.
UNSEEN: Models = {
    "densenet121": (densenet121, (3, 224, 224)),
    "unet": (unet, (3, 256, 256)),
    "audio_cnn": (audio_cnn, (1, 32000)),
    "efficientnet_b0": (efficientnet_b0, (3, 224, 224)),
}
# Networks of linear and recurrent layers; the latter read a hundred steps.
LINEAR: Models = {
    "mlp": (mlp, (1024,)),
    "lstm": (lstm, (100, 512)),
    "gru": (gru, (100, 512)),
}
# Encoders, and how many tokens they read.
ENCODERS = {"bert_base_16": 16, "bert_base_128": 128}
NETWORKS: Models = {**MODELS, **UNSEEN, **LINEAR}
ALL_MODELS = [*NETWORKS, *ENCODERS]

# Pattern of the zeros -> output and input channels that keep or lose a weight together.
PATTERNS = {
    "unstructured": (1, 1),
    "4x1": (4, 1),
    "8x1": (8, 1),
    "16x1": (16, 1),
    "1x4": (1, 4),
}


def input_shape(name: str, batch: int = 1) -> tuple[int, ...]:
    """Shape of the only input of a model of NETWORKS."""
    return (batch, *NETWORKS[name][1])


def make_feeds(name: str, batch: int = 1, seed: int = 1) -> dict[str, NDArray[np.generic]]:
    """Random arrays for the inputs of a model of ALL_MODELS, by name and in order."""
    if name in ENCODERS:
        return {**random_feeds(BERT_BASE, batch, ENCODERS[name], seed)}
    rng = np.random.default_rng(seed)
    return {"input": rng.standard_normal(input_shape(name, batch), dtype=np.float32)}


def build_model(
    name: str,
    sparsity: float = 0.0,
    *,
    batch: int = 1,
    with_bn: bool = False,
    seed: int = 0,
    pattern: str = "unstructured",
) -> tuple[onnx.ModelProto, list[LayerShape]]:
    """Builds a model of ALL_MODELS with random weights, each layer pruned by magnitude.

    The first convolution and depthwise convolutions stay dense, as is customary.

    Args:
        name: a key of ALL_MODELS.
        sparsity: share of zeros in the pruned layers, 0 to 1 (1 excluded).
        batch: size of the first dimension.
        with_bn: keep batch normalisation as nodes, where there is one; the values are the same.
        seed: of the weights; the same seed gives the same dense weights at every sparsity.
        pattern: of the zeros, a key of PATTERNS.

    Returns:
        The model and its layers with weights. A model of NETWORKS has one float input "input" and
        one float output "output"; an encoder has those of build_bert().
    """
    if name not in ALL_MODELS:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(ALL_MODELS)}")
    if pattern not in PATTERNS:
        raise ValueError(f"unknown pattern {pattern!r}; there are: {', '.join(PATTERNS)}")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be at least 0 and less than 1, got {sparsity}")
    if name in ENCODERS:
        shape = (batch, ENCODERS[name])
        return build_bert(
            *(BERT_BASE, sparsity),
            seed=seed,
            block=PATTERNS[pattern],
            shape=shape,
        )
    layers, _ = NETWORKS[name]
    net = Network(input_shape(name, batch), sparsity, with_bn, seed, PATTERNS[pattern])
    return net.finish(layers(net), name), net.layers
