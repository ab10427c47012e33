"""What a number was measured on: CPU, instruction sets, system, versions, date."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

# Packages whose versions change what is measured.
PACKAGES = ("numpy", "onnx", "onnxruntime", "torch")


@dataclass(frozen=True)
class Machine:
    """The facts to print beside measurements.

    Attributes:
        cpu: the model's name, or the architecture where the system does not tell.
        cores: how many this process may keep busy.
        isas: instruction sets of sparsert's kernels that run here, least capable first.
        forced_isa: of SPARSERT_ISA, or "".
        system: operating system and release.
        python: version.
        versions: of sparsert and of the installed PACKAGES, by name.
        date: UTC, to the minute.
    """

    cpu: str
    cores: int
    isas: tuple[str, ...]
    forced_isa: str
    system: str
    python: str
    versions: dict[str, str]
    date: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the facts for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Returns the facts as three lines of text."""
        isas = " ".join(self.isas) or "no compiled kernels"
        forced = f", SPARSERT_ISA={self.forced_isa}" if self.forced_isa else ""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [
            f"Machine: {self.cpu}, {self.cores} core(s), {isas}{forced}; {self.system}",
            f"Versions: Python {self.python}, {versions}",
            f"Date: {self.date}",
        ]


def describe_machine() -> Machine:
    """Looks at this machine."""
    from sparsert import __version__
    from sparsert.runtime.native_backend import usable_cores

    versions = {"sparsert": __version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Machine(
        cpu=_cpu_name(),
        cores=usable_cores(),
        isas=_isas(),
        forced_isa=os.environ.get("SPARSERT_ISA", ""),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _isas() -> tuple[str, ...]:
    from sparsert.errors import BackendError
    from sparsert.runtime.native_backend import available_isas

    try:
        return tuple(available_isas())
    except BackendError:
        return ()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model") and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()
