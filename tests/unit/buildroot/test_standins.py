"""What stands in for modules of the standard library, against the modules themselves."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import inspect
import itertools
import operator
import os
import re
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildroot.static import nuitka
from buildroot.static.runtime import (
    no_datetime,
    no_inspect,
    no_linecache,
    no_locale,
    no_typing_extensions,
    quick_dataclasses,
)

ROOT = Path(__file__).resolve().parents[3]
RUNTIME = ROOT / "buildroot" / "static" / "runtime"


async def coroutine() -> None:
    return None


async def async_generator() -> AsyncIterator[int]:
    yield 1


def generator() -> Generator[int, None, None]:
    yield 1


@types.coroutine
def old_coroutine() -> Generator[None, None, None]:
    yield


def plain() -> None:
    return None


@functools.wraps(plain)
def wrapped() -> None:
    return None


class Class:
    async def method(self) -> None:
        return None

    def __await__(self) -> Generator[None, None, None]:
        yield


THINGS: list[Any] = [
    coroutine,
    async_generator,
    generator,
    old_coroutine,
    plain,
    wrapped,
    Class,
    Class().method,
    Class(),
    functools.partial(functools.partial(coroutine), *()),
    functools.partial(plain),
    len,
    None,
]
QUESTIONS = (
    *("isfunction", "ismethod", "isgenerator", "iscoroutine", "isawaitable"),
    *("iscoroutinefunction", "isasyncgenfunction", "isgeneratorfunction"),
)


@pytest.mark.parametrize("question", QUESTIONS)
def test_inspect_answers_alike(question: str) -> None:
    ours, theirs = getattr(no_inspect, question), getattr(inspect, question)
    running: list[Any] = [generator(), old_coroutine(), coroutine()]
    for thing in (*THINGS, *running):
        assert ours(thing) == theirs(thing), thing
    running[2].close()


def test_states_follow_a_generator_and_a_coroutine() -> None:
    steps: Any = generator()
    awaiting: Any = Class().method()
    for _ in range(2):
        assert no_inspect.getgeneratorstate(steps) == inspect.getgeneratorstate(steps)
        assert no_inspect.getcoroutinestate(awaiting) == inspect.getcoroutinestate(awaiting)
        next(steps, None)
        awaiting.close()
    steps.close()
    assert no_inspect.getgeneratorstate(steps) == inspect.getgeneratorstate(steps) == "GEN_CLOSED"


def test_unwrap_ends_at_the_innermost_and_refuses_a_loop() -> None:
    assert no_inspect.unwrap(wrapped) is plain

    def loop() -> None:
        return None

    loop.__wrapped__ = loop  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="loop"):
        no_inspect.unwrap(loop)


def test_code_positions_are_the_same() -> None:
    code = plain.__code__
    theirs = inspect._get_code_position(code, 0)  # type: ignore[attr-defined]
    assert no_inspect._get_code_position(code, 0) == theirs


def test_a_traceback_without_source_is_still_one() -> None:
    script = (
        "import sys, types\n"
        "from buildroot.static.runtime import no_inspect, no_linecache, no_locale\n"
        "for name in ('inspect', 'linecache', 'locale'):\n"
        "    sys.modules[name] = sys.modules['buildroot.static.runtime.no_' + name]\n"
        "import asyncio, dataclasses, logging, subprocess, traceback, warnings, datetime\n"
        "@dataclasses.dataclass\nclass D:\n    a: int = 1\n"
        "assert D() == D(1) and D.__doc__ == 'D'\n"
        "assert datetime.datetime.strptime('2026-01-02', '%Y-%m-%d').day == 2\n"
        "async def fail():\n    asyncio.get_running_loop().add_signal_handler(1, print)\n"
        "    await asyncio.to_thread(int, 'x')\n"
        "try:\n    asyncio.run(fail())\n"
        "except ValueError:\n    print(traceback.format_exc())\n"
        "assert not {'ast', 'dis', 'tokenize'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "no_debug_ranges", "-c", f"{_path()}{script}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ValueError: invalid literal" in done.stdout
    assert ", in fail" in done.stdout


def _path() -> str:
    return f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"


def test_tls_is_imported_when_it_is_used_and_not_before(tmp_path: Path) -> None:
    script = (
        "from buildroot.static.runtime import late\n"
        "import asyncio, socket, sys\n"
        "async def talk():\n"
        "    a, b = socket.socketpair()\n"
        "    for s in (a, b): s.setblocking(False)\n"
        "    loop = asyncio.get_running_loop()\n"
        "    await loop.sock_sendall(a, b'x')\n"
        "    assert await loop.sock_recv(b, 1) == b'x'\n"
        "    a.close(); b.close()\n"
        "asyncio.run(talk())\n"
        "assert '_ssl' not in sys.modules\n"
        "import ssl\n"
        "context = ssl.create_default_context()\n"
        "assert isinstance(context, ssl.SSLContext) and '_ssl' in sys.modules\n"
        "import ssl as again\n"
        "assert type(again) is type(sys) and again.SSLContext is ssl.SSLContext\n"
        "from asyncio import base_events, sslproto\n"
        "assert base_events.ssl.SSLSocket is again.SSLSocket\n"
        "assert sslproto.SSLProtocol.__module__ == 'asyncio.sslproto'\n"
        "async def wrong():\n"
        "    await asyncio.open_connection('127.0.0.1', 9, ssl=context)\n"
        "try:\n    asyncio.run(wrong())\n"
        "except OSError:\n    print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{_path()}{script}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_linecache_and_locale_say_nothing_of_a_source() -> None:
    assert no_linecache.getline(__file__, 1) == ""
    assert no_linecache.getlines(__file__) == []
    assert no_linecache.lazycache(__file__, {}) is False
    assert no_locale.getlocale(no_locale.LC_TIME) == (None, None)
    assert no_locale.getpreferredencoding(False) == no_locale.getencoding() == "utf-8"
    assert no_locale.setlocale(no_locale.LC_ALL, "de_DE") == "C"


def test_every_stand_in_is_copied_under_the_name_it_stands_for() -> None:
    found = {path.name for path in RUNTIME.glob("no_*.py")}
    assert found == {name for name in nuitka.OWN_FILES if name.startswith("no_")}
    targets = {name: Path(nuitka.OWN_FILES[name]).name for name in found}
    assert all(target == name.removeprefix("no_") for name, target in targets.items())


def second_dataclasses() -> types.ModuleType:
    """Return a copy of the module with our functions, beside the real one."""
    path = Path(str(dataclasses.__file__))
    copy = types.ModuleType("copy_of_dataclasses")
    sys.modules[copy.__name__] = copy
    exec(compile(path.read_bytes(), str(path), "exec"), copy.__dict__)
    quick_dataclasses.install(copy)
    return copy


OURS = second_dataclasses()
NAMES = "abcdefgh"
VALUES = st.integers(-2, 2)
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["required", "default", "factory"]),
        st.sampled_from(["plain", "kw_only", "no init", "InitVar", "no compare", "no repr"]),
        VALUES,
    ),
    max_size=len(NAMES),
)
SWITCHES = ("frozen", "slots", "order", "eq", "unsafe_hash", "kw_only")


def make_class(module: Any, fields: list[tuple[str, str, int]], switches: dict[str, bool]) -> Any:
    """Return a class as described, or the error that making it raises."""
    body: dict[str, Any] = {"__annotations__": {}, "__qualname__": "Made"}
    passed_on = []
    for name, (start, kind, value) in zip(NAMES, fields, strict=False):
        words: dict[str, Any] = {}
        if start == "default":
            words["default"] = value
        elif start == "factory" and kind != "InitVar":
            words["default_factory"] = lambda value=value: [value]
        words |= {"no init": {"init": False}, "no compare": {"compare": False}}.get(kind, {})
        words |= {"kw_only": {"kw_only": True}, "no repr": {"repr": False}}.get(kind, {})
        body["__annotations__"][name] = module.InitVar[int] if kind == "InitVar" else int
        body[name] = module.field(**words)
        if kind == "InitVar":
            passed_on.append(name)
    if passed_on:

        def after(self: Any, *given: int) -> None:
            object.__setattr__(self, "a" if "a" not in passed_on else passed_on[0], given)

        body["__post_init__"] = after
    try:
        return module.dataclass(**switches)(type("Made", (), body))
    except (TypeError, ValueError) as error:
        return type(error)


def outcome(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Return what a call returns, or the name of what it raises."""
    try:
        return call(*given, **named)
    except (TypeError, AttributeError) as error:
        return type(error).__name__


