"""`wantasticd [-f] NAME`: in wireguard-go's place, for wg-quick and for hand work.

Without -f the process goes into the background once the interface and its socket
exist, so that the next command (`wg setconf`) finds them. The fork happens before
anything is opened and before a thread exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from wantastic.cli import exits
from wantastic.cli.args import Interface
from wantastic.cli.run import guard
from wantastic.config.model import LOG_LEVELS, LogConfig, LogLevel
from wantastic.telemetry.log import Log


def run_interface(command: Interface) -> int:
    """Serve the interface, in the background unless told otherwise."""
    if command.foreground:
        return _serve(command, lambda: None)
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return _wait(reader, child)
    os.close(reader)
    os.setsid()
    status = _serve(command, lambda: _detach(command, writer))
    with contextlib.suppress(OSError):
        os.write(writer, bytes([status]))
    os._exit(status)


def _wait(reader: int, child: int) -> int:
    """Return the child's verdict: it writes 0 once it serves, its status when it cannot."""
    verdict = os.read(reader, 1)
    if verdict:
        return verdict[0]
    _, ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended) or exits.FAILED


def _detach(command: Interface, writer: int) -> None:
    """Let go of the terminal; the parent may end now."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    if not command.keep_output:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(null, 1)
        os.dup2(null, 2)
    os.close(null)
    os.chdir("/")
    os.write(writer, b"\0")


def _serve(command: Interface, ready: Callable[[], None]) -> int:
    from wantastic.device.service import Plan, serve

    level: LogLevel = next((known for known in LOG_LEVELS if known == command.log_level), "error")
    sink = (lambda level, line: None) if command.log_level == "silent" else None
    log = Log(LogConfig(level=level), sink)
    plan = Plan(command.name, tun_fd=command.tun_fd, uapi_fd=command.uapi_fd)

    def served() -> None:
        if command.name_file:
            with contextlib.suppress(OSError):
                Path(command.name_file).write_text(f"{command.name}\n")
        ready()

    return guard(lambda: asyncio.run(serve(plan, log, served)), log)
