"""The native data plane as Python sees it: commands in, snapshots and events out.

Every method is a command: it passes a gate to the native thread and waits there,
with the GIL released, until that thread has done it between two batches (well
below 10 ms under load). Events come out of a ring. Packets never come here.

Methods may be called from any thread; a status() is of one moment as far as peers,
their allowed IPs and the private key go.

Errors: ValueError for an argument that no packet path could carry (its message
names the argument), OSError with the errno of a failed system call,
EngineStopped when the native thread is not running.
"""

from typing import Final, NamedTuple

class EngineStopped(RuntimeError): ...

class Endpoint(NamedTuple):
    """An outer UDP address: numeric text, port, zone index of a link-local address."""

    host: str
    port: int
    scope_id: int = 0

class PeerStatus(NamedTuple):
    public_key: bytes  # 32 bytes
    preshared_key: bytes  # 32 bytes, all zero when none
    endpoint: Endpoint | None
    allowed_ips: tuple[str, ...]  # "10.0.0.0/24", "fd00::/64"; sorted
    keepalive_s: int  # 0 is off
    last_handshake_unix_ns: int  # 0 is never
    rx_bytes: int
    tx_bytes: int
    handshake_attempts: int  # initiations sent since the last completed handshake
    handshake_duration_ns: int  # of the last one we initiated; 0 is not known

class DeviceStatus(NamedTuple):
    private_key: bytes | None
    public_key: bytes | None
    listen_port: int  # as bound; 0 when down
    fwmark: int
    peers: tuple[PeerStatus, ...]

class TunInfo(NamedTuple):
    name: str
    ifindex: int
    features: tuple[str, ...]  # of "vnet_hdr", "tso4", "tso6", "uso", "gso_max"

class InnerLink(NamedTuple):
    ifindex: int
    mtu_bytes: int
    is_up: bool

class Event(NamedTuple):
    """What the native side noticed. `kind` is one of the EVENT_ constants."""

    kind: int
    public_key: bytes  # empty where no peer is meant
    value: int  # unix ns, errno, or 0: see the constant

EVENT_HANDSHAKE: Final[int]  # a session was made; value: unix ns
EVENT_HANDSHAKE_GIVEN_UP: Final[int]  # REKEY_ATTEMPT_TIME passed without an answer
EVENT_ENDPOINT: Final[int]  # the peer roamed
EVENT_SOURCE_LOST: Final[int]  # our source address disappeared; routing chooses anew
EVENT_TIMESTAMP_FLOOR: Final[int]  # the saved TAI64N floor is near; value: unix ns to save
EVENT_INNER_CLOSED: Final[int]  # the TUN device or the inner port went away; value: errno
EVENT_SOCKET_ERROR: Final[int]  # the UDP socket failed; value: errno
EVENT_DIALLED: Final[int]  # Userspace.dialled() or asked_names() has something

class Engine:
    event_fd: int
    """Becomes readable when events() has something; for the asyncio loop."""

    def __init__(
        self,
        *,
        memory_limit_bytes: int = ...,
        threads: int = 1,
        mtu: int = 1420,
        disable: frozenset[str] = ...,
    ) -> None:
        """Reserve all pools: at least 1 MiB, unrestricted from 4 MiB on, 8 MiB when not
        given. `threads` (1 to 16): one does everything, the others help it with the
        cryptography of large batches. `disable` names host features to do without,
        as an old kernel would: "vnet_hdr", "tso", "uso", "gso_max", "udp_gso",
        "udp_gro", "mmsg", "pktinfo", "ipv6"."""

    def start(self) -> None:
        """Start the native thread. Nothing is bound yet."""

    def stop(self) -> None:
        """Stop and join it, erase every key, close every descriptor. Idempotent."""

    # -- outer side --
    def up(self) -> int:
        """Bind the UDP sockets; return the port. Peers with keepalive start."""

    def down(self) -> None:
        """Close the UDP sockets, forget sessions; configuration stays."""

    def set_listen_port(self, port: int) -> int:
        """0 is any. When up, rebind: OSError(EADDRINUSE) leaves the old one bound.
        Return the bound port, or `port` when down."""

    def set_fwmark(self, mark: int) -> None: ...
    def set_bind_interface(self, name: str | None) -> None:
        """SO_BINDTODEVICE for the outer sockets; None lets routing choose."""

    def source_changed(self) -> None:
        """The host's addresses or routes changed: forget sticky sources."""

    # -- inner side --
    # A descriptor that is handed in belongs to the engine from the moment that the
    # method returns. When it raises, whatever the error, it is still the caller's, and
    # what the engine carried before goes on; only its O_NONBLOCK and FD_CLOEXEC may
    # have been set.
    def open_tun(self, name: str, mtu: int, netns_fd: int = -1) -> TunInfo:
        """Make or attach the TUN device and carry its packets."""

    def attach_tun(self, fd: int, mtu: int) -> TunInfo:
        """Carry an already open TUN descriptor (wireguard-go's WG_TUN_FD)."""

    def attach_inner(self, fd: int, mtu: int) -> None:
        """Carry raw IP packets of a SOCK_SEQPACKET or SOCK_DGRAM Unix socket: one
        packet a message. Needs no root and no TUN."""

    def detach_inner(self) -> None: ...
    def set_mtu(self, mtu: int) -> None: ...
    def inner_link(self) -> InnerLink | None:
        """The TUN device as it is now, also in a namespace that somebody moved it to.
        None without one, and where the kernel does not say where it is (before 5.2)."""

    # -- WireGuard --
    def set_private_key(self, key: bytes | None) -> None:
        """32 bytes; None or all zero removes it. Sessions are forgotten; a peer with
        our own public key is removed."""

    def set_timestamp_floor(self, unix_ns: int) -> None:
        """Initiations carry at least this time: what a router without a clock saved."""

    def set_peer(
        self,
        public_key: bytes,
        *,
        preshared_key: bytes | None = None,
        endpoint: Endpoint | None = None,
        keepalive_s: int | None = None,
        replace_allowed_ips: bool = False,
        allowed_ips: tuple[str, ...] = (),
        removed_allowed_ips: tuple[str, ...] = (),
        update_only: bool = False,
    ) -> bool:
        """Add a peer or change what is not None; its session is kept. False when
        `update_only` found none, and for the device's own public key, which is no peer."""

    def remove_peer(self, public_key: bytes) -> bool: ...
    def remove_all_peers(self) -> None: ...
    def initiate_handshake(self, public_key: bytes) -> None:
        """Send an initiation now, if none is under way."""

    def expire_session(self, public_key: bytes) -> None:
        """Make the next packet start a handshake."""

    # -- observing --
    def status(self) -> DeviceStatus: ...
    def drops(self) -> dict[str, int]:
        """Reason -> packets, nonzero ones only."""

    def statistics(self) -> dict[str, int]:
        """Counters of the host side: system calls, packets and bytes by direction,
        batches, bytes of memory in use."""

    def features(self) -> dict[str, bool]:
        """What was found out about this kernel: the names of `disable`, True where used."""

    def events(self) -> list[Event]: ...
