"""Malformed files are clear errors in both readers, whatever their bytes."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparsert.errors import ModelFormatError
from sparsert.modelfile import read, write_bytes
from sparsert.modelfile.opset import UNARY_FN
from sparsert.modelfile.tables import Section
from tests.modelfile import driver
from tests.modelfile.sample_models import network

TENSOR_BYTES, NODE_BYTES, ATTR_BYTES = 64, 40, 16


class Patch:
    """A valid file to be edited; `bytes()` puts size and checksum right."""

    def __init__(self) -> None:
        self.data = bytearray(write_bytes(network()))

    def section(self, section: Section) -> tuple[int, int]:
        offset, size = struct.unpack_from("<QQ", self.data, 32 + 16 * section)
        return offset, size

    def put(self, layout: str, offset: int, *values: int) -> None:
        struct.pack_into("<" + layout, self.data, offset, *values)

    def put_in(self, section: Section, offset: int, layout: str, *values: int) -> None:
        self.put(layout, self.section(section)[0] + offset, *values)

    def tensor(self, name: str) -> int:
        """Returns the offset of a tensor's record in its section."""
        index = [tensor.name for tensor in read(bytes(self.data)).tensors].index(name)
        return index * TENSOR_BYTES

    def attr(self, name: str) -> int:
        """Returns the offset of the first attribute with that name in its section."""
        names = [key for node in read(bytes(self.data)).nodes for key in node.attrs]
        return names.index(name) * ATTR_BYTES

    def bytes(self) -> bytes:
        struct.pack_into("<I", self.data, 24, zlib.crc32(self.data[32:]))
        return bytes(self.data)


def header(offset: int, layout: str, *values: int) -> Callable[[Patch], None]:
    return lambda patch: patch.put(layout, offset, *values)


def tensor(name: str, offset: int, layout: str, *values: int) -> Callable[[Patch], None]:
    def edit(patch: Patch) -> None:
        patch.put_in(Section.TENSORS, patch.tensor(name) + offset, layout, *values)

    return edit


def node(index: int, offset: int, layout: str, *values: int) -> Callable[[Patch], None]:
    def edit(patch: Patch) -> None:
        patch.put_in(Section.NODES, index * NODE_BYTES + offset, layout, *values)

    return edit


def attr(name: str, offset: int, layout: str, *values: int) -> Callable[[Patch], None]:
    def edit(patch: Patch) -> None:
        patch.put_in(Section.ATTRS, patch.attr(name) + offset, layout, *values)

    return edit


def table(section: Section, offset: int, layout: str, *values: int) -> Callable[[Patch], None]:
    return lambda patch: patch.put_in(section, offset, layout, *values)


