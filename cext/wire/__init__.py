"""Packet headers and checksums: layouts and arithmetic, no state."""
