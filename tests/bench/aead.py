"""`make bench-aead`: nanoseconds a packet, ours against OpenSSL's EVP and libsodium.

Every round measures each contender once, so that a busy machine hits all alike;
the figures are medians over the rounds of the thread's CPU time. EVP is used at its
best: one context, the key set once, a nonce for each packet. Where OpenSSL would use AVX-512, it is
measured once more in a process that is held to AVX2: the fair rival of our avx2.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cext.crypto import primitives
from tests.bench.aead_report import Key, Row, conclude

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "bench" / "aead_bench.c"
ARCHIVE = ROOT / "build" / "release" / "libwantastic.a"
SIZES = (64, 256, 1420, 16384)
BATCH = 40
LIBRARIES = ("EVP", "libsodium")
EVP_AVX2 = "EVP/avx2"
AVX2_LIBRARIES = (EVP_AVX2, "libsodium")
# Without the bits of CPUID leaf 7, EBX: AVX512 F, DQ, IFMA, CD, BW, VL.
HELD_TO_AVX2 = {"OPENSSL_ia32cap": ":~0xd0230000"}
# Batched seal against the best library: the least ratio that docs call reached.
BATCH_GOALS = {64: 2.2, 256: 1.75, 1420: 1.5}
OPEN_MOST = 1.10


def build(folder: Path) -> tuple[Path, list[str]]:
    """Compile the timing loops; return the program and the libraries it can measure."""
    program = folder / "aead_bench"
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    base = [*compiler, "-O2", "-Icext", str(SOURCE), str(ARCHIVE), "-o", str(program), "-lcrypto"]
    with_sodium = [*base, "-DWITH_SODIUM", "-lsodium"]
    if subprocess.run(with_sodium, cwd=ROOT, capture_output=True, check=False).returncode == 0:
        return program, list(LIBRARIES)
    subprocess.run(base, cwd=ROOT, check=True)
    print("libsodium is not installed (Debian: libsodium-dev), going on without it\n")
    return program, ["EVP"]


def sample(program: Path, contenders: Sequence[str], held: bool) -> Iterator[tuple[Key, float]]:
    """Run one round; yield its samples."""
    environment = {**os.environ, **HELD_TO_AVX2} if held else None
    command = [str(program), "1", *contenders]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    for line in done.stdout.splitlines():
        who, what, count, size, ns = line.split()
        if not held:
            yield (who, what, int(count), int(size)), float(ns)
        elif what in {"seal", "open"}:
            yield (EVP_AVX2, what, int(count), int(size)), float(ns)


def measure(rounds: int) -> dict[Key, float]:
    """Return the median of each series."""
    series: dict[Key, list[float]] = {}
    own = primitives.available()
    with tempfile.TemporaryDirectory() as folder:
        program, libraries = build(Path(folder))
        for _ in range(rounds):
            samples = list(sample(program, [*own, *libraries], held=False))
            if "avx2" in own:
                samples += sample(program, ["EVP"], held=True)
            for key, ns in samples:
                series.setdefault(key, []).append(ns)
    return {key: statistics.median(values) for key, values in series.items()}


def best_library(
    medians: dict[Key, float], what: str, size: int, among: Sequence[str] = LIBRARIES
) -> float:
    return min(medians[who, what, 1, size] for who in among if (who, what, 1, size) in medians)


def table(medians: dict[Key, float]) -> None:
    print(f"{'ns per packet':<24}" + "".join(f"{size:>10} B" for size in SIZES))
    rows = dict.fromkeys(key[:3] for key in medians if key[1] in {"seal", "open"})
    for who, what, count in rows:
        label = f"{who} {what} " + ("alone" if count == 1 else f"of {count}")
        cells = "".join(f"{medians[who, what, count, size]:12.0f}" for size in SIZES)
        print(f"{label:<24}{cells}")
    for (who, what, _, size), ns in medians.items():
        if what not in {"seal", "open"}:
            print(f"{who} {what} ({size} B): {ns:.0f} ns")


def goals(medians: dict[Key, float]) -> list[Row]:
    """Return one row a goal: what was asked, what came out, whether it is reached."""
    own = primitives.available()[0]
    rows: list[Row] = []

    def add(name: str, value: float, wanted: float, reached: bool) -> None:
        rows.append(Row(name, round(value, 2), wanted, reached))

    rivals = {own: LIBRARIES}
    if "avx2" in primitives.available():
        rivals["avx2"] = AVX2_LIBRARIES
    for ours, libraries in rivals.items():
        name = "best library" + (" held to AVX2" if libraries is AVX2_LIBRARIES else "")
        for size, wanted in BATCH_GOALS.items():
            for what in ("seal", "open"):
                best = best_library(medians, what, size, libraries)
                ratio = best / medians[ours, what, BATCH, size]
                add(f"{ours} {what} of {BATCH}, {size} B, {name} / ours", ratio, wanted,
                    ratio >= wanted)  # fmt: skip
    for size in SIZES:
        for what in ("seal", "open"):
            ratio = best_library(medians, what, size) / medians[own, what, 1, size]
            add(f"{own} {what} alone, {size} B, best library / ours", ratio, 1.0, ratio >= 1.0)
    for size in SIZES:
        ratio = medians[own, "open", BATCH, size] / medians[own, "seal", BATCH, size]
        add(f"{own} open / seal of {BATCH}, {size} B", ratio, OPEN_MOST, ratio <= OPEN_MOST)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-aead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (at least 5)")
    parser.add_argument("--json", metavar="FILE", help="write medians and goals there, too")
    arguments = parser.parse_args()
    medians = measure(max(5, arguments.rounds))
    table(medians)
    print()
    conclude(goals(medians), "ns", medians, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
