"""Names asked outside the tunnel: the host's files, and name servers good and bad."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wantastic.device import outside
from wantastic.device.dns_message import A, make_query, parse_answer

Respond = Callable[[bytes, bool], bytes | None]


def answer(query: bytes, *addresses: str, flags: int = 0x8180) -> bytes:
    """Return an answer with the addresses that fit the question's kind."""
    wanted = int.from_bytes(query[-4:-2], "big")
    packed = [ipaddress.ip_address(a).packed for a in addresses]
    packed = [p for p in packed if len(p) == (4 if wanted == A else 16)]
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", wanted, 1, 60, len(p)) + p for p in packed
    )
    return query[:2] + struct.pack("!5H", flags, 1, len(packed), 0, 0) + query[12:] + records


def both_sockets() -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a listening TCP socket of the same number, which others may hold."""
    while True:
        streams = socket.create_server(("127.0.0.1", 0))
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            datagrams.bind(streams.getsockname())
        except OSError:
            datagrams.close()
            streams.close()
        else:
            return datagrams, streams


@contextlib.contextmanager
def name_server(respond: Respond) -> Iterator[int]:
    """A server on one port of 127.0.0.1 over UDP and TCP; `respond(query, over_tcp)`."""
    datagrams, streams = both_sockets()
    port = datagrams.getsockname()[1]

    def serve_datagrams() -> None:
        with contextlib.suppress(OSError):
            while True:
                query, peer = datagrams.recvfrom(4096)
                if not query:
                    return
                if found := respond(query, False):
                    # Somebody who guesses the number wrong is quicker.
                    wrong = bytes(x ^ 0xFF for x in found[:2]) + answer(query, "203.0.113.66")[2:]
                    datagrams.sendto(wrong, peer)
                    datagrams.sendto(found, peer)

    def serve_streams() -> None:
        with contextlib.suppress(OSError):
            while True:
                asked, _ = streams.accept()
                with asked:
                    size = int.from_bytes(asked.recv(2), "big")
                    if size and (found := respond(asked.recv(size), True)):
                        asked.sendall(len(found).to_bytes(2, "big") + found)

    threads = [threading.Thread(target=t, daemon=True) for t in (serve_datagrams, serve_streams)]
    for thread in threads:
        thread.start()
    try:
        yield port
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", port))
        streams.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        datagrams.close()
        streams.close()


BOTH = ("192.0.2.1", "2001:db8::1")


@pytest.mark.parametrize(
    ("respond", "expected"),
    [
        (lambda q, tcp: answer(q, *BOTH), BOTH),
        # One kind only, and the other refused: what there is counts.
        (
            lambda q, tcp: answer(q, "192.0.2.1") if q[-3] == 1 else answer(q, flags=0x8182),
            BOTH[:1],
        ),
        # Too long for a datagram.
        (lambda q, tcp: answer(q, *BOTH) if tcp else answer(q, flags=0x8380), BOTH),
        # Nonsense, an answer to another question, a broken server, none at all.
        (lambda q, tcp: b"x" * 40, ()),
        (lambda q, tcp: b"\0\0" + answer(q, *BOTH)[2:], ()),
        (lambda q, tcp: answer(q, flags=0x8182), ()),
        (lambda q, tcp: answer(q, flags=0x8183), ()),
    ],
)
def test_what_a_server_answers(
    respond: Respond, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "ATTEMPT_S", 0.6)
    with name_server(respond) as port:
        found = outside.lookup_outside("gw.test", 0, servers=("127.0.0.1",), port=port)
    assert found == expected


def test_the_next_server_is_asked_and_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "ATTEMPT_S", 0.2)
    with name_server(lambda q, tcp: answer(q, "192.0.2.1")) as port:
        # Nothing listens at 127.0.0.9: refused at once.
        servers = ("127.0.0.9", "127.0.0.1")
        assert outside.lookup_outside("gw.test", 0, servers=servers, port=port) == BOTH[:1]
    with name_server(lambda q, tcp: None) as port:
        assert outside.lookup_outside("gw.test", 0, servers=("127.0.0.1",), port=port) == ()
        ticks = iter(range(0, 1000, 10))
        found = outside.lookup_outside(
            "gw.test", 0, servers=("127.0.0.1",), port=port, clock=lambda: next(ticks)
        )
        assert found == ()


def test_a_server_that_never_ends_does_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer a byte at a time, and a flood of answers to something else."""
    monkeypatch.setattr(outside, "ATTEMPT_S", 0.3)
    datagrams, streams = both_sockets()
    ended = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while True:
                asked, _ = streams.accept()
                with asked, contextlib.suppress(OSError):
                    asked.sendall(b"\xff\xff")
                    while not ended.wait(0.05):
                        asked.sendall(b"x")

    def flood() -> None:
        with contextlib.suppress(OSError):
            query, peer = datagrams.recvfrom(4096)
            datagrams.sendto(answer(query, flags=0x8380), peer)  # come by TCP
            query, peer = datagrams.recvfrom(4096)
            while not ended.is_set():
                datagrams.sendto(b"\0\0" + query[2:], peer)

    threads = [threading.Thread(target=t, daemon=True) for t in (drip, flood)]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    port = datagrams.getsockname()[1]
    try:
        with pytest.raises(OSError, match=r"\w|^$"):
            outside.ask("127.0.0.1", port, "gw.test", 0, 0.5)
        assert time.monotonic() - started < 5
    finally:
        ended.set()
        streams.shutdown(socket.SHUT_RDWR)
        datagrams.close()
        streams.close()
        for thread in threads:
            thread.join(5)


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64 + ".test", "x." * 200, "bücher.test"])
def test_names_that_cannot_be_asked(name: str) -> None:
    assert outside.lookup_outside(name, 0, servers=("127.0.0.1",), port=1) == ()


