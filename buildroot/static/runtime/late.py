"""Puts off importing what asyncio imports and only a control plane uses: TLS, 2 MB of memory.

A late module stands in sys.modules and in those who imported it; the first use of anything in it
imports the real one and takes over what that has. A tunnel without a control server never does.
"""

from __future__ import annotations

import sys
import types
from importlib import import_module
from typing import Any

LATE = ("ssl", "asyncio.sslproto")


class NoSocket:
    """What ssl.SSLSocket is meanwhile: asyncio asks of every socket whether it is one."""


class LateModule(types.ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "SSLSocket" and sys.modules.get(self.__name__) is self:
            return NoSocket
        package = sys.modules.get(self.__name__.rpartition(".")[0])
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = import_module(self.__name__)
        self.__dict__.update(real.__dict__)
        if package is not None:
            setattr(package, self.__name__.rpartition(".")[2], real)
        return getattr(real, name)


for late in LATE:
    sys.modules[late] = LateModule(late)
