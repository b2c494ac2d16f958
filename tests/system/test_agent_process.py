"""The agent as a process against the reference server and its gateway, in network namespaces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import netns
from tests.support.netns import Lab, Namespace
from tests.support.server import eventually, new_token, operate

pytestmark = pytest.mark.skipif(not netns.available(), reason="needs root and /dev/net/tun")

SERVER = "192.168.77.1"
AGENT = (sys.executable, "-m", "wantastic.cli.main")
SERVE = (
    *(sys.executable, "-m", "wantastic.server.main", "serve", "--json"),
    *("--listen", f"{SERVER}:8443", "--host", SERVER),
    *("--gateway-host", SERVER, "--gateway"),
)


class Scene:
    """A server in one namespace, a router in another."""

    def __init__(self, lab: Lab, router: Namespace, cloud: Namespace, folder: Path) -> None:
        self.lab, self.router, self.cloud = lab, router, cloud
        self.folder = folder
        self.state = folder / "server"
        self.log = folder / "agent.log"
        self.environment = {"WANTASTIC_RUN_DIR": str(folder / "run")}
        operate(self.state, "tenant", "create", "default", "--ipv4", "10.9.0.0/24")
        self.gateway = f"gwc{os.getpid() % 1000000}"
        self.start_gateway()
        self.server = self.start_server()
        ca = subprocess.run(
            [sys.executable, "-m", "wantastic.server.main", "ca", "--state", str(self.state)],
            capture_output=True,
            check=True,
        )
        (folder / "ca.pem").write_bytes(ca.stdout)
        self.token = new_token(self.state)
        (folder / "token").write_text(self.token + "\n")
        (folder / "token").chmod(0o600)

    def start_gateway(self) -> None:
        """A WireGuard interface that the server drives through `wg`."""
        self.cloud.start(*AGENT, "-f", self.gateway)
        key = self.folder / "gateway.key"
        key.write_text(subprocess.run(["wg", "genkey"], capture_output=True, text=True).stdout)

        def configured() -> bool:
            command = ("wg", "set", self.gateway, "listen-port", "51820", "private-key", str(key))
            try:
                self.cloud.run(*command)
            except RuntimeError:
                return False
            return True

        assert eventually(configured, 15)
        self.cloud.run("ip", "address", "add", "10.9.0.1/24", "dev", self.gateway)
        self.cloud.run("ip", "link", "set", self.gateway, "up")

    def start_server(self) -> subprocess.Popen[bytes]:
        with (self.folder / "server.log").open("ab") as log:
            process = self.cloud.start(
                *(*SERVE, f"wg:{self.gateway}", "--state", str(self.state)),
                stdout=subprocess.PIPE,
                stderr=log.fileno(),
            )
        assert process.stdout is not None
        assert process.stdout.readline(), (self.folder / "server.log").read_text()
        return process

    def start_agent(self, transport: str = "auto", *flags: str) -> subprocess.Popen[bytes]:
        config = {
            "interface": {"name": "wgctl", "mode": "tun", "listen_port": 0},
            "auth": {
                "server_url": f"{SERVER}:8443",
                "ca_file": str(self.folder / "ca.pem"),
                "transport": transport,
            },
            "state_dir": str(self.folder / "agent"),
            "log": {"level": "trace"},
        }
        path = self.folder / "config.json"
        path.write_text(json.dumps(config))
        with self.log.open("ab") as log:
            return self.router.start(
                *AGENT, "-config", str(path), *flags, env=self.environment, stderr=log.fileno()
            )

    def status(self) -> dict[str, Any]:
        out = subprocess.run(
            [*AGENT, "-status", "-interface", "wgctl", "--json"],
            capture_output=True,
            env={**os.environ, **self.environment},
            check=False,
        ).stdout
        try:
            found: dict[str, Any] = json.loads(out)
        except ValueError:
            return {}
        return found

    def show(self) -> str:
        return subprocess.run(
            [*AGENT, "-status", "-interface", "wgctl"],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            check=False,
        ).stdout

    def is_connected(self) -> bool:
        peers = self.status().get("peers", [])
        return bool(peers) and all(peer["state"] == "connected" for peer in peers)

    def codes(self) -> set[str]:
        return {c["code"] for c in self.status().get("conditions", [])}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with netns.pair("control") as (lab, cloud, router):
        yield Scene(lab, router, cloud, tmp_path)


@pytest.mark.interop
@pytest.mark.parametrize("transport", ["grpcio", "grpclib"])
def test_enrol_run_cold_start_and_removal(scene: Scene, transport: str) -> None:
    flags = ("-token-file", str(scene.folder / "token"))
    agent = scene.start_agent(transport, *flags)
    assert eventually(scene.is_connected, 30), scene.log.read_text()
    assert eventually(lambda: scene.status()["agent"]["state"] == "running", 10)
    status = scene.status()
    assert status["control"]["phase"] == "registered"
    assert status["control"]["mode"] == "stream"
    assert status["control"]["certificate"]
    assert status["agent"]["configuration"]["version"] >= 1
    assert status["interface"]["addresses"][0].startswith("10.9.0.")
    shown = scene.show()
    assert "agent: running" in shown
    assert "control server: 192.168.77.1:8443, stream, last contact" in shown
    assert "configuration: version" in shown
    assert max(map(len, shown.splitlines())) <= 80
    scene.router.run("ping", "-c", "2", "-W", "2", "10.9.0.1")

    # A clean end: nothing of ours is left on the host.
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(10) == 0
    assert "wgctl" not in scene.router.run("ip", "link")

    # The server is away: the tunnel's configuration comes out of the cache, without a token.
    scene.cloud.stop(scene.server, 15)
    agent = scene.start_agent(transport)
    assert eventually(lambda: "refused" in scene.codes(), 30), scene.log.read_text()
    status = scene.status()
    assert status["agent"]["state"] == "degraded"
    assert status["agent"]["configuration"]["age_s"] >= 0
    assert status["peers"]

    # The server is back: the tunnel before the control plane.
    scene.server = scene.start_server()
    assert eventually(scene.is_connected, 40), scene.log.read_text()
    assert eventually(lambda: scene.status()["agent"]["state"] == "running", 60)

    # SIGHUP with an unchanged file changes nothing.
    handshake = scene.status()["peers"][0]["last_handshake_unix_ns"]
    agent.send_signal(signal.SIGHUP)
    assert eventually(lambda: "configuration read again" in scene.log.read_text())
    again = scene.status()["peers"][0]["last_handshake_unix_ns"]
    assert abs(again - handshake) < 10**6  # the two clocks are compared anew each time

    # The operator removes the device: it says so, and keeps trying seldom.
    device = scene.status()["control"]["device_id"]
    operate(scene.state, "device", "remove", device)
    assert eventually(lambda: "device_removed" in scene.codes(), 90), scene.log.read_text()
    assert scene.status()["agent"]["state"] == "degraded"

    agent.send_signal(signal.SIGTERM)
    assert agent.wait(10) == 0
    log = scene.log.read_text()
    stored = json.loads((scene.folder / "agent" / "credentials").read_bytes().partition(b"\n")[2])
    for secret in (scene.token, stored["token"], stored["tls_key"][:40]):
        assert secret not in log
    assert "Traceback" not in log


@pytest.mark.interop
def test_a_token_that_comes_later_and_one_from_standard_input(scene: Scene) -> None:
    late = scene.folder / "late"
    agent = scene.start_agent("grpclib", "-token-file", str(late))
    assert eventually(lambda: "no_token" in scene.codes(), 30), scene.log.read_text()
    assert scene.status()["agent"]["state"] == "unregistered"
    late.write_text(scene.token)
    assert eventually(scene.is_connected, 30), scene.log.read_text()
    scene.router.stop(agent)

    for name in ("credentials", "credentials.previous", "identity", "identity.previous"):
        (scene.folder / "agent" / name).unlink()
    command = scene.router.command(
        *AGENT, "-config", str(scene.folder / "config.json"), "-token", "-"
    )
    environment = {**os.environ, **scene.environment}
    refused = subprocess.run(command, input=b"two words", capture_output=True, env=environment)
    assert refused.returncode == 3
    assert b"two words" not in refused.stderr
    with scene.log.open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, env=environment)
    try:
        assert process.stdin is not None
        process.stdin.write(new_token(scene.state).encode() + b"\n")
        process.stdin.close()
        assert eventually(scene.is_connected, 30), scene.log.read_text()
    finally:
        process.terminate()
        assert process.wait(10) == 0