HOSTS = """127.0.0.1 localhost
192.0.2.7\tGW.test gw  # the gateway
2001:db8::7 gw.test
nonsense gw.test
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gw.test", ("192.0.2.7", "2001:db8::7")),
        ("gw", ("192.0.2.7",)),
        ("GATEWAY", ()),
        ("the", ()),
    ],
)
def test_the_hosts_file(name: str, expected: tuple[str, ...]) -> None:
    assert outside.parse_hosts(HOSTS, name) == expected


def test_the_hosts_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hosts").write_text(HOSTS)
    monkeypatch.setattr(outside, "HOSTS", tmp_path / "hosts")
    assert outside.lookup_outside("gw.test", 0, servers=()) == ("192.0.2.7", "2001:db8::7")


@pytest.mark.parametrize(
    ("resolv_conf", "upstream", "expected"),
    [
        ("nameserver 192.0.2.1\nnameserver fe80::1%eth0\n", "", ("192.0.2.1", "fe80::1%eth0")),
        # A server of this host would ask on without the mark: its own servers are asked.
        ("nameserver 127.0.0.53\n", "nameserver 192.0.2.2\n", ("192.0.2.2",)),
        ("nameserver ::1\nnameserver 192.0.2.1\n", "nameserver 192.0.2.2\n", ("192.0.2.1",)),
        ("nameserver 127.0.0.1\n", "nameserver 127.0.0.53\n", ("127.0.0.1",)),
        ("# nameserver 1.1.1.1\nsearch x\nnameserver\nnameserver name\n", "", ()),
        ("nameserver 1.1.1.1\n" * 3, "", ("1.1.1.1",)),
        (
            "".join(f"nameserver 1.1.1.{i}\n" for i in range(5)),
            "",
            ("1.1.1.0", "1.1.1.1", "1.1.1.2"),
        ),
    ],
)
def test_whom_to_ask(
    tmp_path: Path, resolv_conf: str, upstream: str, expected: tuple[str, ...]
) -> None:
    (tmp_path / "resolv.conf").write_text(resolv_conf)
    (tmp_path / "upstream").write_text(upstream)
    files = (tmp_path / "missing", tmp_path / "upstream")
    assert outside.nameservers(tmp_path / "resolv.conf", files) == expected


@given(st.text(), st.text())
def test_any_text_is_read(text: str, name: str) -> None:
    assert all(ipaddress.ip_address(a) for a in outside.parse_nameservers(text))
    assert all(ipaddress.ip_address(a) for a in outside.parse_hosts(text, name))


@given(st.binary(max_size=200), st.booleans())
def test_any_answer_is_addresses_or_refused(data: bytes, fitting: bool) -> None:
    query = make_query(7, "gw.test", A)
    message = answer(query, "192.0.2.1")[: len(query)] + data if fitting else data
    with contextlib.suppress(ValueError):
        found, ttl_s = parse_answer(message, query)
        assert all(ipaddress.ip_address(a) for a in found)
        assert 0 <= ttl_s <= 300
