"""Leads each peer to its configured endpoint: resolves names, tries addresses in turn.

The judgement is the EndpointKeeper's; this file carries it out, with tasks on the
running loop for lookups. A peer that the device has to reach by itself (the server,
or one with a keepalive) is called again for ever, with a pause that grows to a minute.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cext.engine.engine import Endpoint
from wantastic.config.model import Config, HostPort
from wantastic.device.endpoints import EndpointKeeper, Step
from wantastic.device.resolver import Resolver
from wantastic.store.store import Store
from wantastic.telemetry.conditions import Conditions
from wantastic.telemetry.log import Log, short_key

if TYPE_CHECKING:
    from cext.engine.engine import Engine

RETRY_MIN_S = 5.0
RETRY_MAX_S = 60.0


def endpoint_of(address: str, port: int) -> Endpoint:
    """Return the engine's form of an address, which may carry a zone as name or number."""
    host, _, zone = address.partition("%")
    if not zone:
        return Endpoint(host, port, 0)
    if zone.isdigit():
        return Endpoint(host, port, int(zone))
    import socket

    return Endpoint(host, port, socket.if_nametoindex(zone))


class PeerDirector:
    """The keepers of all peers that have a configured endpoint."""

    def __init__(
        self,
        engine: Engine,
        resolver: Resolver,
        store: Store | None,
        conditions: Conditions,
        log: Log,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._engine = engine
        self._resolver = resolver
        self._store = store
        self._conditions = conditions
        self._log = log
        self._now_ns = monotonic_ns
        self._keepers: dict[bytes, EndpointKeeper] = {}
        self._eager: set[bytes] = set()
        self._retries: dict[bytes, asyncio.TimerHandle] = {}
        self._pause_s: dict[bytes, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, config: Config, endpoints: dict[bytes, HostPort]) -> None:
        """Take over the configured endpoints; only those that changed start anew."""
        self._eager = {p.public_key for p in config.all_peers if p.keepalive_s}
        if config.server:
            self._eager.add(config.server.public_key)
        self.keep_only(endpoints)
        for key, place in endpoints.items():
            keeper = self._keepers.get(key)
            if keeper is None or keeper.place != place:
                keeper = self._keepers[key] = EndpointKeeper(place)
                self._step(key, keeper, keeper.start(self._now_ns()))

    def keep_only(self, endpoints: dict[bytes, HostPort]) -> None:
        """Stop leading the peers that are not in `endpoints`."""
        for key in [k for k in self._keepers if k not in endpoints]:
            del self._keepers[key]
            if handle := self._retries.pop(key, None):
                handle.cancel()
            for code in ("endpoint_unresolved", "no_handshake"):
                self._conditions.clear(code, short_key(key))

    def close(self) -> None:
        """Stop every lookup and retry."""
        for handle in self._retries.values():
            handle.cancel()
        for task in self._tasks:
            task.cancel()
        self._keepers.clear()

    def tick(self) -> None:
        """Look which handshakes go unanswered. Called every few seconds."""
        if not any(keeper.is_name for keeper in self._keepers.values()):
            return
        for peer in self._engine.status().peers:
            keeper = self._keepers.get(peer.public_key)
            if keeper:
                step = keeper.attempts(peer.handshake_attempts, self._now_ns())
                self._step(peer.public_key, keeper, step)

    def on_handshake(self, key: bytes) -> None:
        """A session was made: what was tried last is good."""
        self._pause_s.pop(key, None)
        keeper = self._keepers.get(key)
        if not keeper:
            return
        keeper.attempts(0, self._now_ns())
        self._conditions.clear("endpoint_unresolved", short_key(key))
        self._conditions.clear("no_handshake", short_key(key))
        if keeper.is_name and self._store:
            self._store.remember_addresses(keeper.place.host, keeper.candidates)

    def on_given_up(self, key: bytes) -> None:
        """The engine stopped trying: call the peer again after a pause."""
        keeper = self._keepers.get(key)
        if not keeper:
            return
        self._conditions.set(
            "no_handshake",
            "error",
            f"the peer at {keeper.place} does not answer",
            "Check its endpoint, the keys on both sides, and UDP in the firewalls between.",
            short_key(key),
        )
        if key in self._eager and key not in self._retries:
            pause_s = self._pause_s.get(key, RETRY_MIN_S)
            self._pause_s[key] = min(2 * pause_s, RETRY_MAX_S)
            loop = asyncio.get_running_loop()
            delay_s = pause_s * random.uniform(0.75, 1.25)
            self._retries[key] = loop.call_later(delay_s, self._retry, key)

    def _retry(self, key: bytes) -> None:
        self._retries.pop(key, None)
        if keeper := self._keepers.get(key):
            self._step(key, keeper, keeper.attempts(2, self._now_ns()))
            self._initiate(key)

    def on_network_change(self) -> None:
        """Another way to the internet: peers learn where we are now, waiting ones at once."""
        for key, keeper in self._keepers.items():
            if handle := self._retries.pop(key, None):
                handle.cancel()
                self._pause_s.pop(key, None)
                self._step(key, keeper, keeper.attempts(2, self._now_ns()))
            if key in self._eager and keeper.current:
                self._initiate(key)

    def configured(self, key: bytes) -> str:
        """Return the configured endpoint of a peer as text, "" when it has none."""
        keeper = self._keepers.get(key)
        return str(keeper.place) if keeper else ""

    def _step(self, key: bytes, keeper: EndpointKeeper, step: Step) -> None:
        if step.address:
            self._tell(key, keeper, step.address)
        if step.resolve:
            task = asyncio.get_running_loop().create_task(self._resolve(key, keeper))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _tell(self, key: bytes, keeper: EndpointKeeper, address: str) -> None:
        try:
            endpoint = endpoint_of(address, keeper.place.port)
            if self._engine.set_peer(key, endpoint=endpoint, update_only=True):
                self._log.debug("trying endpoint", peer=key, endpoint=address)
                self._initiate(key)
        except (OSError, ValueError) as error:
            self._log.warning("endpoint refused", peer=key, endpoint=address, reason=error)

    def _initiate(self, key: bytes) -> None:
        try:
            self._engine.initiate_handshake(key)
        except (OSError, ValueError, KeyError) as error:
            self._log.debug("no handshake started", peer=key, reason=error)

    async def _resolve(self, key: bytes, keeper: EndpointKeeper) -> None:
        name = keeper.place.host
        found = await self._resolver.resolve(name, self._engine.status().fwmark)
        if self._keepers.get(key) is not keeper:
            return
        if not found:
            found = self._fall_back(key, keeper)
        else:
            self._conditions.clear("endpoint_unresolved", short_key(key))
        self._step(key, keeper, keeper.resolved(found, self._now_ns()))

    def _fall_back(self, key: bytes, keeper: EndpointKeeper) -> tuple[str, ...]:
        """The resolver has no answer: use what worked last."""
        known: tuple[str, ...] = ()
        if self._store and not keeper.candidates:
            known = self._store.state().last_good.get(keeper.place.host, ())
        using = known or keeper.candidates
        self._conditions.set(
            "endpoint_unresolved",
            "warning" if using else "error",
            f"the name {keeper.place.host} does not resolve"
            + ("; the last known addresses are used" if using else ""),
            "Check the name and the host's DNS; it is tried again by itself.",
            short_key(key),
        )
        return known
