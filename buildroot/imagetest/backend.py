"""What the router finds in the WAN: the reference server with its gateway, and a page behind it.

The gateway is the server's own device in userspace mode; the page is a service that it forwards to,
so a router that shows the page has registered, shaken hands and carried TCP through the tunnel.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Protocol

from buildroot.imagetest.machine import ADDRESSES, ROUTER, Failure, run
from buildroot.static.rooms import ROOT

GRPC_PORT, GATEWAY_PORT, SITE_PORT, WEB_PORT = 8443, 51820, 8000, 80
SOCKS_PORT, SOCKS_USER, SOCKS_PASSWORD = 1080, "lan", "a password of the image"
PAGE_BYTES = 256 * 1024
READY_S = 60.0
FETCH_S = 60.0


class Spaces(Protocol):
    """Where the two networks are."""

    def space(self, name: str) -> str:
        """Return the namespace of "wan" or "lan"."""


class Backend:
    """Server, gateway and page in the WAN namespace; a visitor in the LAN namespace."""

    def __init__(
        self, networks: Spaces, folder: Path, wan: str = ADDRESSES["wan"], router: str = ROUTER
    ) -> None:
        self._networks = networks
        self._wan, self._router = wan, router
        self._state = folder / "server"
        self._site = folder / "site"
        self._site.mkdir()
        self._page = os.urandom(PAGE_BYTES)
        (self._site / "page").write_bytes(self._page)
        self._processes: list[subprocess.Popen[str]] = []
        try:
            self._start(folder)
        except BaseException:
            self.close()
            raise

    def _start(self, folder: Path) -> None:
        web = ("-m", "http.server", "--bind", "127.0.0.1", "-d", str(self._site), str(SITE_PORT))
        self._spawn(folder / "site.log", *web)
        self._serve(folder / "server.log")
        made = self._manage("token", "create", "--reusable")
        self.token = str(made[0]["token"])
        self.ca = self._command("ca")

    def _spawn(self, log: Path, *arguments: str) -> subprocess.Popen[str]:
        inside = ("ip", "netns", "exec", self._networks.space("wan"))
        with log.open("w") as errors:
            process = subprocess.Popen(
                [*inside, sys.executable, *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._processes.append(process)
        return process

    def _serve(self, log: Path) -> None:
        wan = self._wan
        process = self._spawn(
            log,
            *("-m", "wantastic.server.main", "serve", "--json", "--state", str(self._state)),
            *("--listen", f"{wan}:{GRPC_PORT}", "--host", wan),
            *("--gateway", "device", "--gateway-host", wan),
            *("--gateway-port", str(GATEWAY_PORT)),
            *("--gateway-forward", f"{WEB_PORT}=127.0.0.1:{SITE_PORT}"),
        )
        assert process.stdout
        ready = select.select([process.stdout], [], [], READY_S)[0]
        if not ready or not process.stdout.readline():
            raise Failure(f"the server did not start:\n{log.read_text()[-2000:]}")

    def _command(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "wantastic.server.main", *arguments]
        command += ["--state", str(self._state)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"{' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def _manage(self, *arguments: str) -> list[dict[str, Any]]:
        return list(json.loads(self._command(*arguments, "--json")))

    def health(self) -> str:
        """Return of each process whether it runs, or how it ended."""
        ends = [process.poll() for process in self._processes]
        named = zip(("the page's server", "the control server"), ends, strict=True)
        return ", ".join(
            f"{name} {'runs' if end is None else f'ended with {end}'}" for name, end in named
        )

    def devices(self) -> list[dict[str, Any]]:
        """Return the registered devices, as the operator's command lists them."""
        return self._manage("device", "list")

    def wait_for_devices(self, number: int, timeout_s: float) -> list[dict[str, Any]]:
        """Wait until so many devices have registered; return them."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = self.devices()
            if len(found) >= number:
                return found
        raise Failure(f"no {number} devices within {timeout_s:.0f} s: {found}")

    def answer(self, up: bool) -> None:
        """Let the control server be reached, or refuse every connection to it."""
        inside = f"ip netns exec {self._networks.space('wan')} nft"
        if up:
            run(f"{inside} delete table inet down")
            return
        run(f"{inside} add table inet down")
        run(f"{inside} add chain inet down in {{ type filter hook input priority 0 ; }}")
        run(f"{inside} add rule inet down in tcp dport {GRPC_PORT} reject with tcp reset")

    def fetch(self, timeout_s: float = FETCH_S) -> bool:
        """Fetch the page from the LAN through the router's SOCKS5 proxy; return whether it came."""
        gateway = ip_network(self._manage("tenant", "list")[0]["ipv4"])[1]
        inside = f"ip netns exec {self._networks.space('lan')}"
        command = [*inside.split(), "curl", "--silent", "--max-time", str(timeout_s)]
        command += ["--proxy", f"socks5h://{self._router}:{SOCKS_PORT}"]
        command += ["--proxy-user", f"{SOCKS_USER}:{SOCKS_PASSWORD}", f"http://{gateway}/page"]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0 and done.stdout != self._page:
            raise Failure(f"another page came: {len(done.stdout)} bytes")
        return done.returncode == 0

    def wait_for_page(self, timeout_s: float) -> float:
        """Fetch until it works; return the seconds until the page was there."""
        begin = time.monotonic()
        while time.monotonic() - begin < timeout_s:
            if self.fetch():
                return time.monotonic() - begin
            time.sleep(0.5)
        raise Failure(f"no page from behind the gateway within {timeout_s:.0f} s; {self.health()}")

    def close(self) -> None:
        """End everything."""
        for process in reversed(self._processes):
            process.terminate()
            process.wait()
