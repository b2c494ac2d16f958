"""No branch and no address depends on a key or on plaintext: valgrind watches the bits.

Opening shares these loops; its only branch beyond them is on the verdict, which is public.
valgrind knows no AVX-512, so that variant is read in its disassembly: no mask is tested.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["blake2s", "dispatch", "lanes", "neon", "paired", "poly1305", "portable", "selftest"]
NAMES += ["xaead", "avx2", "avx512ifma"]
SOURCES = [f"cext/crypto/{name}.c" for name in NAMES]
FLAGS = ["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Icext"]
FLAGS += ["-DWT_CRYPTO_NO_OPENSSL"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    out = tmp_path_factory.mktemp("ct") / "constant_time"
    source = "tests/native/crypto_constant_time.c"
    subprocess.run(["gcc", *FLAGS, *SOURCES, source, "-o", str(out)], check=True, cwd=ROOT)
    return out


def watch(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["valgrind", "-q", "--error-exitcode=9", str(program), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_no_branch_on_secrets(program: Path) -> None:
    done = watch(program, "portable", "avx2")
    assert done.returncode == 0, done.stderr
    assert "portable" in done.stdout


@pytest.mark.slow
def test_a_leak_would_be_found(program: Path) -> None:
    assert watch(program, "leak").returncode == 9


def test_avx512_tests_no_mask(tmp_path: Path) -> None:
    built = tmp_path / "avx512ifma.o"
    source = "cext/crypto/avx512ifma.c"
    subprocess.run(["gcc", *FLAGS, "-c", source, "-o", str(built)], check=True, cwd=ROOT)
    code = subprocess.run(
        ["objdump", "-d", str(built)], check=True, capture_output=True, text=True
    ).stdout
    assert "vpmadd52" in code
    assert not re.search(r"\b(kortest|ktest|vptest|vmovmsk|vpmovmskb|vgather|vpgather)", code)