def values_of(thing: object) -> list[Any]:
    return [getattr(thing, name, None) for name in NAMES]


@settings(max_examples=400, deadline=None)
@given(FIELDS, st.fixed_dictionaries({name: st.booleans() for name in SWITCHES}), st.data())
def test_dataclasses_behave_alike(
    fields: list[tuple[str, str, int]], switches: dict[str, bool], data: st.DataObject
) -> None:
    ours, theirs = (make_class(m, fields, switches) for m in (OURS, dataclasses))
    if not dataclasses.is_dataclass(theirs):
        assert ours is theirs
        return
    made = []
    for _ in range(3):
        positional = data.draw(st.lists(VALUES, max_size=len(fields) + 1))
        named = data.draw(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=len(fields)))
        # Mostly what fits: everything that has to be given, by name.
        if data.draw(st.booleans()):
            wanted = [n for n, f in theirs.__dataclass_fields__.items() if f.init]
            positional, named = [], {n: data.draw(VALUES) for n in wanted}
        a, b = (outcome(kind, *positional, **named) for kind in (ours, theirs))
        assert (a == "TypeError") == (b == "TypeError"), (a, b)
        if b != "TypeError":
            made.append((a, b))
    for a, b in made:
        by_identity = type(b).__hash__ is object.__hash__
        assert by_identity == (type(a).__hash__ is object.__hash__)
        for question in (repr, len if by_identity else hash, values_of):
            assert outcome(question, a) == outcome(question, b)
        for name in NAMES:
            assert outcome(setattr, a, name, 1) == outcome(setattr, b, name, 1)
            assert outcome(delattr, a, name) == outcome(delattr, b, name)
            assert outcome(repr, a) == outcome(repr, b)
    for (a, b), (c, d) in itertools.product(made, repeat=2):
        for compare in (operator.eq, operator.lt, operator.le, operator.gt, operator.ge):
            assert outcome(compare, a, c) == outcome(compare, b, d)


