"""Sends or receives a TCP stream and prints its SHA-256: bytes must survive the tunnel.

python -m tests.support.transfer recv HOST PORT
python -m tests.support.transfer send HOST PORT BYTES SEED
"""

from __future__ import annotations

import hashlib
import random
import socket
import sys

CHUNK = 256 * 1024


def receive(host: str, port: int) -> str:
    """Accept one connection, read it to its end, return the digest."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    digest = hashlib.sha256()
    with socket.create_server((host, port), family=family) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(CHUNK):
                digest.update(data)
    return digest.hexdigest()


def send(host: str, port: int, size: int, seed: int) -> str:
    """Send `size` seeded random bytes, return their digest."""
    rng, digest = random.Random(seed), hashlib.sha256()
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.settimeout(60)
        while size:
            data = rng.randbytes(min(size, CHUNK))
            digest.update(data)
            connection.sendall(data)
            size -= len(data)
    return digest.hexdigest()


if __name__ == "__main__":
    if sys.argv[1] == "recv":
        print(receive(sys.argv[2], int(sys.argv[3])), flush=True)
    else:
        print(send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])), flush=True)
