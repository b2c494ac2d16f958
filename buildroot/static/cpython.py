"""CPython twice: a host interpreter that runs Nuitka, and libpython3.11.a for the target.

Both come from one source, so that the standard library that Nuitka compiles, the bytecode frozen
into libpython and the C beside them are of one version, whatever Python this machine has.

The target's extension modules are all static, by Modules/Setup.local; a static musl program has no
dlopen. Each row of MODULES is a line of that file. Nothing of setup.py's own search runs.

Traps:
- configure wants answers that it cannot find out when cross-compiling (SITE);
- _ssl wants finite-field DH, which this OpenSSL has not: runtime/ssl_nodh.h is included first;
- VPATH is compiled into getpath: configure is called by a relative path.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from buildroot.static import openssl
from buildroot.static.cache import Cache, hash_file, recipe_of
from buildroot.static.sources import Sources
from buildroot.static.toolchain import SOURCE_DATE_EPOCH, Toolchain
from buildroot.static.zlib import FILES as ZLIB_FILES

RUNTIME = Path(__file__).parent / "runtime"
LIBRARY = "libpython3.11.a"

SITE = {
    "ac_cv_file__dev_ptmx": "yes",
    "ac_cv_file__dev_ptc": "no",
    "ac_cv_buggy_getaddrinfo": "no",
}
OPTIONS = (
    "--disable-shared",
    "--with-ensurepip=no",
    "--disable-test-modules",
    "--without-doc-strings",
    "--with-builtin-hashlib-hashes=md5,sha1,sha256,sha512,sha3,blake2",
    "--with-pkg-config=no",
)
MODULES = {
    "_asyncio": "_asynciomodule.c",
    "_bisect": "_bisectmodule.c",
    "_blake2": "_blake2/blake2module.c _blake2/blake2b_impl.c _blake2/blake2s_impl.c",
    "_contextvars": "_contextvarsmodule.c",
    "_csv": "_csv.c",
    "_datetime": "_datetimemodule.c",
    "_heapq": "_heapqmodule.c",
    "_json": "_json.c",
    "_md5": "md5module.c",
    "_opcode": "_opcode.c",
    "_pickle": "_pickle.c",
    "_posixsubprocess": "_posixsubprocess.c",
    "_queue": "_queuemodule.c",
    "_random": "_randommodule.c",
    "_sha1": "sha1module.c",
    "_sha256": "sha256module.c",
    "_sha3": "_sha3/sha3module.c",
    "_sha512": "sha512module.c",
    "_socket": "socketmodule.c",
    "_ssl": "_ssl.c {ssl}",
    "_statistics": "_statisticsmodule.c",
    "_struct": "_struct.c",
    "_typing": "_typingmodule.c",
    "_zoneinfo": "_zoneinfo.c",
    "array": "arraymodule.c",
    "binascii": "binascii.c",
    "cmath": "cmathmodule.c",
    "fcntl": "fcntlmodule.c",
    "grp": "grpmodule.c",
    "math": "mathmodule.c",
    "mmap": "mmapmodule.c",
    "resource": "resource.c",
    "select": "selectmodule.c",
    "syslog": "syslogmodule.c",
    "termios": "termios.c",
    "unicodedata": "unicodedata.c",
    "zlib": "zlibmodule.c {zlib}",
}
# What the source-tree interpreter of `test-qemu` has beyond the executable's modules.
TEST_MODULES = {"_hashlib": "_hashopenssl.c {ssl}", "_lsprof": "_lsprof.c rotatingtree.c"}


def host(cache: Cache, sources: Sources) -> Path:
    """Return a folder whose bin/python3.11 runs on this machine, with the same standard library."""
    source, zlib = sources.unpack("python3.11"), sources.unpack("zlib")
    inputs = {
        "source": sources.pin("python3.11").sha256,
        "zlib": sources.pin("zlib").sha256,
        "recipe": recipe_of(sys.modules[__name__]),
        "machine": os.uname().machine,
    }

    def recipe(folder: Path) -> None:
        build = folder / "build"
        build.mkdir()
        log = folder / "log"
        env = {"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, "CFLAGS": "-O1 -w"}
        for variable in ("CC", "CXX", "AR", "RANLIB"):
            env[variable] = os.environ.get(f"HOST{variable}", {"CC": "cc"}.get(variable, ""))
        env = {name: value for name, value in env.items() if value}
        configure = Path("../..") / source.name / "configure"
        cache.run(log, [configure, f"--prefix={folder}", *OPTIONS], cwd=build, env=env)
        # zlib's own sources stand in for a library that this machine need not have.
        archive, objects = build / "libz.a", []
        for name in ZLIB_FILES:
            objects.append(build / f"z_{name}.o")
            command = [env["CC"], "-O1", "-w", "-DHAVE_UNISTD_H", "-c", zlib / f"{name}.c"]
            cache.run(log, [*command, "-o", objects[-1]])
        cache.run(log, [env.get("AR", "ar"), "rcs", archive, *objects])
        rows = {name: row for name, row in MODULES.items() if name != "_ssl"}
        rows["zlib"] = f"zlibmodule.c -I{zlib} {archive}"
        _write_setup(build, rows)
        cache.run(log, ["make", f"-j{cache.jobs}", "python"], cwd=build, env=env)
        (folder / "bin").mkdir()
        (folder / "bin" / "python3.11").symlink_to("../build/python")

    return cache.stage("host-python", inputs, recipe)


def target(cache: Cache, sources: Sources, tools: Toolchain) -> Path:
    """Return a folder with libpython3.11.a, pyconfig.h and Programs/python.o."""
    source, zlib = sources.unpack("python3.11"), sources.unpack("zlib")
    ssl_flags = openssl.include_flags(cache, sources, tools)
    build_python = host(cache, sources) / "bin" / "python3.11"
    inputs = {
        "source": sources.pin("python3.11").sha256,
        "openssl": sources.pin("openssl").sha256,
        "zlib": sources.pin("zlib").sha256,
        "tools": tools.identity,
        "recipe": recipe_of(sys.modules[__name__], openssl),
        "ssl_nodh.h": hash_file(RUNTIME / "ssl_nodh.h"),
    }

    def recipe(folder: Path) -> None:
        log = folder / "log"
        site = folder / "config.site"
        site.write_text("".join(f"{name}={value}\n" for name, value in SITE.items()))
        env = {
            **tools.environment(cache),
            "CONFIG_SITE": str(site),
            "CC": tools.cc,
            "CXX": tools.cxx,
            "AR": tools.ar,
            "RANLIB": tools.ranlib,
            "READELF": "/usr/bin/readelf",
            "CFLAGS": " ".join(tools.common_flags()),
            "LDFLAGS": "-static",
        }
        machine = os.uname().machine
        cache.run(
            log,
            [
                Path("..") / source.name / "configure",
                f"--host={tools.arch.triple}",
                f"--build={machine}-linux-gnu",
                f"--with-build-python={build_python}",
                "--prefix=/usr",
                *OPTIONS,
            ],
            cwd=folder,
            env=env,
        )
        words = {"ssl": " ".join(ssl_flags), "zlib": f"-I{zlib}"}
        rows = {name: row.format(**words) for name, row in (MODULES | TEST_MODULES).items()}
        _write_setup(folder, rows)
        cache.run(log, ["make", "Makefile"], cwd=folder, env=env)
        makefile = folder / "Makefile"
        makefile.write_text(
            re.sub(
                r"^(Modules/_ssl\.o:.*?) -c ",
                rf"\1 -include {RUNTIME / 'ssl_nodh.h'} -c ",
                makefile.read_text(),
                flags=re.M,
            )
        )
        make = ["make", f"-j{cache.jobs}", LIBRARY, "Programs/python.o"]
        cache.run(log, make, cwd=folder, env=env)

    return cache.stage(f"cpython-{tools.arch.name}", inputs, recipe)


def include_flags(cache: Cache, sources: Sources, tools: Toolchain) -> tuple[str, ...]:
    """Return the -I flags for Python.h and pyconfig.h."""
    return (
        f"-I{target(cache, sources, tools)}",
        f"-I{sources.unpack('python3.11') / 'Include'}",
    )


def _write_setup(build: Path, rows: dict[str, str]) -> None:
    lines = ["*static*", *(f"{name} {row}" for name, row in sorted(rows.items()))]
    (build / "Modules" / "Setup.local").write_text("\n".join(lines) + "\n")