def test_dataclasses_compare_with_their_own_class_only() -> None:
    row: list[tuple[str, str, int]] = [("required", "plain", 0)]
    one, two = (make_class(OURS, row, {"frozen": True})(1) for _ in range(2))
    assert one != two
    assert one.__eq__(two) is NotImplemented
    assert {one: 1}[type(one)(1)] == 1
    assert one.__eq__.__name__ == "__eq__"
    assert type(one).__init__.__qualname__ == "Made.__init__"


def test_datetime_is_what_c_has_of_it() -> None:
    assert no_datetime.datetime is datetime.datetime
    assert set(datetime.__all__) <= set(vars(no_datetime))
    # _datetime imports _strptime by name, and it is not in the executable.
    files = [p for p in (ROOT / "wantastic").rglob("*.py") if "server" not in p.parts]
    assert not [path for path in files if "strptime(" in path.read_text()]


def test_the_start_leaves_the_collector_off_and_the_agent_puts_it_on() -> None:
    script = (
        f"{_path()}import gc, sys\n"
        "sys.path.insert(0, 'buildroot/static/runtime')\n"
        "import quick, dataclasses\n"
        "assert not gc.isenabled()\n"
        "@dataclasses.dataclass(frozen=True)\nclass D:\n    a: int = 1\n"
        "assert D.__init__.__module__ == 'quick_dataclasses'\n"
        "from wantastic.cli.main import main\n"
        "assert main(['selftest']) == 0 and gc.isenabled()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_typing_extensions_has_what_grpcio_takes() -> None:
    folder = Path(str(grpc.__file__)).parent
    pattern = re.compile(r"^from typing_extensions import (.+)$", re.M)
    taken = {
        name.strip()
        for path in folder.rglob("*.py")
        for row in pattern.findall(path.read_text())
        for name in row.split(",")
    }
    assert taken
    assert taken <= set(no_typing_extensions.__all__)
    assert no_typing_extensions.override(plain) is plain
