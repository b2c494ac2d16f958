"""Reads a configuration file from disk: the one place of this room that does I/O."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from wantastic.config.errors import ConfigError, Problem
from wantastic.config.parse import MAX_FILE_BYTES, Parsed, parse_config


def load_config(path: str | Path, *, thorough: bool = False) -> Parsed:
    """Return the configuration in a file; ConfigError also when it cannot be read."""
    source = str(path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - fstat of what is read, not of the path
            info = os.fstat(file.fileno())
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        text = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        remedy = "Check the path and its permissions; the agent usually runs as root."
        raise ConfigError(source, (Problem("", text, remedy),)) from None
    parsed = parse_config(data, source, thorough=thorough)
    return Parsed(parsed.config, (*parsed.warnings, *_exposed(parsed, info)))


def _exposed(parsed: Parsed, info: os.stat_result) -> Iterator[Problem]:
    """Yield a warning when other users can change the file, or read its secrets."""
    config = parsed.config
    proxies = (config.proxy.socks5, config.proxy.http)
    secrets = bool(config.private_key or config.auth.token)
    secrets |= any(peer.preshared_key for peer in config.all_peers)
    secrets |= any(proxy.password for proxy in proxies if proxy)
    mode = stat.S_IMODE(info.st_mode)
    if not stat.S_ISREG(info.st_mode):
        return
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        # Whoever writes it decides where the tunnel leads and which ports are open.
        yield Problem("", f"may be changed by others (mode {mode:04o})", "chmod go-w it.")
    if secrets and mode & 0o077:
        text = f"holds secrets and others may read it (mode {mode:04o})"
        yield Problem("", text, "chmod 600 it.")
