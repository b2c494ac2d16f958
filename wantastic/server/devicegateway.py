"""A gateway that is the agent's own engine as a WireGuard server.

With --gateway-tun it opens that TUN device (root), gives it every tenant's gateway
address, and the kernel routes. Without, a hub (hub.py) stands behind it, and with
--gateway-forward the engine's own netstack has the gateway addresses beside the hub:
connections to the given ports go on to services that this machine can reach. Its private
key is made once and sealed in the database.

The native engine runs in its own thread; a command waits until that thread has done it,
so commands are given from a worker thread.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from wantastic.config.keys import encode_key, generate_private_key, public_key_of
from wantastic.config.model import Config
from wantastic.device.host import LinuxHost
from wantastic.device.service import make_engine
from wantastic.device.userspace import TunnelNet
from wantastic.server import schema
from wantastic.server.addresses import GATEWAY_INDEX, Pools
from wantastic.server.database import Database
from wantastic.server.gateways import GatewayPeer
from wantastic.server.hub import Hub
from wantastic.server.keyring import Keyring
from wantastic.server.records import GatewayError, GatewayRecord
from wantastic.server.settings import Forward, Settings
from wantastic.server.wgcommand import endpoint

if TYPE_CHECKING:
    from wantastic.config.model import IpInterface

log = logging.getLogger(__name__)

SEALED_NAME = "gateway default"
MEMORY_LIMIT_BYTES = 256 << 20
MTU_BYTES = 1420
MAX_PACKET_BYTES = 65_536
PACKETS_AT_ONCE = 64


def open_gateway(settings: Settings, database: Database, keyring: Keyring) -> DeviceGateway:
    """Return the gateway that the settings ask for, not yet started."""
    return DeviceGateway(
        private_key(database, keyring),
        settings.gateway_host,
        settings.gateway_port,
        settings.gateway_tun,
        settings.gateway_forwards,
    )


def private_key(database: Database, keyring: Keyring) -> bytes:
    """Read the gateway's key, or make it."""
    table = schema.sealed
    with database.write() as transaction:
        stored = transaction.connection.execute(
            select(table.c.value).where(table.c.name == SEALED_NAME)
        ).scalar()
        if stored is not None:
            return keyring.unseal(SEALED_NAME, stored)
        key = generate_private_key(os.urandom)
        transaction.connection.execute(
            insert(table).values(name=SEALED_NAME, value=keyring.seal(SEALED_NAME, key))
        )
        return key


class DeviceGateway:
    """One engine with many peers."""

    def __init__(
        self, key: bytes, host: str, port: int, tun: str, forwards: Sequence[Forward] = ()
    ) -> None:
        self._key = key
        self._host, self._port, self._tun = host, port, tun
        self._forwards = tuple(forwards)
        self._net: TunnelNet | None = None
        config = Config()
        interface = replace(config.interface, mtu_bytes=MTU_BYTES)
        self._engine = make_engine(
            replace(config, interface=interface, memory_limit_bytes=MEMORY_LIMIT_BYTES)
        )
        self._hub = Hub()
        self._inner: socket.socket | None = None
        self._link: LinuxHost | None = None
        self._ifindex = 0
        self._addresses: set[IpInterface] = set()

    async def start(self) -> GatewayRecord:
        """Start the engine, open its inner side, bind its port."""
        engine = self._engine
        engine.start()
        try:
            if self._tun:
                info = engine.open_tun(self._tun, MTU_BYTES)
                self._link, self._ifindex = LinuxHost(), info.ifindex
                self._link.set_link(info.ifindex, up=True, mtu_bytes=MTU_BYTES)
            else:
                self._open_hub()
            engine.set_private_key(self._key)
            engine.set_listen_port(self._port)
            port = engine.up()
        except OSError as error:
            await self.close()
            what = f"UDP port {self._port}" if error.errno == errno.EADDRINUSE else self._tun
            raise GatewayError(f"gateway: {what}: {error.strerror}") from None
        public_key = encode_key(public_key_of(self._key))
        log.info("gateway up", extra={"port": port, "tun": self._tun or "none"})
        return GatewayRecord("default", public_key, endpoint(self._host, port))

    async def set_networks(self, pools: Sequence[Pools]) -> None:
        """Answer on every tenant's gateway address."""
        self._hub.set_networks(pools)
        if self._forwards:
            await asyncio.to_thread(self._set_stack_addresses, pools)
        if self._link is None:
            return
        wanted = {
            ip_interface(f"{network[GATEWAY_INDEX]}/{network.prefixlen}")
            for pair in pools
            for network in (pair.ipv4, pair.ipv6)
        }
        for address in self._addresses - wanted:
            self._link.remove_address(self._ifindex, address)
        for address in wanted - self._addresses:
            self._link.add_address(self._ifindex, address)
        self._addresses = wanted

    def _set_stack_addresses(self, pools: Sequence[Pools]) -> None:
        addresses = tuple(
            str(net[GATEWAY_INDEX]) for pair in pools for net in (pair.ipv4, pair.ipv6)
        )
        try:
            if self._net is not None:
                self._net.set_addresses(addresses)
                return
            self._net = TunnelNet(self._engine, addresses)
            for forward in self._forwards:
                self._net.forward_tcp(forward.port, forward.target.host, forward.target.port)
        except (ValueError, OSError) as error:
            raise GatewayError(f"gateway: --gateway-forward: {error}") from None

    async def peers(self) -> frozenset[str]:
        """Return the public keys that the engine has."""
        status = await asyncio.to_thread(self._engine.status)
        return frozenset(encode_key(peer.public_key) for peer in status.peers)

    async def set_peers(self, peers: Sequence[GatewayPeer]) -> None:
        """Add peers or change them; sessions are kept."""

        def work() -> None:
            for peer in peers:
                self._engine.set_peer(
                    base64.b64decode(peer.public_key),
                    preshared_key=base64.b64decode(peer.preshared_key),
                    replace_allowed_ips=True,
                    allowed_ips=peer.allowed_ips,
                )

        try:
            await asyncio.to_thread(work)
        except (RuntimeError, ValueError) as error:
            raise GatewayError(f"gateway: {error}") from None

    async def remove_peers(self, public_keys: Sequence[str]) -> None:
        """End the tunnels of peers."""

        def work() -> None:
            for key in public_keys:
                self._engine.remove_peer(base64.b64decode(key))

        await asyncio.to_thread(work)

    async def handshakes(self) -> Mapping[str, int]:
        """Return public key -> unix time of the last handshake."""
        status = await asyncio.to_thread(self._engine.status)
        return {
            encode_key(peer.public_key): peer.last_handshake_unix_ns // 10**9
            for peer in status.peers
            if peer.last_handshake_unix_ns
        }

    async def close(self) -> None:
        """Stop the engine; keys are erased, the TUN device goes with it."""
        if self._inner is not None:
            asyncio.get_running_loop().remove_reader(self._inner.fileno())
        await asyncio.to_thread(self._engine.stop)
        if self._inner is not None:
            self._inner.close()
            self._inner = None
        if self._link is not None:
            self._link.close()
            self._link = None

    def _open_hub(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        # The engine takes the descriptor over.
        self._engine.attach_inner(theirs.detach(), MTU_BYTES)
        self._inner = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)

    def _readable(self) -> None:
        assert self._inner is not None
        # A full tunnel drops, as any router does.
        with contextlib.suppress(BlockingIOError):
            for _ in range(PACKETS_AT_ONCE):
                reply = self._hub.forward(self._inner.recv(MAX_PACKET_BYTES))
                if reply is not None:
                    self._inner.send(reply)
