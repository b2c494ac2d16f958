"""cext/ for the target: its C sources as one archive, each .pyx as an object beside it.

setup.py's conventions and Cython directives hold here too, so that what the unit tests see is what
the executable has: every cext/ROOM/*.c goes into the archive, every cext/ROOM/*.pyx is a module.
`testing*.pyx` and `fuzz*.pyx` serve tests only and stay out of the firmware executable.

Modules of one name in two rooms would export the same PyInit function; each is renamed after its
full path on the compiler's command line.
"""

from __future__ import annotations

import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

from Cython.Build import cythonize
from Cython.Shadow import __version__ as CYTHON_VERSION

from buildroot.static import cpython, openssl, symbols
from buildroot.static.cache import Cache, Unit, hash_tree, recipe_of
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

ROOT = Path(__file__).resolve().parents[2]
# OpenSSL and pycryptodome have functions of the same names as cext/crypto.
PREFIX = "wt_"
TEST_ONLY = ("testing", "fuzz")
# What a 32-bit target can get wrong without a word. Other warnings are the native build's errors.
ERRORS = (
    "-Werror=implicit-function-declaration",
    "-Werror=incompatible-pointer-types",
    "-Werror=int-conversion",
    "-Werror=shift-count-overflow",
)


@dataclass(frozen=True)
class NativeModule:
    """An extension module inside the executable: its dotted name and its init function."""

    name: str
    init: str


@dataclass(frozen=True)
class Rooms:
    """What cext/ contributes to a link."""

    archive: Path
    objects: tuple[Path, ...]
    modules: tuple[NativeModule, ...]


def sources_of(*, with_tests: bool) -> list[Path]:
    """Return the .pyx files that are built."""
    found = sorted(ROOT.glob("cext/*/*.pyx"))
    return [path for path in found if with_tests or not path.name.startswith(TEST_ONLY)]


def module_name(pyx: Path) -> str:
    """Return the dotted name that a .pyx file is imported by."""
    return ".".join(pyx.relative_to(ROOT).with_suffix("").parts)


def init_name(module: str) -> str:
    """Return the init function that a dotted module has in a static program."""
    return f"PyInit_{module.replace('.', '__')}"


def build(cache: Cache, sources: Sources, tools: Toolchain, *, with_tests: bool) -> Rooms:
    """Compile cext/ for the target."""
    generated = translate(cache)
    pyx = sources_of(with_tests=with_tests)
    c_files = {module_name(p): generated / p.relative_to(ROOT).with_suffix(".c") for p in pyx}
    plain = sorted(ROOT.glob("cext/*/*.c"))
    flags = ("-O2", *(f for f in tools.common_flags() if f != "-Os"), *ERRORS)
    flags += ("-std=gnu11", "-fwrapv", "-DNDEBUG")
    include = (
        f"-I{ROOT / 'cext'}",
        *cpython.include_flags(cache, sources, tools),
        *openssl.include_flags(cache, sources, tools),
    )
    inputs = {
        "sources": hash_tree([*plain, *ROOT.glob("cext/*/*.h")], ROOT),
        "generated": hash_tree(c_files.values(), generated),
        "tools": tools.identity,
        "flags": flags,
        "python": cpython.target(cache, sources, tools).name,
        "openssl": openssl.build(cache, sources, tools).name,
        "recipe": recipe_of(sys.modules[__name__], symbols),
    }

    def recipe(folder: Path) -> None:
        env = tools.environment(cache)
        command = (tools.cc, f"-ffile-prefix-map={ROOT}=/build", *flags, *include)
        first = folder / "plain"
        first.mkdir(exist_ok=True)
        objects = cache.compile(first, _units(plain, command), env)
        (folder / "prefix.h").write_text(symbols.prefix_header(symbols.defined(objects), PREFIX))
        command = (*command, "-include", str(folder / "prefix.h"))
        objects = cache.compile(folder, _units(plain, command), env)
        cache.run(folder / "log", [tools.ar, "rcs", folder / "libwantastic.a", *objects], env=env)
        modules = [
            Unit(
                path,
                f"{name}.o",
                (*command, f"-DPyInit_{name.rpartition('.')[2]}={init_name(name)}"),
            )
            for name, path in c_files.items()
        ]
        cache.compile(folder, modules, env)

    folder = cache.stage(f"rooms-{tools.arch.name}", inputs, recipe, resume=True)
    return Rooms(
        folder / "libwantastic.a",
        tuple(folder / f"{name}.o" for name in c_files),
        tuple(NativeModule(name, init_name(name)) for name in c_files),
    )


def translate(cache: Cache) -> Path:
    """Return a folder with the C that Cython makes of every .pyx; it fits every target."""
    pyx = sources_of(with_tests=True)
    # run_name is not "__main__": only the conventions are wanted, not a build.
    directives = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["DIRECTIVES"]
    inputs = {
        "sources": hash_tree([*pyx, *ROOT.glob("cext/*/*.pxd")], ROOT),
        "cython": CYTHON_VERSION,
        "directives": {name: str(value) for name, value in directives.items()},
    }

    def recipe(folder: Path) -> None:
        before = Path.cwd()
        os.chdir(ROOT)
        try:
            cythonize(  # type: ignore[no-untyped-call]
                [str(p.relative_to(ROOT)) for p in pyx],
                build_dir=str(folder),
                compiler_directives=directives,
                nthreads=0,
                quiet=True,
            )
        finally:
            os.chdir(before)

    return cache.stage("rooms-c", inputs, recipe)


def _units(sources: list[Path], command: tuple[str, ...]) -> list[Unit]:
    return [
        Unit(path, "_".join(path.relative_to(ROOT).with_suffix(".o").parts), command)
        for path in sources
    ]
