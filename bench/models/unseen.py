"""Networks of other families, on which nothing was tuned: concats, skips, sound, gates."""

from __future__ import annotations

from bench.models.network import Network

# The mean square of silu(x), and of sigmoid(x), for x of mean square 1.
SILU_POWER = 0.36
GATE_POWER = 0.29


def densenet121(net: Network) -> str:
    """DenseNet-121 (Huang et al., 2016).

    The normalisation before a Relu follows a concat, no convolution, and stays a node.
    """
    x = net.relu(net.conv("input", "conv0", 64, 7, stride=2, dense=True))
    x = net.max_pool(x, 3, 2, pad=1)
    for block, layers in enumerate((6, 12, 24, 16), 1):
        parts = [x]
        for layer in range(1, layers + 1):
            prefix = f"block{block}.layer{layer}"
            y = net.concat(parts) if len(parts) > 1 else x
            y = net.relu(net.batch_norm(y, f"{prefix}.norm1"))
            y = net.relu(net.conv(y, f"{prefix}.conv1", 128, 1))
            parts.append(net.conv(y, f"{prefix}.conv2", 32, 3, gain=1.0, bn=False))
        x = net.relu(net.batch_norm(net.concat(parts), f"norm{block}"))
        if block < 4:
            x = net.conv(x, f"transition{block}", net.shapes[x][1] // 2, 1, bn=False)
            x = net.average_pool(x, 2, 2)
    return net.linear(net.flatten(net.global_average_pool(x)), "classifier", 1000)


def unet(net: Network) -> str:
    """U-Net (Ronneberger et al., 2015) with 16 to 256 channels, padded, two classes."""

    def double_conv(x: str, name: str, channels: int, dense: bool = False) -> str:
        x = net.relu(net.conv(x, f"{name}.0", channels, 3, dense=dense))
        return net.relu(net.conv(x, f"{name}.1", channels, 3))

    x = double_conv("input", "down0", 16, dense=True)
    skips = []
    for level, channels in enumerate((32, 64, 128, 256), 1):
        skips.append(x)
        x = double_conv(net.max_pool(x, 2, 2), f"down{level}", channels)
    for level, channels in enumerate((128, 64, 32, 16)):
        x = net.upsample(x, f"up{level}.conv", channels, 2)
        x = double_conv(net.concat([skips.pop(), x]), f"up{level}", channels)
    return net.conv(x, "head", 2, 1, gain=1.0, bn=False)


def audio_cnn(net: Network) -> str:
    """M11 for two seconds of sound at 16 kHz, 1-D throughout (Dai et al., 2016)."""
    x = net.relu(net.conv("input", "stem", 64, 80, stride=4, pad=38, dense=True))
    for stage, (channels, repeats) in enumerate(((64, 2), (128, 2), (256, 3), (512, 2))):
        x = net.max_pool(x, 4, 4)
        for repeat in range(repeats):
            x = net.relu(net.conv(x, f"stage{stage}.{repeat}", channels, 3))
    return net.linear(net.flatten(net.global_average_pool(x)), "classifier", 10)


def efficientnet_b0(net: Network) -> str:
    """EfficientNet-B0 (Tan and Le, 2019)."""
    x = net.silu(net.conv("input", "stem", 32, 3, stride=2, dense=True, gain=1.0))
    plan = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3)]
    plan += [(6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]
    index, power = 0, SILU_POWER
    for expand, channels, repeats, first_stride, kernel in plan:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            in_channels = net.shapes[x][1]
            residual = stride == 1 and in_channels == channels
            y, hidden, prefix = x, in_channels * expand, f"block{index}"
            if expand != 1:
                y = net.silu(net.conv(y, f"{prefix}.expand", hidden, 1, gain=1 / power))
                power = SILU_POWER
            y = net.conv(
                *(y, f"{prefix}.dw", hidden, kernel, stride),
                groups=hidden,
                dense=True,
                gain=1 / power,
            )
            y = net.silu(y)
            gate = net.conv(
                *(net.global_average_pool(y), f"{prefix}.squeeze", max(1, in_channels // 4), 1),
                bn=False,
            )
            gate = net.conv(net.silu(gate), f"{prefix}.excite", hidden, 1, bn=False)
            y = net.multiply(y, net.sigmoid(gate))
            gain = (0.3 if residual else 1.0) / (SILU_POWER * GATE_POWER)
            y = net.conv(y, f"{prefix}.project", channels, 1, gain=gain)
            x = net.add(x, y) if residual else y
            index, power = index + 1, 1.0
    x = net.silu(net.conv(x, "head", 1280, 1, gain=1.0))
    return net.linear(net.flatten(net.global_average_pool(x)), "classifier", 1000)
