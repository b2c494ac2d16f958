"""The UAPI socket that `wg` talks to: /var/run/wireguard/NAME.sock.

Requests are answered in turn on the asyncio loop. The device's identity on disk is
never touched from here: what `wg` sets lives as long as the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wantastic.config.keys import NO_KEY
from wantastic.device.peers import endpoint_of
from wantastic.device.uapi import Bad, Decoder, Get, PeerSet, Request, Set, render_errno, render_get
from wantastic.telemetry.log import Log
from wantastic.telemetry.socket import bind_private

if TYPE_CHECKING:
    from cext.engine.engine import Engine

FOLDER = Path("/var/run/wireguard")
READ_BYTES = 1 << 16


def apply_set(engine: Engine, request: Set) -> int:
    """Do what a set request asks for; return 0 or an errno, with what came before it done."""
    try:
        if request.private_key is not None:
            key = request.private_key
            engine.set_private_key(None if key == NO_KEY else key)
        if request.listen_port is not None:
            engine.set_listen_port(request.listen_port)
        if request.fwmark is not None:
            engine.set_fwmark(request.fwmark)
        if request.replace_peers:
            engine.remove_all_peers()
        if request.peers:
            own = engine.status().public_key
            for peer in request.peers:
                # wg-quick files are shared between both ends: our own entry is no peer.
                if peer.public_key != own:
                    _apply_peer(engine, peer)
    except OSError as error:
        return error.errno or errno.EIO
    except ValueError:
        return errno.EINVAL
    except MemoryError:
        return errno.ENOMEM
    return 0


def _apply_peer(engine: Engine, peer: PeerSet) -> None:
    if peer.remove:
        engine.remove_peer(peer.public_key)
        return
    engine.set_peer(
        peer.public_key,
        preshared_key=peer.preshared_key,
        endpoint=endpoint_of(*peer.endpoint) if peer.endpoint else None,
        keepalive_s=peer.keepalive_s,
        replace_allowed_ips=peer.replace_allowed_ips,
        allowed_ips=tuple(peer.allowed_ips),
        removed_allowed_ips=tuple(peer.removed_allowed_ips),
        update_only=peer.update_only,
    )


class UapiServer:
    """Serves one engine on one socket file."""

    def __init__(
        self,
        engine: Engine,
        log: Log,
        configured_port: Callable[[], int],
        changed: Callable[[Set], None],
    ) -> None:
        self._engine = engine
        self._log = log
        self._configured_port = configured_port
        self._changed = changed
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._inode = 0

    async def start(self, name: str, fd: int = -1) -> None:
        """Listen on NAME.sock, or on an already listening descriptor (WG_UAPI_FD)."""
        path = FOLDER / f"{name}.sock"
        listener = socket.socket(fileno=fd) if fd >= 0 else bind_private(path)
        listener.setblocking(False)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)
        self._path = path
        with contextlib.suppress(OSError):
            self._inode = path.lstat().st_ino

    def is_removed(self) -> bool:
        """Return whether somebody removed the socket file: that ends the interface."""
        if self._path is None:
            return False
        try:
            return self._path.lstat().st_ino != self._inode
        except FileNotFoundError:
            return True
        except OSError:
            return False

    async def close(self) -> None:
        """Stop; remove the file if it is still ours."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if self._path and not self.is_removed():
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = Decoder()
        try:
            while data := await reader.read(READ_BYTES):
                for request in decoder.feed(data):
                    writer.write(self._answer(request))
                    await writer.drain()
                    if isinstance(request, Bad) and request.fatal:
                        return
        except OSError as error:
            self._log.debug("wg went away", reason=os.strerror(error.errno or 0))
        finally:
            writer.close()

    def _answer(self, request: Request) -> bytes:
        if isinstance(request, Get):
            return render_get(self._engine.status(), self._configured_port())
        if isinstance(request, Bad):
            self._log.warning("wg sent a request we refuse", line=request.line)
            return render_errno(request.errno)
        code = apply_set(self._engine, request)
        self._log.info("changed by wg", peers=len(request.peers), errno=code)
        self._changed(request)
        return render_errno(code)
