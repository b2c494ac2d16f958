"""Fuzz targets of the netstack: a packet, a TCP header, fragments, a connection, two ends."""

def run(name: str, data: bytes) -> int:
    """Run one target; a broken invariant aborts the process. ValueError: no such target."""
