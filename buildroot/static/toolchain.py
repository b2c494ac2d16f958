"""The C toolchain under fixed names on PATH: PyPI's ziglang, or whatever CC, CXX, AR, RANLIB say.

Build systems bake the compiler's name into what they make (OpenSSL's and CPython's build
information), so it must not hold a path of this machine: each tool gets a one-line wrapper named
after the target (`mipsel-linux-musl-cc`), and everything calls that.

zig's habits that the wrappers and flags settle:
- it refuses __DATE__ and __TIME__ (-Wno-date-time; SOURCE_DATE_EPOCH gives them a fixed value);
- below -O2 it is a debug build with UBSan, ten times larger (-fno-sanitize=all);
- `cc -E -` hands standard input to clang without the CPU's features, which then refuses the CPU:
  OpenSSL asks the byte order so, takes mipsel for big-endian without an answer, and computes AES
  wrongly. A temporary file helps; and whatever CC says is asked once before anything is compiled;
- it caches compilations by itself, outside the tree unless told.

GCC's: operations on 64 bits at once are calls of libatomic on a CPU that has none (MIPS32).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from buildroot.static.arches import Arch
from buildroot.static.cache import BuildError, Cache, sha256_of
from buildroot.static.sources import Sources

# 2026-01-01: what __DATE__ becomes, and the age of nothing else.
SOURCE_DATE_EPOCH = "1767225600"

ZIG_WRAPPER = """#!/bin/sh
zig={zig}
case " $*" in
*" -E -")
	source=$(mktemp --suffix=.c)
	trap 'rm -f "$source"' EXIT
	cat >"$source"
	"$zig" {kind} {flags} -E "$source"
	exit
	;;
esac
exec "$zig" {kind} {flags} "$@"
"""
PLAIN_WRAPPER = '#!/bin/sh\nexec {command} "$@"\n'

# What `cc -E -` makes of QUESTION: the byte order and the size of a pointer.
QUESTION = "target __BYTE_ORDER__ __SIZEOF_POINTER__\n"


@dataclass(frozen=True)
class Toolchain:
    """Where the wrappers are, and what they run."""

    arch: Arch
    folder: Path
    identity: str
    """Goes into every stage's key."""
    is_zig: bool
    libraries: tuple[str, ...] = ()
    """What its own code needs at the end of every link."""

    @property
    def cc(self) -> str:
        return f"{self.arch.triple}-cc"

    @property
    def cxx(self) -> str:
        return f"{self.arch.triple}-c++"

    @property
    def ar(self) -> str:
        return f"{self.arch.triple}-ar"

    @property
    def ranlib(self) -> str:
        return f"{self.arch.triple}-ranlib"

    def environment(self, cache: Cache) -> dict[str, str]:
        """Return what every tool of a stage is run with."""
        return {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
            "ZIG_GLOBAL_CACHE_DIR": str(cache.root / "zig-cache"),
            "ZIG_LOCAL_CACHE_DIR": str(cache.root / "zig-cache"),
            "LC_ALL": "C",
            "TZ": "UTC",
        }

    def common_flags(self) -> tuple[str, ...]:
        """Return the flags that every object of the executable is compiled with."""
        return (
            "-Os",
            "-g1",
            "-fno-strict-aliasing",
            "-ffunction-sections",
            "-fdata-sections",
            "-fvisibility=hidden",
            "-w",
        )


def toolchain(cache: Cache, sources: Sources, arch: Arch) -> Toolchain:
    """Return the wrappers for CC and its companions from the environment, or for zig."""
    if os.environ.get("CC"):
        return _given(cache, arch)
    zig = sources.unpack("ziglang") / "ziglang" / "zig"
    zig.chmod(0o755)
    identity = f"{sources.pin('ziglang').sha256} {arch.zig_target} {arch.zig_cpu}"
    flags = f"-target {arch.zig_target} -mcpu={arch.zig_cpu} -Wno-date-time -fno-sanitize=all"
    flags += f" {_prefix_map(cache, zig.resolve().parents[1])}"
    wrappers = {
        "cc": ZIG_WRAPPER.format(zig=shlex.quote(str(zig)), kind="cc", flags=flags),
        "c++": ZIG_WRAPPER.format(zig=shlex.quote(str(zig)), kind="c++", flags=flags),
        "ar": PLAIN_WRAPPER.format(command=f"{shlex.quote(str(zig))} ar"),
        "ranlib": PLAIN_WRAPPER.format(command=f"{shlex.quote(str(zig))} ranlib"),
    }
    return Toolchain(arch, _write(cache, arch, identity, wrappers), identity, True)


