"""Chooses the backend of a model whose caller leaves it open: the fastest one that is there."""

from __future__ import annotations

import warnings

from sparsert.errors import BackendError
from sparsert.runtime.native_backend import import_core

# In order, after the compiled extension: what else can run a model, and what that costs.
_COSTS = {
    "capi": "the same kernels in the C library, called through cffi",
    "numba": (
        "kernels that Numba compiles: half as fast or less, some seconds of compilation at their "
        "first use, no int8 instructions"
    ),
    "numpy": "the interpreter for tests, a hundred times slower",
}


def choose_backend(stacklevel: int) -> str:
    """Returns "native", or, with a warning, the next best where the extension is missing.

    Args:
        stacklevel: of the warning: 1 is the caller.

    Raises:
        BackendError: there is nothing that can run a model.
    """
    try:
        import_core()
        return "native"
    except BackendError as error:
        problem = error
    for backend, cost in _COSTS.items():
        if _is_there(backend):
            warnings.warn(
                f'{problem}. Meanwhile backend="{backend}" runs the model: {cost}.',
                stacklevel=stacklevel + 1,
            )
            return backend
    raise problem


def _is_there(backend: str) -> bool:
    try:
        if backend == "capi":
            import_core("capi")
            return True
        import onnx  # both others need it
        import onnx_ir

        del onnx, onnx_ir
        if backend == "numba":
            import numba

            del numba
    except (BackendError, ImportError):
        return False
    return True
