"""Fuzz targets of the engine: super-packets cut and joined, relays with sockets."""

def run(name: str, data: bytes) -> int:
    """Run one target; a broken invariant aborts the process. KeyError: no such target."""
