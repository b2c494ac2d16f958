"""The status of a running device, gathered."""

from __future__ import annotations

import os
from ipaddress import ip_network
from typing import TYPE_CHECKING

from wantastic.config.keys import NO_KEY
from wantastic.device.device import Device
from wantastic.store.store import Store
from wantastic.telemetry.conditions import Conditions
from wantastic.telemetry.status import PeerView, RangeStatus, Status
from wantastic.version import VERSION

if TYPE_CHECKING:
    from cext.engine.engine import Endpoint, PeerStatus


def endpoint_text(endpoint: Endpoint | None) -> str:
    """Return `1.2.3.4:5` or `[fe80::1%2]:5`, "" for none."""
    if endpoint is None:
        return ""
    zone = f"%{endpoint.scope_id}" if endpoint.scope_id else ""
    host = f"[{endpoint.host}{zone}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}"


def is_routed(device: Device, network: str) -> bool:
    """Return whether a range leads into the tunnel: without a TUN device each does."""
    return device.mode == "userspace" or device.footprint.is_routed(ip_network(network))


def view_addresses(device: Device) -> tuple[str, ...]:
    """Return our addresses in the tunnel, as far as they are in use."""
    if device.mode == "userspace":
        return tuple(sorted(str(a) for a in device.config.interface.addresses))
    return tuple(sorted(str(a) for a in device.footprint.addresses))


def view_peer(device: Device, peer: PeerStatus, name: str) -> PeerView:
    """Return one peer with its ranges judged."""
    return PeerView(
        public_key=peer.public_key,
        name=name,
        configured_endpoint=device.peers.configured(peer.public_key),
        endpoint=endpoint_text(peer.endpoint),
        last_handshake_unix_ns=peer.last_handshake_unix_ns,
        handshake_duration_ns=peer.handshake_duration_ns,
        handshake_attempts=peer.handshake_attempts,
        rx_bytes=peer.rx_bytes,
        tx_bytes=peer.tx_bytes,
        keepalive_s=peer.keepalive_s,
        preshared_key=peer.preshared_key != NO_KEY,
        ranges=tuple(RangeStatus(n, is_routed(device, n)) for n in peer.allowed_ips),
    )


def view(
    device: Device,
    store: Store | None,
    conditions: Conditions,
    now_unix_ns: int,
    started_unix_ns: int,
) -> Status:
    """Return everything that `-status` shows."""
    engine = device.engine.status()
    names = {p.public_key: p.name for p in device.config.all_peers}
    if device.config.server:
        names[device.config.server.public_key] = device.config.server.name or "server"
    peers = [view_peer(device, p, names.get(p.public_key, "")) for p in engine.peers]
    return Status(
        interface=device.name,
        version=VERSION,
        pid=os.getpid(),
        now_unix_ns=now_unix_ns,
        started_unix_ns=started_unix_ns,
        public_key=engine.public_key,
        listen_port=engine.listen_port,
        configured_listen_port=device.book.listen_port,
        fwmark=engine.fwmark,
        mtu_bytes=device.book.mtu_bytes,
        mode=device.mode,
        addresses=view_addresses(device),
        default_route=bool(device.footprint.default_versions),
        peers=tuple(peers),
        drops=device.engine.drops(),
        statistics=device.engine.statistics(),
        features=device.engine.features(),
        tun_features=device.tun_features,
        conditions=conditions.all(),
        flash_writes=store.writes if store else 0,
        memory_limit_bytes=device.config.memory_limit_bytes,
    )
