"""The status socket: private, one answer a line, and unmoved by rude clients."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from wantastic.telemetry.conditions import Conditions
from wantastic.telemetry.log import Log
from wantastic.telemetry.socket import StatusServer, ask, bind_private, socket_folder


def serving(path: Path, answer: bytes = b'{"ok": true}\n') -> StatusServer:
    return StatusServer(path, {"status": lambda: answer})


def test_a_request_and_its_answer(tmp_path: Path) -> None:
    async def life() -> None:
        path = tmp_path / "run" / "wg0.sock"
        server = serving(path, b"x" * 1_000_000)
        await server.start()
        assert path.stat().st_mode & 0o777 == 0o600
        assert await asyncio.to_thread(ask, path, "status") == b"x" * 1_000_000
        assert b"unknown request" in await asyncio.to_thread(ask, path, "secrets")
        await server.close()
        assert not path.exists()

    asyncio.run(life())


@pytest.mark.parametrize("rude", [b"", b"x" * 100_000, b"\xff\xfe\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_rude_clients_change_nothing(tmp_path: Path, rude: bytes) -> None:
    async def life() -> None:
        path = tmp_path / "wg0.sock"
        server = serving(path)
        await server.start()
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(rude)
        writer.close()
        assert await asyncio.to_thread(ask, path, "status") == b'{"ok": true}\n'
        await server.close()

    asyncio.run(life())


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "wg0.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    alive = bind_private(path)
    with pytest.raises(OSError, match="in use"):
        bind_private(path)
    alive.close()


def test_the_folder_can_be_moved() -> None:
    assert str(socket_folder({})) == "/var/run/wantastic"
    assert str(socket_folder({"WANTASTIC_RUN_DIR": "/x"})) == "/x"


def test_conditions_keep_since_and_log_changes_once() -> None:
    now, found = [1], []
    log = Log(sink=lambda level, line: found.append(line))
    conditions = Conditions(log, lambda: now[0])
    conditions.set("a", "warning", "r", "m.")
    now[0] = 9
    conditions.set("a", "warning", "r", "m.")
    assert len(found) == 1
    conditions.set("a", "warning", "r2", "m.")
    conditions.set("b", "error", "r", "m.", "10.0.0.0/8")
    assert [(c.code, c.since_unix_ns) for c in conditions.all()] == [("b", 9), ("a", 1)]
    assert conditions.has("b", "10.0.0.0/8")
    conditions.clear("b", "10.0.0.0/8")
    conditions.clear("b", "10.0.0.0/8")
    assert len(found) == 4