# what is wrong, the edit, and a part of both messages
EDITS: list[tuple[str, Callable[[Patch], None], str]] = [
    ("future version", header(8, "H", 2), "written by a newer sparsert"),
    ("past version", header(8, "H", 0), "version 0.0"),
    ("header size", header(12, "I", 512), "header"),
    ("flags", header(28, "I", 1), "header"),
    ("file size", header(16, "Q", 1 << 40), "truncated"),
    ("reserved bytes", header(255, "B", 1), "reserved"),
    ("section offset", header(32, "Q", 320), "section tensors"),
    ("section offset overflow", header(48, "Q", (1 << 64) - 64), "section nodes"),
    ("section size overflow", header(40, "Q", (1 << 64) - 1), "section tensors"),
    ("overlapping sections", header(32 + 16 * 2, "Q", 256), "section node_io"),
    ("broken records", header(40, "Q", 63), "section tensors"),
    ("tensor name", tensor("w1", 0, "II", 0xFFFFFFF0, 32), "name"),
    ("tensor dtype", tensor("w1", 8, "B", 99), "dtype"),
    ("tensor kind", tensor("w1", 9, "B", 7), "kind"),
    ("tensor encoding", tensor("w1", 10, "B", 9), "encoding"),
    ("tensor rank", tensor("w1", 11, "B", 9), "rank 9"),
    ("tensor dims", tensor("w1", 12, "I", 0xFFFFFFFF), "dims"),
    ("data offset", tensor("w2", 16, "Q", 1 << 63), "data at"),
    ("overlapping data", tensor("w2", 16, "Q", 0), "data at"),
    ("data size", tensor("w2", 24, "Q", 64), "bytes of data"),
    ("stored values", tensor("w2", 32, "Q", 12), "w2"),
    ("stored values overflow", tensor("w2", 32, "Q", (1 << 64) - 1), "w2"),
    ("block shape", tensor("w2", 40, "HH", 3, 1), "w2"),
    ("no block", tensor("w2", 40, "HH", 0, 0), "w2"),
    ("value dtype", tensor("w2", 44, "B", 7), "dtype"),
    ("index kind", tensor("w2", 45, "B", 3), "w2"),
    ("index bytes", tensor("w2", 56, "Q", (1 << 64) - 8), "w2"),
    ("sparse vector", tensor("b4", 10, "B", 1), "b4"),
    ("dense values", tensor("w4", 32, "Q", 639), "w4"),
    ("huge dim", table(Section.DIMS, 0, "q", (1 << 63) - 1), "2^40"),
    ("unknown symbol", table(Section.DIMS, 0, "q", -(1 << 63)), "symbol"),
    ("strings", table(Section.STRINGS, 0, "B", 0xFF), "UTF-8"),
    ("zero byte in a name", table(Section.STRINGS, 0, "B", 0), "zero byte"),
    ("unknown op", node(0, 0, "H", 999), "unknown op 999"),
    ("op version", node(0, 2, "H", 2), "version 2"),
    ("io position", node(1, 12, "I", 0), "expected"),
    ("too many inputs", node(6, 16, "H", 60000), "inputs"),
    ("attrs position", node(1, 20, "I", 0), "attributes"),
    ("too many attrs", node(6, 24, "H", 60000), "attributes"),
    ("swapped op", node(3, 0, "H", 15), "inputs"),
    ("io index", table(Section.NODE_IO, 0, "I", 77), "tensor"),
    ("io absent", table(Section.NODE_IO, 0, "I", 0xFFFFFFFF), "node 0"),
    ("self loop", table(Section.NODE_IO, 0, "I", 3), "produced"),
    ("attr key", attr("act", 0, "H", 99), "attribute"),
    ("attr of another op", attr("act", 0, "H", 24), "attribute"),
    ("attr type", attr("act", 2, "B", 4), "attribute"),
    ("attr enum", attr("act", 8, "Q", len(UNARY_FN)), "act"),
    ("attr count", attr("pads", 4, "I", 1000), "values"),
    ("attr payload", attr("pads", 8, "Q", (1 << 64) - 1), "values"),
    ("graph io count", table(Section.GRAPH_IO, 0, "I", 0xFFFFFFFF), "graph_io"),
    ("graph io index", table(Section.GRAPH_IO, 8, "I", 5000), "graph_io"),
    ("output not produced", table(Section.GRAPH_IO, 12, "I", 0xFFFF), "graph_io"),
]


def expect_refused(patch: Patch, part: str, path: Path) -> None:
    """Both readers name the part that is wrong."""
    path.write_bytes(patch.bytes())
    with pytest.raises(ModelFormatError) as error:
        read(path)
    assert part in str(error.value)
    (line,) = driver.run("read", path)
    assert line.startswith("error 2 ")
    assert part in line


