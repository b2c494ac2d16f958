"""`make bench-aead ARCH=mipsel`: instructions a packet on another CPU, ours against OpenSSL.

The program is compiled as the static executable is (its toolchain, its flags, its OpenSSL) and
runs under qemu-user with a plugin that counts what the guest executes. A count is the same each
time, on any machine; it is not time: it knows no pipeline, no cache and no slow multiplication.
Each figure is the difference between a long and a short run, so that start-up falls out.

OpenSSL is there twice: EVP at its best (one context, the key set once), and `core`, the two
functions that EVP calls at the bottom, without contexts and checks. OpenSSL has no assembly of
ChaCha20 and Poly1305 for 32-bit MIPS; for ARM it has, NEON included. The emulator is told to be a
router's CPU: what it is otherwise has vector extensions that no router has.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from buildroot.static import openssl
from buildroot.static.arches import ARCHES, Arch
from buildroot.static.cache import Cache
from buildroot.static.sources import Sources
from buildroot.static.toolchain import toolchain
from tests.bench.aead_report import Key, Row, conclude

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
SIZES = (64, 256, 1420, 16384)
BATCH = 40  # packets of one pass, as in aead_bench.c
SHORT, LONG = 1, 2
OWN = {"mips": ("portable",), "mipsel": ("portable",), "armv7": ("neon", "portable")}
OWN["aarch64"] = OWN["armv7"]
CPU = {"mips": "24Kf", "mipsel": "24Kf", "armv7": "cortex-a7", "aarch64": "cortex-a53"}
# Bytes of a packet, and how many times our instructions the library should take.
GOALS = {"mips": {1420: 1.6}, "armv7": {64: 2.2, 256: 1.75, 1420: 1.5}}
GOALS["mipsel"], GOALS["aarch64"] = GOALS["mips"], GOALS["armv7"]
LIBRARIES = ("EVP", "core")
# On MIPS both are plain C, and the goal is about C; on ARM it is about what can be called.
GOAL_LIBRARIES = {"mips": LIBRARIES, "mipsel": LIBRARIES, "armv7": ("EVP",), "aarch64": ("EVP",)}


def build(arch: Arch, folder: Path) -> Path:
    """Compile the plugin for this machine and the loops for `arch`; return the program."""
    host = os.environ.get("HOSTCC", "cc").split()
    plugin = [*host, "-O2", "-shared", "-fPIC", HERE / "qemu_insns.c", "-o", folder / "insns.so"]
    subprocess.run(list(map(str, plugin)), check=True)
    place = os.environ.get("WANTASTIC_CACHE") or ROOT / "build" / "cache"
    cache = Cache(Path(place).resolve(), os.cpu_count() or 1)
    sources = Sources(cache)
    tools = toolchain(cache, sources, arch)
    flags: list[object] = ["-O2", *(f for f in tools.common_flags() if f != "-Os")]
    flags += ["-std=gnu11", "-fwrapv", "-DNDEBUG", f"-I{ROOT / 'cext'}", "-DWITH_LIBCRYPTO_CORE"]
    # OpenSSL's assembly has functions of the same names, as in the static build.
    flags += [f"-D{name}=wt_{name}" for name in ("poly1305_init", "poly1305_blocks")]
    flags += openssl.include_flags(cache, sources, tools)
    inside = [HERE / "aead_bench.c", *sorted((ROOT / "cext" / "crypto").glob("*.c"))]
    inside += [ROOT / "buildroot" / "static" / "runtime" / "atomic.c"]
    inside.append(openssl.build(cache, sources, tools) / "libcrypto.a")
    program = folder / "aead_bench"
    command = [tools.cc, "-static", *flags, "-o", program, *inside, "-lpthread"]
    environment = {**os.environ, **tools.environment(cache)}
    subprocess.run(list(map(str, command)), check=True, env=environment)
    return program


def executed(emulator: str, cpu: str, program: Path, words: tuple[object, ...], passes: int) -> int:
    """Return how many instructions one run of the program takes."""
    command = [
        emulator,
        "-cpu",
        cpu,
        "-plugin",
        str(program.parent / "insns.so"),
        str(program),
        "count",
    ]
    command += [*map(str, words), str(passes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^instructions (\d+)$", done.stderr, re.M)
    if done.returncode or not found:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode} {done.stderr}")
    return int(found[1])


def measure(arch: Arch) -> dict[Key, float]:
    """Return instructions a packet of everything."""
    emulator = shutil.which(arch.qemu)
    if not emulator:
        # The static one cannot load a plugin.
        raise FileNotFoundError(f"{arch.qemu} is missing: install Debian's qemu-user")
    cpu = CPU[arch.name]
    counts: dict[Key, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        program = build(arch, Path(folder))
        rows = [(who, count) for who in OWN[arch.name] for count in (1, BATCH)]
        for who, count in [*rows, *((who, 1) for who in LIBRARIES)]:
            for what in ("seal", "open"):
                for size in SIZES:
                    words = (who, what, count, size)
                    short = executed(emulator, cpu, program, words, SHORT)
                    spent = executed(emulator, cpu, program, words, LONG) - short
                    counts[who, what, count, size] = spent / (LONG - SHORT) / BATCH
    return counts


def table(arch: Arch, counts: dict[Key, float]) -> None:
    title = f"{CPU[arch.name]}, instructions a packet"
    print(f"{title:<34}" + "".join(f"{s:>8} B" for s in SIZES))
    for who, what, count in dict.fromkeys(key[:3] for key in counts):
        label = f"{who} {what} " + ("alone" if count == 1 else f"of {count}")
        cells = "".join(f"{counts[who, what, count, size]:10.0f}" for size in SIZES)
        print(f"{label:<34}{cells}")
    print()
    for who in OWN[arch.name]:
        for what in ("seal", "open"):
            for library in LIBRARIES:
                ratios = [counts[library, what, 1, s] / counts[who, what, BATCH, s] for s in SIZES]
                cells = "".join(f"{ratio:10.2f}" for ratio in ratios)
                print(f"{f'{library} / {who} {what} of {BATCH}':<34}{cells}")


def goals(arch: Arch, counts: dict[Key, float]) -> list[Row]:
    """Return one row a goal: batches of our fastest variant against both forms of the library."""
    own = OWN[arch.name][0]
    rows = []
    for size, wanted in GOALS[arch.name].items():
        for what in ("seal", "open"):
            for library in GOAL_LIBRARIES[arch.name]:
                ratio = round(counts[library, what, 1, size] / counts[own, what, BATCH, size], 2)
                name = f"{CPU[arch.name]} {what}, {size} B, {library}'s instructions / ours"
                rows.append(Row(name, ratio, wanted, ratio >= wanted))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-aead ARCH=...", description=__doc__)
    parser.add_argument("arch", choices=sorted(OWN))
    parser.add_argument("--json", metavar="FILE", help="write counts and goals there, too")
    arguments = parser.parse_args()
    arch = ARCHES[arguments.arch]
    counts = measure(arch)
    table(arch, counts)
    conclude(goals(arch, counts), "instructions", counts, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
