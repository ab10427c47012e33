"""What prune_until() has done so far: results and weights, on disk so that it can go on later."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsert.errors import SparsertError
from sparsert.modelfile import save_atomic
from sparsert.prune.torch_import import import_torch

if TYPE_CHECKING:
    import torch

    State = dict[str, torch.Tensor]

VERSION = 1
FILE = "journal.json"


class Journal:
    """Results by name. Whoever asks for one that is there does not compute it again.

    A run that was killed does the same steps again and finds those it had done.

    Args:
        folder: made if it is missing; None: kept in memory.
        run: what was asked for, and of which model: a folder of another run is refused.

    Raises:
        SparsertError: the folder is of another run, or its files are damaged.
    """

    def __init__(self, folder: Path | None, run: Mapping[str, Any]) -> None:
        self._folder = folder
        self._run = json.loads(json.dumps(run))
        self._results: dict[str, Any] = {}
        self._states: dict[str, State] = {}
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version, before = content["version"], content["run"]
            self._results = content["results"]
        except (ValueError, KeyError, TypeError) as error:
            raise SparsertError(f"{path}: not a journal of prune_until: {error}") from error
        if version != VERSION:
            raise SparsertError(f"{path}: version {version}, this sparsert reads {VERSION}")
        changed = [key for key in self._run if before.get(key) != self._run[key]]
        if changed:
            raise SparsertError(
                f"{folder} holds another run, with other {', '.join(changed)}: give another "
                "folder, or remove it to begin anew"
            )

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns a result, computed (and written) if it is not there; plain JSON."""
        if name not in self._results:
            self._results[name] = compute()
            self._write()
        return self._results[name]

    def train(self, name: str, model: torch.nn.Module, compute: Callable[[], Any]) -> Any:
        """The same for what changes the model's values: these are kept as well."""
        if name in self._results:
            restore(model, self.state(name))
            return self._results[name]
        result = compute()
        self._keep(name, model)
        return self.once(name, lambda: result)

    def state(self, name: str) -> State:
        """Returns the weights that were kept under a name.

        Raises:
            SparsertError: their file is missing or damaged.
        """
        if self._folder is None:
            return self._states[name]
        path = self._path(name)
        try:
            found: State = import_torch().load(path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise SparsertError(f"{path}: cannot be read: {error}") from error
        return found

    def _keep(self, name: str, model: torch.nn.Module) -> None:
        state = {key: value.detach().clone() for key, value in model.state_dict().items()}
        if self._folder is None:
            self._states[name] = state
            return
        data = io.BytesIO()
        import_torch().save(state, data)
        save_atomic(self._path(name), data.getbuffer())

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{name.replace(' ', '-')}.pt"

    def _write(self) -> None:
        if self._folder is not None:
            content = {"version": VERSION, "run": self._run, "results": self._results}
            save_atomic(self._folder / FILE, json.dumps(content).encode())


def restore(model: torch.nn.Module, state: State) -> None:
    """Gives a model the values and masks that it had, and no others."""
    from sparsert.prune.masking import bake_masks, load_masked_state

    bake_masks(model)
    load_masked_state(model, state)


def digest(model: torch.nn.Module) -> int:
    """Returns a checksum of the values of a model."""
    total = 0
    for name, value in sorted(model.state_dict().items()):
        total = zlib.crc32(name.encode(), total)
        plain = value.detach().cpu().contiguous().reshape(-1)
        total = zlib.crc32(plain.view(import_torch().uint8).numpy().tobytes(), total)
    return total
