"""Passes: an imported model becomes a canonical graph of the sparsert opset.

Each pass is a module with one function `run(model)` that edits the model in place. PASSES lists
them in the order in which they are applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["PASSES", "canonicalise", "native_report"]

PASSES: tuple[str, ...] = (
    "inline_functions",
    "split_outputs",
    "convert_opset",
    "lift_constants",
    "expand_contribs",
    "expand_qoperators",
    "infer_shapes",
    "expand_functions",
    "lift_constants",
    "restore_tokens",
    "infer_shapes",
    "drop_noops",
    "check_quantised",
    "convert_floats",
    "recognise_activations",
    "lower_quantized_nets",
    "expand_quantizers",
    "lift_constants",
    "unroll_scans",
    "lower_bags",
    "fold_constants",
    "lower_integers",
    "lower_integer_products",
    "lower_integer_reductions",
    "lower_quantized",
    "lower_attention",
    "lower_norms",
    "lower_pools",
    "lower_functions",
    "lower_einsums",
    "lower_indexing",
    "lower_scatters",
    "split_tiles",
    "lower_col2ims",
    "lower_spectra",
    "lower_volume_convs",
    "lower_dynamic_convs",
    "infer_shapes",
    "drop_noops",
    "simplify_patterns",
    "fold_constants",
    "lower_integers",
    "split_variadics",
    "recognise_activations",
    "recognise_norms",
    "fold_pads",
    "infer_shapes",
    "drop_noops",
    "merge_duplicates",
    "lower_deforms",
    "lower_convs",
    "lower_linears",
    "lower_recurrent",
    "fold_transposes",
    "lower_matmuls",
    "fuse_attention",
    "lower_batch_norms",
    "expand_norms",
    "fold_affines",
    "fold_shuffles",
    "fuse_residuals",
    "fuse_activations",
    "lift_constants",
    "tidy_graph",
)


def load_pass(name: str) -> Callable[[ir.Model], None]:
    """Returns the `run` function of a pass; onnx and onnxscript are imported only then."""
    import importlib

    run: Callable[[ir.Model], None] = importlib.import_module(f"{__name__}.{name}").run
    return run


def canonicalise(model: ir.Model) -> ir.Model:
    """Applies every pass, in place.

    Args:
        model: an imported model.

    Returns:
        The same object, now canonical: ONNX operators of the newest opset and sparsert.Conv,
        ConvTranspose, Linear, BatchNormalization and binary operators with an activation. Large
        weights are lazy tensors: each read computes them anew, so read each once.

    Raises:
        UnsupportedOpError: an operator cannot be brought to the newest opset.
    """
    for name in PASSES:
        load_pass(name)(model)
    return model


def native_report(model: ir.Model) -> list:
    """Lists the nodes of a canonical model that the native engine cannot run.

    Returns:
        One passes.native_report.NonNativeNode (node, op, reason) each; empty if all are native.
    """
    from sparsert.passes.native_checks import find_non_native

    return find_non_native(model)
