"""-status: its text in 80 columns, its JSON as documented, and how it finds agents."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.configs import ALICE_PUBLIC, BOB_PUBLIC
from wantastic.cli import status
from wantastic.cli.args import ShowStatus, UsageError
from wantastic.telemetry.conditions import Condition
from wantastic.telemetry.status import PeerView, RangeStatus, Status, status_to_json

ROOT = Path(__file__).resolve().parents[3]
NOW = 1_800_000_000 * 10**9
S = 10**9

PEER = PeerView(
    public_key=BOB_PUBLIC,
    name="server",
    configured_endpoint="wg.wantastic.app:51820",
    endpoint="192.0.2.1:51820",
    last_handshake_unix_ns=NOW - 65 * S,
    handshake_duration_ns=42_500_000,
    handshake_attempts=0,
    rx_bytes=1536,
    tx_bytes=5 << 30,
    keepalive_s=25,
    preshared_key=True,
    ranges=(RangeStatus("10.9.0.0/16", True), RangeStatus("0.0.0.0/0", False)),
)
STATUS = Status(
    interface="wg0",
    version="1.2.3",
    pid=1,
    now_unix_ns=NOW,
    started_unix_ns=NOW - 7500 * S,
    public_key=ALICE_PUBLIC,
    listen_port=40001,
    configured_listen_port=51820,
    fwmark=0xCA6C,
    mtu_bytes=1420,
    mode="tun",
    addresses=("10.0.0.2/32", "fd00::2/128"),
    default_route=True,
    peers=(PEER,),
    drops={"wg_bad_mac1": 3},
    statistics={"memory_bytes": 1},
    features={"udp_gso": True, "uso": False},
    tun_features=("vnet_hdr",),
    conditions=(
        Condition("listen_port_taken", "", "warning", "UDP port 51820 is taken", "Free it.", NOW),
    ),
    flash_writes=2,
    memory_limit_bytes=32 << 20,
)


@pytest.mark.parametrize(
    ("control", "shown"),
    [
        ({"phase": "starting"}, "auth:443, starting"),
        ({"phase": "following", "mode": "poll"}, "auth:443, poll"),
        ({"phase": "stopped", "mode": None}, "auth:443, stopped"),
    ],
)
def test_the_control_server_at_each_stage(control: dict[str, str | None], shown: str) -> None:
    agent = {"state": "running", "reason": "r", "remedy": "", "configuration": None}
    more = {"agent": agent, "control": {"server": "auth:443", **control}}
    lines = status.render({**status_to_json(STATUS), **more}).splitlines()
    assert f"  control server: {shown}" in lines


def test_the_text() -> None:
    assert status.render(status_to_json(STATUS)).splitlines() == [
        "wg0: up 2 h 5 min, wantasticd 1.2.3",
        "  public key: hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
        "  UDP port: 40001 (configured: 51820)",
        "  addresses: 10.0.0.2/32, fd00::2/128",
        "  MTU: 1420",
        "  default route: into the tunnel (mark 0xca6c)",
        "  ! warning: UDP port 51820 is taken. Free it.",
        "",
        "peer server: connected",
        "  public key: 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
        "  endpoint: 192.0.2.1:51820 (configured: wg.wantastic.app:51820)",
        "  last handshake: 1 min 5 s ago, took 42.5 ms",
        "  received 1.5 KiB, sent 5.0 GiB",
        "  keepalive: every 25 s",
        "  routed here: 10.9.0.0/16",
        "  allowed only: 0.0.0.0/0",
        "",
        "dropped packets: wg_bad_mac1 3",
        "kernel features used: udp_gso, vnet_hdr",
        "flash writes since the start: 2",
    ]


@given(st.lists(st.from_regex(r"[a-f0-9:./]{3,40}", fullmatch=True), max_size=40))
def test_long_lists_fold_within_the_width(words: list[str]) -> None:
    ranges = tuple(RangeStatus(word, False) for word in words)
    peer = replace(PEER, ranges=ranges)
    text = status.render(status_to_json(replace(STATUS, peers=(peer,))))
    assert all(len(line) <= 80 for line in text.splitlines())
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("last", "attempts", "state"),
    [
        (NOW - S, 0, "connected"),
        (NOW - 179 * S, 3, "connected"),
        (NOW - 181 * S, 0, "idle"),
        (NOW - 181 * S, 1, "connecting"),
        (0, 0, "never"),
        (0, 2, "connecting"),
    ],
)
def test_the_state_of_a_peer(last: int, attempts: int, state: str) -> None:
    peer = replace(PEER, last_handshake_unix_ns=last, handshake_attempts=attempts)
    assert peer.state(NOW) == state


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (90000, "1 d 1 h"),
        (86460, "1 d"),
        (-5, "0 s"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert status.span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**64, "16.0 EiB"),
        (2**80, "1048576.0 EiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert status.size(count) == text


def names(value: object) -> set[str]:
    """Every key of the document, except where the keys are data."""
    if isinstance(value, dict):
        inner = [names(v) for k, v in value.items() if k not in ("drops", "statistics", "features")]
        return set(value).union(*inner)
    if isinstance(value, list):
        return set().union(*map(names, value))
    return set()


def test_every_field_of_the_json_is_documented() -> None:
    text = (ROOT / "docs" / "status.md").read_text()
    missing = {n for n in names(status_to_json(STATUS)) if f"`{n}`" not in text}
    assert missing == set()


def test_every_condition_code_is_documented() -> None:
    text = (ROOT / "docs" / "status.md").read_text()
    found = set()
    for path in (ROOT / "wantastic" / "device").glob("*.py"):
        source = path.read_text()
        found |= set(re.findall(r"\.set\(\s*\"([a-z_]+)\"", source))
        found |= set(re.findall(r"d\.\w+: \"([a-z_]+_failed)\"", source))
    assert len(found) > 12
    assert {code for code in found if f"`{code}`" not in text} == set()


def test_several_agents_need_a_choice_for_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANTASTIC_RUN_DIR", str(tmp_path))
    (tmp_path / "wg0.sock").touch()
    (tmp_path / "wg1.sock").touch()
    with pytest.raises(UsageError, match="wg0, wg1"):
        status.show_status(ShowStatus(json=True))
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"interface": {"name": "wg7"}}))
    found = status.find_sockets(ShowStatus(config_path=str(config)))
    assert found == [tmp_path / "wg7.sock"]
