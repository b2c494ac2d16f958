"""malloc() for what zig links: musl's own, because zig's libc has another in its place.

zig's is made for large machines: it rounds requests up to a power of two (CPython has pools of its
own for less than half a kilobyte), gives none of the small ones back, and its calloc() writes zeros
into pages that the kernel has just cleared. A router pays for that with megabytes. zig's libc is
made of musl 1.2.5, so that musl's allocator fits into it; its sources are Debian's.

A given CC brings its C library with it, and nothing is built here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from buildroot.static.cache import BuildError, Cache, Unit, recipe_of
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

MALLOC = "src/malloc"
FILES = (
    *("malloc", "free", "realloc", "aligned_alloc", "malloc_usable_size"),
    *("../calloc", "../free", "../realloc", "../memalign", "../posix_memalign"),
    *("../reallocarray", "../libc_calloc", "../replaced", "../lite_malloc"),
)
# A symbol that only musl's allocator has; it is not linked unless malloc() is musl's.
MARK = "__malloc_alloc_meta"
FLAGS = (
    *("-std=c99", "-nostdinc", "-ffreestanding", "-D_XOPEN_SOURCE=700"),
    *("-O2", "-fomit-frame-pointer"),
)
# What it shares with the rest of the C library has to be what zig's was compiled with.
SHARED = ("libc.h", "lock.h", "fork_impl.h", "atomic.h")
FOLDERS = {"armv7": "arm", "mipsel": "mips"}


def build(cache: Cache, sources: Sources, tools: Toolchain) -> list[Path]:
    """Return the objects, none when the compiler is not zig."""
    if not tools.is_zig:
        return []
    source = sources.unpack("musl")
    inside = sources.unpack("ziglang") / "ziglang" / "lib" / "libc" / "musl"
    flags = (*tools.common_flags(), *FLAGS)
    inputs = {
        "source": sources.pin("musl").sha256,
        "tools": tools.identity,
        "recipe": recipe_of(sys.modules[__name__]),
        "flags": flags,
    }

    def recipe(folder: Path) -> None:
        for name in SHARED:
            header = f"src/internal/{name}"
            if (source / header).read_bytes() != (inside / header).read_bytes():
                raise BuildError(
                    f"{header} of Debian's musl is not that of zig's: pin the musl that zig has"
                )
        arch = source / "arch" / FOLDERS.get(tools.arch.name, tools.arch.name)
        _write_types(source, arch, folder)
        include = [
            *(f"-I{arch}", f"-I{source / 'arch' / 'generic'}", f"-I{folder / 'include'}"),
            *(f"-I{source / 'src' / name}" for name in ("include", "internal")),
            *(f"-I{source / 'include'}", f"-I{source / MALLOC / 'mallocng'}"),
        ]
        units = [
            Unit(
                (source / MALLOC / "mallocng" / f"{name}.c").resolve(),
                f"{name.replace('../', 'common_')}.o",
                (tools.cc, *flags, *include),
            )
            for name in FILES
        ]
        cache.compile(folder, units, tools.environment(cache))

    folder = cache.stage(f"allocator-{tools.arch.name}", inputs, recipe, resume=True)
    return sorted(folder.glob("*.o"))


def check(executable: Path) -> None:
    """Raise BuildError when an executable with its symbols does not have musl's malloc()."""
    if f"\0{MARK}\0".encode() not in executable.read_bytes():
        raise BuildError(f"{executable}: zig's malloc() was linked, not that of {__name__}")


def _write_types(source: Path, arch: Path, folder: Path) -> None:
    """Write the two headers that musl's own build generates."""
    bits = folder / "include" / "bits"
    bits.mkdir(parents=True, exist_ok=True)
    script = source / "tools" / "mkalltypes.sed"
    parts = (arch / "bits" / "alltypes.h.in", source / "include" / "alltypes.h.in")
    types = subprocess.run(["sed", "-f", script, *parts], capture_output=True, check=True)
    (bits / "alltypes.h").write_bytes(types.stdout)
    numbers = (arch / "bits" / "syscall.h.in").read_text()
    (bits / "syscall.h").write_text(numbers + numbers.replace("__NR_", "SYS_"))
