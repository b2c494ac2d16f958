"""The native AEAD on foreign CPUs: big-endian MIPS, MIPS, AArch64 and ARMv7 under qemu-user."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    "blake2s",
    "dispatch",
    "lanes",
    "neon",
    "poly1305",
    "portable",
    "selftest",
    "xaead",
    "avx2",
    "avx512ifma",
]
FLAGS = "-O2 -std=gnu11 -Wall -Wextra -Werror -Wvla -Wshadow -static -DWT_CRYPTO_NO_OPENSSL"

# emulator, target, CPU, what must have been chosen there
TARGETS = [
    ("qemu-mips", "mips-linux-musleabi", "mips32r2+soft_float", "portable"),
    ("qemu-mipsel", "mipsel-linux-musleabi", "mips32r2+soft_float", "portable"),
    ("qemu-aarch64", "aarch64-linux-musl", "generic", "neon"),
    ("qemu-arm", "arm-linux-musleabihf", "cortex_a7", "neon"),
    ("qemu-arm", "arm-linux-musleabihf", "generic+v7a+vfp3d16-neon", "neon"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("emulator", "target", "cpu", "chosen"), TARGETS)
def test_selftest(tmp_path: Path, emulator: str, target: str, cpu: str, chosen: str) -> None:
    if shutil.which(emulator) is None:
        pytest.skip(f"{emulator} is not installed (Debian: qemu-user)")
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang, the cross compiler, is not installed (requirements.txt)")
    program = tmp_path / "selftest"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, f"-mcpu={cpu}"]
    command += [*FLAGS.split(), "-Icext", "-o", str(program)]
    command += [f"cext/crypto/{name}.c" for name in SOURCES]
    subprocess.run([*command, "tests/native/crypto_selftest.c"], check=True, cwd=ROOT)
    done = subprocess.run([emulator, str(program)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert f"{chosen} chosen" in done.stdout
    assert "portable ok" in done.stdout
