"""grpcio's C++ core, its BoringSSL and its Python module as one archive: eighteen CPU minutes.

Most of the sources are small and include the same headers, so sixteen of one kind are compiled as
one ("unity" files); a group that does not compile together is split. Each object is kept as soon as
it is there, so that an interrupted build goes on where it was. Of the 353 files that upb generated
only those are compiled whose headers some other source reaches: the rest describes xDS.

xDS, a service mesh's configuration protocol, is left out (350 KB compressed): its registration is
switched off by macros, the four functions that the Python module names and the few symbols that two
filters refer to are stubs in runtime/no_xds.c. BoringSSL refuses big-endian CPUs.

Traps: cygrpc needs CYTHON_COMPRESS_STRINGS=0, or it wants zlib at import; object names are made
from whole paths, since base names repeat; protobuf's own upb collides with this one and is renamed
(protobuf.py); absl's log/initialize.cc is not in the list of core sources.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from buildroot.static import cpython
from buildroot.static.cache import BuildError, Cache, hash_file, recipe_of, say, sha256_of
from buildroot.static.sources import Sources
from buildroot.static.toolchain import Toolchain

RUNTIME = Path(__file__).parent / "runtime"
GROUP = 16
PYTHON = "src/python/grpcio"
MODULE_SOURCES = (
    f"{PYTHON}/grpc/_cython/cygrpc.cpp",
    f"{PYTHON}/grpc/_cython/_cygrpc/private_key_signing/private_key_signer_py_wrapper.cc",
    "third_party/abseil-cpp/absl/log/initialize.cc",
)
# One file for each message of a protocol, one for its description.
GENERATED = ("src/core/ext/upb-gen/", "src/core/ext/upbdefs-gen/")
INCLUDES = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)
DESCRIBES = re.compile(r"\b(\w+)_proto_upbdefinit\b")
XDS_FOLDERS = ("src/core/xds/", "src/core/load_balancing/xds/", "src/core/resolver/xds/")
# Functions that cygrpc names and runtime/no_xds.c has under another name.
XDS_STUBS = (
    "grpc_dump_xds_configs",
    "grpc_server_config_fetcher_xds_create",
    "grpc_xds_credentials_create",
    "grpc_xds_server_credentials_create",
)
INCLUDE = f"""
    {PYTHON} include . third_party/abseil-cpp third_party/address_sorting/include
    third_party/cares/cares/include third_party/cares third_party/cares/cares
    third_party/cares/cares/src/lib/include third_party/cares/cares/src/lib
    third_party/cares/config_linux third_party/re2 third_party/boringssl-with-bazel/include
    third_party/upb src/core/ext/upb-gen src/core/ext/upbdefs-gen third_party/utf8_range
    third_party/xxhash third_party/cel-c third_party/zlib
