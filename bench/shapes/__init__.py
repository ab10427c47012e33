"""Layer shapes of real networks, for benchmarks of single kernels."""

from __future__ import annotations

from bench.models.architectures import build_model
from bench.models.network import LayerShape


def layer_shapes(model: str, sparsity: float = 0.9, batch: int = 1) -> list[LayerShape]:
    """Lists the distinct layers of a model of bench.models.MODELS, in the order of the network."""
    _, layers = build_model(model, sparsity, batch=batch)
    seen: dict[tuple[object, ...], LayerShape] = {}
    for layer in layers:
        key = tuple(value for field, value in vars(layer).items() if field != "name")
        seen.setdefault(key, layer)
    return list(seen.values())
