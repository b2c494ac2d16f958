"""What has to be done so that a running tunnel becomes the wanted one: pure, and minimal.

Both sides are a Tunnel. The wanted one comes out of the configuration; the running one
out of the engine's status and the book that the device keeps. Equal tunnels give no
change at all, and a peer that is not named in a change keeps its session.

The order of the changes is safe to apply: what is removed goes before what is added,
the key before the peers, addresses before the routes that need them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from typing import TypeAlias

from wantastic.config.keys import NO_KEY
from wantastic.config.model import Config, HostPort, IpInterface, IpNetwork, PeerConfig


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """A peer as far as the engine knows one; `preshared_key` all zero is none."""

    public_key: bytes
    preshared_key: bytes = field(default=NO_KEY, repr=False)
    endpoint: HostPort | None = None
    keepalive_s: int = 0
    allowed_ips: frozenset[IpNetwork] = frozenset()


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Everything about a tunnel that can change while it runs."""

    private_key: bytes | None = field(default=None, repr=False)
    listen_port: int = 0
    fwmark: int = 0
    bind_interface: str = ""
    mtu_bytes: int = 1420
    addresses: frozenset[IpInterface] = frozenset()
    routes: frozenset[IpNetwork] = frozenset()
    # The IP versions (4, 6) whose default route leads into the tunnel.
    default_route: frozenset[int] = frozenset()
    peers: tuple[TunnelPeer, ...] = ()


@dataclass(frozen=True, slots=True)
class SetPrivateKey:
    private_key: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SetListenPort:
    port: int


@dataclass(frozen=True, slots=True)
class SetFwmark:
    mark: int


@dataclass(frozen=True, slots=True)
class SetBindInterface:
    name: str


@dataclass(frozen=True, slots=True)
class SetMtu:
    mtu_bytes: int


@dataclass(frozen=True, slots=True)
class AddAddress:
    address: IpInterface


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    address: IpInterface


@dataclass(frozen=True, slots=True)
class AddRoute:
    network: IpNetwork


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    network: IpNetwork


@dataclass(frozen=True, slots=True)
class SetDefaultRoute:
    """Give up the default routes that there are, and take those of these IP versions."""

    versions: frozenset[int]


@dataclass(frozen=True, slots=True)
class RemovePeer:
    public_key: bytes


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Add a peer, or change of it what is not None or empty."""

    public_key: bytes
    preshared_key: bytes | None = field(default=None, repr=False)
    endpoint: HostPort | None = None
    keepalive_s: int | None = None
    added_allowed_ips: tuple[IpNetwork, ...] = ()
    removed_allowed_ips: tuple[IpNetwork, ...] = ()


Change: TypeAlias = (
    SetPrivateKey
    | SetListenPort
    | SetFwmark
    | SetBindInterface
    | SetMtu
    | AddAddress
    | RemoveAddress
    | AddRoute
    | RemoveRoute
    | SetDefaultRoute
    | RemovePeer
    | SetPeer
)


def _sorted(networks: Iterable[IpNetwork]) -> tuple[IpNetwork, ...]:
    return tuple(sorted(networks, key=lambda n: (n.version, n.network_address, n.prefixlen)))


def _sorted_addresses(addresses: Iterable[IpInterface]) -> list[IpInterface]:
    return sorted(addresses, key=lambda a: (a.version, a.ip, a.network.prefixlen))


def _before_those_that_go(
    new: Iterable[IpInterface], gone: Iterable[IpInterface]
) -> set[IpInterface]:
    """Return the new addresses that have to come before the old ones go.

    With its last IPv4 address an interface loses its IPv4 routes, the default one into the
    tunnel among them. Not those in the subnet of one that goes, which would take them along.
    """
    going = [a.network for a in gone if isinstance(a, IPv4Interface)]
    coming = [a for a in new if isinstance(a, IPv4Interface)]
    return {a for a in coming if going and not any(a.network.overlaps(n) for n in going)}


def tunnel_of(config: Config, private_key: bytes | None) -> Tunnel:
    """Return what a configuration asks for, with the identity that the device uses.

    Routes follow the ranges that the file lists or the server states; one of length 0
    never becomes a plain route: it would take the host's own way to the internet with it.
    """
    listed = [n for p in config.all_peers for n in p.routes]
    every = [n for p in config.all_peers for n in p.allowed_ips if n.prefixlen == 0]
    defaults = frozenset(n.version for n in every if config.interface.default_route)
    return Tunnel(
        private_key=private_key,
        listen_port=config.interface.listen_port,
        fwmark=config.interface.fwmark,
        bind_interface=config.interface.bind_interface,
        mtu_bytes=config.interface.mtu_bytes,
        addresses=frozenset(config.interface.addresses),
        routes=frozenset(n for n in listed if n.prefixlen > 0),
        default_route=defaults,
        peers=tuple(tunnel_peer_of(p) for p in config.all_peers),
    )


def tunnel_peer_of(peer: PeerConfig) -> TunnelPeer:
    """Return a configured peer in the engine's terms."""
    return TunnelPeer(
        public_key=peer.public_key,
        preshared_key=peer.preshared_key or NO_KEY,
        endpoint=peer.endpoint,
        keepalive_s=peer.keepalive_s,
        allowed_ips=frozenset(peer.allowed_ips),
    )