"""
DEFINES = (
    '-DGRPC_XDS_USER_AGENT_NAME_SUFFIX="Python"',
    '-DGRPC_XDS_USER_AGENT_VERSION_SUFFIX="1"',
    "-DGRPC_NO_XDS",
    "-DGRPC_NO_RLS",
    "-DOPENSSL_NO_ASM=1",
    "-DHAVE_CONFIG_H=1",
    "-DGRPC_ENABLE_FORK_SUPPORT=1",
    "-DGRPC_POSIX_FORK_ALLOW_PTHREAD_ATFORK=1",
    "-D__STDC_FORMAT_MACROS",
    "-DNDEBUG",
    "-DCYTHON_COMPRESS_STRINGS=0",
    '-DPyMODINIT_FUNC=extern "C" __attribute__((visibility ("default"))) PyObject*',
)
# For the caller and the stubs only: the core may define the same names.
XDS_RENAMES = tuple(f"-D{name}=no_xds_{name}" for name in XDS_STUBS)


def build(cache: Cache, sources: Sources, tools: Toolchain) -> Path:
    """Return the archive."""
    if tools.arch.big_endian:
        raise BuildError(f"grpcio's BoringSSL refuses {tools.arch.name}: use TRANSPORT=slim")
    source = sources.unpack("grpcio")
    # Line tables of a million lines of C++ are not worth their compile time.
    flags = (*(f for f in tools.common_flags() if not f.startswith("-g")), "-g0", *DEFINES)
    inputs = {
        "source": sources.pin("grpcio").sha256,
        "tools": tools.identity,
        "python": cpython.target(cache, sources, tools).name,
        "no_xds.c": hash_file(RUNTIME / "no_xds.c"),
        "flags": flags,
        "recipe": recipe_of(sys.modules[__name__]),
    }

    def recipe(folder: Path) -> None:
        include = [f"-I{source / path}" for path in INCLUDE.split()]
        include += cpython.include_flags(cache, sources, tools)
        compiler = _Compiler(cache, source, tools, folder, [*flags, *include])
        core = runpy.run_path(str(source / PYTHON / "grpc_core_dependencies.py"))
        files = needed(source, core["CORE_SOURCE_FILES"])
        joined = [name for name in files if name.endswith(".cc") and "boringssl" not in name]
        alone = [name for name in files if name not in set(joined)]
        groups = [joined[i : i + GROUP] for i in range(0, len(joined), GROUP)]
        groups += [[name] for name in (*alone, *MODULE_SOURCES)]
        objects = compiler.all(groups)
        objects += compiler.single(RUNTIME / "no_xds.c")
        (folder / "objects").write_text("\n".join(map(str, objects)))
        command = [tools.ar, "rcs", folder / "libgrpc.a", f"@{folder / 'objects'}"]
        cache.run(folder / "log", command, env=tools.environment(cache))

    name = f"grpc-{tools.arch.name}"
    return cache.stage(name, inputs, recipe, resume=True) / "libgrpc.a"


def needed(source: Path, names: Sequence[str]) -> list[str]:
    """Return the sources less xDS, zlib (zlib.py has it) and the generated ones nothing reaches."""
    kept = [
        name
        for name in names
        if not _is_xds(name) and not name.startswith(("third_party/zlib/", *GENERATED))
    ]
    generated = {name for name in names if name.startswith(GENERATED)}
    described = {
        name.removeprefix(GENERATED[1]).removesuffix(".upbdefs.c").replace("/", "_"): name
        for name in generated
    }
    found: set[str] = set()
    seen: set[str] = set()
    todo = [name for name in kept if name.startswith("src/")]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        text = (source / name).read_text(errors="replace")
        # xDS's headers alone reach most of the descriptions; nothing calls what they declare.
        for include in INCLUDES.findall(text) if not _is_xds(name) else ():
            for folder in ("", "include/", *GENERATED):
                if (source / f"{folder}{include}").is_file():
                    todo.append(f"{folder}{include}")
                    break
        todo += [described[word] for word in DESCRIBES.findall(text) if word in described]
        found |= {name} & generated
        made_from = re.sub(r"(_minitable)?\.h$", "", name)
        for twin in (f"{made_from}.c", f"{made_from}_minitable.c"):
            if twin in generated:
                todo.append(twin)
    return [*kept, *sorted(found)]


def _is_xds(name: str) -> bool:
    return name.startswith(XDS_FOLDERS) or "rls" in name.split("/")


class _Compiler:
    """Compiles groups of sources into one folder, splitting a group that does not go together."""

    def __init__(
        self,
        cache: Cache,
        source: Path,
        tools: Toolchain,
        folder: Path,
        flags: Sequence[str],
    ) -> None:
        self.cache = cache
        self.source = source
        self.tools = tools
        self.folder = folder
        self.flags = flags
        self.environment = {**os.environ, **tools.environment(cache)}

    def all(self, groups: Sequence[Sequence[str]]) -> list[Path]:
        """Compile every group; return the objects in order."""
        objects: list[Path] = []
        with ThreadPoolExecutor(self.cache.jobs) as pool:
            for number, made in enumerate(pool.map(self.group, groups)):
                objects += made
                if number % 50 == 0:
                    say(f"  {self.folder.name}: {number} of {len(groups)}")
        return objects

    def group(self, names: Sequence[str]) -> list[Path]:
        """Compile sources as one; return one object, or more where they had to be split."""
        if len(names) == 1:
            return self.single(self.source / names[0])
        stem = f"unity-{sha256_of('|'.join(names).encode())[:12]}"
        split = self.folder / f"{stem}.split"
        if not split.exists():
            unity = self.folder / f"{stem}.cc"
            unity.write_text("".join(f'#include "{self.source / name}"\n' for name in names))
            error = self._compile(unity, self.folder / f"{stem}.o")
            if not error:
                return [self.folder / f"{stem}.o"]
            # Sources that an error names go by themselves, the rest once more together.
            split.write_text("\n".join(n for n in names if re.search(rf"{n}[:\s]", error)))
        bad = split.read_text().split()
        good = [name for name in names if name not in bad]
        if not bad or not good:
            half = len(names) // 2
            return [*self.group(names[:half]), *self.group(names[half:])]
        return [*self.group(good), *(o for name in bad for o in self.group([name]))]

    def single(self, path: Path) -> list[Path]:
        """Compile one source; raise BuildError when that fails."""
        inside = path.relative_to(self.source) if path.is_relative_to(self.source) else path.name
        target = self.folder / (re.sub(r"[/.]", "_", str(inside)) + ".o")
        error = self._compile(path, target)
        if error:
            raise BuildError(f"{error}\nfailed: {path}")
        return [target]

    def _compile(self, path: Path, target: Path) -> str:
        """Return what the compiler said, or "" when the object is there."""
        if target.exists():
            return ""
        if path.suffix == ".c":
            command = [self.tools.cc, "-std=c11", "-D_GNU_SOURCE"]
        else:
            command = [self.tools.cxx, "-std=c++17", "-fno-exceptions", "-ferror-limit=0"]
        if path.name in {"cygrpc.cpp", "no_xds.c"}:
            command += XDS_RENAMES
        part = target.with_suffix(".part.o")
        command += [*self.flags, "-c", str(path), "-o", str(part)]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return "\n".join(row for row in done.stderr.splitlines() if "error" in row) or "error"
        part.rename(target)
        return ""
