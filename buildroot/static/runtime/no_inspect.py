"""Stands in for inspect, and so for ast, dis and tokenize: a megabyte of memory at every start.

Nuitka's start, asyncio, dataclasses and the transports ask for these few things. There is no source
to show in the executable; the signatures that dataclasses would make docstrings of are left out.
"""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Awaitable, Iterable
from typing import Any

CO_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200
GEN_CREATED, GEN_RUNNING, GEN_SUSPENDED, GEN_CLOSED = (
    *("GEN_CREATED", "GEN_RUNNING"),
    *("GEN_SUSPENDED", "GEN_CLOSED"),
)
CORO_CREATED, CORO_RUNNING, CORO_SUSPENDED, CORO_CLOSED = (
    *("CORO_CREATED", "CORO_RUNNING"),
    *("CORO_SUSPENDED", "CORO_CLOSED"),
)


def isfunction(thing: object) -> bool:
    return isinstance(thing, types.FunctionType)


def ismethod(thing: object) -> bool:
    return isinstance(thing, types.MethodType)


def isgenerator(thing: object) -> bool:
    return isinstance(thing, types.GeneratorType)


def iscoroutine(thing: object) -> bool:
    return isinstance(thing, types.CoroutineType)


def isawaitable(thing: object) -> bool:
    """Return whether `await` takes it."""
    if isinstance(thing, (types.CoroutineType, Awaitable)):
        return True
    return isinstance(thing, types.GeneratorType) and bool(
        thing.gi_code.co_flags & CO_ITERABLE_COROUTINE
    )


def _has_flag(function: Any, flag: int) -> bool:
    while isinstance(function, (types.MethodType, functools.partial)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return isinstance(function, types.FunctionType) and bool(function.__code__.co_flags & flag)


def isgeneratorfunction(function: object) -> bool:
    return _has_flag(function, CO_GENERATOR)


def iscoroutinefunction(function: object) -> bool:
    return _has_flag(function, CO_COROUTINE)


def isasyncgenfunction(function: object) -> bool:
    return _has_flag(function, CO_ASYNC_GENERATOR)


def unwrap(function: Any) -> Any:
    """Return what functools.wraps() was told of, through every layer."""
    seen = {id(function)}
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
        if id(function) in seen:
            raise ValueError(f"wrapper loop when unwrapping {function!r}")
        seen.add(id(function))
    return function


def signature(thing: object) -> str:
    """Return nothing: only dataclasses asks, for a docstring."""
    return ""


def getgeneratorstate(generator: types.GeneratorType[Any, Any, Any]) -> str:
    """Return one of the GEN_ words."""
    if generator.gi_running:
        return GEN_RUNNING
    if generator.gi_suspended:
        return GEN_SUSPENDED
    return GEN_CLOSED if generator.gi_frame is None else GEN_CREATED


def getcoroutinestate(coroutine: types.CoroutineType[Any, Any, Any]) -> str:
    """Return one of the CORO_ words."""
    if coroutine.cr_running:
        return CORO_RUNNING
    if coroutine.cr_suspended:
        return CORO_SUSPENDED
    return CORO_CLOSED if coroutine.cr_frame is None else CORO_CREATED


def _get_code_position(code: types.CodeType, index: int) -> Iterable[int | None]:
    return next(itertools.islice(code.co_positions(), index // 2, None))
