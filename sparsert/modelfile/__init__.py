"""Reading and writing .sprt files (docs/format.md) from Python."""

from sparsert.modelfile.level_writer import write_level_file
from sparsert.modelfile.levels import at_level, level_facts
from sparsert.modelfile.reader import (
    ModelFile,
    NodeInfo,
    TensorInfo,
    has_levels,
    read,
    read_metadata,
)
from sparsert.modelfile.rewriter import replace_weights
from sparsert.modelfile.to_ir import to_ir
from sparsert.modelfile.writer import save_atomic, write_aligned, write_bytes, write_file

__all__ = [
    "ModelFile",
    "NodeInfo",
    "TensorInfo",
    "at_level",
    "has_levels",
    "level_facts",
    "read",
    "read_metadata",
    "replace_weights",
    "save_atomic",
    "to_ir",
    "write_aligned",
    "write_bytes",
    "write_file",
    "write_level_file",
]
