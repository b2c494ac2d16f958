"""A netstack that Python drives packet by packet, and the invariants its tests check."""

from collections.abc import Callable, Iterable

# (local address, local port, remote address, remote port)
Tuple = tuple[str, int, str, int]
Endpoint = tuple[str, int]
# An address of None and port 0 are chosen by the stack.
Local = tuple[str | None, int]
Datagram = tuple[int, int, bytes, int, int]
Event = tuple[int, int, int, int]
Packet = tuple[bytes, int, int, int]
Error = tuple[int, int, int]
Names = tuple[str, ...]
Info = dict[str, int | str | bool]

EVENT_SYN: int
EVENT_CONNECTED: int
EVENT_READABLE: int
EVENT_WRITABLE: int
EVENT_PEER_CLOSED: int
EVENT_CLOSED: int
EVENT_CANCELLED: int
EVENT_OPENED: int
REASON_FINISHED: int
REASON_RESET: int
REASON_REFUSED: int
REASON_TIMEOUT: int
REASON_UNREACHABLE: int
REASON_EVICTED: int
REASON_IDLE: int
REFUSE_RESET: int
REFUSE_NETWORK: int
REFUSE_HOST: int
REFUSE_PORT: int
REFUSE_PROHIBITED: int
DENY: int
REJECT: int
DIAL: int

class Stack:
    """One stack. Limits by the names of struct ns_limits; virtual time in nanoseconds.

    Where a method answers with a handle or a result, a negative number is an ns_result.
    """

    received: dict[int, bytearray]
    datagrams: list[Datagram]
    errors: list[Error]
    admit: Callable[[Tuple, int, int], int] | None
    take: Callable[[int, int], int] | None

    def __init__(
        self,
        addresses: Names = ("10.0.0.1",),
        seed: int = 1,
        now_ns: int = 10**15,
        ram_bytes: int = 1 << 26,
        mtu: int = 1420,
        native: bool = False,
        admit: Callable[[Tuple, int, int], int] | None = None,
        has_admit: bool = True,
        parts: bool = False,
        **limits: int,
    ) -> None: ...
    def input_batch(self, packets: Iterable[bytes], peer: int = 0) -> None:
        """Give it packets that all stay where they are until the last was given."""

    def input(self, packet: bytes, now_ns: int | None = None, peer: int = 0) -> None:
        """Give it a packet, from a place of exactly its size (for the sanitizers)."""

    def parts_given(self) -> int:
        """How often several segments were given in one call."""

    def poll(self, now_ns: int) -> None: ...
    def poll_at(self) -> int | None:
        """Nanoseconds, or None when nothing will ever be due."""

    def has_output(self) -> bool:
        """Whether packets() would be worth asking (it may still give none)."""

    def packets(self, n: int = 128) -> list[bytes]: ...
    def packets_with_run(self, n: int = 128) -> list[Packet]:
        """Packets with their run, handle and peer."""

    def events(self) -> list[Event]:
        """List of (handle, events, reason, user)."""

    def listen(
        self,
        port: int,
        address: str | None = None,
        backlog: int = 128,
        user: int = 0,
        space: int = 1 << 20,
        protocol: int = 6,
    ) -> int: ...
    def unlisten(self, listener: int) -> int: ...
    def connect(
        self,
        remote: Endpoint,
        local: Local = (None, 0),
        peer: int = 0,
        user: int = 0,
        space: int = 1 << 20,
    ) -> int: ...
    def accept(self, request: int, user: int = 0, space: int = 1 << 20) -> int: ...
    def refuse(self, request: int, how: int) -> int: ...
    def open_datagram(
        self,
        remote: Endpoint,
        local: Local = (None, 0),
        protocol: int = 17,
        peer: int = 0,
        user: int = 0,
    ) -> int: ...
    def send_datagram(self, handle: int, data: bytes, sequence: int = 0, ttl: int = 0) -> int: ...
    def refuse_datagram(self, handle: int, how: int) -> int: ...
    def send(self, handle: int, data: bytes) -> int: ...
    def recv(self, handle: int, n: int = 65536) -> bytes | int: ...
    def set_receive_space(self, handle: int, space: int) -> int: ...
    def set_user_timeout(self, handle: int, seconds: int) -> int: ...
    def set_keepalive(self, handle: int, seconds: int) -> int: ...
    def set_nagle(self, handle: int, on: bool) -> int: ...
    def shutdown(self, handle: int) -> int: ...
    def close(self, handle: int) -> int: ...
    def abort(self, handle: int) -> int: ...
    def tuple(self, handle: int) -> Tuple | None: ...
    def statistics(self) -> dict[str, int]: ...
    def drops(self) -> dict[str, int]: ...
    def usage(self) -> dict[str, int]: ...
    def info(self, handle: int) -> Info | None:
        """What the flow of a handle knows, by the names of struct tcp_flow."""

    def check(self) -> int:
        """0, or the number of the first invariant that a flow breaks."""

    def app_connect(self, remote: Endpoint, to_send: int, local: Local = (None, 0)) -> int:
        """A native client that sends `to_send` bytes of the pattern, then half-closes."""

    def app_serve(self) -> None:
        """Let the native applications of a stack that no Network runs see their events."""

    def app_set(
        self,
        server_bytes: int = 0,
        space: int | None = None,
        stall_permille: int = 0,
        chunk: int = 0,
    ) -> None: ...
    def app_status(self) -> dict[str, int]: ...
    def app_flow(self, index: int) -> dict[str, int]: ...
