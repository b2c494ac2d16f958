"""Every Python module of the executable as C or bytecode, made by Nuitka; the same for every CPU.

All Python files are first copied into one folder: wantastic/ without its server, the packages that
it uses, pycryptodome with our loader. No extension module of this machine can be found there.
Nuitka, run by the host interpreter, writes C for wantastic/ (that is what Python spends time in)
and keeps everything else as bytecode, which is a fifth of the size. nuitka_plugin.py tells Nuitka
what the target is like. program.py compiles the result.

The list of modules that this yields is kept in git (modules-TRANSPORT.txt) and compared: a new
import anywhere shows up there before it shows up in the size.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from buildroot.static import cpython, protobuf, pycryptodome, rooms
from buildroot.static.cache import BuildError, Cache, hash_file, hash_tree, recipe_of
from buildroot.static.sources import Sources
from buildroot.static.toolchain import SOURCE_DATE_EPOCH

RUNTIME = Path(__file__).parent / "runtime"
PLUGIN = Path(__file__).parent / "nuitka_plugin.py"
LISTS = Path(__file__).parent
# Modules that Nuitka wants and the host interpreter lacks.
HOST = Path(__file__).parent / "host"

GRPC_MODULE = rooms.NativeModule("grpc._cython.cygrpc", "PyInit_cygrpc")
# Packages by the source that has them; {transport: rows} of (project, folder inside, package).
COMMON_PACKAGES = (
    ("protobuf", "google", "google"),
    ("pycryptodome", "lib/Crypto", "Crypto"),
)
TRANSPORT_PACKAGES = {
    "slim": (
        ("grpclib", "grpclib", "grpclib"),
        ("h2", "h2", "h2"),
        ("hpack", "hpack", "hpack"),
        ("hyperframe", "hyperframe", "hyperframe"),
        ("multidict", "multidict", "multidict"),
    ),
    "grpcio": (("grpcio", "src/python/grpcio/grpc", "grpc"),),
}
NOT_COPIED = ("server", "SelfTest", "__pycache__", "*.pyx", "*.pxd", "*.pyi", "*.so", "*.c", "*.h")
# Files of runtime/ that go into the tree, and where to.
OWN_FILES = {
    "dotted.py": "dotted.py",
    "entry.py": "entry.py",
    "hostnames.py": "hostnames.py",
    "late.py": "late.py",
    "no_datetime.py": "datetime.py",
    "no_inspect.py": "inspect.py",
    "no_linecache.py": "linecache.py",
    "no_locale.py": "locale.py",
    "no_python_message.py": "google/protobuf/internal/python_message.py",
    "no_typing_extensions.py": "typing_extensions.py",
    "no_unicodedata.py": "unicodedata.py",
    "quick.py": "quick.py",
    "quick_dataclasses.py": "quick_dataclasses.py",
    "raw_api.py": "Crypto/Util/_raw_api.py",
}
# What FEATURES=-name leaves out; who imports it says so where it is asked for.
TOOLS = ("wantastic.cli.demo", "wantastic.cli.demo_web", "wantastic.cli.nc")
CONFORMANCE = tuple(f"wantastic.control.conformance{part}" for part in ("", "_rules", "_session"))
FEATURES = {
    "control": ("wantastic.agent", "wantastic.control"),
    "proxy": ("wantastic.proxy", *TOOLS),
    "tools": (*TOOLS, *CONFORMANCE),
}
# What runs once, or waits for the network when it runs: as C it would only be larger.
_COLD_CONTROL = """
    auth_pb2 certificate client configuration credentials device_flow diagnose dial enrol follow
    grpcio_transport grpclib_transport https plane prompt resolve rotation selftest tls trial wire
