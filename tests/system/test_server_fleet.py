"""A small fleet through the load generator loses nothing; the command line as people use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import fleet
from tests.support.server import COMMAND, operate
from wantastic.server import main


def test_a_small_fleet_loses_no_update(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--devices", "60", "--seconds", "1.5", "--rate", "200", "--processes", "2"]
    assert fleet.run([*small, "--database", "sqlite"]) == 0
    out = capsys.readouterr().out
    assert "lost updates: none" in out
    assert "FAILED" not in out


def test_the_command_line_as_a_person_uses_it(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments, "--state", str(tmp_path / "state")],
            capture_output=True,
            text=True,
            check=False,
        )

    made = run("token", "create", "--label", "first router")
    assert made.returncode == 0
    # Alone on standard output, for `TOKEN=$(...)`.
    assert made.stdout.strip().startswith("wte_")
    assert len(made.stdout.split()) == 1
    secret = made.stdout.strip().rpartition("_")[2]
    listed = run("token", "list")
    assert "first router" in listed.stdout
    assert secret not in listed.stdout
    assert run("device", "remove", "nobody").returncode == 1
    assert "device list" in run("device", "remove", "nobody").stderr
    assert run("device").returncode == 2
    assert run("token", "create", "--lifetime", "soon").returncode == 2


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ('{"mtu_bytes": 100}', "mtu_bytes"),
        ('{"dns_servers": ["dns.example"]}', "dns_servers"),
        ('{"exit_rules": [{"allow": false, "cidr": "10.0.0.0/33"}]}', "exit_rules"),
        ('{"unknown": 1}', "unknown"),
        ("[]", "settings"),
        ("{", "settings"),
    ],
)
def test_settings_that_devices_would_refuse(tmp_path: Path, settings: str, problem: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(settings)
    with pytest.raises(RuntimeError, match=problem):
        operate(tmp_path / "state", "tenant", "create", "acme", "--settings", str(file))


def test_settings_come_back_as_given(tmp_path: Path) -> None:
    given = {
        "mtu_bytes": 1380,
        "dns_servers": ["10.0.0.53"],
        "dns_routes": {"corp.example": ["10.0.0.54"]},
        "dns_records": [{"name": "a.corp", "type": "A", "value": "10.0.0.9", "ttl_s": 60}],
        "exit_rules": [
            {
                "allow": False,
                "cidr": "0.0.0.0/0",
                "protocol": "tcp",
                "first_port": 25,
                "last_port": 25,
            }
        ],
        "health": [
            {"code": "window", "severity": "info", "reason": "Upgrade at night", "remedy": ""}
        ],
    }
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(given))
    made = operate(tmp_path / "state", "tenant", "create", "acme", "--settings", str(file))
    assert {name: made[0]["settings"][name] for name in given} == given


def test_help_says_what_there_is() -> None:
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=False)
    for word in ("serve", "token", "device", "operator", "gateway", "database"):
        assert word in done.stdout
    assert sys.modules[main.__name__] is main
