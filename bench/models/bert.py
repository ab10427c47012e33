"""BERT encoders with random weights as ONNX graphs, the way torch's two exporters write them.

Command: python -m bench.models.bert --sparsity 0.9 -o bert.onnx.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench.models.network import LayerShape, prune_by_magnitude

Array = NDArray[Any]
# "eager" and "sdpa": torch.onnx.export(dynamo=False) of attention by hand and of scaled dot product
# attention, norms and GELU spelt out; "dynamo": torch.onnx.export(dynamo=True) of the latter.
STYLES = ("eager", "sdpa", "dynamo")
LOWEST = float(np.finfo(np.float32).min)


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of an encoder."""

    layers: int
    width: int
    heads: int
    hidden: int
    vocabulary: int
    positions: int = 512


BERT_BASE = BertConfig(12, 768, 12, 3072, 30522)
TINY = BertConfig(2, 32, 4, 64, 50, 128)


def build_bert(
    config: BertConfig = BERT_BASE,
    sparsity: float = 0.0,
    style: str = "eager",
    seed: int = 0,
    *,
    block: tuple[int, int] = (1, 1),
    shape: tuple[int, int] | None = None,
) -> tuple[onnx.ModelProto, list[LayerShape]]:
    """Builds an encoder with inputs input_ids, attention_mask, token_type_ids [batch, sequence].

    Args:
        config: its sizes.
        sparsity: share of zeros in the weights of the linear layers; embeddings and norms are
            dense.
        style: one of STYLES.
        seed: of the weights; the same seed gives the same dense weights at every sparsity.
        block: outputs and inputs of a linear layer that keep or lose a weight together.
        shape: batch and sequence, where the model is to run at no other.

    Returns:
        The model, with outputs last_hidden_state [batch, sequence, width] and pooler_output
        [batch, width]; and its linear layers, of one sentence of one token where `shape` is None.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; there are: {', '.join(STYLES)}")
    bert = _Bert(config, sparsity, style, seed, block, shape)
    return bert.build(), bert.layers


def random_feeds(
    config: BertConfig, batch: int, sequence: int, seed: int = 0
) -> dict[str, NDArray[np.int64]]:
    """Random tokens; the last sentences are padded."""
    rng = np.random.default_rng(seed)
    shape = (batch, sequence)
    mask = np.ones(shape, np.int64)
    for row in range(1, batch):
        mask[row, max(1, sequence - row * sequence // 4) :] = 0
    return {
        "input_ids": rng.integers(0, config.vocabulary, shape, np.int64),
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, shape, np.int64),
    }


class _Bert:
    def __init__(
        self,
        config: BertConfig,
        sparsity: float,
        style: str,
        seed: int,
        block: tuple[int, int],
        shape: tuple[int, int] | None,
    ) -> None:
        self.config = config
        self.sparsity = sparsity
        self.block = block
        self.shape = shape
        self.layers: list[LayerShape] = []
        self.is_dynamo = style == "dynamo"
        self.is_eager = style == "eager"
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def build(self) -> onnx.ModelProto:
        mask = self.mask()
        x = self.embeddings()
        for layer in range(self.config.layers):
            prefix = f"encoder.layer.{layer}"
            y = self.attention(x, mask, prefix)
            y = self.linear(y, f"{prefix}.attention.output.dense", self.config.width)
            x = self.norm(self.add("Add", y, x), f"{prefix}.attention.output.LayerNorm")
            y = self.gelu(self.linear(x, f"{prefix}.intermediate.dense", self.config.hidden))
            y = self.linear(y, f"{prefix}.output.dense", self.config.width)
            x = self.norm(self.add("Add", y, x), f"{prefix}.output.LayerNorm")
        self.add("Identity", x, output="last_hidden_state")
        first = self.add("Gather", x, self.constant("first", np.array(0, np.int64)), axis=1)
        width = self.config.width
        weight = self.constant("pooler.weight", self.weights("pooler", width, width, 1))
        bias = self.constant("pooler.bias", self.normal(self.config.width))
        pooled = self.add("Gemm", first, weight, bias, transB=1)
        self.add("Tanh", pooled, output="pooler_output")
        return self.model()

    # --- parts of the network

    def mask(self) -> str:
        """Adds what is added to the scores: 0, or a very large negative number."""
        if not self.is_dynamo:
            mask = self.unsqueeze(self.unsqueeze("attention_mask", 1), 2)
            mask = self.add("Cast", mask, to=TensorProto.FLOAT)
            mask = self.add("Sub", self.number("one", 1.0), mask)
            return self.add("Mul", mask, self.number("lowest", LOWEST))
        mask = self.unsqueeze("attention_mask", 1, 2)
        batch, sequence = self.dim("attention_mask", 0), self.dim("attention_mask", 1)
        one = self.constant("int64_1", np.array([1], np.int64))
        shape = self.add("Concat", batch, one, sequence, sequence, axis=0)
        mask = self.add("Expand", mask, shape)
        mask = self.add("Cast", mask, to=TensorProto.FLOAT)
        mask = self.add("Sub", self.number("one", 1.0), mask)
        hidden = self.add("Cast", mask, to=TensorProto.BOOL)
        return self.add("Where", hidden, self.number("lowest", LOWEST), mask)

    def embeddings(self) -> str:
        words = self.table("embeddings.word_embeddings", self.config.vocabulary)
        types = self.table("embeddings.token_type_embeddings", 2)
        places = self.table("embeddings.position_embeddings", self.config.positions)
        ids = self.constant("position_ids", np.arange(self.config.positions)[None])
        zero = self.constant("int64_0", np.array([0], np.int64))
        one = self.constant("int64_1", np.array([1], np.int64))
        ids = self.add("Slice", ids, zero, self.dim("input_ids", 1), one, one)
        x = self.add("Gather", words, "input_ids")
        x = self.add("Add", x, self.add("Gather", types, "token_type_ids"))
        x = self.add("Add", x, self.add("Gather", places, ids))
        return self.norm(x, "embeddings.LayerNorm")

    def attention(self, x: str, mask: str, prefix: str) -> str:
        size = self.config.width // self.config.heads
        q, k, v = (
            self.linear(x, f"{prefix}.attention.self.{name}", self.config.width)
            for name in ("query", "key", "value")
        )
        split = self.shape_of(x, self.config.heads, size)
        q = self.add("Transpose", self.add("Reshape", q, split), perm=[0, 2, 1, 3])
        k, v = self.add("Reshape", k, split), self.add("Reshape", v, split)
        v = self.add("Transpose", v, perm=[0, 2, 1, 3])
        if self.is_eager:
            k = self.add("Transpose", k, perm=[0, 2, 3, 1])
            scores = self.add("MatMul", q, k)
            scores = self.add("Div", scores, self.number("root", math.sqrt(size)))
        else:
            k = self.add("Transpose", k, perm=[0, 2, 1, 3])
            if self.is_dynamo:
                k = self.turned(k)
                half = self.number("root_scale", 1 / math.sqrt(math.sqrt(size)))
            else:
                k = self.add("Transpose", k, perm=[0, 1, 3, 2])
                size_of_head = self.slice(self.add("Shape", q), -1, 2**63 - 1)
                root = self.add("Sqrt", self.add("Cast", size_of_head, to=TensorProto.FLOAT))
                half = self.add("Sqrt", self.add("Div", self.number("one", 1.0), root))
            scores = self.add("MatMul", self.add("Mul", q, half), self.add("Mul", k, half))
        shares = self.add("Softmax", self.add("Add", scores, mask), axis=-1)
        y = self.add("Transpose", self.add("MatMul", shares, v), perm=[0, 2, 1, 3])
        return self.add("Reshape", y, self.shape_of(x, self.config.width))

    def turned(self, k: str) -> str:
        """Adds the exchange of the last two axes, with those before them joined meanwhile."""
        shape = self.add("Shape", k)
        first = self.slice(shape, -(2**63 - 1), -2)
        rows, columns = self.slice(shape, -2, -1), self.slice(shape, -1, 2**63 - 1)
        rest = self.constant("int64_rest", np.array([-1], np.int64))
        k = self.add("Reshape", k, self.add("Concat", rest, rows, columns, axis=0))
        k = self.add("Transpose", k, perm=[0, 2, 1])
        return self.add("Reshape", k, self.add("Concat", first, columns, rows, axis=0))

    def linear(self, x: str, name: str, features: int) -> str:
        in_features = self.config.hidden if name.endswith(("output.dense",)) else self.config.width
        if name.endswith("attention.output.dense"):
            in_features = self.config.width
        tokens = self.shape[1] if self.shape else 1
        weight = self.weights(name, features, in_features, tokens)
        y = self.add("MatMul", x, self.constant(f"{name}.weight", weight.T))
        bias = self.constant(f"{name}.bias", self.normal(features))
        return self.add("Add", y, bias) if self.is_dynamo else self.add("Add", bias, y)

    def norm(self, x: str, name: str) -> str:
        width = self.config.width
        scale = self.constant(f"{name}.weight", 1 + self.normal(width))
        bias = self.constant(f"{name}.bias", self.normal(width))
        if self.is_dynamo:
            return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)
        d = self.add("Sub", x, self.add("ReduceMean", x, axes=[-1]))
        square = self.add("Pow", d, self.number("two", 2.0))
        variance = self.add("ReduceMean", square, axes=[-1])
        root = self.add("Sqrt", self.add("Add", variance, self.number("epsilon", 1e-12)))
        y = self.add("Mul", self.add("Div", d, root), scale)
        return self.add("Add", y, bias)

    def gelu(self, x: str) -> str:
        if self.is_dynamo:
            return self.add("Gelu", x)
        y = self.add("Erf", self.add("Div", x, self.number("root_2", math.sqrt(2.0))))
        y = self.add("Mul", x, self.add("Add", y, self.number("one", 1.0)))
        return self.add("Mul", y, self.number("half", 0.5))

    # --- the graph

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        self.constants[name] = np.asarray(value, order="C")
        return name

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, np.float32))

    def unsqueeze(self, x: str, *axes: int) -> str:
        name = f"axes_{'_'.join(map(str, axes))}"
        return self.add("Unsqueeze", x, self.constant(name, np.array(axes, np.int64)))

    def slice(self, x: str, start: int, end: int) -> str:
        bounds = [
            self.constant(f"bound_{value}", np.array([value], np.int64)) for value in (start, end)
        ]
        return self.add("Slice", x, *bounds)

    def dim(self, x: str, axis: int) -> str:
        """Adds one dimension of x, as a tensor of one element."""
        if self.is_dynamo:
            return self.add("Shape", x, start=axis, end=axis + 1)
        index = self.constant(f"index_{axis}", np.array(axis, np.int64))
        return self.unsqueeze(self.add("Gather", self.add("Shape", x), index, axis=0), 0)

    def shape_of(self, x: str, *rest: int) -> str:
        parts = [self.constant(f"int64_{n}", np.array([n], np.int64)) for n in rest]
        return self.add("Concat", self.dim(x, 0), self.dim(x, 1), *parts, axis=0)

    def table(self, name: str, rows: int) -> str:
        values = self.rng.standard_normal((rows, self.config.width), dtype=np.float32)
        return self.constant(f"{name}.weight", values * np.float32(0.5))

    def weights(self, name: str, rows: int, columns: int, tokens: int) -> Array:
        weights = self.rng.standard_normal((rows, columns), dtype=np.float32)
        weights *= np.float32(1 / math.sqrt(columns))
        shape = (self.shape[0] if self.shape else 1, columns, 1, tokens, rows, 1, 1, 0, 1)
        self.layers.append(LayerShape(name, *shape, self.sparsity))
        return prune_by_magnitude(weights, self.sparsity, self.block)

    def normal(self, size: int) -> Array:
        return self.rng.standard_normal(size, dtype=np.float32) * np.float32(0.05)

    def model(self) -> onnx.ModelProto:
        info = helper.make_tensor_value_info
        tokens: list[int | str] = list(self.shape or ("batch", "sequence"))
        names = ("input_ids", "attention_mask", "token_type_ids")
        width = self.config.width
        graph = helper.make_graph(
            self.nodes,
            "bert",
            [info(name, TensorProto.INT64, tokens) for name in names],
            [
                info("last_hidden_state", TensorProto.FLOAT, [*tokens, width]),
                info("pooler_output", TensorProto.FLOAT, [tokens[0], width]),
            ],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opset = 20 if self.is_dynamo else 14
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=9 if self.is_dynamo else 7,
        )
        onnx.checker.check_model(model)
        return model


def main() -> None:
    """Writes BERT-base."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sparsity", type=float, default=0.0)
    parser.add_argument("--style", choices=STYLES, default="eager")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    model, _ = build_bert(BERT_BASE, args.sparsity, args.style, args.seed)
    onnx.save(model, args.output)


if __name__ == "__main__":
    main()
