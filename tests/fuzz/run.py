"""Builds and runs the fuzz targets: `make fuzz`; see README.md beside this file."""

from __future__ import annotations

import argparse
import os
import random
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.python_targets import TARGETS as PYTHON_TARGETS
from tests.support.tree import ROOT, copy

BUILD = ROOT / "build" / "fuzz"
TREE = BUILD / "tree"
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
CLANG = next((c for c in ("clang-16", "clang") if shutil.which(c)), "clang")
# Inputs share nothing, so freed memory has to be watched for one run only: a quarantine that
# outlasts it costs a third of the speed in fresh pages.
ASAN_OPTIONS = (
    "detect_leaks=0:abort_on_error=0:quarantine_size_mb=4:thread_local_quarantine_size_kb=64"
    ":allocator_release_to_os_interval_ms=-1"
)
CHECKS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"


def native_targets() -> list[str]:
    """Return "ROOM:NAME" for each target declared in cext/ROOM/fuzz.pxd."""
    found = []
    for file in sorted((ROOT / "cext").glob("*/fuzz.pxd")):
        names = re.findall(r"^cdef int fuzz_(\w+)\(", file.read_text(), re.M)
        found += [f"{file.parent.name}:{name}" for name in names]
    return found


def build() -> Path:
    """Compile the native rooms with coverage and sanitizers; return the host program."""
    copy(TREE)
    flags = "-fsanitize=fuzzer-no-link"
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=TREE,
        env={
            **os.environ,
            "WANTASTIC_SANITIZE": "1",
            "CC": CLANG,
            "CFLAGS": flags,
            "LDSHARED": f"{CLANG} -shared {CHECKS}",
        },
        check=True,
    )
    host = BUILD / "host"
    library = sysconfig.get_config_var("LIBDIR")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shared = sysconfig.get_config_var("Py_ENABLE_SHARED")
    links = [f"-L{library}", f"-l{version}"] if shared else [_static_python()]
    libraries = shlex.split(
        f"{sysconfig.get_config_var('LIBS') or ''} {sysconfig.get_config_var('SYSLIBS') or ''}"
    )
    subprocess.run(
        [
            *(CLANG, "-g", "-O1", "-fsanitize=fuzzer", *CHECKS.split()),
            *(f"-I{sysconfig.get_paths()['include']}", str(ROOT / "tests/fuzz/host.c")),
            *("-o", str(host), *links, f"-Wl,-rpath,{library}", "-rdynamic", *libraries),
        ],
        check=True,
    )
    return host


def _static_python() -> str:
    folder = Path(str(sysconfig.get_config_var("LIBPL")))
    return str(folder / str(sysconfig.get_config_var("LIBRARY")))


def run_native(host: Path, target: str, seconds: int, most: int, seed: int) -> tuple[bool, str]:
    """Run one target, `most` times; return whether it found nothing, and a line about it."""
    slug = target.replace(":", "_")
    corpus, findings = BUILD / "corpus" / slug, BUILD / "findings" / slug
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    seeds = [str(CORPUS / slug)] if (CORPUS / slug).is_dir() else []
    done = subprocess.run(
        [
            *(str(host), f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20"),
            *(
                f"-seed={seed}",
                f"-runs={most}",
                "-print_final_stats=1",
                f"-artifact_prefix={findings}/",
                str(corpus),
                *seeds,
            ),
        ],
        env={
            **os.environ,
            "FUZZ_TARGET": target,
            "PYTHONPATH": str(TREE),
            "ASAN_OPTIONS": ASAN_OPTIONS,
            "PYTHONMALLOC": "malloc",
        },
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    runs = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    if done.returncode:
        print(done.stderr[-6000:], file=sys.stderr)
        replay = f"FUZZ_TARGET={target} PYTHONPATH={TREE} {host} INPUT"
        return False, f"finding in {findings}; replay: {replay}"
    return True, f"{int(runs.group(1)) if runs else 0:>12,} runs, {covered[-1:]} edges"


def run_python(target: str, seconds: int, most: int, seed: int) -> tuple[bool, str]:
    """Mutate seeds and random bytes into a Python parser; only its own errors may come."""
    function = PYTHON_TARGETS[target]
    rng = random.Random(seed)
    folder = CORPUS / target.replace(":", "_")
    seeds = [p.read_bytes() for p in sorted(folder.glob("*"))] or [b""]
    end, runs = time.monotonic() + seconds, 0
    while time.monotonic() < end and not 0 <= most <= runs:
        for _ in range(200):
            data = mutate(rng, rng.choice(seeds), seeds)
            runs += 1
            try:
                function(data)
            except Exception as error:
                place = BUILD / "findings" / target.replace(":", "_")
                place.mkdir(parents=True, exist_ok=True)
                (place / f"run-{runs}").write_bytes(data)
                return False, f"{type(error).__name__}: {error}; input in {place}"
    return True, f"{runs:>12,} runs"


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Return `data` with a few random edits: flips, inserts, cuts, splices."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
        elif kind == 2:
            del out[at : at + rng.choice((1, 2, 8, 64))]
        elif kind == 3:
            piece = rng.choice(others)
            start = rng.randrange(len(piece) + 1)
            out[at:at] = piece[start : start + 32]
        elif kind == 4:
            out[at : at + 1] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x5C, 0x7B))])
        else:
            out[at:at] = out[: rng.randrange(len(out) + 1)]
    return bytes(out[:8192])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1, help="for each target")
    parser.add_argument("--runs", type=int, default=-1, help="of each target, if sooner")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument("--target", action="append", help="ROOM:NAME; all when absent")
    parser.add_argument("--seed", type=int, default=0, help="0 draws one")
    options = parser.parse_args()
    options.seed = options.seed or secrets.randbelow(2**31)
    native = [t for t in native_targets() if not options.target or t in options.target]
    python = [t for t in PYTHON_TARGETS if not options.target or t in options.target]
    if not native and not python:
        print(f"no such target; known: {', '.join([*native_targets(), *PYTHON_TARGETS])}")
        return 2
    seconds = max(1, int(options.minutes * 60))
    failed = 0
    if native:
        print("Building the native rooms with clang, libFuzzer, ASan and UBSan", flush=True)
        host = build()
    targets = [*native, *python]

    def run(target: str) -> tuple[bool, str]:
        return (
            run_native(host, target, seconds, options.runs, options.seed)
            if target in native
            else run_python(target, seconds, options.runs, options.seed)
        )

    with ThreadPoolExecutor(options.jobs) as pool:
        for target, (ok, line) in zip(targets, pool.map(run, targets), strict=True):
            failed += not ok
            print(f"{'ok  ' if ok else 'FAIL'} {target:28} {line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
