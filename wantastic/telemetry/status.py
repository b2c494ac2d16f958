"""The status document: what `-status --json` prints, as typed values.

docs/status.md describes every field for whoever reads it with a program: names are
added, never renamed or given another meaning; STATUS_VERSION rises when one goes away.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from wantastic.config.keys import encode_key
from wantastic.telemetry.conditions import Condition

STATUS_VERSION = 1
# A session that is older than this has run out (REJECT_AFTER_TIME).
SESSION_ALIVE_S = 180


@dataclass(frozen=True, slots=True)
class RangeStatus:
    """An allowed range of a peer, and whether the host routes it into the tunnel."""

    network: str
    routed: bool


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer as users see it."""

    public_key: bytes
    name: str
    configured_endpoint: str
    endpoint: str
    last_handshake_unix_ns: int
    handshake_duration_ns: int
    handshake_attempts: int
    rx_bytes: int
    tx_bytes: int
    keepalive_s: int
    preshared_key: bool
    ranges: tuple[RangeStatus, ...]

    def state(self, now_unix_ns: int) -> str:
        """Return `connected`, `connecting`, `idle` or `never`."""
        age_s = (now_unix_ns - self.last_handshake_unix_ns) / 1e9
        if self.last_handshake_unix_ns and age_s < SESSION_ALIVE_S:
            return "connected"
        if self.handshake_attempts:
            return "connecting"
        return "idle" if self.last_handshake_unix_ns else "never"


@dataclass(frozen=True, slots=True)
class Status:
    """Everything about one interface of this agent."""

    interface: str
    version: str
    pid: int
    now_unix_ns: int
    started_unix_ns: int
    public_key: bytes | None
    listen_port: int
    configured_listen_port: int
    fwmark: int
    mtu_bytes: int
    mode: str
    addresses: tuple[str, ...]
    default_route: bool
    peers: tuple[PeerView, ...]
    drops: dict[str, int]
    statistics: dict[str, int]
    features: dict[str, bool]
    tun_features: tuple[str, ...]
    conditions: tuple[Condition, ...]
    flash_writes: int
    memory_limit_bytes: int
    # What other rooms add: the control plane, DNS, the exit node.
    more: dict[str, Any] = field(default_factory=dict)


def status_to_json(status: Status) -> dict[str, Any]:
    """Return the status document."""
    now = status.now_unix_ns
    return {
        "status_version": STATUS_VERSION,
        "version": status.version,
        "pid": status.pid,
        "now_unix_ns": now,
        "started_unix_ns": status.started_unix_ns,
        "healthy": not any(c.severity == "error" for c in status.conditions),
        "interface": {
            "name": status.interface,
            "mode": status.mode,
            "public_key": encode_key(status.public_key) if status.public_key else None,
            "listen_port": status.listen_port,
            "configured_listen_port": status.configured_listen_port,
            "fwmark": status.fwmark,
            "mtu": status.mtu_bytes,
            "addresses": list(status.addresses),
            "default_route": status.default_route,
        },
        "peers": [peer_to_json(peer, now) for peer in status.peers],
        "drops": status.drops,
        "statistics": status.statistics,
        "features": status.features,
        "tun_features": list(status.tun_features),
        "conditions": [asdict(c) for c in status.conditions],
        "flash_writes": status.flash_writes,
        "memory_limit": status.memory_limit_bytes,
        **status.more,
    }


def peer_to_json(peer: PeerView, now_unix_ns: int) -> dict[str, Any]:
    """Return one entry of `peers`; a preshared key is said to be there, never shown."""
    return {
        "public_key": encode_key(peer.public_key),
        "name": peer.name,
        "state": peer.state(now_unix_ns),
        "configured_endpoint": peer.configured_endpoint or None,
        "endpoint": peer.endpoint or None,
        "last_handshake_unix_ns": peer.last_handshake_unix_ns or None,
        "handshake_duration_ns": peer.handshake_duration_ns or None,
        "handshake_attempts": peer.handshake_attempts,
        "rx_bytes": peer.rx_bytes,
        "tx_bytes": peer.tx_bytes,
        "persistent_keepalive": peer.keepalive_s,
        "preshared_key": peer.preshared_key,
        "allowed_ips": [{"network": r.network, "routed": r.routed} for r in peer.ranges],
    }


def render_status(status: Status) -> bytes:
    """Return the document as one line of JSON."""
    return json.dumps(status_to_json(status)).encode() + b"\n"
