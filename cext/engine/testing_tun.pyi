"""The netstack and the relay between a TUN device and the host's sockets, without a tunnel."""

class StackOnTun:
    def __init__(
        self,
        name: str,
        netns_fd: int,
        mtu: int,
        address: bytes,
        memory: int,
        offloads: bool = False,
    ) -> None: ...
    def forward(self, port: int, target: tuple[str, int, int]) -> None:
        """What connects to a port of the address is connected to `target` of the host."""

    def run(self) -> None:
        """Work until the device is gone; no signal handler of Python's runs meanwhile."""
