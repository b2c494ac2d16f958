"""The build program's own logic: cache, hashes, tables, checks. Nothing is compiled here."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildroot.static import __main__ as command_line
from buildroot.static import (
    allocator,
    check,
    grpc,
    inittab,
    link,
    nuitka,
    objects,
    program,
    pycryptodome,
    rooms,
    symbols,
    toolchain,
)
from buildroot.static.arches import ARCHES, TRANSPORTS, Arch
from buildroot.static.cache import BuildError, Cache, Unit
from buildroot.static.sources import PINS, Pin, Sources

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 2)


def test_a_stage_runs_once_for_the_same_inputs(cache: Cache) -> None:
    runs: list[Path] = []
    first = cache.stage("x", {"a": 1, "b": 2}, runs.append)
    assert cache.stage("x", {"b": 2, "a": 1}, runs.append) == first
    assert cache.stage("x", {"a": 1, "b": 3}, runs.append) != first
    assert len(runs) == 2


def test_an_interrupted_stage_starts_again_or_resumes(cache: Cache) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise BuildError("interrupted")

    left: list[bool] = []

    def look(folder: Path) -> None:
        left.append((folder / "half").exists())

    for resume in (False, True):
        with pytest.raises(BuildError):
            cache.stage("x", {"resume": resume}, fail)
        cache.stage("x", {"resume": resume}, look, resume=resume)
    assert left == [False, True]


def test_a_failing_tool_names_its_log_and_shows_its_end(cache: Cache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(BuildError, match=rf"(?s)the reason.*failed \(3\).*{log}"):
        cache.run(log, ["sh", "-c", "echo the reason; exit 3"])


def test_compile_keeps_what_is_there_and_refuses_equal_names(cache: Cache, tmp_path: Path) -> None:
    script = tmp_path / "cc"
    script.write_text('#!/bin/sh\necho "$2" >>"$LOG"\n: >"$4"\n')
    script.chmod(0o755)
    env = {"LOG": str(tmp_path / "log")}
    units = [Unit(Path(f"{n}.c"), f"{n}.o", (str(script),)) for n in "ab"]
    cache.compile(tmp_path, units[:1], env)
    objects = cache.compile(tmp_path, units, env)
    assert [p.name for p in objects] == ["a.o", "b.o"]
    assert (tmp_path / "log").read_text().split() == ["a.c", "b.c"]
    with pytest.raises(BuildError, match="share an object name"):
        cache.compile(tmp_path, [units[0], units[0]], env)


def test_a_source_with_another_hash_is_refused(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANTASTIC_SOURCES", f"/nonexistent:{tmp_path}")
    (tmp_path / "x-1.tar.gz").write_bytes(b"content")
    right = hashlib.sha256(b"content").hexdigest()
    sources = Sources(cache)
    assert sources.fetch(Pin("sdist", "x", "1", "x-1.tar.gz", right)) == tmp_path / "x-1.tar.gz"
    with pytest.raises(BuildError, match="has sha256"):
        sources.fetch(Pin("sdist", "x", "1", "x-1.tar.gz", "0" * 64))


def test_pins_agree_with_the_versions_that_are_tested() -> None:
    rows = (ROOT / "requirements.txt").read_text().splitlines()
    tested = dict(row.lower().split("==") for row in rows if "==" in row)
    for project in ("pycryptodome", "protobuf", "grpcio", "grpclib"):
        assert PINS[project].version == tested[project], project
    assert all(re.fullmatch("[0-9a-f]{64}", pin.sha256) for pin in PINS.values())


def test_modules_of_one_name_get_different_init_functions() -> None:
    assert rooms.init_name("cext.wire.testing") != rooms.init_name("cext.host.testing")


def test_the_table_names_every_module_once_and_compiles(tmp_path: Path) -> None:
    text = inittab.source(["math", "_ssl"], [rooms.NativeModule("a.b", "PyInit_a__b")])
    rows = re.findall(r'\{"([\w.]+)", (\w+)\}', text)
    assert len({name for name, _ in rows}) == len(rows)
    assert ("a.b", "PyInit_a__b") in rows
    assert ("sys", "NULL") in rows
    assert {"math", "_ssl", "builtins", "marshal", "posix"} <= {name for name, _ in rows}
    assert "unicodedata" not in text


PROTOTYPES = [
    # 1 to 5: text, parameters
    ("int f(void);", ()),
    ("int f(const uint8_t *in, size_t len, void **out);", ("*", "size_t", "*")),
    ("int f(uint8_t state[16], unsigned n, uint64_t seed);", ("*", "unsigned", "uint64_t")),
    ("void f(unsigned long x /* note */, int y);", ("unsigned long", "int")),
    ("#define LEN 16\nint f(uint8_t digest[LEN]);", ("*",)),
]


@pytest.mark.parametrize(("text", "parameters"), PROTOTYPES)
def test_prototypes_in_python_files_become_wrappers(
    text: str, parameters: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "lib" / "Crypto" / "Hash"
    folder.mkdir(parents=True)
    (folder / "X.py").write_text(f'lib = load("Crypto.Hash._X", """{text}""")\n')
    (found,) = pycryptodome.functions(tmp_path)
    assert (found.module, found.name, found.parameters) == ("Crypto.Hash.X", "f", parameters)
    code = pycryptodome.wrappers([found], ["Crypto.Hash._X"])
    assert f'right_count("f", n, {len(parameters)})' in code
    assert '"Crypto.Hash._X\\0"' in code


def test_a_parameter_of_an_unknown_type_stops_the_build(tmp_path: Path) -> None:
    folder = tmp_path / "lib" / "Crypto"
    folder.mkdir(parents=True)
    (folder / "X.py").write_text('X = "int f(float x);"\n')
    with pytest.raises(BuildError, match="unknown type"):
        pycryptodome.functions(tmp_path)


def test_wrappers_convert_call_and_refuse(tmp_path: Path) -> None:
    """The generated C, compiled for this machine, against real functions."""
    function = pycryptodome.Function("m", "add", "int", ("*", "size_t", "*", "uint8_t"))
    code = pycryptodome.wrappers([function], ["lib"])
    code = code.replace("PyInit_Crypto__Util___static", "PyInit__static")
    (tmp_path / "wrappers.c").write_text(code)
    (tmp_path / "add.c").write_text(
        "#include <stdint.h>\n#include <stddef.h>\n"
        "int add(void *in, size_t n, void *out, uint8_t x) {\n"
        " if (!in || !out) return 7;\n"
        " for (size_t i = 0; i < n; i++) ((uint8_t *)out)[i] = ((uint8_t *)in)[i] + x;\n"
        " return 0; }\n"
    )
    include = subprocess.run(
        [sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('include'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    command = ["cc", "-shared", "-fPIC", "-Wall", "-Werror", f"-I{include}", "wrappers.c", "add.c"]
    subprocess.run([*command, "-o", "_static.so"], cwd=tmp_path, check=True)
    test = (
        "import _static\n"
        "out = bytearray(3)\n"
        "assert _static.LIBRARIES == {'lib'}\n"
        "assert _static.add(b'abc', 3, out, 1) == 0 and out == b'bcd'\n"
        "assert _static.add(None, 3, out, 1) == 7\n"
        "for bad in ((b'a', 1, out), (b'a', -1, out, 1), (b'a', 1, out, 256), ('a', 1, out, 1)):\n"
        "    try:\n        _static.add(*bad)\n"
        "    except (TypeError, OverflowError):\n        continue\n"
        "    raise AssertionError(bad)\n"
        "out.append(0)\n"  # the buffer was released after every call
    )
    subprocess.run([sys.executable, "-c", test], cwd=tmp_path, check=True)


@given(st.sets(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), min_size=1))
def test_prefix_header_renames_each_name_once(names: set[str]) -> None:
    rows = symbols.prefix_header(names, "p_").splitlines()
    assert rows == [f"#define {name} p_{name}" for name in sorted(names)]


def elf(bits: int, order: str, types: list[int]) -> bytes:
    """Return an ELF file's start with program headers of these types."""
    sizes = {32: (52, 32), 64: (64, 56)}[bits]
    head = bytearray(sizes[0])
    head[:6] = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2])
    if bits == 64:
        struct.pack_into(order + "Q", head, 32, sizes[0])
        struct.pack_into(order + "HH", head, 54, sizes[1], len(types))
    else:
        struct.pack_into(order + "I", head, 28, sizes[0])
        struct.pack_into(order + "HH", head, 42, sizes[1], len(types))
    return bytes(head) + b"".join(struct.pack(order + "I", t).ljust(sizes[1], b"\0") for t in types)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [32, 64])
