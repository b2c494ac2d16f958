"""The gateway recipe of docs/control-plane.md, command by command: replies of an exit node pass.

A client, a gateway and an exit node in namespaces; "the internet" is an address that only
the exit node has. The gateway's interface is ours instead of the kernel's, since a test
machine may have no module; everything else is done as the page says.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import netns
from tests.support.netns import Lab, Namespace

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not netns.available(), reason="needs root and /dev/net/tun"),
]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "control-plane.md"
AGENT = (sys.executable, "-m", "wantastic.cli.main")
INTERNET = "203.0.113.5"


def recipe() -> list[str]:
    """Return the shell commands of the page's last section."""
    section = PAGE.read_text().partition("## The gateway, and exit nodes")[2]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    return [
        line for block in blocks for line in block.splitlines() if line and not line.startswith("#")
    ]


def pair(folder: Path, name: str) -> tuple[Path, str]:
    private = folder / f"{name}.key"
    made = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout
    private.write_text(made)
    done = subprocess.run(["wg", "pubkey"], input=made, capture_output=True, text=True, check=True)
    return private, done.stdout.strip()


def interface(space: Namespace, name: str) -> None:
    """Make an interface that `wg` configures."""
    space.start(*AGENT, "-f", name)
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if (
            name in space.run("ip", "-o", "link")
            and Path(f"/var/run/wireguard/{name}.sock").exists()
        ):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{name} did not come up")


@pytest.fixture
def spaces() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    with Lab("control") as lab:
        client, gateway, leaver = (lab.namespace(label) for label in ("c", "g", "e"))
        lab.join(client, gateway, [("192.168.71.2/24", "192.168.71.1/24")], ("eth0", "eth0"))
        lab.join(leaver, gateway, [("192.168.72.2/24", "192.168.72.1/24")], ("eth0", "eth1"))
        yield client, gateway, leaver


def test_recipe(spaces: tuple[Namespace, Namespace, Namespace], tmp_path: Path) -> None:
    client, gateway, leaver = spaces
    tag = os.getpid() % 100000
    hub, near, far = f"rg{tag}", f"rc{tag}", f"re{tag}"
    client_key, client_public = pair(tmp_path, "client")
    leaver_key, leaver_public = pair(tmp_path, "leaver")
    server_public = ""
    commands = recipe()
    assert any("0.0.0.0/0" in line for line in commands)
    for line in commands:
        line = line.replace("wg0", hub).replace("DEVICE_KEY", client_public)
        line = line.replace("EXIT_KEY", leaver_public)
        if "type wireguard" in line:
            interface(gateway, hub)
            continue
        done = subprocess.run(
            gateway.command("sh", "-ec", line), cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, (line, done.stderr)
    server_public = (tmp_path / "server_public.key").read_text().strip()

    for space, name, key, address, allowed, port in (
        (client, near, client_key, "10.0.0.2/32", "0.0.0.0/0", "192.168.71.1"),
        (leaver, far, leaver_key, "10.0.0.3/32", "10.0.0.0/24", "192.168.72.1"),
    ):
        interface(space, name)
        space.run(
            *("wg", "set", name, "private-key", str(key), "peer", server_public),
            *("endpoint", f"{port}:51820", "allowed-ips", allowed, "persistent-keepalive", "1"),
        )
        space.run("ip", "address", "add", address, "dev", name)
        space.run("ip", "link", "set", name, "up")
    client.run("ip", "route", "add", "10.0.0.0/24", "dev", near)
    client.run("ip", "route", "add", INTERNET, "dev", near)
    leaver.run("ip", "route", "add", "10.0.0.0/24", "dev", far)
    leaver.run("ip", "address", "add", f"{INTERNET}/32", "dev", "lo")

    client.run("ping", "-c", "1", "-W", "5", "10.0.0.1")
    client.run("ping", "-c", "2", "-W", "5", INTERNET)
    # With the document's line alone the replies are dropped.
    gateway.run("wg", "set", hub, "peer", leaver_public, "allowed-ips", "10.0.0.3/32")
    with pytest.raises(RuntimeError):
        client.run("ping", "-c", "1", "-W", "1", INTERNET)
