"""zlib as a static archive: what CPython's zlib module and the ELF's own readers need."""

from __future__ import annotations

import sys
from pathlib import Path

from buildroot.static.cache import Cache, Unit, recipe_of
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

FILES = (
    *("adler32", "crc32", "deflate", "infback", "inffast", "inflate", "inftrees", "trees"),
    *("zutil", "compress", "uncompr"),
)


def build(cache: Cache, sources: Sources, tools: Toolchain) -> Path:
    """Return a folder with libz.a; the headers are in the source."""
    source = sources.unpack("zlib")
    flags = (*tools.common_flags(), "-DHAVE_UNISTD_H", "-D_LARGEFILE64_SOURCE=1")
    inputs = {
        "source": sources.pin("zlib").sha256,
        "tools": tools.identity,
        "recipe": recipe_of(sys.modules[__name__]),
        "flags": flags,
    }

    def recipe(folder: Path) -> None:
        units = [
            Unit(source / f"{name}.c", f"{name}.o", (tools.cc, *flags, f"-I{source}"))
            for name in FILES
        ]
        env = tools.environment(cache)
        objects = cache.compile(folder, units, env)
        cache.run(folder / "log", [tools.ar, "rcs", folder / "libz.a", *objects], env=env)

    return cache.stage(f"zlib-{tools.arch.name}", inputs, recipe, resume=True)
