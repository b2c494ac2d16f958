"""Fuzz targets of the WireGuard room: every message, the device, the trie, the window."""

def run(name: str, data: bytes) -> int:
    """Run one target; a broken invariant aborts the process. KeyError: no such target."""
