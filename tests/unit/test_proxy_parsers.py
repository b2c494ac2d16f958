"""SOCKS5 and HTTP proxy parsers: tables of conversations, chunking, arbitrary bytes."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wantastic.proxy import http, socks5
from wantastic.proxy.credentials import Credentials
from wantastic.proxy.opening import State
from wantastic.proxy.target import Target, parse_authority, parse_host

USER = Credentials("ann", "s3cret")
HELLO = b"\x05\x01\x00"
LOGIN_HELLO = b"\x05\x02\x00\x02"
CONNECT_V4 = b"\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50"
CONNECT_NAME = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"
CONNECT_V6 = b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x16"

SOCKS_TABLE = [
    # what the client sends, its request, what it is answered, the state
    (HELLO + CONNECT_V4, Target("10.0.0.1", 80), b"\x05\x00", State.WAITING),
    (HELLO + CONNECT_NAME, Target("example.com", 443), b"\x05\x00", State.WAITING),
    (HELLO + CONNECT_V6, Target("::1", 22), b"\x05\x00", State.WAITING),
    (HELLO + b"\x05\x03\x00\x01" + bytes(6), Target("0.0.0.0", 0), b"\x05\x00", None),
    (b"\x04\x01\x00\x50" + bytes(5), None, b"", State.CLOSED),
    (b"\x05\x01\x02", None, b"\x05\xff", State.CLOSED),
    (b"\x05\x00", None, b"\x05\xff", State.CLOSED),
    (
        HELLO + b"\x05\x02" + CONNECT_V4[2:],
        None,
        b"\x05\x00\x05\x07\x00\x01" + bytes(6),
        State.CLOSED,
    ),
    (
        HELLO + b"\x05\x01\x00\x09" + bytes(6),
        None,
        b"\x05\x00\x05\x08\x00\x01" + bytes(6),
        State.CLOSED,
    ),
    (
        HELLO + b"\x05\x01\x00\x03\x03a b\x00\x50",
        None,
        b"\x05\x00\x05\x01\x00\x01" + bytes(6),
        State.CLOSED,
    ),
    (
        HELLO + b"\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x00",
        None,
        b"\x05\x00\x05\x01\x00\x01" + bytes(6),
        State.CLOSED,
    ),
    (HELLO + b"\x06", None, b"\x05\x00", State.CLOSED),
]


@pytest.mark.parametrize(("sent", "target", "answer", "state"), SOCKS_TABLE)
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_socks5_conversations(
    sent: bytes, target: Target | None, answer: bytes, state: State | None, chunk: int
) -> None:
    server, request = socks5.Socks5Server(), None
    for at in range(0, len(sent), chunk):
        request = server.receive(sent[at : at + chunk]) or request
    assert (request and request.target) == target
    assert server.data_to_send() == answer
    assert server.state is (state or State.WAITING)


def test_socks5_login() -> None:
    for password, verdict in ((b"s3cret", 0), (b"wrong!", 1), (b"", 1)):
        server = socks5.Socks5Server(USER)
        server.receive(LOGIN_HELLO)
        assert server.data_to_send() == b"\x05\x02"
        server.receive(b"\x01\x03ann" + bytes([len(password)]) + password)
        assert server.data_to_send() == bytes((1, verdict))
        assert (server.state is State.HEAD) == (verdict == 0)
    server = socks5.Socks5Server(USER)
    server.receive(HELLO)
    assert server.data_to_send() == b"\x05\xff"
    assert "s3cret" not in repr(USER)


def test_socks5_answers_carry_the_bound_address_and_keep_early_bytes() -> None:
    server = socks5.Socks5Server()
    assert server.receive(HELLO + CONNECT_V4 + b"early")
    server.data_to_send()
    server.accept(Target("fd00::2", 258))
    address = bytes.fromhex("fd00") + bytes(13) + b"\x02"
    assert server.data_to_send() == b"\x05\x00\x00\x04" + address + b"\x01\x02"
    assert server.rest() == b"early"
    refused = socks5.Socks5Server()
    refused.receive(HELLO + CONNECT_V4)
    refused.data_to_send()
    refused.refuse(socks5.Reply.CONNECTION_REFUSED)
    assert refused.data_to_send() == b"\x05\x05\x00\x01" + bytes(6)
    assert refused.state is State.CLOSED


def test_socks5_datagrams() -> None:
    packet = socks5.format_datagram(Target("10.1.2.3", 53), b"query")
    assert socks5.parse_datagram(packet) == (Target("10.1.2.3", 53), b"query")
    assert socks5.parse_datagram(b"\0\0\x01" + packet[3:]) is None
    assert socks5.parse_datagram(packet[:9]) is None
    assert socks5.parse_datagram(b"\0\0\0\x03\x01a\x00\x35x") == (Target("a", 53), b"x")


AUTHORITIES = [
    ("example.com:80", Target("example.com", 80)),
    ("EXAMPLE.com.:80", Target("example.com", 80)),
    ("[fd00::0:1]:22", Target("fd00::1", 22)),
    ("10.0.0.1:65535", Target("10.0.0.1", 65535)),
    *((bad, None) for bad in ("", ":80", "a:", "a:0", "a:65536", "a:8 0", "a b:80", "[::1", "a")),
    *((bad, None) for bad in ("fd00::1:22x", "[fe80::1%eth0]:80", "[a]:80", "-a.b:80", "1.2.3:80")),
    *((bad, None) for bad in ("a:٣٣", "a..b:80", "a:999999", f"{'a' * 64}:80", "x@y:80")),
]


@pytest.mark.parametrize(("text", "target"), AUTHORITIES)
def test_authorities(text: str, target: Target | None) -> None:
    if target is None:
        with pytest.raises(ValueError, match=r"\w"):
            parse_authority(text)
    else:
        assert parse_authority(text) == target
        assert parse_authority(str(target)) == target


def converse(data: bytes, credentials: Credentials | None = None) -> tuple[http.HttpProxy, object]:
    proxy = http.HttpProxy(credentials)
    return proxy, proxy.receive(data)


def test_http_connect() -> None:
    proxy, request = converse(b"CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: x\r\n\r\nhello")
    assert request == http.Request("CONNECT", Target("fd00::1", 443), b"", 0)
    proxy.accept()
    assert proxy.data_to_send() == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert proxy.rest() == b"hello"


def test_http_absolute_form_is_rewritten() -> None:
    proxy, request = converse(
        b"POST http://Web.test:8080/a/b?c=d HTTP/1.1\r\nHost: evil\r\n"
        b"Proxy-Connection: keep-alive\r\nConnection: close, X-Hop\r\n"
        b"X-Hop: 1\r\nProxy-Authorization: Basic eA==\r\n"
        b"Content-Length: 3\r\nAccept: */*\r\n\r\nabc"
    )
    assert request == http.Request(
        "POST",
        Target("web.test", 8080),
        b"POST /a/b?c=d HTTP/1.1\r\nHost: web.test:8080\r\nContent-Length: 3\r\nAccept: */*\r\n"
        b"Connection: close\r\n\r\n",
        3,
    )
    proxy.accept()
    assert proxy.data_to_send() == b""
    assert proxy.rest() == b"abc"


@pytest.mark.parametrize(
    ("fields", "body_bytes"),
    [
        (b"", 0),
        (b"Content-Length: 0\r\n", 0),
        (b"Content-Length: 999999999999999999\r\n", 10**18 - 1),
        (b"Transfer-Encoding: Chunked\r\n", None),
    ],
)
def test_http_body_is_framed(fields: bytes, body_bytes: int | None) -> None:
    _, request = converse(b"POST http://a/ HTTP/1.1\r\n" + fields + b"\r\n")
    assert isinstance(request, http.Request)
    assert request.body_bytes == body_bytes
    assert fields in request.first


def test_http_default_port_and_empty_path() -> None:
    _, request = converse(b"GET http://web.test HTTP/1.0\r\n\r\n")
    assert isinstance(request, http.Request)
    # Who speaks 1.0 must not get chunks, and nobody here would turn them into anything else.
    assert request.first == b"GET / HTTP/1.0\r\nHost: web.test\r\nConnection: close\r\n\r\n"


REFUSED = [
    # head, status, why
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "origin form"),
    (b"GET https://a/ HTTP/1.1\r\n\r\n", 400, "https without CONNECT"),
    (b"GET ftp://a/ HTTP/1.1\r\n\r\n", 400, "another scheme"),
    (b"GET http://u:p@a/ HTTP/1.1\r\n\r\n", 400, "user information"),
    (b"GET http://a:x/ HTTP/1.1\r\n\r\n", 400, "bad port"),
    (b"GET http:// HTTP/1.1\r\n\r\n", 400, "no host"),
    (b"CONNECT a HTTP/1.1\r\n\r\n", 400, "no port"),
    (b"GET  http://a/ HTTP/1.1\r\n\r\n", 400, "two blanks"),
    (b"GET http://a/ HTTP/2.0\r\n\r\n", 400, "version"),
    (b"GET http://a/ HTTP/1.1\r\nA : b\r\n\r\n", 400, "blank before colon"),
    (b"GET http://a/ HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400, "folded line"),
    (b"GET http://a/ HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400, "bare line feed"),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "two hosts"),
    (b"POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "lengths"),
    (
        b"POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "length and coding",
    ),
    (b"POST http://a/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400, "length's form"),
    (b"POST http://a/ HTTP/1.1\r\nContent-Length: %b\r\n\r\n" % (b"9" * 19), 400, "64 bits"),
    (b"POST http://a/ HTTP/1.1\r\nContent-Length: %b\r\n\r\n" % (b"9" * 9000), 400, "digits"),
    (b"POST http://a/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400, "codings"),
    (b"POST http://a/ HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", 400, "coding"),
    (
        b"POST http://a/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        400,
        "two codings",
    ),
    (b"POST http://a/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "chunks of 1.0"),
    (b"GET http://a/" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", 431, "too long"),
]


@pytest.mark.parametrize(("head", "status", "why"), REFUSED)
def test_http_refuses(head: bytes, status: int, why: str) -> None:
    proxy, request = converse(head)
    assert request is None, why
    assert proxy.data_to_send().startswith(b"HTTP/1.1 %d " % status), why
    assert proxy.state is State.CLOSED


def test_http_login() -> None:
    head = b"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic %b\r\n\r\n"
    for text, good in ((b"ann:s3cret", True), (b"ann:other", False), (b"", False)):
        proxy, request = converse(head % base64.b64encode(text), USER)
        assert (request is not None) == good
        assert proxy.data_to_send().startswith(b"" if good else b"HTTP/1.1 407 ")
    proxy, request = converse(b"CONNECT a:1 HTTP/1.1\r\n\r\n", USER)
    assert b"Proxy-Authenticate: Basic" in proxy.data_to_send()


@given(st.binary(max_size=600), st.integers(1, 64))
def test_parsers_take_any_bytes_in_any_pieces(data: bytes, chunk: int) -> None:
    for make in (
        lambda: socks5.Socks5Server(),
        lambda: socks5.Socks5Server(USER),
        lambda: http.HttpProxy(),
    ):
        whole, pieces = make(), make()
        first = whole.receive(data)
        later = None
        for at in range(0, len(data), chunk):
            later = pieces.receive(data[at : at + chunk]) or later
        assert first == later
        assert whole.state.name == pieces.state.name
        assert whole.data_to_send() == pieces.data_to_send()


@given(st.sampled_from(["10.0.0.1", "::1", "a.example", "fd00::7"]), st.integers(1, 65535))
def test_socks5_addresses_round_trip(host: str, port: int) -> None:
    target = Target(parse_host(host), port)
    if target.address:
        message = b"\x05\x01\x00" + socks5.format_address(target)
        assert socks5.parse_address(message, 3) == (target, len(message))
