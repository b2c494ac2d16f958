"""What people use, through two agents without privileges: curl, ssh, proxychains, ncat, dig,
iperf3, Chromium. Everything runs on loopback; what is behind the far agent is this process's."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import PROGRAM
from tests.support.dns import NAME, Servers, answer_to
from tests.support.netns import available
from tests.support.peers import ROOT
from tests.support.userspace_agents import (
    UNPRIVILEGED,
    UserAgent,
    eventually,
    free_port,
    two_agents,
)
from tests.support.userspace_pair import echo, read_all, tcp_server
from wantastic.device.dns_message import make_query, parse_answer

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not available(), reason="needs root"),
]
PAGE = b"<!doctype html><title>none</title><script src=/set.js></script><p>" + b"page " * 20_000
SCRIPT = b"document.title = 'through the tunnel'"
BYTES = 120_000_000
# What one flow may have on its way: 6 MB are to be sent and 6 MB to be received in the
# agents' netstacks (at most), and the rest is in the kernel's sockets on both sides.
ON_ITS_WAY = 20_000_000


def web(connection: socket.socket) -> None:
    """Answer requests for the page and its script until the client ends."""
    while True:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(4096)
            if not data:
                return
            head += data
        path = head.split()[1]
        found = {b"/page": (PAGE, b"text/html"), b"/set.js": (SCRIPT, b"text/javascript")}
        body, kind = found.get(path, (b"", b"text/plain"))
        status = b"200 OK" if body else b"404 Not Found"
        connection.sendall(
            b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (status, kind, len(body), body)
        )
        if b"\r\nConnection: close\r\n" in head:
            return


@dataclass
class Place:
    """Both agents, and the ports of this host that lead somewhere."""

    near: UserAgent
    far: UserAgent
    socks: int
    http: int
    open_http: int
    iperf: int
    reverse: int
    dns: int
    ssh: int
    folder: Path

    @property
    def by_http(self) -> str:
        return f"http://127.0.0.1:{self.http}"


def outward(port: int, target_port: int, protocol: str = "tcp") -> dict[str, Any]:
    """Return the forward of a port in the tunnel to one of this host."""
    target = f"127.0.0.1:{target_port}"
    return {"from": "tunnel", "protocol": protocol, "port": port, "target": target}


def listens(port: int) -> bool:
    """Return whether somebody listens there, without a connection: iperf3 serves one at a time."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


@contextmanager
def programs(*commands: Sequence[str]) -> Iterator[None]:
    """Run servers until the end of the block."""
    running = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=-3) for c in commands]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
            process.wait(10)


def sshd(folder: Path, port: int) -> list[str]:
    """Return the command of a server that lets this test's key in."""
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nPermitRootLogin yes\n"
        f"PidFile {folder}/pid\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("ssh")
    servers = Servers("")
    socks, http, open_http, iperf, reverse, dns, ssh, iperf_far, iperf_near = (
        free_port() for _ in range(9)
    )
    with tcp_server(web) as page, tcp_server(echo) as echoes, servers.running() as (udp, tcp):
        near = {
            "proxy": {
                "socks5": {"listen": f"127.0.0.1:{socks}"},
                "http": {"listen": f"127.0.0.1:{http}", "user": "me", "password": "secret"},
            },
            "dns": {"servers": ["10.9.0.2"]},
            "forwards": [
                {"listen": f"127.0.0.1:{dns}", "target": "10.9.0.2:53"},
                {"listen": f"127.0.0.1:{dns}", "target": "10.9.0.2:53", "protocol": "udp"},
                outward(80, page.port),
                outward(5202, iperf_near),
                outward(5202, iperf_near, "udp"),
            ],
        }
        far = {
            "proxy": {"http": {"listen": f"127.0.0.1:{open_http}"}},
            "forwards": [
                outward(80, page.port),
                outward(7, echoes.port),
                outward(53, tcp.port),
                outward(53, udp.port, "udp"),
            ],
        }
        flags = (
            ("-L", f"{iperf}:10.9.0.2:5201", "-L", f"udp/{iperf}:[fd09::2]:5201"),
            (
                *("-R", f"5201:127.0.0.1:{iperf_far}", "-R", f"udp/5201:127.0.0.1:{iperf_far}"),
                *("-R", f"22:127.0.0.1:{ssh}"),
                *("-L", f"{reverse}:[fd09::1]:5202", "-L", f"udp/{reverse}:10.9.0.1:5202"),
            ),
        )
        commands = (
            sshd(folder, ssh),
            ["iperf3", "-s", "-B", "127.0.0.1", "-p", str(iperf_far)],
            ["iperf3", "-s", "-B", "127.0.0.1", "-p", str(iperf_near)],
        )
        with programs(*commands), two_agents(near, far, flags) as (first, second):
            for port in (socks, http, open_http, iperf, reverse, dns, ssh, iperf_far, iperf_near):
                eventually(lambda port=port: listens(port))
            yield Place(first, second, socks, http, open_http, iperf, reverse, dns, ssh, folder)


