"""import_model on torch modules: the same answers as torch, eval mode, dynamic shapes."""

from __future__ import annotations

import numpy as np
import pytest

import sparsert
from sparsert.errors import ModelFormatError
from sparsert.importers import import_model
from sparsert.passes import canonicalise, native_report
from sparsert.runtime.numpy_backend import NumpyBackend
from tests.passes.pass_checks import ops

torch = pytest.importorskip("torch")
nn = torch.nn
functional = torch.nn.functional


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(3, 8, 1, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)) + self.down(x))
        y = functional.max_pool2d(y, 3, 2, 1)
        return self.head(functional.dropout(y.mean((2, 3)), 0.5, self.training))


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(4, 16, 1), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 5, 1, 2, groups=16), nn.BatchNorm2d(16), nn.SiLU()
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(16, 4, 1),
            nn.ReLU6(),
            nn.Conv2d(4, 16, 1),
            nn.Hardsigmoid(),
        )
        self.project = nn.Sequential(nn.Conv2d(16, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x):
        y = self.depthwise(self.expand(x))
        return x + self.project(y * self.squeeze(y))


class Audio(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(2, 8, 9, 4, 4),
            nn.GELU(),
            nn.Conv1d(8, 8, 3, dilation=2, padding=2, groups=8),
            nn.BatchNorm1d(8),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose1d(8, 4, 4, 4),
            nn.PReLU(4),
            nn.AvgPool1d(3, 2, 1),
        )

    def forward(self, x):
        return torch.log_softmax(self.net(x), 1)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(3, 8, 3, padding=1)
        self.down2 = nn.Conv2d(8, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.mid = nn.Conv2d(16, 8, 3, padding=1)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        a = functional.elu(self.down1(x))
        b = functional.mish(self.down2(functional.max_pool2d(a, 2)))
        c = torch.tanh(self.mid(torch.cat([a, self.up(b)], 1)))
        d = functional.interpolate(b[:, :8], scale_factor=2, mode="bilinear", align_corners=False)
        return torch.sigmoid(self.out(torch.cat([c, d], 1)))


MODULES = {
    "residual": (Residual, (2, 3, 20, 20), ["N", None, "H", "W"], (3, 3, 25, 31)),
    "mobile": (Mobile, (2, 4, 12, 12), ["N", None, "H", "W"], (1, 4, 9, 15)),
    "audio": (Audio, (2, 2, 64), ["N", None, "T"], (3, 2, 101)),
    "unet": (UNet, (2, 3, 16, 16), ["N", None, None, None], (3, 3, 16, 16)),
}


def randomise(module):
    """Gives batch norms statistics that matter."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.uniform_(-1, 1, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return module


def assert_matches(module, model, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = module.eval()(x).numpy()
    (found,) = NumpyBackend(model).run({model.graph.inputs[0].name: x.numpy()}).values()
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_static(name):
    make, shape, _, _ = MODULES[name]
    module = randomise(make())
    model = canonicalise(import_model(module, torch.zeros(shape)))
    assert native_report(model) == []
    assert_matches(module, model, shape)


@pytest.mark.parametrize("name", MODULES)
def test_dynamic(name):
    make, shape, dims, other = MODULES[name]
    module = randomise(make())
    dim = torch.export.Dim
    names = {"H": {"min": 8, "max": 64}, "W": {"min": 8, "max": 64}, "T": {"min": 32, "max": 512}}
    spec = {i: dim.DYNAMIC if d else dim.STATIC for i, d in enumerate(dims)}
    del names
    model = canonicalise(import_model(module, (torch.zeros(shape),), dynamic_shapes=(spec,)))
    assert native_report(model) == []
    assert not isinstance(model.graph.inputs[0].shape[0], int)
    assert_matches(module, model, shape)
    assert_matches(module, model, other)


def test_fusion():
    model = canonicalise(import_model(randomise(Residual()), torch.zeros(1, 3, 20, 20)))
    assert ops(model) == [
        "sparsert.Conv",
        "sparsert.Conv",
        "sparsert.Conv",
        "MaxPool",
        "ReduceMean",
        "sparsert.Linear",
    ]


def test_dynamic_residual_is_fused():
    dim = torch.export.Dim
    spec = ({0: dim.DYNAMIC, 2: dim.DYNAMIC, 3: dim.DYNAMIC},)
    model = canonicalise(
        import_model(randomise(Mobile()), (torch.zeros(2, 4, 12, 12),), dynamic_shapes=spec)
    )
    assert sum(len(n.inputs) == 4 for n in model.graph if n.op_type == "Conv") == 1
    assert "Add" not in ops(model)


def test_training_flags_are_kept():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    module[1].eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    import_model(module, torch.zeros(1, 3, 4, 4))
    assert [m.training for m in module.modules()] == [True, True, False, True]
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_zeros_survive():
    module = randomise(Residual())
    masks = {}
    with torch.no_grad():
        for name, part in module.named_modules():
            if isinstance(part, nn.Conv2d):
                masks[name] = torch.rand_like(part.weight) < 0.1
                part.weight *= masks[name]
    model = canonicalise(import_model(module, torch.zeros(1, 3, 20, 20)))
    kept = sum(
        np.count_nonzero(n.inputs[1].const_value.numpy())
        for n in model.graph
        if n.op_type == "Conv"
    )
    assert kept == sum(int(mask.sum()) for mask in masks.values())


def test_two_inputs_and_outputs():
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b, a * b

    model = canonicalise(import_model(Two(), (torch.ones(2, 3), torch.ones(3))))
    a, b = (value.name for value in model.graph.inputs)
    feeds = {a: np.full((2, 3), 2, np.float32), b: np.full(3, 5, np.float32)}
    first, second = NumpyBackend(model).run(feeds).values()
    assert (first == 7).all()
    assert (second == 10).all()


def test_missing_example():
    with pytest.raises(ModelFormatError, match="example_inputs"):
        import_model(nn.ReLU())


def test_failing_export():
    class Broken(nn.Module):
        def forward(self, x):
            return x.reshape(7, 7)

    with pytest.raises(ModelFormatError, match="Broken"):
        import_model(Broken(), torch.zeros(2, 3))


def test_exported_program():
    module = Residual().eval()
    x = torch.randn(2, 3, 16, 16)
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},))
    loaded = sparsert.load(program, strict=True, tune=False)
    for size in (2, 5):
        x = torch.randn(size, 3, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(loaded(x), module(x), rtol=1e-4, atol=1e-4)


def test_program_that_cannot_be_exported():
    class Sorted(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvalsh(x)

    program = torch.export.export(Sorted(), (torch.eye(3),))
    with pytest.raises(ModelFormatError, match=r"ExportedProgram: torch\.onnx\.export failed"):
        import_model(program)


def test_quantised_program(tmp_path):
    """What convert_pt2e leaves: conversions of quantized_decomposed around float operators."""
    pytest.importorskip("torch.ao.quantization.fx._decomposed")
    q = torch.ops.quantized_decomposed
    in_bytes, in_weights = (0.03, 120, 0, 255, torch.uint8), (0, -127, 127, torch.int8)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("w", torch.randint(-127, 128, (6, 8), dtype=torch.int8))
            self.register_buffer("scale", torch.linspace(0.002, 0.006, 6, dtype=torch.float64))
            self.register_buffer("zero", torch.zeros(6, dtype=torch.int64))
            self.register_buffer("b", torch.randn(6))

        def forward(self, x):
            x = q.quantize_per_tensor.default(x, *in_bytes)
            x = q.dequantize_per_tensor.default(x, *in_bytes)
            w = q.dequantize_per_channel.default(self.w, self.scale, self.zero, *in_weights)
            return functional.linear(x, w, self.b)

    module, x = Layer(), torch.randn(4, 8)
    program = torch.export.export(module, (x,))
    assert "sparsert.QConv" in ops(canonicalise(import_model(program)))
    sparsert.convert(program, tmp_path / "layer.sprt")
    found = sparsert.load(tmp_path / "layer.sprt", tune=False)(x)
    torch.testing.assert_close(found, module(x), rtol=1e-5, atol=1e-5)
