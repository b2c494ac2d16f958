"""Fuzz target for rtnetlink messages: whatever comes, nothing is raised and it ends."""

from __future__ import annotations

from wantastic.device.netlink import parse


def fuzz_netlink(data: bytes) -> None:
    """Raise only when the parser breaks its promise."""
    if sum(1 for _ in parse(data)) > len(data) // 16:
        raise AssertionError("more messages than fit")
