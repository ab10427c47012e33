"""Embeds sentences of any length with an encoder from torch: dynamic batch and sequence.

A tiny encoder with random weights stands in for a trained one (all-MiniLM-L6-v2 and the like run
the same way), and words are numbered instead of tokenised.
"""

import warnings
import zlib

import numpy as np
import torch
from torch import nn

import sparsert

WORDS, WIDTH = 5000, 64


class SentenceEncoder(nn.Module):
    """Token numbers [N, T] and their mask to unit vectors [N, WIDTH]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Embedding(512, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Mean pooling over the tokens that are no padding, then L2 normalisation."""
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        x = self.layers(x, src_key_padding_mask=attention_mask == 0)
        weight = attention_mask[..., None].float()
        mean = (x * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


def tokens_of(sentences: list[str]) -> dict[str, np.ndarray]:
    """Word numbers, padded to the longest sentence, and what is no padding."""
    rows = [[zlib.crc32(word.encode()) % WORDS for word in s.lower().split()] for s in sentences]
    longest = max(map(len, rows))
    ids = np.array([row + [0] * (longest - len(row)) for row in rows], np.int64)
    mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows], np.int64)
    return {"input_ids": ids, "attention_mask": mask}


torch.manual_seed(0)
encoder = SentenceEncoder().eval()
example = {name: torch.from_numpy(array) for name, array in tokens_of(["a b c", "d"]).items()}
any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
warnings.simplefilter("ignore")  # torch's exporter has a few
model = sparsert.load(
    encoder,  # or the path of an ONNX file
    example_inputs=example,
    dynamic_shapes=dict.fromkeys(example, any_size),
    strict=True,  # an operator that is not native would be an error
)

for sentences in (
    ["the cat sat on the mat"],
    ["a cat sat on a mat", "stocks fell sharply on monday", "the cat sat on the mat today"],
):
    embeddings = model(tokens_of(sentences))
    print(f"{len(sentences)} sentences: {list(embeddings.shape)}")
print("similarity with the first one:", np.round(embeddings @ embeddings[0], 2))
