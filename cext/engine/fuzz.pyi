"""Fuzz targets of the engine: cutting super-packets and joining packets to such."""

def run(name: str, data: bytes) -> int:
    """Run one target; a broken invariant aborts the process. KeyError: no such target."""
