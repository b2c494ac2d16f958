"""The agent as a process in userspace mode: no TUN, proxies and forwards by configuration."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from cext.crypto.primitives import x25519_public
from tests.support.agent import PROGRAM
from tests.support.engine_pair import secret
from tests.support.peers import ROOT
from tests.support.userspace_agents import accepts, eventually, free_port
from tests.support.userspace_pair import Node, echo, read_all, tcp_server
from wantastic.config.keys import encode_key


def exchange(port: int, before: bytes = b"", reply: int = 0) -> bytes:
    """Send a text over a connection to a port of ours; return what comes behind the reply."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(before + b"through the tunnel")
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)[reply:]


class Agent:
    """`wantasticd -config FILE` beside a far node."""

    def __init__(self, folder: Path, far: Node, more: dict[str, Any], *flags: str) -> None:
        self.path = folder / "config.json"
        self.log_path = folder / "log"
        # Modules in the folder go before those installed.
        path = os.pathsep.join((str(folder), str(ROOT)))
        self.environ = os.environ | {"PYTHONPATH": path, "WANTASTIC_RUN_DIR": str(folder)}
        self.config = {
            "private_key": encode_key(secret(1)),
            "server": {
                "endpoint": f"127.0.0.1:{far.port}",
                "public_key": encode_key(far.public),
                "allowed_ips": ["10.9.0.2/32", "fd09::2/128"],
            },
            "interface": {
                "name": f"us{os.getpid() % 100000}",
                "addresses": ["10.9.0.1/32", "fd09::1/128"],
                "mode": "userspace",
                "listen_port": 0,
            },
            "state_dir": str(folder / "state"),
            "memory_limit": "8M",
            **more,
        }
        self.write()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*PROGRAM, "-config", str(self.path), *flags], env=self.environ, stderr=log
            )

    def write(self) -> None:
        self.path.touch(mode=0o600)
        self.path.write_text(json.dumps(self.config))

    def run(self, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            env=self.environ,
            input=data,
            capture_output=True,
            timeout=30,
            check=False,
        )

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


def test_proxies_and_forwards_by_configuration(tmp_path: Path) -> None:
    socks, local, later, by_flag = (free_port() for _ in range(4))
    far = Node(2)
    far.engine.set_peer(x25519_public(secret(1)), allowed_ips=("10.9.0.1/32", "fd09::1/128"))
    with tcp_server(echo) as target:
        far.stack.forward_tcp(7, target)
        agent = Agent(
            tmp_path,
            far,
            {
                "proxy": {"socks5": {"listen": f"127.0.0.1:{socks}"}},
                "forwards": [
                    {"listen": f"127.0.0.1:{local}", "target": "10.9.0.2:7"},
                    {"from": "tunnel", "port": 2222, "target": f"127.0.0.1:{target.port}"},
                ],
            },
            *("-L", f"{by_flag}:[fd09::2]:7", "-R", f"2223:127.0.0.1:{target.port}"),
        )
        try:
            eventually(lambda: accepts(socks) and accepts(local) and accepts(by_flag))
            request = b"\x05\x01\x00\x05\x01\x00\x01" + bytes((10, 9, 0, 2, 0, 7))
            assert exchange(socks, request, 12) == b"through the tunnel"
            assert exchange(local) == b"through the tunnel"
            assert exchange(by_flag) == b"through the tunnel"
            with far.dial("fd09::1", 2223) as connection:
                connection.sendall(b"hello")
                assert connection.recv(100) == b"hello"
            # Into the agent: what is forwarded, and nothing else of its host.
            with far.dial("10.9.0.1", 2222) as connection:
                connection.sendall(b"hello")
                assert connection.recv(100) == b"hello"
            assert far.result(far.stack.dial_tcp("10.9.0.1", target.port)) != 0
            # A forward more, another one less, those by flag stay; another MTU.
            agent.config["interface"]["mtu"] = 1300
            agent.config["forwards"] = [{"listen": f"127.0.0.1:{later}", "target": "[fd09::2]:7"}]
            agent.write()
            agent.process.send_signal(signal.SIGHUP)
            eventually(lambda: accepts(later))
            eventually(lambda: not accepts(local))
            assert exchange(later) == b"through the tunnel"
            assert far.result(far.stack.dial_tcp("10.9.0.1", 2222)) != 0
            assert exchange(socks, request, 12) == b"through the tunnel"
            found = agent.run("nc", "-config", str(agent.path), "10.9.0.2", "7", data=b"by nc")
            assert (found.returncode, found.stdout) == (0, b"by nc"), found.stderr
            status = agent.run("-status", "-config", str(agent.path), "--json")
            document = json.loads(status.stdout)
            assert document["interface"]["mode"] == "userspace", document["interface"]
            assert "configuration read again changes=1" in agent.log_path.read_text()
            assert exchange(by_flag) == b"through the tunnel"
            assert document["conditions"] == [], document["conditions"]
            assert agent.end() == 0
        finally:
            agent.process.kill()
            agent.process.wait()
            far.engine.stop()
    assert "Traceback" not in agent.log_path.read_text()


def test_a_port_that_is_taken_is_a_condition(tmp_path: Path) -> None:
    far = Node(2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        agent = Agent(tmp_path, far, {"proxy": {"http": {"listen": f"127.0.0.1:{port}"}}})
        try:
            eventually(lambda: "access_failed" in agent.log_path.read_text())
            # Another port is wanted then: nobody misses the first one any more.
            agent.config["proxy"] = {"http": {"listen": f"127.0.0.1:{free_port()}"}}
            agent.write()
            agent.process.send_signal(signal.SIGHUP)
            eventually(lambda: "condition cleared code=access_failed" in agent.log_path.read_text())
            assert agent.end() == 0
        finally:
            agent.process.kill()
            agent.process.wait()
            far.engine.stop()


def test_a_control_plane_that_cannot_run_is_told_and_ends_no_tunnel(tmp_path: Path) -> None:
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "__init__.py").write_text("raise ImportError('no protobuf here')\n")
    far = Node(2)
    agent = Agent(tmp_path, far, {"auth": {"server_url": "127.0.0.1:1", "insecure": True}})
    try:
        eventually(lambda: "code=control_ended" in agent.log_path.read_text())
        document = json.loads(agent.run("-status", "-config", str(agent.path), "--json").stdout)
        (condition,) = (c for c in document["conditions"] if c["code"] == "control_ended")
        assert "no protobuf here" in condition["reason"]
        assert document["peers"]
        assert agent.end() == 0
    finally:
        agent.process.kill()
        agent.process.wait()
        far.engine.stop()
    assert "Traceback" not in agent.log_path.read_text()
