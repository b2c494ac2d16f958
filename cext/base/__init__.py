"""Endian loads, bounded cursor, packet pools, zeroize, drop reasons; knows no protocol."""
