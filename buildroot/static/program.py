"""Nuitka's C compiled for the target, and its constants in the target's byte order."""

from __future__ import annotations

import shutil
from pathlib import Path

from buildroot.static import cpython, nuitka
from buildroot.static.cache import BuildError, Cache, Unit, hash_file
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

RUNTIME = Path(__file__).parent / "runtime"
DEFINITIONS = """/* What Nuitka's build system would have written here. */
#define NO_PYTHON_WARNINGS 0
#define NUITKA_HAS_FROZEN_MODULES_BOOL 1
#define NUITKA_MAIN_IS_PACKAGE_BOOL 0
#define NUITKA_MAIN_MODULE_NAME "__main__"
#define SYSFLAG_BYTES_WARNING 0
#define SYSFLAG_DONTWRITEBYTECODE 1
#define SYSFLAG_ISOLATED 1
#define SYSFLAG_NO_RANDOMIZATION 0
#define SYSFLAG_NO_SITE 1
#define SYSFLAG_OPTIMIZE 2
#define SYSFLAG_SAFE_PATH 1
#define SYSFLAG_UNBUFFERED 0
#define SYSFLAG_UTF8 1
#define SYSFLAG_VERBOSE 0
#define _NUITKA_NO_ANNOTATIONS 0
#define _NUITKA_NO_ASSERTS 1
#define _NUITKA_NO_DOCSTRINGS 1
"""
# Nuitka looks a module up by going through all of them, and copies each one's name to compare it: a
# twelfth of what a start takes.
LOADER = "MetaPathBasedLoader.c"
LOOKUP = """    char name_buffer[NUITKA_LOADER_NAME_MAX_LEN];
    Nuitka_LoaderEntryName(entry, name_buffer, sizeof(name_buffer));

    return strcmp(name, name_buffer) == 0;
"""
QUICK_LOOKUP = """    if (entry->m_get_name == NULL) {
        return name[0] == entry->m_name[0] && strcmp(name, entry->m_name) == 0;
    }

"""
C_FLAGS = (
    "-std=c11",
    # Tens of megabytes of C that run a few times a second: for size, and nothing unwinds them.
    "-Oz",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fwrapv",
    "-DNDEBUG",
    "-D_NUITKA_STANDALONE_MODE",
    "-D_NUITKA_EXE_MODE",
    "-D__NUITKA_NO_ASSERT__",
    "-D_NUITKA_CONSTANTS_FROM_LINKER",
)


def compose(cache: Cache, sources: Sources, program: nuitka.Program, big_endian: bool) -> Path:
    """Return Nuitka's constants in one byte order."""
    order = ">" if big_endian else "<"
    inputs = {
        "program": program.folder.name,
        "order": order,
        "compose": hash_file(RUNTIME / "compose.py"),
    }

    def recipe(folder: Path) -> None:
        python = cpython.host(cache, sources) / "bin" / "python3.11"
        command = [python, RUNTIME / "compose.py", order, sources.unpack("nuitka"), program.c]
        blob = folder / "constants.bin"
        env = {"PYTHONPATH": str(nuitka.HOST), "PYTHONHASHSEED": "0"}
        cache.run(folder / "log", [*command, blob, folder / "statistics.json"], env=env)

    name = "constants-be" if big_endian else "constants-le"
    return cache.stage(name, inputs, recipe) / "constants.bin"


def compile_c(
    cache: Cache, sources: Sources, tools: Toolchain, program: nuitka.Program
) -> list[Path]:
    """Return the objects of Nuitka's C and of the constants."""
    blob = compose(cache, sources, program, tools.arch.big_endian)
    support = sources.unpack("nuitka") / "nuitka" / "build"
    flags = (*tools.common_flags(), *C_FLAGS)
    inputs = {
        "program": program.folder.name,
        "constants": hash_file(blob),
        "blob.S": hash_file(RUNTIME / "blob.S"),
        "tools": tools.identity,
        "python": cpython.target(cache, sources, tools).name,
        "flags": flags,
        "definitions": DEFINITIONS,
        "lookup": QUICK_LOOKUP,
    }

    def recipe(folder: Path) -> None:
        env = tools.environment(cache)
        (folder / "build_definitions.h").write_text(DEFINITIONS)
        support_c = _with_quick_lookup(support / "static_src", folder / "static_src")
        include = [
            f"-I{folder}",
            *cpython.include_flags(cache, sources, tools),
            f"-I{program.c}",
            f"-I{support / 'include'}",
            f"-I{support_c}",
            f"-I{support / 'inline_copy' / 'zlib'}",
            f"-I{support / 'inline_copy' / 'libbacktrace'}",
        ]
        files = sorted([*program.c.glob("*.c"), *program.c.glob("static_src/*.c")])
        units = [Unit(path, f"{path.stem}.o", (tools.cc, *flags, *include)) for path in files]
        define = (f'-DBLOB="{blob}"', f"-DBLOB_HASH={hash_file(blob)[:16]}")
        units.append(Unit(RUNTIME / "blob.S", "constants.o", (tools.cc, *define)))
        cache.compile(folder, units, env)

    folder = cache.stage(f"program-{tools.arch.name}", inputs, recipe, resume=True)
    return sorted(folder.glob("*.o"))


def _with_quick_lookup(source: Path, to: Path) -> Path:
    """Copy Nuitka's C with another way to look a module up; return the copy."""
    shutil.copytree(source, to, dirs_exist_ok=True)
    text = (source / LOADER).read_text()
    if text.count(LOOKUP) != 1:
        raise BuildError(f"{source / LOADER} is another than the one that program.py changes")
    (to / LOADER).write_text(text.replace(LOOKUP, QUICK_LOOKUP + LOOKUP))
    return to
