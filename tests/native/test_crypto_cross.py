"""The native AEAD on foreign CPUs: big-endian MIPS, MIPS, AArch64 and ARMv7 under qemu-user."""

from __future__ import annotations

import importlib.util
import os
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
    "paired",
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


P = 2**130 - 5
CLAMP = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF


def cross_compiler(emulator: str, target: str, cpu: str) -> list[str]:
    if shutil.which(emulator) is None:
        pytest.skip(f"{emulator} is not installed (Debian: qemu-user)")
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang, the cross compiler, is not installed (requirements.txt)")
    return [sys.executable, "-m", "ziglang", "cc", "-target", target, f"-mcpu={cpu}"]


def expected_on_this_cpu() -> str:
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512ifma", "avx512_vbmi2"} <= {*flags}:
        return "avx512ifma"
    return "avx2" if {"avx2", "bmi2"} <= {*flags} else "portable"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="about x86-64's vectors")
def test_the_static_executable_finds_the_vectors(tmp_path: Path) -> None:
    """With Zig's C library, as the executable has it: __builtin_cpu_supports() says no there."""
    program = tmp_path / "selftest"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl"]
    command += [*FLAGS.split(), "-Icext", "-o", str(program)]
    command += [f"cext/crypto/{name}.c" for name in SOURCES]
    subprocess.run([*command, "tests/native/crypto_selftest.c"], check=True, cwd=ROOT)
    done = subprocess.run([str(program)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert f"{expected_on_this_cpu()} chosen" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("emulator", "target", "cpu", "chosen"), TARGETS)
def test_selftest(tmp_path: Path, emulator: str, target: str, cpu: str, chosen: str) -> None:
    program = tmp_path / "selftest"
    command = cross_compiler(emulator, target, cpu)
    command += [*FLAGS.split(), "-Icext", "-o", str(program)]
    command += [f"cext/crypto/{name}.c" for name in SOURCES]
    subprocess.run([*command, "tests/native/crypto_selftest.c"], check=True, cwd=ROOT)
    done = subprocess.run([emulator, str(program)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert f"{chosen} chosen" in done.stdout
    assert "portable ok" in done.stdout


def poly1305(key: bytes, message: bytes) -> bytes:
    """RFC 8439 section 2.5.1, of whole blocks, with Python's integers."""
    r, h = int.from_bytes(key[:16], "little") & CLAMP, 0
    for i in range(0, len(message), 16):
        h = (h + int.from_bytes(message[i : i + 16] + b"\x01", "little")) * r % P
    return ((h + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def check_poly1305(command: list[str], emulator: list[str], program: Path) -> None:
    sources = ["cext/crypto/poly1305.c", "tests/native/crypto_poly1305.c"]
    build = [*command, *FLAGS.split(), "-Icext", "-o", str(program), *sources]
    subprocess.run(build, check=True, cwd=ROOT)
    done = subprocess.run([*emulator, str(program)], check=True, capture_output=True, text=True)
    rows = [tuple(map(bytes.fromhex, line.split(" "))) for line in done.stdout.splitlines()]
    assert len(rows) == 600
    assert {len(message) for _, message, _ in rows} == set(range(0, 128, 16))
    for key, message, tag in rows:
        assert tag == poly1305(key, message), (key.hex(), message.hex())


def test_poly1305_in_words_of_32_bits(tmp_path: Path) -> None:
    """The C for 32-bit CPUs, on this machine."""
    check_poly1305(["cc", "-U__SIZEOF_INT128__"], [], tmp_path / "poly1305")


@pytest.mark.slow
@pytest.mark.parametrize(("emulator", "target", "cpu"), [row[:3] for row in TARGETS])
def test_poly1305(tmp_path: Path, emulator: str, target: str, cpu: str) -> None:
    """MIPS has its own multiplication."""
    check_poly1305(cross_compiler(emulator, target, cpu), [emulator], tmp_path / "poly1305")
