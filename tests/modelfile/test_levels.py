"""Levels: what is written is read back by both readers, and malformed ones are clear errors."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from sparsert.errors import ModelFormatError
from sparsert.modelfile import at_level, level_facts, read, write_bytes, write_level_file
from sparsert.modelfile.tables import NO_INDEX, Section
from tests.modelfile import driver
from tests.modelfile.sample_models import level_networks, network
from tests.modelfile.test_bad_files import Patch, expect_refused

NAMES = ["all", "half", "few"]


def write(path: Path, weights: str = "f32", density: float = 0.5) -> Path:
    write_level_file(level_networks(density), path, weights, {"made": "here"})
    return path


def arrays_of(model: ir.Model) -> list[np.ndarray]:
    """The constants that the nodes use, in their order."""
    values = [value for node in model.graph for value in node.inputs if value is not None]
    arrays = [value.const_value.numpy() for value in values if value.const_value is not None]
    return [array for array in arrays if array.ndim]  # a scalar becomes an attribute


@pytest.mark.parametrize("density", [0.03, 0.5, 1.0])
def test_both_readers_decode_every_level(density: float, tmp_path: Path) -> None:
    path = write(tmp_path / "m.sprt", density=density)
    content = read(path)
    assert content.version == (1, 1)
    assert [level.name for level in content.levels] == NAMES
    assert content.metadata == {"made": "here"}
    lines = iter(driver.run("dump", path))
    for index in (2, 1, 0):
        file = at_level(content, index)
        for tensor in file.tensors:
            if not tensor.is_constant:
                continue
            name, nonzeros, crc = next(lines).rsplit(" ", 2)
            assert name == tensor.name
            if tensor.dtype == 1:
                values = np.ascontiguousarray(tensor.decode() + np.float32(0))
                assert int(crc, 16) == zlib.crc32(values.tobytes())
                assert tensor.scale is not None or int(nonzeros) == np.count_nonzero(values)
        used = [i for node in file.nodes for i in node.inputs if i is not None]
        read_back = [file.tensors[i].decode() for i in used if file.tensors[i].is_constant]
        for array, expected in zip(
            read_back, arrays_of(level_networks(density)[NAMES[index]]), strict=True
        ):
            np.testing.assert_array_equal(array, expected)
    assert next(lines, None) is None


def test_shared_weights_are_stored_once(tmp_path: Path) -> None:
    content = read(write(tmp_path / "m.sprt"))
    alone = len(write_bytes(level_networks()["all"]))
    assert content.file_bytes < 1.1 * alone + 4096
    facts = level_facts(content)
    assert [f["nonzeros"] for f in facts] == sorted((f["nonzeros"] for f in facts), reverse=True)
    assert sum(f["file_bytes"] for f in facts[1:]) < 0.1 * facts[0]["file_bytes"] + 512
    # Weights in blocks of four have a bit for each block.
    content = read(write(tmp_path / "blocks.sprt", density=0.2))
    (patch,) = [p for p in content.levels[0].patches if content.tensors[p.tensor].name == "w3"]
    assert patch.unit == 4
    f16 = read(write(tmp_path / "f16.sprt", "f16"))
    assert f16.file_bytes < 1.1 * len(write_bytes(level_networks()["all"], "f16")) + 4096


def test_a_level_of_nothing_new_costs_its_table(tmp_path: Path) -> None:
    path = tmp_path / "m.sprt"
    write_level_file({"one": network(), "two": network()}, path)
    assert read(path).levels[1].patches == ()
    assert driver.run("read", path) == ["ok"]


def change(name: str, edit: str) -> dict[str, ir.Model]:
    models = level_networks()
    graph = models[name].graph
    tensors = {value.name: value for value in graph.initializers.values()}
    if edit == "zeros":
        array = tensors["w2"].const_value.numpy().copy()
        array.flat[np.flatnonzero(array == 0)[:5]] = 1
        tensors["w2"].const_value = ir.tensor(array)
    elif edit == "values":
        array = tensors["w2"].const_value.numpy().copy()
        array[5].flat[np.flatnonzero(array[5])[0]] *= 1.5
        tensors["w2"].const_value = ir.tensor(array)
    elif edit == "op":
        graph[4].op_type = "GlobalMaxPool"
    elif edit == "attribute":
        graph[0].attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])
    elif edit == "shape":
        tensors["w4"].const_value = ir.tensor(np.zeros((11, 64), np.float32))
    elif edit == "input":
        graph.inputs[0].name = "picture"
    return models


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        ("zeros", ["w2", "'few' is not nested in 'half'", "first at [0, 0, 0, ", "prune the"]),
        ("values", ["w2", "'few' has other values than 'all'", "output channel 5", "together"]),
        ("op", ["'few'", "node 4", "is a GlobalMaxPool, not a GlobalAveragePool"]),
        ("attribute", ["'few'", "node ", "pads is (0, 0, 0, 0), not (1, 1, 1, 1)"]),
        ("shape", ["'few'", "'w4' is ", "[11,64]"]),
        ("input", ["'few'", "inputs picture", "files of their own"]),
    ],
)
def test_models_that_are_no_levels(edit: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "m.sprt"
    with pytest.raises(ModelFormatError) as error:
        write_level_file(change("few", edit), path)
    text = str(error.value)
    for part in parts:
        assert part.replace(" ", "") in text.replace(" ", ""), text
    assert not path.exists()
    with pytest.raises(ValueError, match="1 levels, expected 2 to 64"):
        write_level_file({"one": network()}, path)


class LevelPatchFile(Patch):
    """A valid file with levels to be edited."""

    def __init__(self, path: Path) -> None:
        self.data = bytearray(write(path, density=0.2).read_bytes())
        self.content = read(bytes(self.data))

    def entry(self, level: int, tensor: str, field: int, *values: int) -> None:
        """Writes into the row of a tensor in the table of a level."""
        names = [self.content.tensors[p.tensor].name for p in self.content.levels[0].patches]
        self.constant(self.index(NAMES[level]), 16 * names.index(tensor) + 4 * field, "I", *values)

    def constant(self, index: int, offset: int, layout: str, *values: int) -> None:
        data = self.content.tensors[index].data
        assert data is not None
        start = np.frombuffer(bytes(self.data), np.uint8)
        base = self.section(Section.DATA)[0]
        used = 0
        for i, tensor in enumerate(self.content.tensors):
            if tensor.data is None:
                continue
            used = (used + 63) // 64 * 64
            if i == index:
                self.put(layout, base + used + offset, *values)
                return
            used += tensor.data.size
        raise AssertionError(start.size)

    def index(self, name: str) -> int:
        return [tensor.name for tensor in self.content.tensors].index(name)


# what is wrong, the edit, and a part of both messages
EDITS = [
    ("count", lambda p: p.put("I", 224, 1 << 31), "levels from tensor"),
    ("first", lambda p: p.put("I", 228, NO_INDEX), "levels from tensor"),
    ("table", lambda p: p.put("I", 228, 0), "no u32 constant"),
    ("minor", lambda p: p.put("H", 10, 0), "reserved"),
    ("tensor", lambda p: p.entry(0, "w1", 0, 5000), "entry"),
    ("activation", lambda p: p.entry(0, "w1", 0, p.index("x")), "no constant"),
    ("twice", lambda p: [p.entry(k, "w1", 0, p.index("w2")) for k in range(3)], "twice"),
    ("unit", lambda p: p.entry(0, "w1", 1, 3), "neither value nor block"),
    ("other unit", lambda p: p.entry(1, "w3", 1, 1), "not that of the first level"),
    ("first keeps", lambda p: p.entry(0, "w1", 2, p.index("half/w1")), "first level has bits"),
    ("keep", lambda p: p.entry(1, "w1", 2, 1 << 31), "no constant"),
    ("bits", lambda p: p.entry(1, "w1", 2, p.index("few/w1")), "not as many as units"),
    ("last bits", lambda p: p.constant(p.index("half/w1"), 0, "Q", 0), "not as many as units"),
    ("scale", lambda p: p.entry(2, "w1", 3, p.index("half/w1")), "one f32 for each row"),
    ("rows", lambda p: p.entry(2, "w4", 3, p.index("few/w2/scale")), "one f32 for each row"),
    ("finite", lambda p: p.constant(p.index("few/w2/scale"), 0, "I", 0x7F800000), "not finite"),
    ("own", lambda p: p.entry(2, "zeros", 2, p.index("w4")), "another dtype, shape"),
    ("own scale", lambda p: p.entry(2, "zeros", 3, p.index("few/w2/scale")), "of its own"),
    (
        "not weights",
        lambda p: [(p.entry(k, "zeros", 1, 1), p.entry(k, "zeros", 2, NO_INDEX)) for k in range(3)],
        "is not only weights",
    ),
]


@pytest.mark.parametrize(("edit", "part"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_edited_levels(edit, part: str, tmp_path: Path) -> None:
    patch = LevelPatchFile(tmp_path / "m.sprt")
    edit(patch)
    expect_refused(patch, part, tmp_path / "edited.sprt")


@pytest.mark.fuzz
def test_mutants_never_crash_the_readers(tmp_path: Path) -> None:
    """Under the sanitizers; an accepted mutant must also decode at every level."""
    paths = []
    for density, kind in ((0.03, "f32"), (0.2, "f16")):
        paths.append(write(tmp_path / f"{density}.sprt", kind, density))
    for seed in range(max(1, round(float(os.environ.get("SPARSERT_FUZZ_SECONDS", "1"))))):
        driver.run("fuzz", 300, seed, *paths)
    whole = np.frombuffer(paths[0].read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(80):
        patch = Patch.__new__(Patch)
        mutated = whole.copy()
        mutated[rng.integers(32, whole.size, 2)] = rng.integers(256, size=2)
        patch.data = bytearray(mutated.tobytes())
        try:
            content = read(patch.bytes())
            for index in range(len(content.levels)):
                for tensor in at_level(content, index).tensors:
                    if tensor.is_constant:
                        tensor.decode()
        except ModelFormatError:
            pass