"""
STAYS_BYTECODE = (
    *TOOLS,
    *CONFORMANCE,
    *(f"wantastic.control.{name}" for name in _COLD_CONTROL.split()),
    *(f"wantastic.cli.{name}" for name in ("check", "help", "interface", "selftest", "status")),
    *(f"wantastic.device.{name}" for name in ("loopback", "selftest")),
    "wantastic.config.render",
)
CODECS = ("ascii", "latin_1", "utf_8", "utf_8_sig")
# Never followed: what only this machine could load, and what only a developer's run reaches.
NOT_FOLLOWED = """
    _multidict _hashlib _uuid _crypt _ctypes _bz2 _lzma _decimal _multibytecodec
    ast tracemalloc _py_abc unittest pydoc doctest pdb bdb cmd code multiprocessing
    concurrent.futures.process distutils setuptools ctypes decimal _pydecimal fractions bz2 lzma
    tkinter xml email http.server http.cookies http.cookiejar sqlite3 test lib2to3 cffi
    zipfile tarfile gzip pickle difflib statistics py_compile encodings.idna stringprep
    google.protobuf.descriptor_pb2 google.protobuf.internal.decoder google._upb.testing
    grpclib.plugin grpclib.reflection grpclib.health grpclib.testing grpclib.server
    grpc.beta grpc.framework grpc.experimental grpc_tools grpc_observability grpc_status
    grpc_health grpc_reflection gevent wantastic.server
