"""Builds our own stages a second time, in another folder, and compares the executables.

Stages of third parties are taken from the first cache: their inputs are pinned, they take long, and
they are built by the same program.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from buildroot.static import link
from buildroot.static.arches import Arch
from buildroot.static.cache import Cache, hash_file
from buildroot.static.sources import Sources
from buildroot.static.toolchain import toolchain

AGAIN = ("nuitka-", "constants-", "program-", "rooms-", "pycryptodome-", "wantasticd-", "tools-")


def second_cache(first: Cache) -> Cache:
    """Return a cache in a fresh folder that has only the stages of third parties."""
    root = first.root.with_name(f"{first.root.name}-again")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path in first.root.iterdir():
        if not path.name.startswith((*AGAIN, ".")):
            (root / path.name).symlink_to(path)
    return Cache(root, first.jobs)


def differing(cache: Cache, arch: Arch, request: link.Request) -> list[str]:
    """Return the files of the executable whose bytes differ between the two builds."""
    folders = []
    for used in (cache, second_cache(cache)):
        sources = Sources(used)
        tools = toolchain(used, sources, arch)
        folders.append(link.build(used, sources, tools, request, update=False))
    names = ("wantasticd", "wantasticd.debug")
    return [n for n in names if len({hash_file(Path(f) / n) for f in folders}) > 1]
