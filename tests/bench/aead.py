"""`make bench-aead`: nanoseconds a packet, ours against OpenSSL's EVP and libsodium.

Every round measures each contender once, so that a busy machine hits all alike;
the figures are medians over the rounds of the thread's CPU time. EVP is used at its
best: one context, the key set once, a nonce for each packet.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cext.crypto import primitives

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "bench" / "aead_bench.c"
ARCHIVE = ROOT / "build" / "release" / "libwantastic.a"
SIZES = (64, 256, 1420, 16384)
BATCH = 40
LIBRARIES = ("EVP", "libsodium")
# Batched seal against the best library: the least ratio that docs call reached.
BATCH_GOALS = {64: 2.2, 256: 1.75, 1420: 1.5}
OPEN_MOST = 1.10

Key = tuple[str, str, int, int]  # who, seal or open, packets in a call, bytes


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


def measure(rounds: int) -> dict[Key, float]:
    """Return the median of each series."""
    series: dict[Key, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        program, libraries = build(Path(folder))
        command = [str(program), str(rounds), *primitives.available(), *libraries]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        who, what, count, size, ns = line.split()
        series.setdefault((who, what, int(count), int(size)), []).append(float(ns))
    return {key: statistics.median(values) for key, values in series.items()}


def best_library(medians: dict[Key, float], what: str, size: int) -> float:
    return min(medians[who, what, 1, size] for who in LIBRARIES if (who, what, 1, size) in medians)


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


def goals(medians: dict[Key, float]) -> list[dict[str, object]]:
    """Return one row a goal: what was asked, what came out, whether it is reached."""
    own = primitives.available()[0]
    rows: list[dict[str, object]] = []

    def add(name: str, value: float, wanted: float, reached: bool) -> None:
        rows.append({"goal": name, "value": round(value, 2), "wanted": wanted, "reached": reached})

    for size, wanted in BATCH_GOALS.items():
        for what in ("seal", "open"):
            ratio = best_library(medians, what, size) / medians[own, what, BATCH, size]
            add(f"{own} {what} of {BATCH}, {size} B, best library / ours", ratio, wanted,
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
    rows = goals(medians)
    for row in rows:
        mark = "reached" if row["reached"] else "MISSED "
        print(f"{mark} {row['value']:>6} (goal {row['wanted']})  {row['goal']}")
    if arguments.json:
        keys = ("contender", "operation", "packets", "bytes")
        result = {
            "medians_ns": [
                {**dict(zip(keys, key, strict=True)), "ns": round(ns, 1)}
                for key, ns in medians.items()
            ],
            "goals": rows,
        }
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
