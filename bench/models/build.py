"""Command: python -m bench.models.build resnet50 --sparsity 0.9 -o resnet50.onnx."""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx

from bench.models.architectures import ALL_MODELS, PATTERNS, build_model


def main() -> None:
    """Builds one model and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=ALL_MODELS)
    parser.add_argument("--sparsity", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--with-bn", action="store_true", help="keep batch normalisation as nodes")
    parser.add_argument("--pattern", choices=list(PATTERNS), default="unstructured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    model, layers = build_model(
        args.name,
        args.sparsity,
        batch=args.batch,
        with_bn=args.with_bn,
        seed=args.seed,
        pattern=args.pattern,
    )
    onnx.save(model, args.output)
    macs = sum(layer.macs for layer in layers)
    print(f"{args.output}: {args.output.stat().st_size} bytes, {len(layers)} layers, {macs} MACs")


if __name__ == "__main__":
    main()
