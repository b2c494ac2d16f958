"""protobuf's upb, the native part of `google.protobuf`, as objects of the static program.

grpcio carries an upb of its own, of another version. Both define the same names, so every global
symbol of this one gets a prefix, by a header of #defines that is included first and made from the
objects' own symbol table. One thing the header cannot reach: the linker section
`linkarr_upb_AllExts` is named with # and ##; the one file that names it is compiled from a changed
copy.
"""

from __future__ import annotations

import sys
from pathlib import Path

from buildroot.static import cpython, symbols
from buildroot.static.cache import Cache, Unit, recipe_of
from buildroot.static.rooms import NativeModule
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

MODULE = NativeModule("google._upb._message", "PyInit__message")
PATTERNS = ("google/protobuf/*.c", "python/*.c", "upb/**/*.c", "utf8_range/*.c")
PREFIX = "wt_pb_"
EXTENSIONS = "google/protobuf/json_enumvalue_options.upb_minitable.c"


def build(cache: Cache, sources: Sources, tools: Toolchain) -> list[Path]:
    """Return the objects."""
    source = sources.unpack("protobuf")
    inputs = {
        "source": sources.pin("protobuf").sha256,
        "tools": tools.identity,
        "python": cpython.target(cache, sources, tools).name,
        "recipe": recipe_of(sys.modules[__name__], symbols),
    }

    def recipe(folder: Path) -> None:
        env = tools.environment(cache)
        command = (
            tools.cc,
            *tools.common_flags(),
            "-DNDEBUG",
            "-std=gnu11",
            f"-I{source}",
            f"-I{source / 'utf8_range'}",
            *cpython.include_flags(cache, sources, tools),
        )
        files = sorted({path for pattern in PATTERNS for path in source.glob(pattern)})
        plain = folder / "plain"
        plain.mkdir(exist_ok=True)
        objects = cache.compile(plain, _units(files, source, command), env)
        header = folder / "prefix.h"
        header.write_text(symbols.prefix_header(symbols.defined(objects) - {MODULE.init}, PREFIX))
        changed = folder / "extensions.c"
        changed.write_text(
            # Not longer than the old name: Mach-O section names have a limit that is asserted.
            (source / EXTENSIONS).read_text().replace("upb_AllExts", "wtp_AllExts")
        )
        command = (*command, "-include", str(header), f"-I{source / 'google' / 'protobuf'}")
        renamed = [changed if path == source / EXTENSIONS else path for path in files]
        cache.compile(folder, _units(renamed, source, command), env)

    folder = cache.stage(f"protobuf-{tools.arch.name}", inputs, recipe, resume=True)
    return sorted(folder.glob("*.o"))


def _units(files: list[Path], source: Path, command: tuple[str, ...]) -> list[Unit]:
    units = []
    for path in files:
        inside = path.relative_to(source) if path.is_relative_to(source) else Path(path.name)
        units.append(Unit(path, "_".join(inside.with_suffix(".o").parts), command))
    return units
