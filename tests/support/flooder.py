"""Sends handshake initiations at a fixed rate: the flood of `make bench-flood`.

    python -m tests.support.flooder bad-mac1|valid-mac1 HOST PORT PUBLIC_KEY RATE SECONDS

`bad-mac1` is random bytes of an initiation's shape from one source. `valid-mac1` has a
right MAC1 (whitepaper section 5.4.4) over random contents, each packet from another
source address of 100.64.0.0/10 and a random port. Prints the packets sent.
"""

from __future__ import annotations

import base64
import hashlib
import random
import socket
import struct
import sys
import time
from collections.abc import Callable

LABEL_MAC1 = b"mac1----"
INITIATION_BYTES = 148
TICK_S = 0.001
VARIETY = 4096


def initiations(public_key: bytes, rng: random.Random, valid: bool) -> list[bytes]:
    """Return different messages of type 1."""
    key = hashlib.blake2s(LABEL_MAC1 + public_key).digest()
    messages = []
    for _ in range(VARIETY):
        body = b"\x01\0\0\0" + rng.randbytes(INITIATION_BYTES - 4 - 32)
        mac1 = (
            hashlib.blake2s(body, key=key, digest_size=16).digest() if valid else rng.randbytes(16)
        )
        messages.append(body + mac1 + bytes(16))
    return messages


def paced(rate: int, seconds: float, send: Callable[[int], None]) -> int:
    """Call `send(number)` `rate` times a second, evenly in steps of a millisecond."""
    start, sent = time.monotonic(), 0
    while (passed := time.monotonic() - start) < seconds:
        due = int(passed * rate)
        while sent < due:
            send(sent)
            sent += 1
        time.sleep(TICK_S)
    return sent


def main() -> int:
    kind, host, port_text, key, rate, seconds = sys.argv[1:7]
    port, rng = int(port_text), random.Random(1)
    valid = kind == "valid-mac1"
    messages = initiations(base64.b64decode(key), rng, valid)
    if not valid:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.connect((host, port))

            def send_plain(number: int) -> None:
                try:
                    plain.send(messages[number % VARIETY])
                except OSError:
                    return

            print(paced(int(rate), float(seconds), send_plain))
        return 0
    destination = socket.inet_aton(host)
    length = 20 + 8 + INITIATION_BYTES
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:

        def send_spoofed(number: int) -> None:
            source = struct.pack("!I", 0x64400000 | rng.getrandbits(22))
            ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, 17, 0) + source + destination
            udp = struct.pack("!HHHH", rng.randrange(1024, 65536), port, length - 20, 0)
            try:
                raw.sendto(ip + udp + messages[number % VARIETY], (host, 0))
            except OSError:
                return

        print(paced(int(rate), float(seconds), send_spoofed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
