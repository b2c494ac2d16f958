"""A device's life as processes on loopback: enrolment, refresh, rotation, forgotten, 1970.

The reference server with its own gateway, and the agent in userspace mode: no root. What
either of them ever writes is searched for every secret that the device had in its life.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import server as support
from tests.support.agent import PROGRAM, interface_name
from tests.support.peers import ROOT
from tests.support.server import eventually, new_token, operate
from wantastic.store.store import Store

FAKE_CLOCK = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
DATABASE = ("server.db", "server.db-wal", "server.db-shm")


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def payload(path: Path) -> dict[str, Any]:
    """Return a record's JSON; nothing where there is none (or it is being replaced)."""
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(path.read_bytes().partition(b"\n")[2])
        return found
    return {}


@dataclass
class Device:
    """An agent, and every secret that it was seen with."""

    folder: Path
    port: int
    transport: str
    secrets: set[str] = field(default_factory=set)
    shown: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    program: tuple[str, ...] = PROGRAM

    def __post_init__(self) -> None:
        self.name = interface_name()
        self.state = self.folder / "agent"
        self.log_path = self.folder / "agent.log"
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "WANTASTIC_RUN_DIR": str(self.folder / "run"),
        }
        config = {
            "interface": {"name": self.name, "mode": "userspace", "listen_port": 0},
            "auth": {
                "server_url": f"127.0.0.1:{self.port}",
                "ca_file": str(self.folder / "server" / "ca.pem"),
                "transport": self.transport,
            },
            "state_dir": str(self.state),
            "log": {"level": "trace"},
        }
        self.config_path = self.folder / "config.json"
        self.config_path.write_text(json.dumps(config))

    def start(self, *flags: str, **environ: str) -> None:
        command = [*self.program, "-config", str(self.config_path), *flags]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**self.environ, **environ}, stderr=log, stdout=log
            )

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def status(self) -> dict[str, Any]:
        """Return the status, and remember what it showed and which secrets there are now."""
        self.remember()
        command = [*PROGRAM, "-status", "-interface", self.name, "--json"]
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=30, check=False
        )
        self.shown.append(done.stdout + done.stderr)
        with contextlib.suppress(ValueError):
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        return {}

    def remember(self) -> None:
        for copy in ("", ".previous"):
            credentials = payload(self.state / f"credentials{copy}")
            self.secrets |= {credentials.get("token", ""), credentials.get("tls_key", "")[60:100]}
            identity = payload(self.state / f"identity{copy}")
            for name in ("private_key", "coming_private_key"):
                self.secrets.add(identity.get(name, ""))
        self.secrets.discard("")

    def is_connected(self) -> bool:
        peers = self.status().get("peers", [])
        return bool(peers) and all(peer["state"] == "connected" for peer in peers)

    def token(self) -> str:
        return str(payload(self.state / "credentials").get("token", ""))

    def agent(self, name: str) -> Any:
        return self.status().get("agent", {}).get(name)

    def clock_troubles(self) -> list[dict[str, str]]:
        """Return what TLS has to say about the clock."""
        found = self.status().get("conditions", [])
        return [c for c in found if c["code"] == "clock_wrong" and "certificate" in c["reason"]]

    def key(self) -> str:
        return str(payload(self.state / "identity").get("private_key", ""))


@pytest.fixture
def device(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Device]:
    found = Device(tmp_path, free_port(socket.SOCK_STREAM), request.param)
    yield found
    if found.process and found.process.poll() is None:
        found.process.kill()
        found.process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["grpcio", "grpclib"], indirect=True)