def run(
    *command: str, data: bytes = b"", status: int = 0, environ: dict[str, str] | None = None
) -> bytes:
    """Run a program as the same user without privileges; return what it printed."""
    done = subprocess.run(
        [*UNPRIVILEGED, *command],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(environ or {})},
    )
    assert done.returncode == status, (command, done)
    return done.stdout


def test_nothing_of_it_needs_a_privilege(place: Place) -> None:
    for agent in (place.near, place.far):
        assert agent.process
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        assert re.search(r"^Uid:\s+65534\s+65534\s+65534\s+65534$", status, re.M)
        assert re.search(r"^CapEff:\s+0+$", status, re.M)
        assert re.search(r"^CapBnd:\s+0+$", status, re.M)
        # mode is "auto": there is a TUN device, and it is not for this user.
        assert "running in userspace" in agent.log


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, ("--socks5", "127.0.0.1:{socks}", "http://10.9.0.2/page")),
        (2, ("--socks5", "127.0.0.1:{socks}", "http://[fd09::2]/page")),
        (3, ("--socks5-hostname", "127.0.0.1:{socks}", "http://{name}/page")),
        (4, ("-x", "socks5h://127.0.0.1:{socks}", "http://[fd09::2]/page")),
        (5, ("-U", "me:secret", "-x", "{http}", "http://{name}/page")),
        (6, ("-U", "me:secret", "-p", "-x", "{http}", "http://10.9.0.2/page")),
        (7, ("-U", "me:secret", "-x", "{http}", "http://[fd09::2]/page")),
    ],
)
def test_curl(place: Place, number: int, words: tuple[str, ...]) -> None:
    fill = {"socks": place.socks, "http": place.by_http, "name": NAME}
    assert run("curl", "-sS", "-m", "20", *(w.format(**fill) for w in words)) == PAGE


def test_curl_hears_why_not(place: Place) -> None:
    at = ("--socks5-hostname", f"127.0.0.1:{place.socks}")
    for url in ("http://10.9.0.2:81/", "http://no.corp.example/", "http://127.0.0.1:22/"):
        run("curl", "-sS", "-m", "20", *at, url, status=97)
    wrong = run("curl", "-sSi", "-m", "20", "-U", "me:no", "-x", place.by_http, "http://10.9.0.2/")
    assert wrong.startswith(b"HTTP/1.1 407 ")
    own = run("curl", "-sSi", "-x", f"http://127.0.0.1:{place.open_http}", "http://127.0.0.1:22/")
    assert own.startswith(b"HTTP/1.1 403 ")


def test_ssh_by_proxy_command(place: Place) -> None:
    words = [*PROGRAM, "nc", "-proxy", f"127.0.0.1:{place.socks}", "%h", "%p"]
    data = os.urandom(5_000_000)
    done = subprocess.run(
        [
            *("ssh", "-F", "none", "-i", str(place.folder / "user"), "-o", "BatchMode=yes"),
            *("-o", f"UserKnownHostsFile={place.folder / 'known'}"),
            *("-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=20"),
            *("-o", f"ProxyCommand={' '.join(words)}", "root@10.9.0.2", "tee /dev/stderr | cat"),
        ],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert data in done.stderr


def test_proxychains(place: Place) -> None:
    for line in (f"socks5 127.0.0.1 {place.socks}", f"http 127.0.0.1 {place.http} me secret"):
        path = place.near.folder.parent / "proxychains.conf"
        path.write_text(f"strict_chain\nproxy_dns\n[ProxyList]\n{line}\n")
        for host in (NAME, "10.9.0.2"):
            words = ("proxychains4", "-q", "-f", str(path), "curl", "-sS", "-m", "20")
            assert run(*words, f"http://{host}/page") == PAGE


@pytest.mark.parametrize("kind", ["socks5", "http"])
def test_ncat(place: Place, kind: str) -> None:
    data = os.urandom(3_000_000)
    proxy = place.socks if kind == "socks5" else place.http
    words = ["--proxy", f"127.0.0.1:{proxy}", "--proxy-type", kind]
    words += [] if kind == "socks5" else ["--proxy-auth", "me:secret"]
    assert run("ncat", *words, "10.9.0.2", "7", data=data) == data


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, ()), (2, ("+tcp",)), (3, ("+noedns", "AAAA"))],
)
def test_dig_by_forwards(place: Place, number: int, words: tuple[str, ...]) -> None:
    at = ("@127.0.0.1", "-p", str(place.dns), "+short", "+time=5", "+tries=2", NAME)
    expected = b"fd09::2\n" if "AAAA" in words else b"10.9.0.2\n"
    assert run("dig", *at, *words) == expected