@pytest.mark.parametrize(("edit", "part"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_edited_file(edit: Callable[[Patch], None], part: str, tmp_path: Path) -> None:
    patch = Patch()
    edit(patch)
    expect_refused(patch, part, tmp_path / "edited.sprt")


# Only C++ looks into these: the Python reader does when it decodes or runs the graph.
C_EDITS: list[tuple[str, Callable[[Patch], None], str]] = [
    ("stride 0", table(Section.INTS, 0, "q", -1), "pads"),
    ("wrong bias", table(Section.NODE_IO, 8, "I", 1), "one element per output channel"),
    ("row_ptr", lambda p: p.put_in(Section.DATA, data_offset(p, "w2"), "I", 5), "row_ptr"),
    ("delta", lambda p: p.put_in(Section.DATA, index_offset(p, "w2"), "B", 255), "block-row"),
]


def data_offset(patch: Patch, name: str) -> int:
    start = patch.section(Section.TENSORS)[0] + patch.tensor(name)
    return int(struct.unpack_from("<Q", patch.data, start + 16)[0])


def index_offset(patch: Patch, name: str) -> int:
    layout = next(t.layout for t in read(bytes(patch.data)).tensors if t.name == name)
    assert layout is not None
    return data_offset(patch, name) + layout.index_offset


@pytest.mark.parametrize(("edit", "part"), [e[1:] for e in C_EDITS], ids=[e[0] for e in C_EDITS])
def test_edited_content(edit: Callable[[Patch], None], part: str, tmp_path: Path) -> None:
    patch = Patch()
    edit(patch)
    path = tmp_path / "edited.sprt"
    path.write_bytes(patch.bytes())
    (line,) = driver.run("read", path)
    assert line.startswith("error 2 ")
    assert part in line


FOREIGN = [
    (b"", "empty"),
    (b"\x89SP", "truncated"),
    (b"PK\x03\x04" + bytes(300), "zip"),
    (b"\x1f\x8b" + bytes(300), "gzip"),
    (b"\x08\x0a\x12\x07pytorch:\x00" + bytes(300), "ONNX"),
    (b"hello, world" * 30, "not a .sprt file"),
]


@pytest.mark.parametrize(("content", "part"), FOREIGN, ids=[f[1] for f in FOREIGN])
def test_foreign_file(content: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.sprt"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=part):
        read(path)
    assert part in driver.run("read", path)[0]


def test_truncated_and_corrupt_files(tmp_path: Path) -> None:
    whole = write_bytes(network())
    paths, parts = [], []
    for size in (100, 256, 1000, len(whole) - 1):
        paths.append(tmp_path / f"{size}.sprt")
        paths[-1].write_bytes(whole[:size])
        parts.append(f"{size}")
    longer = tmp_path / "longer.sprt"
    longer.write_bytes(whole + b"more")
    corrupt = tmp_path / "corrupt.sprt"
    corrupt.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    paths += [longer, corrupt]
    parts += ["past the end", "checksum"]
    for path, part, line in zip(paths, parts, driver.run("read", *paths), strict=True):
        assert part in line
        with pytest.raises(ModelFormatError, match=part):
            read(path)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"none\.sprt: No such file"):
        read(tmp_path / "none.sprt")
    with pytest.raises(ModelFormatError, match="directory"):
        read(tmp_path)


def test_all_problems_are_listed(tmp_path: Path) -> None:
    patch = Patch()
    records = [patch.tensor(name) for name in ("w1", "w2", "w3")]
    for record in records:
        patch.put_in(Section.TENSORS, record + 8, "B", 99)
    path = tmp_path / "three.sprt"
    path.write_bytes(patch.bytes())
    with pytest.raises(ModelFormatError) as error:
        read(path)
    (line,) = driver.run("read", path)
    for name in ("w1", "w2", "w3"):
        assert name in str(error.value)
        assert name in line


@pytest.mark.fuzz
def test_mutants_never_crash_the_c_reader(tmp_path: Path) -> None:
    """Under the sanitizers; an accepted mutant must also decode to the same dense and CSR."""
    paths = []
    for density, kind in ((0.03, "f32"), (0.3, "f32"), (0.1, "f16"), (1.0, "f16")):
        paths.append(tmp_path / f"{density}_{kind}.sprt")
        paths[-1].write_bytes(write_bytes(network(density), kind))
    seconds = float(os.environ.get("SPARSERT_FUZZ_SECONDS", "1"))
    for seed in range(max(1, round(seconds))):
        driver.run("fuzz", 1500, seed, *paths)


@pytest.mark.fuzz
def test_mutants_never_break_the_python_reader() -> None:
    whole = np.frombuffer(write_bytes(network()), np.uint8)
    tables = int(struct.unpack_from("<Q", whole.data, 32 + 16 * Section.DATA)[0])
    rng = np.random.default_rng(0)
    for _ in range(400):
        mutated = whole.copy()
        mutated[rng.integers(32, tables, 2)] = rng.integers(256, size=2)
        struct.pack_into("<I", mutated.data, 24, zlib.crc32(mutated[32:].data))
        try:
            file = read(mutated)
            for tensor in file.tensors:
                if tensor.is_constant:
                    tensor.decode()
        except ModelFormatError:
            pass
