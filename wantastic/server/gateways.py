"""The tunnel's other end: what a gateway has to do, and what keeps it in step with the database.

Theory of operation. The keeper holds what the gateway was told, by device. When the
directory hears of a device's change, that device is read again and what differs is sent
to the gateway; after a failure, or when anything may have changed, everything is read and
compared. So a removed device loses its tunnel as soon as the change is heard of, whoever
removed it, and a gateway that was away catches up.

During a key rotation the offered key is a peer without addresses. When it shakes hands
(asked of the gateway every HANDSHAKE_POLL_S while any rotation is under way), it takes
over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wantastic.server import configuration, devices, tenants
from wantastic.server.addresses import Pools
from wantastic.server.database import Database
from wantastic.server.directory import Directory, Worker
from wantastic.server.keyring import Keyring
from wantastic.server.metrics import Metrics
from wantastic.server.records import (
    Change,
    Device,
    DeviceStatus,
    GatewayError,
    GatewayRecord,
    Refused,
)

log = logging.getLogger(__name__)

HANDSHAKE_POLL_S = 1.0
RETRY_S = 2.0
REFRESH_S = 300.0
SYNC_S = 2.0


@dataclass(frozen=True, slots=True)
class GatewayPeer:
    """One peer as a gateway should have it."""

    public_key: str
    preshared_key: str = field(repr=False)
    allowed_ips: tuple[str, ...]


class Gateway(Protocol):
    """A WireGuard server whose peers come and go."""

    async def start(self) -> GatewayRecord:
        """Bring it up; return where devices find it."""

    async def set_networks(self, pools: Sequence[Pools]) -> None:
        """Serve these tenants' ranges, where that is the server's to do."""

    async def peers(self) -> frozenset[str]:
        """Return the public keys that it has."""

    async def set_peers(self, peers: Sequence[GatewayPeer]) -> None:
        """Add peers or change them, in this order; sessions of others are kept."""

    async def remove_peers(self, public_keys: Sequence[str]) -> None:
        """End the tunnels of peers; unknown ones are no error."""

    async def handshakes(self) -> Mapping[str, int]:
        """Return public key -> unix time in seconds of the last handshake, if any."""

    async def close(self) -> None:
        """Take it down, where it is ours."""


class Keeper:
    """Keeps one gateway in step."""

    def __init__(
        self,
        gateway: Gateway,
        database: Database,
        directory: Directory,
        worker: Worker,
        keyring: Keyring,
        metrics: Metrics,
    ) -> None:
        self._gateway = gateway
        self._database = database
        self._worker = worker
        self._keyring = keyring
        self._metrics = metrics
        self._told: dict[int, dict[str, GatewayPeer]] = {}
        self._offered: dict[int, str] = {}
        self._pending: set[int] = set()
        self._all = True
        self._networks = True
        self._settling: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._wake.set()
        self._tasks: list[asyncio.Task[None]] = []
        directory.listen(self._heard)
        metrics.observe("gateway_peers", "Peers that the gateway has.", self._count)

    @property
    def in_step(self) -> bool:
        """Whether the gateway has been told everything that was heard of."""
        return not self._all and not self._pending

    async def sync(self, device_pk: int) -> None:
        """Tell the gateway of a device now, not when the change is heard of: a handshake that
        comes before its peer is there is lost, and costs the device five seconds."""
        self._pending.add(device_pk)
        await self._settled()

    async def _settled(self) -> None:
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append(settled)
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(settled, SYNC_S)

    async def start(self) -> None:
        """Bring the gateway up, announce it to devices, and begin to keep it."""
        record = await self._gateway.start()
        await self._worker.run(lambda: self._announce(record))
        self._tasks = [
            asyncio.create_task(self._keep(), name="gateway keeper"),
            asyncio.create_task(self._watch_rotations(), name="gateway rotations"),
        ]
        await self._settled()

    async def stop(self) -> None:
        """Stop keeping, and take the gateway down where it is ours."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._gateway.close()

    def _count(self) -> float:
        return sum(map(len, self._told.values()))

    def _heard(self, changes: Sequence[Change] | None) -> None:
        if changes is None:
            self._all = True
        else:
            self._networks |= any(change.device_pk is None for change in changes)
            self._pending.update(c.device_pk for c in changes if c.device_pk is not None)
        self._wake.set()

    def _announce(self, record: GatewayRecord) -> None:
        with self._database.write() as transaction:
            configuration.set_gateway(transaction, record)

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                # Now and then everything is compared: somebody may have used `wg`.
                await asyncio.wait_for(self._wake.wait(), REFRESH_S)
            self._all = self._all or not self._wake.is_set()
            self._wake.clear()
            settling, self._settling = self._settling, []
            try:
                await self._settle()
                for future in settling:
                    if not future.done():
                        future.set_result(None)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # Whatever it was: a keeper that died would leave removed devices in.
                expected = isinstance(error, (GatewayError, Refused, OSError))
                log.error("gateway not in step", extra={"error": str(error)}, exc_info=not expected)
                self._metrics.gateway_errors.inc()
                self._all = self._networks = True
                self._wake.set()
                await asyncio.sleep(RETRY_S)

    async def _settle(self) -> None:
        if self._networks or self._all:
            self._networks = False
            await self._gateway.set_networks(await self._worker.run(self._read_networks))
        if self._all:
            self._all = False
            self._pending.clear()
            wanted = await self._worker.run(self._read_all)
            await self._compare_all(wanted)
            return
        pending, self._pending = self._pending, set()
        if not pending:
            return
        wanted = await self._worker.run(lambda: self._read(pending))
        gone: list[str] = []
        come: list[GatewayPeer] = []
        for pk in pending:
            old, new = self._told.get(pk, {}), wanted.get(pk, {})
            gone += [key for key in old if key not in new]
            come += [peer for key, peer in new.items() if old.get(key) != peer]
        # Gone first: addresses pass from one key of a device to the other.
        await self._tell(gone, come)
        for pk in pending:
            if pk in wanted:
                self._told[pk] = wanted[pk]
            else:
                self._told.pop(pk, None)

    async def _compare_all(self, wanted: dict[int, dict[str, GatewayPeer]]) -> None:
        self._told = {}
        present = await self._gateway.peers()
        peers = {key: peer for group in wanted.values() for key, peer in group.items()}
        await self._tell([key for key in present if key not in peers], list(peers.values()))
        self._told = wanted

    async def _tell(self, gone: Sequence[str], come: Sequence[GatewayPeer]) -> None:
        if gone:
            await self._gateway.remove_peers(gone)
        if come:
            await self._gateway.set_peers(come)
        if gone or come:
            log.info("gateway told", extra={"removed": len(gone), "set": len(come)})

    def _read_networks(self) -> list[Pools]:
        with self._database.read() as transaction:
            return [tenants.pools_of(tenant) for tenant in tenants.list_all(transaction)]

    def _read_all(self) -> dict[int, dict[str, GatewayPeer]]:
        with self._database.read() as transaction:
            self._offered = {}
            found = {d.pk: self._peers(d) for d in devices.iterate(transaction)}
        return {pk: peers for pk, peers in found.items() if peers}

    def _read(self, pks: set[int]) -> dict[int, dict[str, GatewayPeer]]:
        found = {}
        with self._database.read() as transaction:
            for pk in pks:
                self._offered.pop(pk, None)
                device = devices.by_pk(transaction, pk)
                if device is not None:
                    found[pk] = self._peers(device)
        return found

    def _peers(self, device: Device) -> dict[str, GatewayPeer]:
        if device.status is not DeviceStatus.ACTIVE:
            return {}
        preshared = configuration.preshared_key(self._keyring, device)
        addresses = (f"{device.ipv4}/32", f"{device.ipv6}/128")
        peers = {device.public_key: GatewayPeer(device.public_key, preshared, addresses)}
        if device.next_public_key is not None:
            self._offered[device.pk] = device.next_public_key
            peers[device.next_public_key] = GatewayPeer(device.next_public_key, preshared, ())
        return peers

    async def _watch_rotations(self) -> None:
        while True:
            await asyncio.sleep(HANDSHAKE_POLL_S)
            if not self._offered:
                continue
            try:
                handshakes = await self._gateway.handshakes()
                proved = [(pk, key) for pk, key in self._offered.items() if handshakes.get(key)]
                if proved:
                    await self._worker.run(lambda proved=proved: self._promote(proved))  # type: ignore[misc]
            except (GatewayError, Refused, OSError, RuntimeError) as error:
                log.warning("rotations not watched", extra={"error": str(error)})

    def _promote(self, proved: Sequence[tuple[int, str]]) -> None:
        with self._database.write() as transaction:
            for pk, key in proved:
                devices.promote_key(transaction, pk, key)
                log.info("key rotation ended", extra={"device_pk": pk, "by": "handshake"})
