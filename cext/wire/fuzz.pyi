"""Fuzz targets of the wire room: the look at a packet and the error that answers it."""

def run(name: str, data: bytes) -> int:
    """Run one target; a broken invariant aborts the process. KeyError: no such target."""