def test_program_headers(bits: int, order: str) -> None:
    assert list(check.program_headers(elf(bits, order, [1, 2, 3]))) == [1, 2, 3]


def test_faults_are_found(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(elf(64, "<", [1]))
    assert list(check.faults(path, "/somebody/home")) == []
    path.write_bytes(elf(64, "<", [1, check.PT_INTERP]) + b"/somebody/home/x.c")
    assert len(list(check.faults(path, "/somebody/home"))) == 2
    assert list(check.faults(Path(sys.executable).resolve(), "/somebody/home"))


def test_budgets() -> None:
    assert check.Figure("x", 5, "bytes", 5).ok
    assert not check.Figure("x", 6, "bytes", 5).ok
    assert "TOO MUCH" in str(check.Figure("x", 6, "bytes", 5))
    assert set(check.XZ_BUDGET) == set(check.RSS_BUDGET_KB) == set(TRANSPORTS)


@pytest.mark.parametrize("name", ARCHES)
def test_a_tunnel_that_the_emulator_cannot_carry_is_left_out_aloud(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried: list[str] = []

    def tunnel(path: Path, arch: Arch) -> dict[str, int]:
        tried.append("tunnel")
        return {"pages": 1, "peak_kb": 1}

    def enrol(command: Sequence[str], timeout_s: float, settle_s: float) -> tuple[float, ...]:
        tried.append("enrolled")
        return (1.0, 1.0, 1)

    def register(command: Sequence[str], timeout_s: float) -> float:
        tried.append("registered")
        return 1.0

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(check.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(check.shutil, "which", lambda program: f"/bin/{program}")
    monkeypatch.setattr(check, "run_alone", lambda path, arch: "")
    monkeypatch.setattr(check, "selftest", lambda path, arch: check.CAN_ENROL)
    monkeypatch.setattr(check, "tunnel", tunnel)
    monkeypatch.setattr(check.enrolment, "enrol", enrol)
    monkeypatch.setattr(check.enrolment, "register", register)
    monkeypatch.setattr(check, "start_ms", lambda command: 1.0)
    monkeypatch.setattr(
        check, "idle_rss_kb", lambda command, mode, settle_s: {"VmRSS": 1, "VmHWM": 1}
    )
    path = tmp_path / "program"
    path.write_bytes(elf(32, "<", [1]))
    assert check.check(path, ARCHES[name], "slim", "/somebody/home")
    said = capsys.readouterr().out
    if name == "mips":
        assert tried == ["registered"]
        assert f"no tunnel tried: {check.EMULATOR_CANNOT[name]}" in said
    else:
        assert tried == ["tunnel", "enrolled"]
        assert "no tunnel" not in said
    # What an emulator takes says nothing about the CPU: named so, and held to no budget.
    assert ("emulator" in said) == (name != "x86_64")
    assert said.count("at most") == (4 if name == "x86_64" else 1)


def test_a_changed_module_list_stops_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nuitka, "LISTS", tmp_path)
    request = link.Request("slim")
    program = nuitka.Program(tmp_path, {"b": "", "a": ""})
    link.check_modules(program, request, update=True)
    assert (tmp_path / "modules-slim.txt").read_text() == "a\nb\n"
    link.check_modules(program, request, update=False)
    more = nuitka.Program(tmp_path, {"a": "", "c": ""})
    with pytest.raises(BuildError, match=r"(?s)-b\n.*\+c\n.*UPDATE_MODULES=1"):
        link.check_modules(more, request, update=False)


def test_given_compilers_replace_zig(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CC", "cc"), ("CXX", "c++"), ("AR", "ar"), ("RANLIB", "ranlib")):
        monkeypatch.setenv(name, value)
    own = ARCHES[platform.machine()]
    tools = toolchain.toolchain(cache, Sources(cache), own)
    assert not tools.is_zig
    wrapper = (tools.folder / tools.cc).read_text()
    assert wrapper.startswith("#!/bin/sh\nexec cc ")
    assert f"-ffile-prefix-map={cache.root}=/build" in wrapper
    assert os.access(tools.folder / tools.cc, os.X_OK)
    assert tools.libraries == ("-latomic",)  # GCC's
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    with pytest.raises(BuildError, match="set CC, CXX, AR and RANLIB"):
        toolchain.toolchain(cache, Sources(cache), own)


@pytest.mark.parametrize(
    ("arch", "script", "found"),
    [
        ("mips", 'exec cc "$@"', "target 1234"),  # this machine's is no compiler for mips
        ("mipsel", '[ "$1" != --version ] || exec cc "$1"; echo no CPU >&2; exit 1', "no CPU"),
        ("mipsel", "echo no such flag >&2; exit 1", "--version ends with 1: no such flag"),
        # One without libatomic: it answers with the bare name.
        ("mipsel", "cat; echo version", "target __BYTE_ORDER__"),
    ],
)
def test_a_compiler_that_is_none_for_the_cpu_is_refused(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, arch: str, script: str, found: str
) -> None:
    # OpenSSL takes silence for big-endian, and its AES comes out wrong without another word.
    compiler = cache.root / "compiler"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    for name in ("CC", "CXX"):
        monkeypatch.setenv(name, str(compiler))
    with pytest.raises(BuildError, match=rf"{found}.*set CC to a compiler for {arch}-linux"):
        toolchain.toolchain(cache, Sources(cache), ARCHES[arch])


def test_flags_of_an_outer_build_reach_no_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # OpenWrt's CONFIG_SITE says that a long of its MIPS has four bytes.
    monkeypatch.setenv("WANTASTIC_CACHE", str(tmp_path))
    for name in ("CONFIG_SITE", "CFLAGS", "LDFLAGS"):
        monkeypatch.setenv(name, "of an outer build")
    seen: list[set[str]] = []
    monkeypatch.setattr(Sources, "fetch", lambda *_: seen.append(set(os.environ)))
    monkeypatch.setattr(sys, "argv", ["static", "sources"])
    assert command_line.main() == 0
    assert seen
    assert not seen[0] & {"CONFIG_SITE", "CFLAGS", "LDFLAGS"}


def test_environment_shim_drops_python_variables_only(tmp_path: Path) -> None:
    source = tmp_path / "main.c"
    source.write_text(
        "#include <stdio.h>\nextern char **environ;\n"
        "int main(void) { for (char **e = environ; *e; e++) puts(*e); return 0; }\n"
    )
    shim = ROOT / "buildroot" / "static" / "runtime" / "environment.c"
    program = tmp_path / "program"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", source, shim, "-o", program], check=True)
    env = {"PYTHONPATH": "/x", "A": "1", "PYTHONHOME": "/y", "PYTHO": "2"}
    shown = subprocess.run([program], env=env, capture_output=True, text=True, check=True).stdout
    assert sorted(shown.split()) == ["A=1", "PYTHO=2"]


def test_every_text_encoding_that_the_agent_names_is_in_the_executable() -> None:
    pattern = re.compile(r'(?:\b(?:en|de)code\(|encoding=)"([a-z0-9_-]+)"')
    files = [p for p in (ROOT / "wantastic").rglob("*.py") if "server" not in p.parts]
    named = {name for path in files for name in pattern.findall(path.read_text())}
    # runtime/hostnames.py has idna; DER and PEM are forms of certificates.
    codecs = {name.replace("-", "_") for name in named} - {"idna", "der", "pem"}
    assert "utf_8_sig" in codecs
    assert codecs <= set(nuitka.CODECS)


def test_an_unknown_feature_stops_the_build(cache: Cache) -> None:
    with pytest.raises(BuildError, match="no such feature: dns; there are control, proxy, tools"):
        nuitka.build(cache, Sources(cache), "slim", ("dns",), True)


def test_features_and_bytecode_name_modules_that_exist() -> None:
    named = {module for row in nuitka.FEATURES.values() for module in row}
    for module in named | set(nuitka.STAYS_BYTECODE) - {"wantastic.control.auth_pb2"}:
        path = ROOT / Path(*module.split("."))
        assert path.is_dir() or path.with_suffix(".py").exists(), module


def test_generated_sources_of_grpc_are_those_that_something_reaches(tmp_path: Path) -> None:
    files = {
        "src/core/a.cc": '#include "m/used.upb.h"\n#include "m/d.upbdefs.h"\n',
        "src/core/xds/b.h": '#include "m/unused.upb.h"\n',
        "src/core/c.cc": '#include "src/core/xds/b.h"\n',
        "src/core/ext/upb-gen/m/used.upb.h": '#include "m/used.upb_minitable.h"\n',
        "src/core/ext/upb-gen/m/used.upb_minitable.h": "",
        "src/core/ext/upb-gen/m/used.upb_minitable.c": '#include "m/part.upb_minitable.h"\n',
        "src/core/ext/upb-gen/m/part.upb_minitable.h": "",
        "src/core/ext/upb-gen/m/part.upb_minitable.c": "",
        "src/core/ext/upb-gen/m/unused.upb.h": '#include "m/unused.upb_minitable.h"\n',
        "src/core/ext/upb-gen/m/unused.upb_minitable.h": "",
        "src/core/ext/upb-gen/m/unused.upb_minitable.c": "",
        "src/core/ext/upbdefs-gen/m/d.upbdefs.h": "",
        "src/core/ext/upbdefs-gen/m/d.upbdefs.c": "extern X m_e_proto_upbdefinit;\n",
        "src/core/ext/upbdefs-gen/m/e.upbdefs.c": "",
        "src/core/xds/b.cc": "",
        "third_party/zlib/z.c": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    names = [name for name in files if name.endswith((".c", ".cc"))]
    found = {name.rpartition("/")[2] for name in grpc.needed(tmp_path, names)}
    assert found == {
        *("a.cc", "c.cc", "d.upbdefs.c", "e.upbdefs.c"),
        *("used.upb_minitable.c", "part.upb_minitable.c"),
    }


def test_another_malloc_than_musls_stops_the_build(cache: Cache, tmp_path: Path) -> None:
    given = toolchain.Toolchain(ARCHES["mipsel"], tmp_path, "given", is_zig=False)
    assert allocator.build(cache, Sources(cache), given) == []
    executable = tmp_path / "wantasticd.debug"
    executable.write_bytes(b"\x7fELF...\0main\0__malloc_alloc_meta\0")
    allocator.check(executable)
    executable.write_bytes(b"\x7fELF...\0main\0malloc\0")
    with pytest.raises(BuildError, match="zig's malloc"):
        allocator.check(executable)


def test_another_lookup_of_nuitkas_stops_the_build(tmp_path: Path) -> None:
    source, to = tmp_path / "static_src", tmp_path / "copy"
    source.mkdir()
    (source / "other.c").write_text("int other;\n")
    (source / program.LOADER).write_text(f"bool f(void) {{\n{program.LOOKUP}}}\n")
    assert program._with_quick_lookup(source, to) == to
    assert (to / "other.c").read_text() == "int other;\n"
    changed = (to / program.LOADER).read_text()
    assert changed.index(program.QUICK_LOOKUP) < changed.index(program.LOOKUP)
    (source / program.LOADER).write_text("bool f(void) { return true; }\n")
    with pytest.raises(BuildError, match=program.LOADER):
        program._with_quick_lookup(source, to)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [32, 64])
def test_sections_that_nothing_reads_are_emptied(bits: int, order: str, tmp_path: Path) -> None:
    names = b"\0.text\0.eh_frame\0.shstrtab\0"
    data = bytearray(elf(bits, order, []))
    row, at, table = {64: ("IIQQQQ16x8x", 58, (40, "Q")), 32: ("IIIIII16x", 46, (32, "I"))}[bits]
    rows = []
    for name, content in ((b".text", b"code"), (b".eh_frame", b"unwind"), (b".shstrtab", names)):
        rows.append((names.index(name), 1, 0, 0, len(data), len(content)))
        data += content
    struct.pack_into(order + table[1], data, table[0], len(data))
    struct.pack_into(order + "HHH", data, at, struct.calcsize(order + row), len(rows), 2)
    for values in rows:
        data += struct.pack(order + row, *values)
    path = tmp_path / "program"
    path.write_bytes(data)
    assert link.empty_sections(path, link.UNUSED_SECTIONS) == 6
    assert path.read_bytes() == bytes(data).replace(b"unwind", bytes(6))


SYMBOLS = st.dictionaries(
    st.from_regex(r"[a-z]{1,6}", fullmatch=True),
    st.sampled_from(["global", "static", "used"]),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(SYMBOLS, st.data())
def test_names_in_an_object_change_where_they_are_global(
    named: dict[str, str], data: st.DataObject
) -> None:
    """Compiled with names that share their ends, as string tables do; nm reads the result."""
    kinds = {f"x_{name}": kind for name, kind in named.items()}
    text = {
        "global": "int {0}(void) {{ return 1; }}\n",
        "static": "static int {0}(void) {{ return 2; }}\nint (*p_{0})(void) = {0};\n",
        "used": "extern int {0}(void);\nint c_{0}(void) {{ return {0}(); }}\n",
    }
    wanted = data.draw(st.sets(st.sampled_from(sorted(kinds))))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.c", Path(folder) / "a.o"
        source.write_text("".join(text[kind].format(name) for name, kind in kinds.items()))
        subprocess.run(["cc", "-c", source, "-o", target], check=True)
        before = listing(target)
        target.write_bytes(objects.rename(target.read_bytes(), wanted, "new_"))
        after = listing(target)
    changed = {n for n in wanted if kinds[n] != "static"}
    assert after == {(f"new_{n}" if n in changed else n, kind) for n, kind in before}


def listing(path: Path) -> set[tuple[str, str]]:
    rows = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    return {(row.split()[-1], row.split()[-2]) for row in rows.splitlines()}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [32, 64])
def test_names_change_in_objects_of_every_cpu(bits: int, order: str) -> None:
    strings = b"\0.symtab\0SSL_new\0my_SSL_new\0local\0"
    symbol = {64: "IBxHQQ", 32: "IIIBxH"}[bits]

    def entry(name: bytes, info: int) -> bytes:
        at = strings.index(name + b"\0") if name else 0
        values = (at, info, 1, 7, 8) if bits == 64 else (at, 7, 8, info, 1)
        return struct.pack(order + symbol, *values)

    table = entry(b"", 0) + entry(b"local", 0x02) + entry(b"SSL_new", 0x12)
    table += entry(b"my_SSL_new", 0x10) + entry(b"SSL_new", 0x20)
    data = bytearray(elf(bits, order, []))
    rows = []
    for kind, content in ((0, b""), (3, strings), (2, table)):
        rows.append((kind, len(data), len(content)))
        data += content
    section = {64: "4xI16xQQI20x", 32: "4xI8xIII12x"}[bits]
    start, at, word = {64: (len(data), 58, (40, "Q")), 32: (len(data), 46, (32, "I"))}[bits]
    for row in rows:
        data += struct.pack(order + section, *row, 1)
    struct.pack_into(order + word[1], data, word[0], start)
    struct.pack_into(order + "HHH", data, at, struct.calcsize(order + section), len(rows), 1)
    out = objects.rename(bytes(data), {"SSL_new", "local"}, "b_")
    _, strings_at, size, _ = struct.unpack_from(
        order + section, out, start + struct.calcsize(order + section)
    )
    names = [
        out[strings_at + row[0] :].partition(b"\0")[0]
        for row in struct.iter_unpack(order + symbol, out[rows[2][1] : rows[2][1] + len(table)])
    ]
    assert names == [b"", b"local", b"b_SSL_new", b"my_SSL_new", b"b_SSL_new"]
    assert size == len(strings) + len(b"b_SSL_new\0")
    unchanged = objects.rename(bytes(data), {"nothing"}, "b_")
    assert unchanged == bytes(data)
