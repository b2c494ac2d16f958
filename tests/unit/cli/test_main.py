"""The program's entry: what it says when it cannot go on, and to whom."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from wantastic.cli import exits
from wantastic.cli.main import main
from wantastic.telemetry import log as telemetry_log

TOKEN = "wte_" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "arguments", [[TOKEN], ["wg0", TOKEN], [f"-tokn={TOKEN}"], [f"-L={TOKEN}"]]
)
def test_a_token_in_the_wrong_place_stays_out_of_syslog(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An init system's null device sends the reason to syslog, which others may read."""
    monkeypatch.setattr(telemetry_log, "SYSLOG_SOCKET", str(tmp_path / "log"))
    monkeypatch.setattr(telemetry_log, "leads_nowhere", lambda descriptor: True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        daemon.settimeout(2)
        assert main(arguments) == exits.USAGE
        line = daemon.recv(2000).decode()
        assert " error " in line
        assert TOKEN[:12] not in line
        daemon.setblocking(False)
        with pytest.raises(BlockingIOError):
            daemon.recv(2000)
    assert "Usage: wantasticd" in capsys.readouterr().err
