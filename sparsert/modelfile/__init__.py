"""Reading and writing .sprt files (docs/format.md) from Python."""

from sparsert.modelfile.reader import ModelFile, NodeInfo, TensorInfo, read, read_metadata
from sparsert.modelfile.rewriter import replace_weights
from sparsert.modelfile.to_ir import to_ir
from sparsert.modelfile.writer import save_atomic, write_aligned, write_bytes, write_file

__all__ = [
    "ModelFile",
    "NodeInfo",
    "TensorInfo",
    "read",
    "read_metadata",
    "replace_weights",
    "save_atomic",
    "to_ir",
    "write_aligned",
    "write_bytes",
    "write_file",
]