def _given(cache: Cache, arch: Arch) -> Toolchain:
    commands = {
        kind: os.environ.get(variable) or default
        for kind, variable, default in (
            ("cc", "CC", ""),
            ("c++", "CXX", ""),
            ("ar", "AR", "ar"),
            ("ranlib", "RANLIB", "ranlib"),
        )
    }
    for kind, command in commands.items():
        if not command or not shutil.which(shlex.split(command)[0]):
            raise BuildError(
                f"CC is given, so {kind} must be too: set CC, CXX, AR and RANLIB to a musl "
                f"toolchain for {arch.triple}"
            )
    version = _answer([*shlex.split(commands["cc"]), "--version"])
    if version.returncode:
        raise BuildError(
            f"CC={commands['cc']}: --version ends with {version.returncode}: "
            f"{_end_of(version.stderr)}: set CC to a compiler for {arch.triple} and its flags"
        )
    identity = f"{version.stdout.partition(chr(10))[0]} {sorted(commands.items())}"
    for kind in ("cc", "c++"):
        commands[kind] += f" {_prefix_map(cache)}"
    wrappers = {kind: PLAIN_WRAPPER.format(command=command) for kind, command in commands.items()}
    libraries = ("-latomic",) if _has_library(commands["cc"], "libatomic.a") else ()
    folder = _write(cache, arch, identity, wrappers)
    tools = Toolchain(arch, folder, identity, False, libraries)
    _ask(tools)
    return tools


def _answer(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a compiler with a text on its standard input."""
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def _has_library(compiler: str, name: str) -> bool:
    """Ask a compiler for one of its archives; clang's runtime library needs none of GCC's."""
    found = _answer([*shlex.split(compiler), f"-print-file-name={name}"]).stdout.strip()
    return Path(found).is_absolute() and Path(found).exists()


def _ask(tools: Toolchain) -> None:
    """Compare the compiler's target with ours, the way OpenSSL's scripts ask for it."""
    arch = tools.arch
    wanted = f"target {4321 if arch.big_endian else 1234} {arch.bits // 8}"
    done = _answer([str(tools.folder / tools.cc), "-E", "-"], QUESTION)
    found = next((line for line in done.stdout.splitlines() if line.startswith("target ")), "")
    if found != wanted:
        raise BuildError(
            f"CC={os.environ['CC']}: `{QUESTION.strip()}` through `$CC -E -` gives "
            f"{found or _end_of(done.stderr) or 'nothing'!r} where {arch.name} needs "
            f"{wanted!r}: set CC to a compiler for {arch.triple} that reads standard input"
        )


def _end_of(text: str) -> str:
    """Return as much of what a program complained about as an error can hold."""
    return text.strip()[-200:]


def _prefix_map(cache: Cache, compiler: Path | None = None) -> str:
    """Keep this machine's paths out of debug information and __FILE__.

    In the wrapper, not among the flags: OpenSSL compiles its own flags in.
    """
    places = [(cache.root, "/build")]
    if compiler:
        # Its headers are named by where they really are.
        places.append((compiler, "/build/compiler"))
    return shlex.join(f"-ffile-prefix-map={path}={name}" for path, name in places)


def _write(cache: Cache, arch: Arch, identity: str, wrappers: Mapping[str, str]) -> Path:
    folder = cache.root / f"tools-{arch.name}-{sha256_of(identity.encode())[:12]}"
    folder.mkdir(exist_ok=True)
    for kind, text in wrappers.items():
        path = folder / f"{arch.triple}-{kind}"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            path.chmod(0o755)
    return folder
