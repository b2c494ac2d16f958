"""What the agent reports about the server's configuration; without protobuf, for the agent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What became of the server's configuration."""

    applied_version: int = 0
    failed_version: int = 0
    code: str = ""
    """"invalid", "no_handshake", "device"; empty: nothing failed."""
    reason: str = ""
    public_key: bytes = b""
