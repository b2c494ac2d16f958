"""Builds the native rooms: C sources of cext/ once into a library, each .pyx into a module.

Conventions, so that no list has to be kept by hand:
  cext/ROOM/*.c    compiled into one static library that every extension links with
                   (unused objects are left out by the linker); SIMD files choose their
                   target by function attribute or pragma, never by a command-line flag
  cext/ROOM/*.pyx  one extension module each
protos/generate.py writes the messages of the control plane's contract first.

Environment:
  WANTASTIC_SANITIZE=1   ASan and UBSan, bounds checks in the generated code
"""

import os
import runpy
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

ROOT = Path(__file__).resolve().parent
SANITIZE = os.environ.get("WANTASTIC_SANITIZE") == "1"
BUILD = Path("build") / ("sanitize" if SANITIZE else "release")
ARCHIVE = BUILD / "libwantastic.a"
JOBS = os.cpu_count() or 1

WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wvla", "-Wshadow", "-Wstrict-prototypes"]
COMMON = ["-std=gnu11", "-fPIC", "-fvisibility=hidden", "-Icext", "-g"]
if SANITIZE:
    CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    COMMON += ["-O1", "-fno-omit-frame-pointer", *CHECKS]
else:
    CHECKS = []
    COMMON += ["-O2", "-ffunction-sections", "-fdata-sections"]

DIRECTIVES = {
    "language_level": "3",
    "boundscheck": SANITIZE,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": False,
    "auto_pickle": False,
    "binding": False,
    "warn.undeclared": True,
}
# Faces of tests are Python as much as C: undeclared names are meant there.
TEST_DIRECTIVES = {**DIRECTIVES, "warn.undeclared": False}


class BuildNative(build_ext):
    """Compile the C library first, then the Cython modules against it."""

    def build_extensions(self) -> None:
        self.parallel = JOBS
        compile_library()
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        """Say what is compiled: the first build takes minutes."""
        target = self.get_ext_fullpath(ext.name)
        if self.force or newer_group([*ext.sources, *ext.depends], target, "newer"):
            # In one piece: several are compiled at a time.
            sys.stdout.write(f"Compiling {ext.name}\n")
            sys.stdout.flush()
        super().build_extension(ext)


def compile_library() -> None:
    """Bring ARCHIVE up to date with every cext/*/*.c and header."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[:1]
    compiler += shlex.split(os.environ.get("CFLAGS", ""))
    newest_header = max((h.stat().st_mtime for h in Path("cext").rglob("*.h")), default=0.0)
    newest_header = max(newest_header, Path("setup.py").stat().st_mtime)
    stale, objects = [], []
    for source in sorted(Path("cext").rglob("*.c")):
        target = BUILD / source.with_suffix(".o")
        objects.append(str(target))
        if not target.exists() or target.stat().st_mtime < max(
            newest_header, source.stat().st_mtime
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            stale.append([*compiler, *COMMON, *WARNINGS, "-c", str(source), "-o", str(target)])
    with ThreadPoolExecutor(JOBS) as pool:
        for done in pool.map(lambda c: subprocess.run(c, check=False), stale):
            if done.returncode:
                raise SystemExit(f"failed: {shlex.join(done.args)}")
    if stale or not ARCHIVE.exists():
        ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
        ARCHIVE.unlink(missing_ok=True)
        subprocess.run(["ar", "rcs", str(ARCHIVE), *objects], check=True)


def extensions() -> list[Extension]:
    """Return one Extension for each cext/*/*.pyx."""
    return [
        Extension(
            ".".join(source.with_suffix("").parts),
            sources=[str(source)],
            depends=[str(h) for h in Path("cext").rglob("*.[ch]")],
            include_dirs=["cext"],
            extra_compile_args=[*COMMON, "-Wno-unused-function", "-Wno-sign-compare"],
            extra_link_args=[str(ARCHIVE), "-lcrypto", "-Wl,--gc-sections", *CHECKS],
        )
        for source in sorted(Path("cext").rglob("*.pyx"))
    ]


def generate(modules: list[Extension], directives: dict[str, object]) -> list[Extension]:
    """Return the modules with their .pyx turned into C, where that is out of date."""
    return cythonize(
        modules,
        build_dir=str(BUILD / "cython"),
        compiler_directives=directives,
        nthreads=JOBS,
        quiet=True,
    )


def for_tests(extension: Extension) -> bool:
    """Return whether a module is a face for tests and not shipped."""
    return extension.name.rpartition(".")[2].startswith(("testing", "fuzz"))


if __name__ == "__main__":  # the static build only reads the conventions above
    os.chdir(ROOT)
    runpy.run_path("protos/generate.py", run_name="__main__")
    setup(
        ext_modules=[
            *generate([e for e in extensions() if not for_tests(e)], DIRECTIVES),
            *generate([e for e in extensions() if for_tests(e)], TEST_DIRECTIVES),
        ],
        cmdclass={"build_ext": BuildNative},
        options={"build": {"build_base": str(BUILD)}},
    )
