"""A static interpreter for another CPU that runs the test suite from the source tree.

It has the target's libpython, every native module of cext/ (those for tests too) and OpenSSL, and
reads the standard library, pytest and our Python files as source. qemu-user runs it, so that
byte order, word size and alignment of the real CPU are under test; system calls are this
machine's. Hypothesis is pinned to its last releases without native code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from buildroot.static import cpython, inittab, openssl, pycryptodome, rooms, zlib
from buildroot.static.cache import BuildError, Cache, Unit, hash_file, recipe_of, say
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

RUNTIME = Path(__file__).parent / "runtime"
# qemu-user passes the control messages of sendmsg() on without turning their numbers round: IP_TOS
# and UDP_SEGMENT become EINVAL. Tests with live sockets need a little-endian CPU or a real kernel.
BIG_ENDIAN_LIMITS = tuple(
    f"tests/native/test_engine{part}.py"
    for part in ("", "_fairness", "_own_addresses", "_userspace")
)
PACKAGES = (
    "attrs",
    "hypothesis",
    "iniconfig",
    "packaging",
    "pluggy",
    "pygments",
    "pytest",
    "sortedcontainers",
)


def build(cache: Cache, sources: Sources, tools: Toolchain) -> Path:
    """Return the path of the interpreter."""
    python = cpython.target(cache, sources, tools)
    ssl, z = openssl.build(cache, sources, tools), zlib.build(cache, sources, tools)
    cext = rooms.build(cache, sources, tools, with_tests=True)
    declared = {f.module for f in pycryptodome.functions(sources.unpack("pycryptodome"))}
    crypto = pycryptodome.build(cache, sources, tools, declared)
    table = inittab.source(
        [*cpython.MODULES, *cpython.TEST_MODULES], [*cext.modules, pycryptodome.MODULE]
    )
    inputs = {
        "rooms": cext.archive.parent.name,
        "python": python.name,
        "crypto": crypto[1].parent.name,
        "raw_api": hash_file(RUNTIME / "raw_api.py"),
        "openssl": ssl.name,
        "zlib": z.name,
        "table": table,
        "atomic": hash_file(RUNTIME / "atomic.c"),
        "recipe": recipe_of(sys.modules[__name__]),
    }

    def recipe(folder: Path) -> None:
        env = tools.environment(cache)
        (folder / "inittab.c").write_text(table)
        command = (
            tools.cc,
            *tools.common_flags(),
            *cpython.include_flags(cache, sources, tools),
        )
        units = [
            Unit(folder / "inittab.c", "inittab.o", command),
            Unit(RUNTIME / "atomic.c", "atomic.o", command),
        ]
        objects = cache.compile(folder, units, env)
        inside = [python / "Programs" / "python.o", *objects, *cext.objects, cext.archive]
        inside += [*crypto[0], crypto[1]]
        inside += [python / cpython.LIBRARY, ssl / "libssl.a", ssl / "libcrypto.a", z / "libz.a"]
        link = [tools.cc, "-static", "-O2", "-Wl,--gc-sections", "-o", folder / "python", *inside]
        libraries = ["-lm", "-lpthread", "-ldl", "-lutil", *tools.libraries]
        cache.run(folder / "log", [*link, *libraries], env=env)
        home = folder / "home" / "lib" / "python3.11"
        home.parent.mkdir(parents=True)
        home.symlink_to(sources.unpack("python3.11") / "Lib")
        packages = folder / "packages"
        skip = shutil.ignore_patterns("SelfTest", "__pycache__")
        source = sources.unpack("pycryptodome") / "lib" / "Crypto"
        shutil.copytree(source, packages / "Crypto", ignore=skip)
        shutil.copy(RUNTIME / "raw_api.py", packages / "Crypto" / "Util" / "_raw_api.py")
        # Importing asks for the folder of shared modules, though there is none to load.
        (folder / "home" / "lib-dynload").mkdir()

    return cache.stage(f"testpython-{tools.arch.name}", inputs, recipe) / "python"


def run(cache: Cache, sources: Sources, tools: Toolchain, arguments: list[str]) -> int:
    """Run pytest with `arguments` under the emulator; return its exit code."""
    emulator = shutil.which(tools.arch.qemu) or shutil.which(f"{tools.arch.qemu}-static")
    if not emulator:
        raise BuildError(f"{tools.arch.qemu} is missing: install Debian's qemu-user")
    python = build(cache, sources, tools)
    packages = [sources.unpack(name) for name in PACKAGES]
    packages.append(python.parent / "packages")
    launcher = RUNTIME / "run_pytest.py"
    environment = {
        **os.environ,
        "PYTHONHOME": str(python.parent / "home"),
        "PYTHONPATH": os.pathsep.join(map(str, [rooms.ROOT, RUNTIME, *packages])),
        "PYTHONPYCACHEPREFIX": str(cache.root / "pycache"),
        "PYTHONDONTWRITEBYTECODE": "",
        # One for all CPUs; CPython names it after the CPU where it knows Debian's name for that.
        "_PYTHON_SYSCONFIGDATA_NAME": "_sysconfigdata__",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "WANTASTIC_EMULATED": tools.arch.name,
        "QEMU_CPU": tools.arch.qemu_cpu,
    }
    if tools.arch.big_endian:
        left_out = " ".join(BIG_ENDIAN_LIMITS)
        say(f"left out, the emulator cannot: {left_out} (sockets' control messages)")
        arguments = [*(f"--ignore={path}" for path in BIG_ENDIAN_LIMITS), *arguments]
    say(f"pytest on {tools.arch.name}: {' '.join(arguments)}")
    command = [emulator, str(python), str(launcher), *arguments]
    return subprocess.run(command, cwd=rooms.ROOT, env=environment, check=False).returncode
