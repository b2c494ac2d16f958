"""Python's faces of the netstack's single parts: timer wheel, SipHash, cube root, TCP header."""

from typing import TypedDict

class Header(TypedDict):
    source: int
    destination: int
    flags: int
    seq: int
    ack: int
    window: int
    options: int
    mss: int
    window_scale: int
    ts_value: int
    ts_echo: int
    user_timeout_s: int
    sacks: list[tuple[int, int]]
    payload: bytes

class Wheel:
    """The timer wheel alone; times in milliseconds, timers by index below `timers`."""

    def __init__(self, timers: int, now_ms: int = 0) -> None: ...
    def arm(self, index: int, due_ms: int) -> None: ...
    def cancel(self, index: int) -> None: ...
    def pop(self, now_ms: int) -> int | None: ...
    def next(self) -> int | None: ...
    def armed(self) -> int: ...

def siphash24(key: bytes, data: bytes) -> int: ...
def cube(x: int) -> int:
    """The integer cube root, at most 2^21 - 1."""

def compare(a: int, b: int) -> tuple[bool, bool, bool, bool]:
    """Which of <, <=, >, >= hold for two sequence numbers."""

def parse_tcp(data: bytes) -> Header | None:
    """The fields of a TCP header, or None when it is none."""
