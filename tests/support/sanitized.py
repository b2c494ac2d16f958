"""Runs the native tests against a build with ASan and UBSan: `make asan`."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.tree import ROOT, copy

TREE = ROOT / "build" / "asan"


def main() -> int:
    """Copy the tree, build it there with sanitizers, run tests/native in it."""
    copy(TREE)
    print("Building the native rooms with ASan and UBSan", flush=True)
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=TREE,
        env={**os.environ, "WANTASTIC_SANITIZE": "1"},
        check=True,
    )
    runtime = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    arguments = sys.argv[1:] or ["tests/native", "-m", "not slow"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=TREE,
        env={
            **os.environ,
            "LD_PRELOAD": runtime,
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "PYTHONMALLOC": "malloc",
            "PYCRYPTODOME_DISABLE_DEEPBIND": "1",  # ASan refuses to load libraries that way
            "WANTASTIC_VECTORS": str(
                os.environ.get("WANTASTIC_VECTORS", ROOT.parent / "shared" / "vectors")
            ),
        },
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
