"""The status socket: a Unix socket, mode 0600, that answers a line with a line.

A client sends one request line, such as `status`, and reads JSON until the end. The
server drops whoever sends more than a line or waits too long. What the requests are is
the caller's table; this file only carries them. asyncio is the server's: who asks does
without, for importing it takes a router longer than the answer.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

DEFAULT_FOLDER = "/var/run/wantastic"
MAX_REQUEST = 200
TIMEOUT_S = 5.0
MAX_ANSWER = 16 << 20

Answers = Mapping[str, Callable[[], bytes]]


def socket_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the sockets are; WANTASTIC_RUN_DIR moves them."""
    return Path(environ.get("WANTASTIC_RUN_DIR") or DEFAULT_FOLDER)


def bind_private(path: Path) -> socket.socket:
    """Return a listening Unix socket of mode 0600; EADDRINUSE when somebody answers there."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if is_alive(path):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        # The mode of the descriptor becomes the mode of the file: there is no moment
        # at which others could connect.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    return listener


def is_alive(path: Path) -> bool:
    """Return whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EACCES)
        return True


def ask(path: Path, request: str) -> bytes:
    """Return the answer of the agent behind a socket; OSError when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(str(path))
        client.sendall(request.encode() + b"\n")
        answer = bytearray()
        while piece := client.recv(65536):
            answer += piece
            if len(answer) > MAX_ANSWER:
                raise OSError(errno.EMSGSIZE, "the answer is too long")
        return bytes(answer)


class StatusServer:
    """Serves `answers` on a socket file until closed."""

    def __init__(self, path: Path, answers: Answers) -> None:
        self.path = path
        self._answers = answers
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; OSError when the socket cannot be made."""
        import asyncio

        listener = bind_private(self.path)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=MAX_REQUEST
        )

    async def close(self) -> None:
        """Stop and remove the file."""
        if self._server:
            self._server.close()
            self._server = None
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import asyncio

        try:
            async with asyncio.timeout(TIMEOUT_S):
                line = await reader.readline()
                writer.write(self._answer(line))
                await writer.drain()
        except (TimeoutError, ValueError, OSError):
            pass
        finally:
            writer.close()

    def _answer(self, line: bytes) -> bytes:
        request = line.decode("ascii", "replace").strip()
        if answer := self._answers.get(request):
            return answer()
        known = ", ".join(sorted(self._answers))
        return json.dumps({"error": f"unknown request; known are: {known}"}).encode() + b"\n"
