def keep_memory() -> bool:
    """Leave no core file behind and let only root look in; return whether that is so."""

def release_program() -> int:
    """Unmap the program's read-only pages; return how many bytes the ranges had."""