"""
# upb imports from C, and pycryptodome by a text, what Nuitka cannot see.
IMPORTED_BY_NAME = (
    "google._upb",
    "google.protobuf.internal.well_known_types",
    *(f"Crypto.PublicKey.{name}" for name in ("_edwards", "_montgomery", "_nist_ecc")),
)
NOT_FOLLOWED_BY_TRANSPORT = {"slim": "grpc", "grpcio": "grpclib h2 hpack hyperframe multidict"}
ABSENT_BY_TRANSPORT = {
    "slim": ("wantastic.control.grpcio_transport",),
    "grpcio": ("wantastic.control.grpclib_transport",),
}


@dataclass(frozen=True)
class Program:
    """What Nuitka made."""

    folder: Path
    modules: dict[str, str]
    """Name -> kind of each module in the executable."""

    @property
    def c(self) -> Path:
        return self.folder / "entry.build"

    def standard_extensions(self, library: Path) -> list[str]:
        """Return the names in cpython.MODULES that some module in the executable imports.

        `library` is CPython's Lib. Nuitka does not list built-in modules, so the import
        statements are read, those that never run included.
        """
        imported: set[str] = set()
        for name in self.modules:
            inside = Path(*("entry" if name == "__main__" else name).split("."))
            for base in (self.folder / "tree", library):
                for path in (base / inside.with_suffix(".py"), base / inside / "__init__.py"):
                    if path.exists():
                        imported |= set(_imports(ast.parse(path.read_bytes())))
        return [name for name in cpython.MODULES if name in imported - set(self.modules)]


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def static_modules(transport: str) -> list[str]:
    """Return every name that is linked in rather than loaded."""
    ours = [rooms.module_name(path) for path in rooms.sources_of(with_tests=False)]
    others = [protobuf.MODULE.name, pycryptodome.MODULE.name]
    if transport == "grpcio":
        others.append(GRPC_MODULE.name)
    standard = [name for name in cpython.MODULES if f"{name}.py" not in OWN_FILES.values()]
    return [*standard, *ours, *others]


def build(
    cache: Cache, sources: Sources, transport: str, left_out: tuple[str, ...], compiled: bool
) -> Program:
    """Return the C and bytecode of all Python.

    `left_out` names FEATURES to do without. Unless `compiled`, only the entry point becomes C.
    """
    if unknown := set(left_out) - set(FEATURES):
        raise BuildError(f"no such feature: {', '.join(unknown)}; there are {', '.join(FEATURES)}")
    named = (*ABSENT_BY_TRANSPORT[transport], *(m for name in left_out for m in FEATURES[name]))
    absent = tuple(sorted(set(named)))
    packages = [*COMMON_PACKAGES, *TRANSPORT_PACKAGES[transport]]
    subprocess.run([sys.executable, rooms.ROOT / "protos" / "generate.py"], check=True)
    ours = [
        path
        for room in ("wantastic", "cext")
        for path in (rooms.ROOT / room).rglob("*.py")
        if "server" not in path.parts
    ]
    orders = {
        "static": static_modules(transport),
        "compile": ["__main__", *(["wantastic", "cext"] if compiled else [])],
        "bytecode": STAYS_BYTECODE,
        "codecs": CODECS,
    }
    not_followed = [
        *NOT_FOLLOWED.split(),
        *NOT_FOLLOWED_BY_TRANSPORT[transport].split(),
        *absent,
    ]
    inputs = {
        "python files": hash_tree(ours, rooms.ROOT),
        "packages": {row[0]: sources.pin(row[0]).sha256 for row in packages},
        "nuitka": sources.pin("nuitka").sha256,
        "python": sources.pin("python3.11").sha256,
        "orders": orders,
        "not followed": not_followed,
        "runtime": {n: hash_file(RUNTIME / n) for n in OWN_FILES},
        "plugin": hash_file(PLUGIN),
        "host": hash_tree(HOST.rglob("*.py"), HOST),
        "recipe": recipe_of(sys.modules[__name__]),
    }

    def recipe(folder: Path) -> None:
        tree = folder / "tree"
        _copy_tree(tree, sources, packages, absent)
        (folder / "orders.json").write_text(
            json.dumps({**orders, "report": str(folder / "modules.json")})
        )
        env = {
            "PYTHONPATH": f"{HOST}:{sources.unpack('nuitka')}",
            "NUITKA_CACHE_DIR": str(folder / "nuitka-cache"),
            "STATIC_BUILD": str(folder / "orders.json"),
            "PYTHONHASHSEED": "0",
            # Nuitka itself runs with the modules that OWN_FILES stands in for.
            "PYTHONSAFEPATH": "1",
            # Line numbers stay, columns go: a tenth of the bytecode, three tenths of it packed.
            "PYTHONNODEBUGRANGES": "1",
            "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
            "MULTIDICT_NO_EXTENSIONS": "1",
            "CC": "",
        }
        cache.run(
            folder / "log",
            [
                cpython.host(cache, sources) / "bin" / "python3.11",
                "-m",
                "nuitka",
                "--mode=standalone",
                "--static-libpython=no",
                f"--output-dir={folder}",
                f"--user-plugin={PLUGIN}",
                "--deployment",
                "--disable-plugin=multiprocessing",
                *(f"--include-module={name}" for name in IMPORTED_BY_NAME),
                # Some rooms are looked for by name, so that a build can lack them.
                "--include-package=wantastic",
                "--include-package=cext",
                "--python-flag=no_site,no_docstrings,no_asserts,isolated,safe_path",
                f"--nofollow-import-to={','.join(not_followed)}",
                "entry.py",
            ],
            cwd=tree,
            env=env,
        )
        if not (folder / "modules.json").exists():
            raise BuildError(f"Nuitka ended before its C was written: see {folder / 'log'}")

    folder = cache.stage(f"nuitka-{transport}", inputs, recipe)
    return Program(folder, json.loads((folder / "modules.json").read_text()))


def _copy_tree(
    tree: Path, sources: Sources, packages: list[tuple[str, str, str]], absent: tuple[str, ...]
) -> None:
    ignore = shutil.ignore_patterns(*NOT_COPIED)
    for room in ("wantastic", "cext"):
        shutil.copytree(rooms.ROOT / room, tree / room, ignore=ignore)
    for module in absent:
        path = tree / Path(*module.split("."))
        shutil.rmtree(path, ignore_errors=True)
        path.with_suffix(".py").unlink(missing_ok=True)
    for project, inside, package in packages:
        shutil.copytree(sources.unpack(project) / inside, tree / package, ignore=ignore)
    # The source distribution lacks the package that its native module is in.
    (tree / "google" / "_upb").mkdir()
    (tree / "google" / "_upb" / "__init__.py").touch()
    for name, target in OWN_FILES.items():
        shutil.copy(RUNTIME / name, tree / target)
