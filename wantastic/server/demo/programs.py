"""The programs of the demonstration: started, asked how they are, ended.

Ports are free ones: server, gateway and metrics bind port 0 and say what they got. The
agent's proxy has to be told, so a free port is looked for, and another one when somebody
took it meanwhile.

Each program leads a session of its own, so that the terminal's Ctrl-C reaches only us and
we end them in order; when we are killed the kernel sends them SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import wantastic
from wantastic.server import commands
from wantastic.server.addresses import GATEWAY_INDEX, parse_pools
from wantastic.server.database import Database
from wantastic.server.demo.site import WEB_PORT
from wantastic.server.settings import DATABASE_FILE, ROOT_CERTIFICATE_FILE
from wantastic.telemetry.socket import ask

DEVICE = "demo-router"
SERVER_MODULE, AGENT_MODULE = "wantastic.server.main", "wantastic.cli.main"
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
TAIL_LINES = 15
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Ended(Exception):
    """The demonstration cannot go on; the text says why."""


def free_port() -> int:
    """Return a TCP port of the loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Programs:
    """The server and the agent in one folder."""

    def __init__(self, folder: Path) -> None:
        self.ports: dict[str, int] = {}
        self.proxy_port = 0
        self.gateway_address = ""
        self._folder = folder
        self._server_state = folder / "server"
        self._interface = f"demo{os.getpid()}"
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._database: Database | None = None

    # -- starting --

    async def start_server(self, site_port: int) -> None:
        """Start the server with its gateway; the site is a service of this machine that
        devices reach at the gateway's tunnel address."""
        process = await self._start(
            "server",
            SERVER_MODULE,
            *("serve", "--json", "--state", str(self._server_state)),
            *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"),
            *("--host", "127.0.0.1", "--drain", "1"),
            *("--gateway", "device", "--gateway-host", "127.0.0.1", "--gateway-port", "0"),
            *("--gateway-forward", f"{WEB_PORT}=127.0.0.1:{site_port}"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), READY_TIMEOUT_S)
        except TimeoutError:
            raise Ended(f"the server is not ready after {READY_TIMEOUT_S:.0f} s") from None
        if not line:
            raise Ended("the server did not start")
        self.ports = json.loads(line)
        self._database = Database.open(str(self._server_state / DATABASE_FILE))

    async def make_token(self) -> None:
        """Make an enrolment token with the operator's command, into a file for the agent."""
        path = self._folder / "token"
        command = ("token", "create", "--state", str(self._server_state))
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            process = await self._start("token", SERVER_MODULE, *command, stdout=file)
            status = await process.wait()
            del self._running["token"]
            if status:
                raise Ended("no token could be made")

    async def start_agent(self) -> None:
        """Start the agent; it registers by itself."""
        self._write_configuration()
        path = str(self._folder / "agent.json")
        token = str(self._folder / "token")
        await self._start("agent", AGENT_MODULE, "-config", path, "-token-file", token)

    def _write_configuration(self) -> None:
        self.proxy_port = free_port()
        configuration = {
            "device_id": DEVICE,
            "state_dir": str(self._folder / "agent"),
            "auth": {
                "server_url": f"127.0.0.1:{self.ports['grpc']}",
                "ca_file": str(self._server_state / ROOT_CERTIFICATE_FILE),
            },
            "interface": {"name": self._interface, "mode": "userspace"},
            "proxy": {"socks5": {"listen": f"127.0.0.1:{self.proxy_port}"}},
        }
        path = self._folder / "agent.json"
        path.write_text(json.dumps(configuration, indent=4) + "\n")

    async def keep_proxy(self, document: Mapping[str, Any]) -> None:
        """When somebody else took the proxy's port, give the agent another one."""
        for condition in document.get("conditions", ()):
            if condition["code"] == "access_failed":
                self._write_configuration()
                self._running["agent"].send_signal(signal.SIGHUP)
                await asyncio.sleep(0.5)
                return

    async def _start(
        self, name: str, module: str, *arguments: str, stdout: int | IO[bytes] | None = None
    ) -> asyncio.subprocess.Process:
        root = str(Path(wantastic.__file__).parents[1])
        environment = os.environ | {
            "WANTASTIC_RUN_DIR": str(self._folder / "run"),
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        }
        environment.pop("WANTASTIC_DATABASE", None)
        with (self._folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout if stdout is not None else asyncio.subprocess.DEVNULL,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._running[name] = process
        return process

    # -- asking --

    def check(self) -> None:
        """Raise Ended when one of them is gone."""
        for name, process in self._running.items():
            if process.returncode is not None:
                raise Ended(f"the {name} ended by itself, with status {process.returncode}")

    async def agent_status(self) -> dict[str, Any]:
        """Return what `wantasticd -status --json` prints; empty while nobody answers."""
        path = self._folder / "run" / f"{self._interface}.sock"
        try:
            document = json.loads(await asyncio.to_thread(ask, path, "status"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    async def server_view(self) -> dict[str, Any]:
        """Return what `wantastic-server device list --json` prints, and a few metrics."""
        return await asyncio.to_thread(self._server_view)

    def _server_view(self) -> dict[str, Any]:
        assert self._database is not None
        arguments = argparse.Namespace(tenant="", pending=False)
        with self._database.read() as transaction:
            devices = commands.device_list(transaction, arguments)
        url = f"http://127.0.0.1:{self.ports['metrics']}/metrics"
        answered = refused = peers = 0.0
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            text = ""
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith("wantastic_server_rpcs_total{"):
                answered += float(value) * ('code="OK"' in name)
                refused += float(value) * ('code="OK"' not in name)
            elif name == "wantastic_server_gateway_peers":
                peers = float(value)
        return {
            "devices": devices,
            "gateway_peers": int(peers),
            "calls_answered": int(answered),
            "calls_refused": int(refused),
        }

    def find_gateway_address(self) -> None:
        """Learn the gateway's address in the tunnel: the first one of the tenant's range."""
        assert self._database is not None
        with self._database.read() as transaction:
            for row in commands.tenant_list(transaction, argparse.Namespace()):
                pools = parse_pools(row["ipv4"], row["ipv6"])
                self.gateway_address = str(pools.ipv4[GATEWAY_INDEX])

    # -- ending --

    async def stop(self) -> dict[str, int]:
        """End the agent, then the server; return their exit statuses."""
        statuses = {}
        for name in ("token", "agent", "server"):
            process = self._running.pop(name, None)
            if process is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                statuses[name] = await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                process.kill()
                statuses[name] = await process.wait()
        if self._database is not None:
            self._database.close()
        return statuses

    def log_tails(self) -> str:
        """Return the last lines of both logs."""
        text = ""
        for name in ("server", "token", "agent"):
            with contextlib.suppress(OSError):
                lines = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()
                if lines:
                    text += f"-- the last lines of the {name} --\n"
                    text += "\n".join(lines[-TAIL_LINES:]) + "\n"
        return text