def test_dns_over_udp_associate(place: Place) -> None:
    with (
        socket.create_connection(("127.0.0.1", place.socks), 5) as control,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.bind(("127.0.0.1", 0))
        client.settimeout(5)
        port = client.getsockname()[1].to_bytes(2, "big")
        control.sendall(b"\x05\x01\x00\x05\x03\x00\x01\x7f\x00\x00\x01" + port)
        reply = b""
        while len(reply) < 12:
            reply += control.recv(12 - len(reply))
        assert reply[:4] == b"\x05\x00\x05\x00"
        at = (socket.inet_ntoa(reply[6:10]), int.from_bytes(reply[10:], "big"))
        name = NAME.encode()
        for head in (
            b"\0\0\0\x01" + bytes((10, 9, 0, 2)) + b"\0\x35",
            b"\0\0\0\x04" + socket.inet_pton(socket.AF_INET6, "fd09::2") + b"\0\x35",
            b"\0\0\0\x03" + bytes((len(name),)) + name + b"\0\x35",
        ):
            query = make_query(7, NAME, 1)
            client.sendto(head + query, at)
            answer = client.recv(2000)
            assert answer[:3] == b"\0\0\0"
            message = answer[22:] if answer[3] == 4 else answer[10:]
            assert message == answer_to(query)
            assert parse_answer(message, query) == (["10.9.0.2"], 60)


@pytest.mark.parametrize(
    ("number", "side", "words"),
    [
        (1, "iperf", ()),
        (2, "iperf", ("--reverse",)),
        (3, "reverse", ()),
        (4, "reverse", ("--reverse",)),
        (5, "iperf", ("--bidir", "--parallel", "3")),
    ],
)
def test_iperf3_through_forwards(
    place: Place, number: int, side: str, words: tuple[str, ...]
) -> None:
    at = ("-c", "127.0.0.1", "-p", str(getattr(place, side)), "-n", str(BYTES), "-w", "512K")
    found = json.loads(run("iperf3", *at, "--json", *words))
    assert "error" not in found
    total = arrived = 0
    for stream in found["end"]["streams"]:
        sent, received = stream["sender"]["bytes"], stream["receiver"]["bytes"]
        # Its last blocks may be on their way when it stops counting.
        assert 0 < received <= sent
        assert sent - received <= ON_ITS_WAY
        total, arrived = total + sent, arrived + received
    assert total >= BYTES
    assert arrived >= total * 2 // 3


@pytest.mark.parametrize("side", ["iperf", "reverse"])
def test_iperf3_datagrams_through_forwards(place: Place, side: str) -> None:
    at = ("-c", "127.0.0.1", "-p", str(getattr(place, side)), "-n", "512K", "-l", "1200")
    answer = json.loads(run("iperf3", *at, "--json", "-u", "-b", "2M"))
    assert "error" not in answer, answer["error"]
    found = answer["end"]["sum"]
    assert found["packets"] == -(-512 * 1024 // 1200)
    # Sockets hold a third of a second of it: more is lost where the machine stands that long.
    assert found["lost_packets"] <= found["packets"] // 10


@pytest.mark.parametrize("kind", ["socks5", "http"])
def test_chromium(place: Place, kind: str, tmp_path: Path) -> None:
    # A browser takes no password for a proxy on its command line: the far agent's HTTP proxy
    # has none, and leads to the near one.
    port, host = (place.socks, NAME) if kind == "socks5" else (place.open_http, "10.9.0.1")
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--disable-background-networking", "--no-first-run", "--disable-component-update"),
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--proxy-server={kind}://127.0.0.1:{port}",
        *("--timeout=20000", "--virtual-time-budget=5000", "--dump-dom", f"http://{host}/page"),
    ]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert b"<title>through the tunnel</title>" in done.stdout, done.stderr[-2000:]
    assert done.stdout.count(b"page ") == PAGE.count(b"page ")


@pytest.mark.slow
def test_ten_thousand_connections_leave_nothing_behind(place: Place) -> None:
    request = b"\x05\x01\x00\x05\x01\x00\x01" + bytes((10, 9, 0, 2, 0, 7))

    def flows(agent: UserAgent) -> int:
        """Return how many descriptors it has: each open connection has one."""
        assert agent.process
        return len(list(Path(f"/proc/{agent.process.pid}/fd").iterdir()))

    def one(number: int) -> bool:
        with socket.create_connection(("127.0.0.1", place.socks), 20) as connection:
            connection.sendall(request + b"%d" % number)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)[12:] == b"%d" % number

    def many(count: int) -> int:
        with ThreadPoolExecutor(32) as pool:
            return sum(pool.map(one, range(count)))

    agents = (place.near, place.far)
    idle = [flows(agent) for agent in agents]

    def is_idle() -> bool:
        # What the tests before left, of UDP, may end meanwhile.
        return all(flows(a) <= i for a, i in zip(agents, idle, strict=True))

    # What is allocated once is there after these.
    assert many(2_000) == 2_000
    eventually(is_idle)
    before = [agent.allocated_bytes() for agent in agents]
    assert many(8_000) == 8_000
    eventually(is_idle)
    grown = [agent.allocated_bytes() - b for agent, b in zip(agents, before, strict=True)]
    assert max(grown) < 512 * 1024, grown