def test_a_whole_life_tells_no_secret(device: Device, tmp_path: Path) -> None:
    state = tmp_path / "server"
    operate(state, "tenant", "create", "default", "--ipv4", "10.66.0.0/24")
    token = new_token(state, "--reusable")
    device.secrets.add(token)
    (tmp_path / "token").write_text(token)
    options = (
        *("--listen", f"127.0.0.1:{device.port}", "--host", "127.0.0.1", "--log-level", "debug"),
        *("--gateway", "device", "--gateway-host", "127.0.0.1"),
        *("--gateway-port", str(free_port(socket.SOCK_DGRAM)), "--token-lifetime", "60s"),
    )

    with support.serving(state, *options, name="zeroth"):
        pass  # It makes its authority and the gateway's key.
    before = {name: (state / name).read_bytes() for name in DATABASE if (state / name).exists()}
    assert before

    # Enrolment and a tunnel; the device's token lives a minute, so it is refreshed on the way.
    with support.serving(state, *options, name="first"):
        device.start("-token-file", str(tmp_path / "token"))
        assert eventually(device.is_connected, 60), device.log
        assert token not in Path(f"/proc/{device.process.pid}/cmdline").read_text()  # type: ignore[union-attr]
        first_key, first_token = device.key(), device.token()

        # The server orders another static key: registered, proved by a handshake, kept.
        name = device.status()["control"]["device_id"]
        operate(state, "device", "rekey", name, "--within", "1s")
        assert eventually(lambda: device.status() and device.key() != first_key, 90), device.log
        assert eventually(lambda: device.agent("key_rotation") == "steady", 60)
        assert "coming_private_key" not in payload(device.state / "identity")
        assert eventually(device.is_connected, 30)
        assert "static key rotation ends kept_old=False" in device.log
        assert eventually(lambda: device.status() and device.token() not in ("", first_token), 60)
        second_key = device.key()
    proved = device.log.count("configuration proved")

    # The server's database is restored from before the device: it registers again by itself.
    for name in DATABASE:
        (state / name).unlink(missing_ok=True)
    for name, data in before.items():
        (state / name).write_bytes(data)
    with support.serving(state, *options, name="second"):
        assert operate(state, "device", "list") == []
        assert eventually(lambda: len(operate(state, "device", "list")) == 1, 90), device.log
        assert eventually(device.is_connected, 60), device.log
        assert device.key() == second_key
        assert eventually(lambda: device.agent("state") == "running", 60)
        # The tunnel may be that of before yet, and only a configuration that was proved by a
        # handshake (this one has another preshared key) is what the next boot starts with.
        assert eventually(lambda: device.log.count("configuration proved") > proved, 40), device.log
        shown = subprocess.run(
            [*PROGRAM, "-status", "-interface", device.name],
            env=device.environ, capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        assert "configuration: version" in shown
        assert "received" in shown, "the age of what is cached"
        device.shown.append(shown)
        assert device.stop() == 0

        # A boot at 1970: TLS says that the clock is wrong and does not go on without a check;
        # the tunnel runs from the cache meanwhile. With the right time all is well again.
        assert FAKE_CLOCK, "needs libfaketime"
        device.start(
            LD_PRELOAD=str(FAKE_CLOCK),
            FAKETIME="@1970-01-01 00:00:10",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
        )
        # (The tunnel's own clock_wrong, that of the handshakes' floor, is another one.)
        assert eventually(device.clock_troubles, 60), device.log
        wrong, status = device.clock_troubles()[0], device.status()
        assert "NTP" in wrong["remedy"]
        assert status["control"]["last_contact_unix_s"] is None
        assert eventually(device.is_connected, 30), device.log
        assert device.stop() == 0
        device.start()
        assert eventually(lambda: device.agent("state") == "running", 60), device.log
        assert device.stop() == 0

    device.remember()
    assert len(device.secrets) >= 7, "two keys, the tokens, the TLS key"
    shutil.rmtree(device.state)
    written = [device.log, *device.shown]
    written += [(tmp_path / f"{name}.log").read_text() for name in ("zeroth", "first", "second")]
    assert all(len(text) > 50 for text in (device.log, *device.shown[-1:]))
    for secret in device.secrets:
        for form in forms(secret):
            assert not [line for text in written for line in text.splitlines() if form in line]
    assert "Traceback" not in device.log


@pytest.mark.slow
@pytest.mark.parametrize("device", ["grpclib"], indirect=True)
def test_a_configuration_that_cuts_the_tunnel_is_taken_back(device: Device, tmp_path: Path) -> None:
    """Commit-confirm over everything: the operator announces a gateway that is none."""
    state = tmp_path / "server"
    options = (
        *("--listen", f"127.0.0.1:{device.port}", "--host", "127.0.0.1"),
        *("--gateway", "device", "--gateway-host", "127.0.0.1"),
        *("--gateway-port", str(free_port(socket.SOCK_DGRAM))),
    )
    with support.serving(state, *options):
        (tmp_path / "token").write_text(new_token(state))
        device.start("-token-file", str(tmp_path / "token"))
        assert eventually(device.is_connected, 60), device.log
        assert eventually(lambda: device.agent("state") == "running", 30)
        (good,) = device.status()["peers"]
        wrong = ("--public-key", support.key(), "--endpoint", "127.0.0.1:9")
        operate(state, "gateway", "set", *wrong)
        assert eventually(lambda: (device.agent("configuration") or {})["on_trial"], 30), device.log
        assert device.status()["peers"][0]["public_key"] != good["public_key"]
        # Nobody shakes hands there: after 45 s the one before is back, and the server is told.
        assert eventually(device.is_connected, 90), device.log
        (back,) = device.status()["peers"]
        assert back["public_key"] == good["public_key"]
        found = device.status()
        assert found["agent"]["state"] == "degraded"
        assert "configuration_rejected" in {c["code"] for c in found["conditions"]}
        assert eventually(lambda: "shook hands" in str(operate(state, "device", "list")), 20)
        # A boot comes back with what worked, not with what was tried last.
        cached = payload(device.state / "configuration")["statement"]["peers"]
        assert [peer["public_key"] for peer in cached] == [good["public_key"]]
        assert device.stop() == 0


# A gateway that is never told of an offered key: nobody shakes hands with it.
FAULTY_SERVER = """
import sys
from wantastic.server import gateways, main
told = gateways.Keeper._peers
def without_offers(keeper, device):
    return {key: peer for key, peer in told(keeper, device).items() if key == device.public_key}
gateways.Keeper._peers = without_offers
sys.exit(main.main(sys.argv[1:]))
"""
# Waits that are there to spread a fleet are over at once.
HASTY_AGENT = """
import random
random.random = lambda: 0.001
from wantastic.cli.main import main
raise SystemExit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("device", ["grpclib"], indirect=True)
def test_a_key_that_brings_no_handshake_is_taken_back(device: Device, tmp_path: Path) -> None:
    """A rotation over everything: ordered and killed on its way, ordered and failing, scheduled."""
    state = tmp_path / "server"
    options = (
        *("--listen", f"127.0.0.1:{device.port}", "--host", "127.0.0.1"),
        *("--gateway", "device", "--gateway-host", "127.0.0.1"),
        *("--gateway-port", str(free_port(socket.SOCK_DGRAM))),
    )
    device.program = (sys.executable, "-c", HASTY_AGENT)

    def listed() -> dict[str, Any]:
        (found,) = operate(state, "device", "list")
        return found

    def coming() -> str:
        return str(payload(device.state / "identity").get("coming_private_key", ""))

    with support.serving(state, *options, program=(sys.executable, "-c", FAULTY_SERVER)):
        (tmp_path / "token").write_text(new_token(state))
        device.start("-token-file", str(tmp_path / "token"))
        assert eventually(device.is_connected, 60), device.log
        assert eventually(lambda: device.agent("state") == "running", 30)
        key, public_key = device.key(), listed()["public_key"]
        operate(state, "device", "rekey", listed()["device_id"], "--within", "1s")
        assert eventually(lambda: device.agent("key_rotation") == "proving", 60), device.log
        assert device.key() == key
        assert coming()

        # The power goes while the new key is on trial. Both are there, and the boot finds out.
        assert device.process
        device.process.kill()
        device.process.wait()
        assert device.key() == key
        assert coming()
        device.start()
        assert eventually(device.is_connected, 30), device.log
        # The order stands: it is tried again. Nobody answers, so that the old key comes back ...
        assert eventually(lambda: device.agent("key_rotation") == "proving", 60), device.log
        tried = coming()
        assert eventually(lambda: device.agent("key_rotation") == "steady", 90), device.log
        assert eventually(device.is_connected, 30), device.log
        assert device.key() == key
        assert tried != key
        assert not coming()
        assert "static key rotation ends kept_old=True" in device.log
        # ... and the server knows why, and has forgotten the new one.
        assert eventually(lambda: "with the new key" in listed()["apply_error"], 20), listed()
        assert listed()["public_key"] == public_key
        # It is not tried at once again, though the order stands.
        begun = device.log.count("static key rotation begins")
        assert not eventually(lambda: device.log.count("rotation begins") > begun, 10)
        assert device.stop() == 0

    # By schedule, with a gateway that does as it should: the last change was long ago.
    config = json.loads(device.config_path.read_text())
    config["auth"]["key_rotation"] = "720h"
    device.config_path.write_text(json.dumps(config))
    long_ago = round(time.time()) - 40 * 86_400
    Store(device.state).record("identity").write(
        json.dumps({"private_key": key, "since_unix_s": long_ago}).encode()
    )
    with support.serving(state, *options, name="good"):
        operate(state, "device", "rekey", listed()["device_id"], "--withdraw")
        device.start()
        assert eventually(lambda: device.status() and device.key() != key, 90), device.log
        assert eventually(lambda: device.agent("key_rotation") == "steady", 60)
        assert eventually(device.is_connected, 30), device.log
        assert not coming()
        assert payload(device.state / "identity")["since_unix_s"] > long_ago
        assert eventually(lambda: listed()["public_key"] != public_key, 20)
        assert eventually(lambda: not listed()["apply_error"], 20), listed()
        assert device.stop() == 0
    assert "Traceback" not in device.log


def forms(secret: str) -> set[str]:
    """Return how a secret could be written: as it is, a good part of it, a key's bytes in hex."""
    found = {secret, secret[:24], secret[-24:]}
    with contextlib.suppress(ValueError):
        raw = base64.b64decode(secret, validate=True)
        if len(raw) == 32:
            found |= {raw.hex(), repr(raw)[2:-1]}
    return found


def test_the_search_for_secrets_finds_them() -> None:
    """The search above is worth nothing if it cannot fail."""
    key = bytes(range(32, 64))
    text = base64.b64encode(key).decode()
    for line in (f"key={text}", f"key={key.hex()}", f"key={key!r}", f"...{text[-24:]}"):
        assert any(form in line for form in forms(text)), line
