"""Two relays joined in memory, in virtual time; sides are 0 at 10.9.0.1 and 1 at 10.9.0.2."""

class RelayPair:
    def __init__(self, memory: int = 4 << 20) -> None: ...
    def forward(self, which: int, port: int, target: tuple[str, int, int]) -> tuple[int, int]:
        """(0 or -errno, id)."""

    def dial(self, which: int, host: str, port: int) -> tuple[int, int]:
        """(0 or -errno, id)."""

    def dialled(self, which: int) -> list[tuple[int, int]]: ...
    def splice(self, which: int, id: int, fd: int, early: bytes = b"") -> int:
        """0, and the descriptor is the relay's; or -errno."""

    def close(self, which: int, id: int) -> int: ...
    def advance(self, ns: int) -> None: ...
    def next_ns(self) -> int | None:
        """How long until a timer of either side is due; None for never."""

    def turn(self, which: int, most: int = 256, lost: int = 0) -> bool:
        """Take a batch of which the packets of the bits of `lost` got lost, then work.

        True: something was done or waits.
        """

    def flows(self, which: int) -> int: ...
    def bytes_moved(self, which: int) -> tuple[int, int]:
        """(into the host, out of it)."""

    def check(self) -> int:
        """0, or the number of the invariant that a stack breaks."""

    def blocks(self, which: int) -> int: ...
