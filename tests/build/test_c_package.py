"""The C library as installed: pkg-config, CMake, the example in C99, and the numbers of Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sparsert
from tests.suite.harness import build, random_weights

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "dev"
C99 = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
PROJECT = """
cmake_minimum_required(VERSION 3.20)
project(downstream LANGUAGES C)
find_package(sparsert 0.1 REQUIRED)
add_executable(classify_shared classify.c)
target_link_libraries(classify_shared PRIVATE sparsert::sparsert)
add_executable(classify_static classify.c)
target_link_libraries(classify_static PRIVATE sparsert::sparsert_static)
"""

pytestmark = [
    pytest.mark.skipif(not (BUILD / "libsparsert.a").exists(), reason="needs make build-all"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]


def tool(name: str) -> str:
    """A program of this environment, else of the machine."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def run(*command: object, **kwargs: object) -> str:
    """Runs a command that must succeed and says nothing on stderr; returns what it prints."""
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        **kwargs,  # type: ignore[call-overload]
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return str(result.stdout)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed and then moved."""
    first = tmp_path_factory.mktemp("first") / "prefix"
    run(tool("cmake"), "--install", BUILD, "--component", "c", "--prefix", first)
    moved = tmp_path_factory.mktemp("moved") / "prefix"
    first.rename(moved)
    return moved


def library_folder(prefix: Path) -> Path:
    """Where the libraries are: lib, lib64, ..."""
    (static,) = prefix.rglob("libsparsert.a")
    return static.parent


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sparsert.Model]:
    """A small classifier of images, as a file and as Python runs it."""
    proto = build(
        [
            "a = Conv<pads=[1,1,1,1]>(x, w1)",
            "b = Relu(a)",
            "c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b)",
            "d = Conv(c, w2)",
            "g = GlobalAveragePool(d)",
            "h = Flatten(g)",
            "y = Gemm<transB=1>(h, w3)",
        ],
        {"x": ["n", 3, 18, 14]},
        {
            "w1": random_weights(16, 3, 3, 3, sparsity=0.5),
            "w2": random_weights(24, 16, 1, 1, sparsity=0.9),
            "w3": random_weights(10, 24, sparsity=0.5),
        },
    )
    path = tmp_path_factory.mktemp("network") / "network.sprt"
    sparsert.convert(proto, path)
    return path, sparsert.load(path, threads=1, tune=False)


def expect_pythons_numbers(
    program: Path, network: tuple[Path, sparsert.Model], tmp_path: Path
) -> None:
    """The five best classes, bit for bit, of floats and of bytes."""
    path, model = network
    raw = np.random.default_rng(7).integers(0, 256, (1, 3, 18, 14)).astype(np.uint8)
    for image in (raw, raw.astype(np.float32) / 31 - 4):
        image.tofile(tmp_path / "image.raw")
        printed = run(program, path, tmp_path / "image.raw")
        x = image if image.dtype == np.float32 else image.astype(np.float32) / np.float32(255)
        scores = model(x)[0]
        best = np.argsort(-scores, kind="stable")[:5]
        found = [line.split() for line in printed.splitlines()]
        assert [int(index) for index, _ in found] == best.tolist()
        np.testing.assert_array_equal(np.array([s for _, s in found], np.float32), scores[best])


def test_cmake_package(prefix: Path, network: tuple[Path, sparsert.Model], tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    shutil.copy(ROOT / "examples" / "classify.c", tmp_path)
    out = tmp_path / "out"
    configure = [tool("cmake"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"]
    run(*configure, f"-DCMAKE_PREFIX_PATH={prefix}", "-S", tmp_path, "-B", out)
    run(tool("cmake"), "--build", out)
    for name in ("classify_shared", "classify_static"):
        expect_pythons_numbers(out / name, network, tmp_path)
    needed = subprocess.run(
        ["ldd", out / "classify_static"], capture_output=True, text=True, check=False
    ).stdout
    assert "stdc++" not in needed
    assert "libsparsert" not in needed


def test_pkg_config_and_the_example(
    prefix: Path, network: tuple[Path, sparsert.Model], tmp_path: Path
) -> None:
    lib = library_folder(prefix)
    flags = [f"-I{prefix / 'include'}", f"-L{lib}", "-lsparsert"]
    if shutil.which("pkg-config"):
        env = {**os.environ, "PKG_CONFIG_PATH": str(lib / "pkgconfig")}
        flags = run("pkg-config", "--cflags", "--libs", "sparsert", env=env).split()
    program = tmp_path / "classify"
    source = ROOT / "examples" / "classify.c"
    run("cc", *C99, source, *flags, f"-Wl,-rpath,{lib}", "-o", program)
    expect_pythons_numbers(program, network, tmp_path)
    path, _ = network
    profile = run(program, path, tmp_path / "image.raw", "--profile")
    assert len(re.findall(r"^ +[\d.]+ us  ", profile, flags=re.MULTILINE)) == profile.count("(")
    # What is wrong with the files is said, and nothing else happens.
    cut = tmp_path / "cut.sprt"
    cut.write_bytes(path.read_bytes()[:-100])
    short = tmp_path / "short.raw"
    short.write_bytes(b"123")
    for arguments, message in (
        ((cut, short), f"load: {cut}: truncated"),
        ((tmp_path / "none.sprt", short), "No such file"),
        ((path, short), "short.raw: has 3 bytes"),
        ((path,), "usage"),
    ):
        result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert message in result.stderr, result.stderr


def test_the_programs_of_the_document(
    prefix: Path, network: tuple[Path, sparsert.Model], tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "c_api.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```c\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "program.c").write_text(program)
    static = library_folder(prefix) / "libsparsert.a"
    flags = [f"-I{prefix / 'include'}", static, "-pthread", "-lm"]
    run("cc", *C99, tmp_path / "program.c", *flags, "-o", tmp_path / "program")
    printed = run(tmp_path / "program", network[0])
    assert re.fullmatch(r"input x\n3024 bytes in, 40 out, an arena of [1-9]\d+\n", printed), printed
