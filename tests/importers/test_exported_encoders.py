"""Text encoders from both exporters of torch: native, of any length, as in onnxruntime."""

from __future__ import annotations

import functools
import io

import numpy as np
import onnx
import pytest
import torch

import sparsert
from tests.importers.encoders import LAYERS, SIZE, STYLES, TOKENS, Decoder, Encoder
from tests.suite.harness import make_session

Feeds = dict[str, np.ndarray]
# In the order in which they are run: the first plans are not for the smallest sizes.
LENGTHS = [17, 1, 128, 2, 509, 3, 64, 7, 511, 13, 256, 31, 97, 512, 5, 33]
DYNAMIC = {0: "batch", 1: "length"}
# Each takes some seconds to export; TorchScript's exporter has all the styles.
DYNAMO = ("bert", "bert-sdpa", "modernbert")


def inputs_of(batch: int, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Token numbers, and a mask with padding in all texts but the first."""
    rng = np.random.default_rng((seed, batch, length))
    mask = np.ones((batch, length), np.int64)
    for row in range(1, batch):
        mask[row, int(rng.integers(1, length + 1)) :] = 0
    return rng.integers(0, TOKENS, (batch, length)), mask


def seeded(kind: type[Encoder], style: str) -> Encoder:
    torch.manual_seed(7)
    return kind(STYLES[style]).eval()


@functools.cache
def exported(style: str, exporter: str) -> bytes:
    """An encoder's file, with dynamic batch and length."""
    args = tuple(torch.from_numpy(a) for a in inputs_of(2, 9))
    names = ["input_ids", "attention_mask"]
    buffer = io.BytesIO()
    with torch.no_grad():
        if exporter == "dynamo":
            program = torch.onnx.export(
                seeded(Encoder, style),
                args,
                input_names=names,
                output_names=["embeddings"],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},) * 2,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            return program.model_proto.SerializeToString()
        torch.onnx.export(
            seeded(Encoder, style),
            args,
            buffer,
            input_names=names,
            output_names=["embeddings"],
            dynamic_axes=dict.fromkeys(names, DYNAMIC),
            dynamo=False,
        )
    return buffer.getvalue()


CASES = [(s, "torchscript") for s in STYLES] + [(s, "dynamo") for s in DYNAMO]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("style", "exporter"), CASES, ids=["-".join(c) for c in CASES])
def test_embeddings(style: str, exporter: str, tmp_path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(exported(style, exporter))
    model = sparsert.load(path, strict=True, threads=1, tune=False)
    session = make_session(onnx.load(path))
    for i, length in enumerate(LENGTHS):
        batch = i % 8 + 1 if length < 100 else i % 2 + 1
        ids, mask = inputs_of(batch, length)
        feeds = {"input_ids": ids, "attention_mask": mask}
        want = session.run(None, feeds)[0]
        found = model.run(None, feeds)[0]
        assert found.shape == want.shape
        np.testing.assert_allclose(found, want, atol=1e-4, err_msg=f"{batch} of {length}")
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    rows = model.explain().to_dict()["rows"]
    attentions = [row for row in rows if row["op"] == "Attention"]
    assert len(attentions) == LAYERS
    assert not any(row["op"] == "Softmax" for row in rows)


@pytest.mark.filterwarnings("ignore")
def test_the_same_as_torch_itself() -> None:
    module = seeded(Encoder, "t5")
    example = tuple(torch.from_numpy(a) for a in inputs_of(2, 9))
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    model = sparsert.load(
        module, example_inputs=example, dynamic_shapes=(axes, axes), strict=True, tune=False
    )
    for batch, length in ((1, 1), (3, 20), (2, 71)):
        args = [torch.from_numpy(a) for a in inputs_of(batch, length, seed=1)]
        with torch.no_grad():
            want = module(*args)
        torch.testing.assert_close(model(*args), want, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_a_text_of_nothing_but_padding() -> None:
    proto = onnx.load_model_from_string(exported("bert-sdpa", "torchscript"))
    ids, mask = inputs_of(3, 12)
    mask[1] = 0
    feeds = {"input_ids": ids, "attention_mask": mask}
    want = make_session(proto).run(None, feeds)[0]
    found = sparsert.load(proto, strict=True, tune=False).run(None, feeds)[0]
    np.testing.assert_allclose(found, want, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("style", ["llama", "qwen"])
def test_a_decoder_with_a_cache(style: str) -> None:
    """Tokens in pieces, the keys and values of each handed to the next, beginning with none."""
    heads = STYLES[style].kv_heads
    names = [f"past_{i}_{what}" for i in range(LAYERS) for what in "kv"]
    ids, mask = inputs_of(1, 4)
    example = [torch.from_numpy(ids), torch.ones(1, 7, dtype=torch.int64)]
    example += [torch.randn(1, heads, 3, SIZE) for _ in names]
    buffer = io.BytesIO()
    axes = {"input_ids": DYNAMIC, "attention_mask": {0: "batch", 1: "total"}}
    with torch.no_grad():
        torch.onnx.export(
            seeded(Decoder, style),
            tuple(example),
            buffer,
            input_names=["input_ids", "attention_mask", *names],
            output_names=["logits", *(f"new_{name}" for name in names)],
            dynamic_axes={**axes, **{name: {0: "batch", 2: "past"} for name in names}},
            dynamo=False,
        )
    proto = onnx.load_model_from_string(buffer.getvalue())
    model = sparsert.load(proto, strict=True, threads=1, tune=False)
    session = make_session(proto)
    for batch in (1, 3):
        past = {name: np.zeros((batch, heads, 0, SIZE), np.float32) for name in names}
        total = 0
        for count in (5, 1, 1, 17, 1, 64, 1):
            total += count
            ids, _ = inputs_of(batch, count, seed=total)
            _, mask = inputs_of(batch, total)
            mask[:, -count:] = 1
            feeds: Feeds = {"input_ids": ids, "attention_mask": mask, **past}
            want = session.run(None, feeds)
            found = model.run(None, feeds)
            for got, wanted in zip(found, want, strict=True):
                assert got.shape == wanted.shape
                np.testing.assert_allclose(got, wanted, atol=1e-4, err_msg=f"{batch}, {total}")
            past = dict(zip(names, found[1:], strict=True))
