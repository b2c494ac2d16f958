"""The long boring run: two devices, millions of packets, the GIL released."""

from typing import TypedDict

class LongRun(TypedDict):
    sent: int
    delivered: int
    lost: int
    duplicated: int
    refused: int
    handshakes: int
    wrong: int
    ids: int
    ids_sent: int
    drops: list[dict[str, int]]

def long_run(packets: int, step_ns: int, seed: int = 1, plain: bool = False) -> LongRun:
    """Send packets of 28 bytes between two devices, 64 every `step_ns` of virtual time.

    The network between them loses, reorders and repeats some. The GIL is released.
    With `plain` the batches are neither sealed nor opened, to measure the protocol alone.
    """
