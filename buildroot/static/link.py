"""The last stage: one executable, and the same with its symbols for crash reports.

Both are linked from the same objects with the same build id, which is a hash of what went in; the
shipped one without symbols. A crash report names the id and addresses, and the other file, kept
where the release is kept, turns them into names. Nothing is appended to the file: packagers strip
executables, and what is behind the last section would be lost.
"""

from __future__ import annotations

import difflib
import shutil
import struct
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from buildroot.static import (
    allocator,
    cpython,
    grpc_private,
    inittab,
    nuitka,
    openssl,
    protobuf,
    pycryptodome,
    rooms,
    zlib,
)
from buildroot.static import program as program_c
from buildroot.static.cache import BuildError, Cache, Unit, hash_file, recipe_of, say, sha256_of
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

RUNTIME = Path(__file__).parent / "runtime"
SHIMS = ("atomic.c", "environment.c")
# Unwinding tables: C++ exceptions are off, and musl unwinds nothing. wantasticd.debug keeps them.
UNUSED_SECTIONS = (".eh_frame", ".eh_frame_hdr")
# -O2: zig compiles its run-time library as the link is told, and under -Os its memcpy(), which
# takes the place of the C library's, goes byte by byte.
LINK_FLAGS = ("-static", "-O2", "-Wl,--gc-sections", "-Wl,-z,noexecstack", "-Wl,-z,relro")


@dataclass(frozen=True)
class Request:
    """What executable is wanted."""

    transport: str
    left_out: tuple[str, ...] = ()
    compiled: bool = True
    """wantastic/ as C; as bytecode it is smaller, and an executable takes minutes less to make."""


def build(
    cache: Cache, sources: Sources, tools: Toolchain, request: Request, *, update: bool
) -> Path:
    """Return the folder with `wantasticd` and `wantasticd.debug`."""
    program = nuitka.build(cache, sources, request.transport, request.left_out, request.compiled)
    check_modules(program, request, update=update)
    cext = rooms.build(cache, sources, tools, with_tests=False)
    python = cpython.target(cache, sources, tools)
    ssl, z = openssl.build(cache, sources, tools), zlib.build(cache, sources, tools)
    crypto = pycryptodome.build(cache, sources, tools, program.modules)
    modules = [*cext.modules, protobuf.MODULE, pycryptodome.MODULE]
    libgrpc = []
    if request.transport == "grpcio":
        modules.append(nuitka.GRPC_MODULE)
        libgrpc.append(grpc_private.build(cache, sources, tools))
    table = inittab.source(
        program.standard_extensions(sources.unpack("python3.11") / "Lib"), modules
    )
    malloc = allocator.build(cache, sources, tools)
    code = program_c.compile_c(cache, sources, tools, program)
    inputs = {
        "rooms": cext.archive.parent.name,
        "code": code[0].parent.name,
        "crypto": crypto[1].parent.name,
        "python": python.name,
        "openssl": ssl.name,
        "zlib": z.name,
        "protobuf": protobuf.build(cache, sources, tools)[0].parent.name,
        "malloc": sorted({path.parent.name for path in malloc}),
        "grpc": [path.parent.name for path in libgrpc],
        "table": table,
        "shims": {name: hash_file(RUNTIME / name) for name in SHIMS},
        "flags": LINK_FLAGS,
        "recipe": recipe_of(sys.modules[__name__], inittab),
    }

    def recipe(folder: Path) -> None:
        env = tools.environment(cache)
        (folder / "inittab.c").write_text(table)
        for name in SHIMS:
            # Debug information names where it was compiled: not in our own folder.
            shutil.copy(RUNTIME / name, folder)
        include = cpython.include_flags(cache, sources, tools)
        command = (tools.cc, *tools.common_flags(), *include)
        units = [
            Unit(folder / "inittab.c", "inittab.o", command),
            *(Unit(folder / name, Path(name).stem + ".o", command) for name in SHIMS),
        ]
        objects = cache.compile(folder, units, env)
        inside = [*code, *objects, *cext.objects, *protobuf.build(cache, sources, tools)]
        inside += [*crypto[0], cext.archive, crypto[1], *libgrpc, python / cpython.LIBRARY]
        inside += [ssl / "libssl.a", ssl / "libcrypto.a", z / "libz.a", *malloc]
        identity = sha256_of(repr(sorted(inputs.items())).encode())[:40]
        driver = tools.cxx if libgrpc else tools.cc
        link = [driver, *LINK_FLAGS, f"-Wl,--build-id=0x{identity}"]
        libraries = ["-lm", "-lpthread", "-ldl", "-lutil", *tools.libraries]
        for name, strip in (("wantasticd.debug", ("-g",)), ("wantasticd", ("-s",))):
            target = ["-o", folder / name]
            cache.run(folder / "log", [*link, *strip, *target, *inside, *libraries], env=env)
        if malloc:
            allocator.check(folder / "wantasticd.debug")
        empty_sections(folder / "wantasticd", UNUSED_SECTIONS)

    name = f"wantasticd-{tools.arch.name}-{request.transport}"
    return cache.stage(name, inputs, recipe)


def empty_sections(path: Path, names: Collection[str]) -> int:
    """Fill sections of an ELF file with zeros, which pack to nothing; return how many bytes."""
    data = bytearray(path.read_bytes())
    order = "<" if data[5] == 1 else ">"
    if data[4] == 2:
        (table,) = struct.unpack_from(order + "Q", data, 40)
        form, at, sizes = order + "II8xQQQ", (0, 3, 4), struct.unpack_from(order + "HHH", data, 58)
    else:
        (table,) = struct.unpack_from(order + "I", data, 32)
        form, at, sizes = order + "II4xIII", (0, 3, 4), struct.unpack_from(order + "HHH", data, 46)
    size, count, strings = sizes
    rows = [struct.unpack_from(form, data, table + i * size) for i in range(count)]
    text = rows[strings][at[1]]
    emptied = 0
    for row in rows:
        name, offset, length = (row[i] for i in at)
        end = data.index(0, text + name)
        if data[text + name : end].decode() in names:
            data[offset : offset + length] = bytes(length)
            emptied += length
    path.write_bytes(data)
    return emptied


def check_modules(program: nuitka.Program, request: Request, *, update: bool) -> None:
    """Compare the modules inside with the list in git; write it when `update`."""
    if request.left_out:
        return
    path = nuitka.LISTS / f"modules-{request.transport}.txt"
    found = [f"{name}\n" for name in sorted(program.modules)]
    wanted = path.read_text().splitlines(keepends=True) if path.exists() else []
    if found == wanted:
        return
    if update:
        path.write_text("".join(found))
        say(f"wrote {path.name}: {len(found)} modules")
        return
    changes = "".join(difflib.unified_diff(wanted, found, "in git", "found", n=0))
    raise BuildError(
        f"{changes}The modules in the executable are not those of {path.name}. If that is meant, "
        "run again with UPDATE_MODULES=1 and commit the list."
    )


def deliver(folder: Path, to: Path, name: str) -> Path:
    """Copy the executable and its symbols to the folder for releases."""
    to.mkdir(parents=True, exist_ok=True)
    for suffix in ("", ".debug"):
        shutil.copy2(folder / f"wantasticd{suffix}", to / f"{name}{suffix}")
    return to / name