def diff_peer(running: TunnelPeer | None, wanted: TunnelPeer) -> SetPeer | None:
    """Return the change of one peer; None when nothing differs."""
    base = running or TunnelPeer(wanted.public_key)
    change = SetPeer(
        wanted.public_key,
        preshared_key=(
            wanted.preshared_key if wanted.preshared_key != base.preshared_key else None
        ),
        # A configuration without an endpoint does not make a peer forget where it is.
        endpoint=wanted.endpoint if wanted.endpoint != base.endpoint else None,
        keepalive_s=wanted.keepalive_s if wanted.keepalive_s != base.keepalive_s else None,
        added_allowed_ips=_sorted(wanted.allowed_ips - base.allowed_ips),
        removed_allowed_ips=_sorted(base.allowed_ips - wanted.allowed_ips),
    )
    return None if running and change == SetPeer(wanted.public_key) else change


def diff(running: Tunnel, wanted: Tunnel) -> tuple[Change, ...]:
    """Return the least work that turns `running` into `wanted`."""
    changes: list[Change] = []
    # The mark names the table and the rules: another mark means to begin again.
    again = running.default_route != wanted.default_route or running.fwmark != wanted.fwmark
    if running.default_route and again:
        changes.append(SetDefaultRoute(frozenset()))
    changes += [RemoveRoute(n) for n in _sorted(running.routes - wanted.routes)]
    gone = running.addresses - wanted.addresses
    new = wanted.addresses - running.addresses
    first = _before_those_that_go(new, gone)
    changes += [AddAddress(a) for a in _sorted_addresses(first)]
    changes += [RemoveAddress(a) for a in _sorted_addresses(gone)]
    kept = {peer.public_key for peer in wanted.peers}
    changes += [RemovePeer(p.public_key) for p in running.peers if p.public_key not in kept]
    if running.private_key != wanted.private_key:
        changes.append(SetPrivateKey(wanted.private_key))
    if running.bind_interface != wanted.bind_interface:
        changes.append(SetBindInterface(wanted.bind_interface))
    if running.fwmark != wanted.fwmark:
        changes.append(SetFwmark(wanted.fwmark))
    if running.listen_port != wanted.listen_port:
        changes.append(SetListenPort(wanted.listen_port))
    if running.mtu_bytes != wanted.mtu_bytes:
        changes.append(SetMtu(wanted.mtu_bytes))
    before = {peer.public_key: peer for peer in running.peers}
    for peer in wanted.peers:
        if change := diff_peer(before.get(peer.public_key), peer):
            changes.append(change)
    changes += [AddAddress(a) for a in _sorted_addresses(new - first)]
    changes += [AddRoute(n) for n in _sorted(wanted.routes - running.routes)]
    if wanted.default_route and again:
        changes.append(SetDefaultRoute(wanted.default_route))
    return tuple(changes)
