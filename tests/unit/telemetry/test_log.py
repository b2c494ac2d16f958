"""Logs: form, levels, and that no secret gets through by any way in."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.configs import ALICE_PRIVATE, ALICE_PUBLIC
from wantastic.config.keys import encode_key
from wantastic.config.model import LOG_FORMATS, LOG_LEVELS, LogConfig, LogLevel, LogTarget
from wantastic.telemetry import log as telemetry_log
from wantastic.telemetry.log import Log, SyslogSink, leads_nowhere, short_key

SECRET = encode_key(ALICE_PRIVATE)


def lines(config: LogConfig) -> tuple[Log, list[str]]:
    found: list[str] = []
    return Log(
        config, lambda level, line: found.append(line), lambda: 1_795_000_000_123_456_789
    ), found


def test_text_and_json() -> None:
    log, found = lines(LogConfig())
    log.info("tunnel is up", interface="wg0", note="two words")
    assert found == ['2026-11-18T11:06:40.123Z info    tunnel is up interface=wg0 note="two words"']
    log.configure(LogConfig(format="json"))
    log.warning("x", n=3)
    assert json.loads(found[1]) == {
        "time": "2026-11-18T11:06:40.123Z",
        "level": "warning",
        "message": "x",
        "n": "3",
    }


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_a_level_lets_itself_and_the_graver_through(level: LogLevel) -> None:
    log, found = lines(LogConfig(level=level))
    for each in LOG_LEVELS:
        log.write(each, each, {})
    assert len(found) == LOG_LEVELS.index(level) + 1


@pytest.mark.parametrize("level", LOG_LEVELS)
@pytest.mark.parametrize("form", LOG_FORMATS)
def test_no_secret_gets_through(level: LogLevel, form: str) -> None:
    log, found = lines(LogConfig(level="trace", format=form))  # type: ignore[arg-type]
    log.hide("tok-en-123")
    secrets = [SECRET, ALICE_PRIVATE.hex(), "tok-en-123"]
    for secret in secrets:
        log.write(level, f"message {secret} in it", {"field": f"x{secret[:0]} {secret}"})
        log.write(level, "m", {"private_key": secret, "token": secret, "psk": secret})
        log.write(level, "m", {"authorization": f"Bearer {secret}", "x": f"bearer {secret}"})
        log.write(level, "m", {"error": ValueError(f"bad key {secret}!")})
    log.write(level, "m", {"raw": ALICE_PRIVATE, "private_key": ALICE_PRIVATE})
    text = "\n".join(found)
    for secret in [*secrets, repr(ALICE_PRIVATE)]:
        assert secret not in text


def test_a_peer_is_its_short_key() -> None:
    log, found = lines(LogConfig())
    log.info("handshake", peer=ALICE_PUBLIC)
    assert found[0].endswith("peer=" + json.dumps(short_key(ALICE_PUBLIC)).strip('"'))


@given(st.text(), st.dictionaries(st.sampled_from(["a", "key", "x"]), st.text()))
def test_a_line_is_one_line(message: str, fields: dict[str, str]) -> None:
    for form in LOG_FORMATS:
        log, found = lines(LogConfig(format=form))
        log.write("info", message, fields)
        (line,) = found
        assert line.isprintable()
        assert len(line) <= 2000


def listen(path: Path) -> socket.socket:
    """Return a syslog daemon's socket."""
    path.unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    found.bind(str(path))
    found.settimeout(2)
    return found


@pytest.mark.parametrize("target", ["stderr", "syslog"])
@pytest.mark.parametrize("nowhere", [False, True])
def test_the_reason_of_an_end_is_where_it_is_read(
    target: LogTarget,
    nowhere: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An init system's daemon says nothing that anybody sees on standard error."""
    monkeypatch.setattr(telemetry_log, "SYSLOG_SOCKET", str(tmp_path / "log"))
    monkeypatch.setattr(telemetry_log, "leads_nowhere", lambda descriptor: nowhere)
    with listen(tmp_path / "log") as daemon:
        log = Log(LogConfig(target=target))
        log.hide("a-token-of-theirs")
        log.say_end("wantasticd: no a-token-of-theirs\nhere")
        assert capsys.readouterr().err == "wantasticd: no a-token-of-theirs\nhere\n"
        if target == "syslog" or nowhere:
            assert daemon.recv(200).endswith(b" error   no (hidden)")
            assert daemon.recv(200).endswith(b" error   here")
        daemon.setblocking(False)
        with pytest.raises(BlockingIOError):
            daemon.recv(200)


def test_where_a_descriptor_leads(tmp_path: Path) -> None:
    with Path(os.devnull).open() as null, (tmp_path / "file").open("w") as file:
        assert leads_nowhere(null.fileno())
        assert not leads_nowhere(file.fileno())
        closed = os.dup(file.fileno())
        os.close(closed)
        assert leads_nowhere(closed)


def test_syslog_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    first = listen(path)
    sink = SyslogSink(str(path))
    sink("warning", "one")
    assert first.recv(100).startswith(b"<28>wantasticd[")
    first.close()
    sink("info", "lost")
    second = listen(path)
    sink("error", "two")
    assert second.recv(100).endswith(b": two")
    second.close()
