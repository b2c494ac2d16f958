"""What of the proxies and forwards runs, brought to what a configuration asks for.

apply(config)   closes what is not wanted any more, opens what is new; connections
                that are open stay. What cannot listen is a condition, and is tried
                again at the next apply().
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from wantastic.config.model import Config, ForwardConfig, ProxyListenConfig
from wantastic.device.userspace import TunnelNet
from wantastic.proxy.credentials import Credentials
from wantastic.proxy.names import Names, Tls
from wantastic.proxy.servers import Dialler, ForwardListener, HttpListener, Socks5Listener
from wantastic.proxy.target import Target
from wantastic.telemetry.conditions import Conditions
from wantastic.telemetry.log import Log

REMEDY = "Free the address and send SIGHUP, or choose another one."


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy that is wanted."""

    protocol: str
    config: ProxyListenConfig


Wanted: TypeAlias = Proxy | ForwardConfig
Close: TypeAlias = Callable[[], Awaitable[None]]


def name_of(wanted: Wanted) -> str:
    """Return what conditions and the log call it."""
    if isinstance(wanted, Proxy):
        return f"{wanted.protocol} {wanted.config.listen}"
    place = str(wanted.listen) if wanted.end == "local" else f"tunnel:{wanted.listen.port}"
    return f"{wanted.protocol} {place}"


def wanted_of(config: Config) -> tuple[Wanted, ...]:
    """Return what a configuration asks for."""
    proxies = {"socks5": config.proxy.socks5, "http": config.proxy.http}
    found: list[Wanted] = [Proxy(name, p) for name, p in proxies.items() if p]
    return (*found, *config.forwards)


class LocalAccess:
    """The listeners of one agent."""

    def __init__(self, net: TunnelNet, conditions: Conditions, log: Log, tls: Tls) -> None:
        self._net = net
        self._names = Names(net, tls=tls)
        self._dialler = Dialler(net, self._names)
        self._conditions = conditions
        self._log = log
        self._running: dict[Wanted, Close] = {}
        self._failed: set[str] = set()
        self._lock = asyncio.Lock()

    async def apply(self, config: Config) -> None:
        """Do what differs."""
        async with self._lock:
            self._names.use(config.dns)
            wanted = wanted_of(config)
            for gone in [w for w in self._running if w not in wanted]:
                await self._running.pop(gone)()
                self._log.info("no longer listening", what=name_of(gone))
            for name in self._failed - {name_of(w) for w in wanted}:
                self._forgive(name)
            for new in wanted:
                if new not in self._running:
                    self._open(new)

    def _open(self, wanted: Wanted) -> None:
        name = name_of(wanted)
        try:
            self._running[wanted] = self._start(wanted)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            reason = f"{name} cannot be opened: {why}"
            self._conditions.set("access_failed", "error", reason, REMEDY, name)
            self._failed.add(name)
            return
        self._forgive(name)
        self._log.info("listening", what=name)

    def _forgive(self, name: str) -> None:
        self._conditions.clear("access_failed", name)
        self._failed.discard(name)

    def _start(self, wanted: Wanted) -> Close:
        if isinstance(wanted, Proxy):
            return self._start_proxy(wanted)
        target = Target(wanted.target.host, wanted.target.port)
        if wanted.end == "tunnel":
            forward = self._net.forward_udp if wanted.protocol == "udp" else self._net.forward_tcp
            return self._closer(forward(wanted.listen.port, target.host, target.port))
        if wanted.protocol == "udp":
            listen = wanted.listen
            flow = self._net.associate(listen.host, listen.port, target.host, target.port)
            return self._closer(flow)
        return ForwardListener(self._dialler, wanted.listen.host, wanted.listen.port, target).close

    def _closer(self, flow: int) -> Close:
        async def close() -> None:
            self._net.close(flow)

        return close

    def _start_proxy(self, wanted: Proxy) -> Close:
        config = wanted.config
        credentials = Credentials(config.user, config.password) if config.user else None
        kind = Socks5Listener if wanted.protocol == "socks5" else HttpListener
        return kind(self._dialler, config.listen.host, config.listen.port, credentials).close

    async def close(self) -> None:
        """Stop listening."""
        async with self._lock:
            while self._running:
                _, close = self._running.popitem()
                await close()
