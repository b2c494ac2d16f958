"""`make image`: the standard Buildroot build with our external tree, or what to do first."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOW_TO_GET = """Give the path of a Buildroot tree: make image BOARD={board} BUILDROOT=PATH
Buildroot's home page names its repository; these two lines get it and build:
    git clone --depth 1 REPOSITORY buildroot
    make image BOARD={board} BUILDROOT=$PWD/buildroot"""


def boards() -> list[str]:
    """Return the boards that have a configuration."""
    found = (HERE / "configs").glob("wantastic_*_defconfig")
    return sorted(p.name.removeprefix("wantastic_").removesuffix("_defconfig") for p in found)


def problem(board: str, buildroot: str) -> str:
    """Return what stands in the way, or ""."""
    if board not in boards():
        return f"BOARD is one of {', '.join(boards())}, not {board!r}"
    if not buildroot:
        return HOW_TO_GET.format(board=board)
    if not (Path(buildroot) / "package" / "Config.in").exists():
        return f"{buildroot} is no Buildroot tree: it has no package/Config.in.\n" + (
            HOW_TO_GET.format(board=board)
        )
    return ""


def main() -> int:
    """Build one board's image; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--board", default="malta")
    parser.add_argument("--buildroot", default="")
    parser.add_argument("--output", type=Path, default=HERE.parent / "build" / "image")
    options = parser.parse_args()
    wrong = problem(options.board, options.buildroot)
    if wrong:
        print(wrong, file=sys.stderr)
        return 2
    output = options.output / options.board
    make = ["make", "-C", options.buildroot, f"O={output}", f"BR2_EXTERNAL={HERE}"]
    for target in (f"wantastic_{options.board}_defconfig", "all"):
        done = subprocess.run([*make, target], check=False)
        if done.returncode:
            return done.returncode
    print(f"The images are in {output / 'images'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
