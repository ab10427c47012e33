"""The heats of docs/peers.md: what `python -m bench.peers --published` runs, in this order."""

from __future__ import annotations

DENSE = "--engines onnxruntime openvino sparsert"
ALL = "--engines onnxruntime openvino deepsparse sparsert"
INT8 = "--dtype int8 --engines onnxruntime openvino openvino@avx512vnni"

# Options of bench.peers, one race after the other.
PUBLISHED = (
    f"--models resnet50 --sparsity 0.9 --threads 1 2 {ALL}",
    f"--models resnet50 --sparsity 0 0.7 0.8 0.95 --threads 1 {DENSE}",
    f"--models mobilenet_v1 mobilenet_v2 small_cnn vgg16 --sparsity 0.9 --threads 1 {ALL}",
    "--models mobilenet_v1 mobilenet_v2 small_cnn vgg16 --sparsity 0 0.7 0.8 0.95 "
    f"--threads 1 {DENSE}",
    f"--models resnet50 --sparsity 0.8 --pattern 4x1 --threads 1 {DENSE}",
    f"--models unseen --sparsity 0 --threads 1 {DENSE}",
    f"--models bert_base_16 bert_base_128 mlp --sparsity 0.8 0.9 --threads 1 {ALL}",
    f"--models bert_base_16 bert_base_128 mlp --sparsity 0 --threads 1 {DENSE}",
    "--models lstm gru --sparsity 0 0.8 0.9 --threads 1 --engines onnxruntime sparsert",
    f"--models mlp --sparsity 0 0.8 0.9 --threads 1 --batch 64 {ALL}",
    f"--models resnet50 --sparsity 0 --threads 2 {DENSE}",
    f"--models mobilenet_v1 --sparsity 0.9 --threads 2 {DENSE}",
    f"--models resnet50 mobilenet_v1 bert_base_128 mlp --sparsity 0 --threads 1 {INT8} sparsert",
    "--models resnet50 mobilenet_v1 bert_base_128 mlp --sparsity 0.8 0.9 --threads 1 "
    f"{INT8} deepsparse sparsert",
    "--models resnet50 mobilenet_v1 bert_base_128 mlp --sparsity 0.8 0.9 --pattern 1x4 "
    f"--threads 1 {INT8} sparsert",
)
