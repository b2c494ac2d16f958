"""Who may import whom. ARCHITECTURE.md draws it; this file enforces it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LEAVES = {"config", "store"}
MIDDLE = {"control", "device", "proxy", "dns", "exitnode", "telemetry"}
PYTHON_ROOMS: dict[str, set[str]] = {
    "config": set(),
    "store": {"config"},
    "control": LEAVES | {"telemetry"},
    "device": LEAVES | {"telemetry"},
    "proxy": LEAVES | {"telemetry", "device"},
    "dns": LEAVES | {"telemetry", "device"},
    "exitnode": LEAVES | {"telemetry", "device"},
    "telemetry": LEAVES,
    "agent": MIDDLE | LEAVES,
    "cli": {"agent"} | MIDDLE | LEAVES,
    "server": {"control", "store", "device", "config", "telemetry"},
}
# Native rooms that a Python room may import; "crypto" is keys only.
NATIVE_FROM_PYTHON = {"device": {"engine", "crypto"}}

NATIVE_ROOMS: dict[str, set[str]] = {
    "base": set(),
    "crypto": {"base"},
    "wire": {"base"},
    "wireguard": {"wire", "crypto", "base"},
    "netstack": {"wire", "crypto", "base"},
    "host": {"wire", "base"},
    "engine": {"wireguard", "netstack", "host", "wire", "crypto", "base"},
}
# Only host/ may make system calls.
SYSCALL_HEADERS = re.compile(
    r"#include <(sys/(socket|ioctl|epoll|eventfd|timerfd|mman|uio|random)|unistd|fcntl|poll"
    r"|pthread|time|linux/.*|net/.*)\.?h?>"
)


def python_imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a Python file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module in {"wantastic", "cext"}:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("room", sorted(PYTHON_ROOMS))
def test_python_rooms_import_downwards_only(room: str) -> None:
    native = NATIVE_FROM_PYTHON.get(room, set())
    for path in (ROOT / "wantastic" / room).rglob("*.py"):
        for name in python_imports(path):
            parts = name.split(".")
            where = f"{path.relative_to(ROOT)} imports {name}"
            if parts[0] == "wantastic" and len(parts) > 1 and parts[1] != room:
                if parts[1] == "version":
                    continue
                assert parts[1] in PYTHON_ROOMS[room], where
            if parts[0] == "cext":
                assert parts[1] in native, where


def native_imports(path: Path) -> Iterator[str]:
    """Yield the rooms of cext/ that a C or Cython file includes or cimports."""
    text = path.read_text()
    yield from re.findall(r'^#include "(\w+)/', text, re.M)
    yield from re.findall(r"^from cext\.(\w+)\S* c?import", text, re.M)
    yield from re.findall(r'^cdef extern from "(\w+)/', text, re.M)


@pytest.mark.parametrize("room", sorted(NATIVE_ROOMS))
def test_native_rooms_import_downwards_only(room: str) -> None:
    for path in (ROOT / "cext" / room).rglob("*.*"):
        if path.suffix not in {".c", ".h", ".pyx", ".pxd"}:
            continue
        for other in native_imports(path):
            assert other == room or other in NATIVE_ROOMS[room], f"{path} uses {other}"


def test_only_host_makes_system_calls() -> None:
    for room in NATIVE_ROOMS:
        if room in {"host", "engine"}:
            continue
        for path in (ROOT / "cext" / room).rglob("*.[ch]"):
            found = SYSCALL_HEADERS.search(path.read_text())
            assert found is None, f"{path}: {found and found.group()}"


def test_every_room_is_in_the_tables() -> None:
    rooms = {p.name for p in (ROOT / "wantastic").iterdir() if (p / "__init__.py").exists()}
    assert rooms == set(PYTHON_ROOMS)
    rooms = {p.name for p in (ROOT / "cext").iterdir() if (p / "__init__.py").exists()}
    assert rooms == set(NATIVE_ROOMS)


def test_every_source_file_opens_with_what_it_owns() -> None:
    for folder in ("wantastic", "cext", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text())), path
