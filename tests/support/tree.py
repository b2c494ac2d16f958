"""A copy of the sources for a build of another kind: sanitizers, coverage, another CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("cext", "wantastic", "protos", "tests")
FILES = ("setup.py", "pyproject.toml", "LICENSE")
SOURCES = {".py", ".pyi", ".pyx", ".pxd", ".c", ".h"}
UNWANTED = shutil.ignore_patterns("*.so", "__pycache__", "*_pb2.py*")


def copy(target: Path) -> Path:
    """Bring `target` up to date with the sources, keeping what was built there."""
    target.mkdir(parents=True, exist_ok=True)
    for folder in FOLDERS:
        for old in (target / folder).rglob("*"):
            if old.suffix in SOURCES and not (ROOT / old.relative_to(target)).exists():
                old.unlink()
        shutil.copytree(ROOT / folder, target / folder, ignore=UNWANTED, dirs_exist_ok=True)
    for file in FILES:
        shutil.copy2(ROOT / file, target)
    return target
